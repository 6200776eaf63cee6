"""Dictionary transforms that MONAI lacks: open a case, look within a region, and save structures in patient coordinates.

A bundle's ``inference.json`` chains them: ``LoadCased`` … network … ``RestoreStructuresd`` (or MONAI's ``Invertd`` and
``ToStructuresd``) → ``Save…d``. From there on the data dictionary holds a :class:`CaseStructures` under ``structures``.
"""

from medseg.transforms.loading import CropBodyd, CropWithind, LoadCased
from medseg.transforms.radiographs import LoadRadiographd, SaveRadiographd, ToRadiographStructuresd
from medseg.transforms.saving import SaveDicomSegd, SaveNiftid, SavePreviewd, SaveRTStructd, case_folder
from medseg.transforms.structures import (
    CaseStructures,
    KeepComponentsd,
    MarginStructuresd,
    RestoreStructuresd,
    ToStructuresd,
    binary,
)

__all__ = [
    "CaseStructures", "CropBodyd", "CropWithind", "KeepComponentsd", "LoadCased", "LoadRadiographd", "MarginStructuresd",
    "RestoreStructuresd", "SaveDicomSegd", "SaveNiftid", "SavePreviewd", "SaveRTStructd", "SaveRadiographd",
    "ToRadiographStructuresd", "ToStructuresd", "binary", "case_folder",
]  # fmt: skip
