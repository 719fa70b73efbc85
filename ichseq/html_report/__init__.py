"""The report for those who read scans: a work list and a page an exam, in a folder that needs no network."""

from ichseq.html_report.folder import check_folder
from ichseq.html_report.write import write_report

__all__ = ["check_folder", "write_report"]
