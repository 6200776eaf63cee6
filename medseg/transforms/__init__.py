"""Dictionary transforms that MONAI lacks: open a case, look within a region, and save structures in patient
coordinates.

A bundle's ``inference.json`` chains them: ``LoadCased`` … network … ``RestoreStructuresd`` (or MONAI's
``Invertd`` and ``ToStructuresd``) → ``Save…d``. From there on the data dictionary holds a
:class:`CaseStructures` under ``structures``.
"""

from medseg.transforms.body import BlankOutsideBodyd
from medseg.transforms.gate import CheckInputd
from medseg.transforms.labels import SaveRecordd, ToLabelsd
from medseg.transforms.loading import CropBodyd, CropWithind, LoadCased
from medseg.transforms.margins import MarginStructuresd
from medseg.transforms.partial import BitFieldToChannelsd, ThresholdKnownd
from medseg.transforms.radiographs import LoadRadiographd, SaveRadiographd, ToRadiographStructuresd
from medseg.transforms.readers import CaseReader, RadiographReader
from medseg.transforms.regions import RandRegionCropd
from medseg.transforms.rtstruct import LoadRTStructd
from medseg.transforms.saving import SaveDicomSegd, SaveNiftid, SavePreviewd, SaveRTStructd, case_folder
from medseg.transforms.sides import RandFlipSidesd
from medseg.transforms.structures import (
    KeepComponentsd,
    RestoreStructuresd,
    ToStructuresd,
)

__all__ = [
    "BitFieldToChannelsd",
    "BlankOutsideBodyd",
    "CaseReader",
    "CheckInputd",
    "CropBodyd",
    "CropWithind",
    "KeepComponentsd",
    "LoadCased",
    "LoadRTStructd",
    "LoadRadiographd",
    "MarginStructuresd",
    "RadiographReader",
    "RandFlipSidesd",
    "RandRegionCropd",
    "RestoreStructuresd",
    "SaveDicomSegd",
    "SaveNiftid",
    "SavePreviewd",
    "SaveRTStructd",
    "SaveRecordd",
    "SaveRadiographd",
    "ThresholdKnownd",
    "ToLabelsd",
    "ToRadiographStructuresd",
    "ToStructuresd",
    "case_folder",
]
