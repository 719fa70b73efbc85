"""Codes and words of results: what the standard has a code for by that, the kinds of bleeding by codes of our own."""

from typing import Any, Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

import ichseq
from ichseq.dicom_results.identity import NAME
from ichseq.dicom_results.reference import CHARACTER_SET
from ichseq.labels import LABELS

RESEARCH_ONLY: Final = "RESEARCH ONLY - NOT FOR DIAGNOSIS"

SCHEME: Final = "99ICHSEQ"
SCHEMES: Final = [
    CodingSchemeIdentificationItem(SCHEME, name="Terms of ichseq", version="1", responsible_organization=NAME)
]

FINDINGS: Final = {
    label: CodedConcept(label, SCHEME, f"{label.capitalize()} hemorrhage") for label in LABELS if label != "any"
} | {"any": CodedConcept("1386000", "SCT", "Intracranial hemorrhage")}
"""What is looked for. SNOMED has several terms to each kind, none of which says what RSNA's label says."""

CATEGORY: Final = CodedConcept("1386000", "SCT", "Intracranial hemorrhage")
PROBABILITY: Final = CodedConcept("122157", "DCM", "Probability")
SCORE: Final = CodedConcept("111012", "DCM", "Certainty of Finding")
FLAGGED: Final = CodedConcept("flagged", SCHEME, "Flagged at the operating point")
FLAGGED_SLICES: Final = CodedConcept("flagged_slices", SCHEME, "Number of flagged slices")
SLICES: Final = CodedConcept("{slices}", "UCUM", "slices")
PROCEDURE: Final = codes.cid100.CTUnspecifiedBodyRegion

SERIES_NUMBERS: Final = {"report": 9901, "captures": 9902, "key objects": 9903, "heat maps": 9904}


def equipment(kind: str) -> dict[str, Any]:
    """What every result says of its series and of what made it, as keywords for highdicom."""
    return {
        "series_number": SERIES_NUMBERS[kind],
        "series_description": f"{NAME} {kind}: {RESEARCH_ONLY}",
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": ichseq.__version__,
        "device_serial_number": ichseq.__version__,
        "specific_character_set": CHARACTER_SET,
    }
