"""Write structures: RTSTRUCT, DICOM SEG, NIfTI and a picture. No writer flips, transposes or resamples."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai.transforms import MapTransform

from medseg.cases.find import folder_name
from medseg.cases.results import Structures, binary
from medseg.cases.volume import source_path
from medseg.errors import InputError, MedsegWarning

if TYPE_CHECKING:
    from medseg.cases.multimodal import Multimodal
    from medseg.reports.preview import Overlay

REMARK_LABEL = "medseg CAUTION"
"""StructureSetLabel, the first thing a planning system shows, of contours with a remark: 16 letters
at most."""


def case_folder(name: str, output_dir: str | Path) -> Path:
    """The folder of the case called ``name`` under ``output_dir``, made when missing; see
    medseg.cases.find.folder_name."""
    folder = Path(output_dir) / folder_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


SUV_WINDOW = (1.0, 8.0)
"""SUV that are drawn clear and full in a preview: what is below 1 takes up little."""


class SaveCased(MapTransform):
    """Shared shape of the writers: one file, or several, per case under ``output_dir/<case name>/``."""

    def __init__(self, keys="structures", output_dir: str | Path = "."):
        super().__init__(keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            name = data.get("case_name") or self.name_of(data[key].case)
            self.save(data[key], case_folder(name, self.output_dir))
        return dict(data)

    def name_of(self, case) -> str:
        """What the folder of a case is called that nobody named."""
        return source_path(case.source).name

    def save(self, result: Structures, folder: Path) -> None:
        raise NotImplementedError


def _series(result: Structures, what: str):
    if result.case.series is None:
        raise InputError(
            f"{result.case.source}: {what} needs a DICOM series to refer to; this case is a NIfTI file."
        )
    return result.case.series


class SaveRTStructd(SaveCased):
    """Write ``RS.dcm``: contours of probabilities at 0.5 (sub-pixel), of boolean masks along voxel edges.

    ``model_name`` and ``model_version`` are recorded in the file. ``holes``, ``simplify_mm`` and
    ``overwrite``: see :func:`medseg.dicom.write_rtstruct`.
    """

    def __init__(
        self,
        keys="structures",
        output_dir=".",
        model_name="",
        model_version="",
        holes="keyhole",
        simplify_mm=0.0,
        overwrite=False,
    ):
        super().__init__(keys, output_dir)
        if simplify_mm < 0:
            raise InputError(f"simplify_mm is {simplify_mm}; expected 0 (keep every vertex) or more.")
        self.options = {
            "model": (model_name, model_version),
            "holes": holes,
            "simplify_mm": simplify_mm,
            "overwrite": overwrite,
        }

    def save(self, result: Structures, folder: Path) -> None:
        from medseg.dicom import write_rtstruct

        label = {"label": REMARK_LABEL} if result.remark else {}
        series = _series(result, "RTSTRUCT")
        write_rtstruct(result.with_remark(), series, folder / "RS.dcm", **self.options, **label)


def is_empty_with_a_warning(result: Structures) -> bool:
    """True when nothing was found. That is an answer, but none that a DICOM Segmentation can say: a
    MedsegWarning does instead."""
    empty = not any(binary(mask).any() for mask in result.masks.values())
    if empty:
        warnings.warn("no SEG.dcm: every structure is empty", MedsegWarning, stacklevel=2)
    return empty


class SaveDicomSegd(SaveCased):
    """Write ``SEG.dcm``, a binary DICOM Segmentation with one segment per structure; ``overwrite``: see
    :func:`medseg.dicom.write_seg`.

    Nothing is written, with a MedsegWarning, when every structure is empty.
    """

    def __init__(self, keys="structures", output_dir=".", model_name="", model_version="", overwrite=False):
        super().__init__(keys, output_dir)
        self.options = {"model": (model_name, model_version), "overwrite": overwrite}

    def save(self, result: Structures, folder: Path) -> None:
        from medseg.dicom import write_seg

        if is_empty_with_a_warning(result):
            return
        masks = {structure: binary(mask) for structure, mask in result.with_remark().items()}
        write_seg(masks, _series(result, "DICOM SEG"), folder / "SEG.dcm", **self.options)


class SaveNiftid(SaveCased):
    """Write ``<Structure>.nii.gz`` (uint8, 0 and 1) for every structure, on the case's grid.

    Raises GeometryError for uneven or tilted stacks, which no NIfTI affine describes.
    """

    def save(self, result: Structures, folder: Path) -> None:
        from medseg.cases.nifti import write_mask

        for structure, mask in result.masks.items():
            write_mask(binary(mask), result.case.geometry, folder / f"{folder_name(structure.name)}.nii.gz")


class SavePreviewd(SaveCased):
    """Write ``preview.png``: three planes through the target and a strip of slices, with outlines and
    volumes; of a case with a PET (item key ``pt``) this in colour over the image."""

    def save(self, result: Structures, folder: Path) -> None:
        from medseg.cases.multimodal import Multimodal
        from medseg.reports.preview import write_preview

        case, case_id, overlay = result.case, folder.name, None
        if isinstance(case, Multimodal):
            case_id = f"{case_id} ({case.series_in_words()})"
            overlay = _overlay(case)
        write_preview(
            case.volume,
            case.geometry,
            result.masks,
            folder / "preview.png",
            remark=result.remark,
            case_id=case_id,
            overlay=overlay,
        )


def _overlay(case: Multimodal) -> Overlay | None:
    """The PET of a case over its image; None without one."""
    from medseg.reports.preview import Overlay

    pet = case.companions.get("pt")
    return None if pet is None else Overlay(pet.sampled_on, SUV_WINDOW, f"PET (SUV to {SUV_WINDOW[1]:g})")
