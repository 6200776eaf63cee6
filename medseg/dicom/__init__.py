"""DICOM files to objects and back. Needs no torch."""

from medseg.dicom.scan import find_series
from medseg.dicom.series import ALLOWABLE, Series, read_series

__all__ = ["ALLOWABLE", "Series", "find_series", "read_series"]
