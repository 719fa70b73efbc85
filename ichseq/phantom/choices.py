"""What `write_phantoms` and its command can be asked for. Light, so that help needs none of the rest."""

from typing import Final

HEADS: Final = {"analytic": 0.0, "drawn": 1.0, "mixed": 0.5}
"""Heads that are no donor's, and the share of them that is drawn from tissue maps instead of from formulas."""

DEFAULT_HEADS: Final = "analytic"

DONOR_SHARE: Final = 0.6
"""Share of the exams that donors' heads are made into, if there are donors."""
