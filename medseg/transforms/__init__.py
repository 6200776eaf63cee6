"""Dictionary transforms that MONAI lacks: open a case, look within a region, and save structures in patient
coordinates.

A bundle's ``inference.json`` chains them: ``LoadCased`` … network … ``RestoreStructuresd`` (or MONAI's
``Invertd`` and ``ToStructuresd``) → ``Save…d``. From there on the data dictionary holds a
:class:`CaseStructures` under ``structures``.
"""

from medseg.transforms.activation import (
    ActivationMapd,
    BoxMapsd,
    MapToBoxesd,
    SaveActivationMapd,
    SaveLabelPictured,
)
from medseg.transforms.body import BlankOutsideBodyd
from medseg.transforms.boxes import RandBoxGridd
from medseg.transforms.covariates import AddCovariatesd
from medseg.transforms.detections import BoxTargetd, RandBoxAffined, ToBoxesd
from medseg.transforms.drawn_boxes import CropToDrawnBoxd
from medseg.transforms.gate import CheckInputd
from medseg.transforms.grey import FilmGreyd
from medseg.transforms.label_maps import LabelsToStructuresd
from medseg.transforms.labels import SaveRecordd, ToClassd, ToLabelsd
from medseg.transforms.loading import CropBodyd, CropWithind, LoadCased
from medseg.transforms.lungs import CropLungsd
from medseg.transforms.margins import MarginStructuresd
from medseg.transforms.multimodal import RandDropSeriesd, RandSeriesLookd, StackSeriesd, only_series
from medseg.transforms.partial import BitFieldToChannelsd, ThresholdKnownd
from medseg.transforms.photographs import (
    LoadPhotographd,
    NormaliseIlluminationd,
    SavePhotographd,
    ToPhotographStructuresd,
)
from medseg.transforms.quantities import AppendNumbersd
from medseg.transforms.radiographs import LoadRadiographd, SaveRadiographd, ToRadiographStructuresd
from medseg.transforms.readers import CaseReader, RadiographReader
from medseg.transforms.regions import RandRegionCropd
from medseg.transforms.rtstruct import LoadRTStructd
from medseg.transforms.saving import SaveDicomSegd, SaveNiftid, SavePreviewd, SaveRTStructd, case_folder
from medseg.transforms.saving_boxes import SaveBoxPictured, SaveBoxRTStructd, SaveBoxTabled
from medseg.transforms.several import LoadSeriesd
from medseg.transforms.sides import MirrorRightd, RandFlipSidesd
from medseg.transforms.structured_reports import SaveDicomSRd
from medseg.transforms.structures import (
    KeepComponentsd,
    RestoreStructuresd,
    ToStructuresd,
)
from medseg.transforms.volume_boxes import (
    JoinBoxRowsd,
    RandNeighbourSlicesd,
    SplitAnswerd,
    SplitBoxRowsd,
    ToVolumeBoxesd,
    VolumeBoxTargetd,
)
from medseg.transforms.windows import PackChannelsd, RandWindowd

__all__ = [
    "ActivationMapd",
    "AddCovariatesd",
    "AppendNumbersd",
    "BitFieldToChannelsd",
    "BlankOutsideBodyd",
    "BoxMapsd",
    "BoxTargetd",
    "CaseReader",
    "CheckInputd",
    "CropBodyd",
    "CropLungsd",
    "CropToDrawnBoxd",
    "CropWithind",
    "FilmGreyd",
    "JoinBoxRowsd",
    "KeepComponentsd",
    "LabelsToStructuresd",
    "LoadCased",
    "LoadPhotographd",
    "LoadRTStructd",
    "LoadRadiographd",
    "LoadSeriesd",
    "MapToBoxesd",
    "MarginStructuresd",
    "MirrorRightd",
    "NormaliseIlluminationd",
    "RadiographReader",
    "PackChannelsd",
    "RandBoxAffined",
    "RandBoxGridd",
    "RandDropSeriesd",
    "RandFlipSidesd",
    "RandWindowd",
    "RandNeighbourSlicesd",
    "RandRegionCropd",
    "RandSeriesLookd",
    "RestoreStructuresd",
    "SaveActivationMapd",
    "SaveBoxPictured",
    "SaveBoxRTStructd",
    "SaveBoxTabled",
    "SaveDicomSRd",
    "SaveDicomSegd",
    "SaveLabelPictured",
    "SaveNiftid",
    "SavePhotographd",
    "SavePreviewd",
    "SaveRTStructd",
    "SaveRecordd",
    "SaveRadiographd",
    "SplitAnswerd",
    "SplitBoxRowsd",
    "StackSeriesd",
    "ThresholdKnownd",
    "ToBoxesd",
    "ToClassd",
    "ToLabelsd",
    "ToPhotographStructuresd",
    "ToRadiographStructuresd",
    "ToStructuresd",
    "ToVolumeBoxesd",
    "VolumeBoxTargetd",
    "case_folder",
    "only_series",
]
