"""Scans: DICOM files to ordered series in Hounsfield units, and made-up scans. numpy only, no torch."""
