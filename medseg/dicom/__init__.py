"""DICOM files to objects and back. Needs no torch."""

from medseg.dicom.rtstruct import write_rtstruct
from medseg.dicom.scan import find_series
from medseg.dicom.seg import write_seg
from medseg.dicom.series import ALLOWABLE, Series, read_series
from medseg.dicom.structure_sets import ALLOWABLE_IN_STRUCTURE_SETS, read_rtstruct, read_structure_set

__all__ = [
    "ALLOWABLE",
    "ALLOWABLE_IN_STRUCTURE_SETS",
    "Series",
    "find_series",
    "read_rtstruct",
    "read_series",
    "read_structure_set",
    "write_rtstruct",
    "write_seg",
]
