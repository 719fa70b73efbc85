"""Sealed documents changed on purpose: with another content, and the seal that belongs to it."""

import json
from pathlib import Path
from typing import Any

from ichseq.documents import SEAL, sealed


def edit(path: Path, **values: Any) -> None:
    """Put values into a JSON file, which is sealed again if it was."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(sealed(content | values) if SEAL in content else content | values))
