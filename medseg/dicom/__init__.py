"""DICOM files to objects and back. Needs no torch."""

from medseg.dicom.images.checks import ALLOWABLE
from medseg.dicom.images.scan import find_series
from medseg.dicom.images.series import Series, read_series
from medseg.dicom.rtstruct.read import ALLOWABLE_IN_STRUCTURE_SETS, read_rtstruct
from medseg.dicom.rtstruct.structure_set import read_structure_set
from medseg.dicom.rtstruct.write import write_rtstruct
from medseg.dicom.seg.write import write_seg

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
