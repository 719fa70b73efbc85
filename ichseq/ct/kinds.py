"""What a DICOM file is that holds no CT image, by its SOP class: known before anything else is asked of the file.

Modality does not tell: a scanner writes CT into its dose reports, presentation states and raw data too.
"""

import re
from typing import Final

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME: Final = (f"{CT_IMAGE}.1", f"{CT_IMAGE}.2")

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_KINDS: Final = {  # what follows _STORAGE, the longer first (PS3.6, table A-1)
    "88.": "a dose report or another structured report, not an image",
    "7.": "a secondary capture, not a CT slice",
    "7": "a secondary capture, not a CT slice",
    "104.": "a document, not an image",
    "66.4": "a segmentation, not a CT slice",
    "66.": "a registration, a surface or raw data, not an image",
    "66": "raw data, not an image",
    "67": "a mapping of values, not an image",
    "11.": "a presentation state, not an image",
    "9.": "a waveform, not an image",
    "30": "a parametric map, not a CT slice",
    "481.": "of radiotherapy, not a CT slice",
    "68.": "a surface or a template, not an image",
    "78.": "of an eye, not a CT slice",
}


MODALITY: Final = re.compile(
    "ANN|AR|ASMT|AU|BDUS|BI|BMD|CFM|CR|CT|CTPROTOCOL|DG|DMS|DOC|DX|ECG|EEG|EMG|EOG|EPS|ES|FID|GM|HC|HD|IO|IOL|"
    "IVOCT|IVUS|KER|KO|LEN|LS|MG|MR|NM|OAM|OCT|OP|OPM|OPT|OPTBSV|OPTENF|OPV|OSS|OT|PA|PLAN|POS|PR|PT|PX|REG|"
    "RESP|RF|RG|RTDOSE|RTIMAGE|RTINTENT|RTPLAN|RTRAD|RTRECORD|RTSEGANN|RTSTRUCT|RWV|SEG|SM|SMR|SR|SRF|STAIN|"
    "TEXTUREMAP|TG|US|VA|VF|XA|XAPROTOCOL|XC"
)
"""Values of Modality (PS3.3, C.7.3.1.1.1); any other may be a person's name, and is not repeated."""


def what_else(sop_class: str, *, has_rows: bool) -> str:
    """What a file is in words, if its SOP class is none of a CT image; "" where it is one, or where nothing is known.

    Args:
        sop_class: SOPClassUID, perhaps empty.
        has_rows: whether the header has Rows: a class of a manufacturer's own may be an image.
    """
    if not sop_class or sop_class in (CT_IMAGE, *MULTI_FRAME):
        return ""
    if sop_class.startswith(_STORAGE):
        own = sop_class.removeprefix(_STORAGE)
        for start, words in _KINDS.items():
            if own == start or (start.endswith(".") and own.startswith(start)):
                return words
        return "of another SOP class than CT images, not a CT slice"
    if sop_class.startswith("1.2.840.10008."):
        return "no image, by its SOP class"
    private = re.fullmatch(r"[0-9.]{1,64}", sop_class) is not None
    return "of a manufacturer's own SOP class and without Rows, not an image" if private and not has_rows else ""
