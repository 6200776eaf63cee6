"""DICOM Segmentations: read and written."""
