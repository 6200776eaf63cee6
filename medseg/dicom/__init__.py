"""DICOM files to objects and back. Needs no torch."""
