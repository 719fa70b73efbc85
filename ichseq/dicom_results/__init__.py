"""Results that an archive understands: a structured report, key slices as pictures, a key object selection."""

from ichseq.dicom_results.folder import check_results_folder
from ichseq.dicom_results.write import write_results

__all__ = ["check_results_folder", "write_results"]
