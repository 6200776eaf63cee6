"""Dictionary transforms that MONAI lacks: open a case, look within a region, and save structures in patient coordinates.

A bundle's ``inference.json`` chains them: ``LoadCased`` … network … ``Invertd`` → ``ToStructuresd`` → ``Save…d``. From
``ToStructuresd`` on, the data dictionary holds a :class:`CaseStructures` under ``structures``.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform

from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.geometry import Geometry
from medseg.margins import expand
from medseg.readers import Case, CaseReader, case_of, folder_name, resample, source_path
from medseg.structures import Structure
from medseg.within import grid_box, region_mask


@dataclass(frozen=True)
class CaseStructures:
    """Structures on their own case's grid.

    ``masks``: {Structure: float32 probabilities or bool, [slice, row, column]}, every array of ``case.geometry.shape``.
    """

    case: Case
    masks: dict[Structure, np.ndarray]

    def __post_init__(self):
        for structure, mask in self.masks.items():
            if mask.shape != self.case.geometry.shape:
                raise StructureError(
                    f"{structure.name}: array {mask.shape} for an image of {self.case.geometry.shape} (slice, row, column)."
                )

    def with_masks(self, masks: dict[Structure, np.ndarray]) -> CaseStructures:
        """The same case with other masks."""
        return CaseStructures(self.case, masks)


def binary(mask: np.ndarray) -> np.ndarray:
    """bool: voxels inside the structure. A probability counts from 0.5 on, where the iso-contour runs."""
    return mask >= 0.5


class LoadCased(MapTransform):
    """Load cases (DICOM series or NIfTI) through :class:`medseg.readers.CaseReader`, with no other reader to fall back on.

    ``allow``: faults of a series to accept with a warning. Output: MetaTensor (1, x, y, z), float32. MONAI's own
    ``LoadImaged`` tries its other readers when one raises, and those load a series that ours refused.
    """

    def __init__(self, keys, allow: Sequence[str] = ()):
        super().__init__(keys)
        self.reader = CaseReader(tuple(allow))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            case = self.reader.read(d[key])
            array, meta = self.reader.get_data(case)
            meta["filename_or_obj"] = case.source
            d[key] = MetaTensor(torch.from_numpy(np.ascontiguousarray(array))[None], meta=meta)
        return d


class CropWithind(MapTransform, InvertibleTransform):
    """Crop to the box of a region, so that the network sees no more than the planner marked. None: the whole image.

    ``within``: see :func:`medseg.within.region_mask`. The inverse pads with zeros: no probability outside the box.
    ``largest_mm``: the longest side of a box that the network knows from its training. A larger region, or whole image
    without one, raises GeometryError: a tumour model that is shown a body contours something all the same.
    """

    def __init__(self, keys, within: str | Sequence[float] | None = None, largest_mm: float | None = None):
        MapTransform.__init__(self, keys)
        self.within = within
        self.largest_mm = largest_mm
        self.cropper = Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.within:
                case = case_of(d[key].meta)
                mask = region_mask(self.within, case)
                d[key] = self.cropper(d[key], grid_box(mask, case.geometry, case.geometry.regular_grid()))
            self._check_size(d[key])
        return d

    def _check_size(self, image: MetaTensor) -> None:
        sides_mm = [float(n * mm) for n, mm in zip(image.shape[1:], image.pixdim, strict=True)]
        if self.largest_mm is not None and max(sides_mm) > self.largest_mm:
            what = "the region" if self.within else "the whole image"
            raise GeometryError(
                f"{what} is {' x '.join(f'{side:.0f}' for side in sides_mm)} mm; this bundle learned from boxes of up to "
                f"{self.largest_mm:g} mm around a tumour. Say where to look, more closely, with --within."
            )

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.within:
                d[key] = self.cropper.inverse(d[key])
        return d


class ToStructuresd(MapTransform):
    """Probability channels (C, x, y, z), inverted to the case's grid, to named structures on the case's own slices.

    ``structures``: one dict per channel with the fields of :class:`medseg.structures.Structure`. On uneven or tilted
    stacks the regular grid is sampled at the real slices. ``within`` limits the result to the region's voxels. Raises
    GeometryError when the prediction does not lie on the case's grid, StructureError for a wrong number of channels.
    """

    def __init__(
        self, keys="pred", structures: Sequence[Mapping[str, Any]] = (), within: str | Sequence[float] | None = None
    ):
        super().__init__(keys)
        self.structures = tuple(_structure(fields) for fields in structures)
        self.within = within

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d["structures"] = self._structures(d[key])
        return d

    def _structures(self, pred: MetaTensor) -> CaseStructures:
        if pred.shape[0] != len(self.structures):
            raise StructureError(f"{pred.shape[0]} predicted channels for {len(self.structures)} named structures.")
        case = case_of(pred.meta)
        grid = case.geometry.regular_grid()
        channels = pred.detach().cpu().numpy().astype(np.float32, copy=False)
        seen = Geometry.from_ras_affine(np.asarray(pred.affine), channels.shape[1:], grid.frame_of_reference_uid)
        grid.require_same(seen, "the prediction")
        region = region_mask(self.within, case) if self.within else None
        masks = {}
        for structure, channel in zip(self.structures, channels, strict=True):
            probability = np.ascontiguousarray(channel.transpose(2, 1, 0))
            if grid is not case.geometry:
                probability = resample(probability, grid, case.geometry)
            masks[structure] = probability if region is None else np.where(region, probability, np.float32(0))
        return CaseStructures(case, masks)


def _structure(fields: Mapping[str, Any]) -> Structure:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    try:
        return Structure(**values)
    except TypeError as error:
        raise StructureError(
            f"structure {dict(fields)}: expected the fields name, number, colour_rgb, interpreted_type."
        ) from error


class KeepComponentsd(MapTransform):
    """Drop specks: connected pieces (26-neighbourhood) smaller than ``min_volume_cc``, or all but the largest.

    A structure whose every piece is too small becomes empty. On a single slice, which has no volume, nothing is too small
    and a MedsegWarning says so. Sub-threshold probabilities around a kept piece stay, since
    the sub-pixel contour depends on them.
    """

    def __init__(self, keys="structures", min_volume_cc: float = 0.0, largest_only: bool = False):
        super().__init__(keys)
        if min_volume_cc < 0:
            raise InputError(f"min_volume_cc is {min_volume_cc}; expected 0 (keep all) or more.")
        self.min_volume_cc = min_volume_cc
        self.largest_only = largest_only

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            result = d[key]
            voxel_cc = result.case.geometry.voxel_volumes_cc
            if np.isnan(voxel_cc).any() and self.min_volume_cc:
                warnings.warn("a single slice has no volume: pieces of every size are kept.", MedsegWarning, stacklevel=2)
            d[key] = result.with_masks({s: self._keep(m, voxel_cc) for s, m in result.masks.items()})
        return d

    def _keep(self, mask: np.ndarray, voxel_cc: np.ndarray) -> np.ndarray:
        from scipy.ndimage import find_objects, label

        inside = binary(mask)
        box = next(iter(find_objects(inside.view(np.uint8))), None)  # labelling a whole CT for a small tumour takes seconds
        if box is None:
            return mask
        pieces, count = label(inside[box], structure=np.ones((3, 3, 3)))
        known = not np.isnan(voxel_cc).any()
        weights = np.broadcast_to((voxel_cc if known else np.ones_like(voxel_cc))[box[0], None, None], pieces.shape)
        sizes = np.bincount(pieces.ravel(), weights=weights.ravel())  # cc, or voxels where no volume is known
        sizes[0] = -1.0
        drop = (sizes < self.min_volume_cc) & known
        if self.largest_only:
            drop |= np.arange(count + 1) != sizes.argmax()
        drop[0] = False
        kept = mask.copy()
        kept[box][drop[pieces]] = 0
        return kept


class MarginStructuresd(MapTransform):
    """Add structures by expansion in mm: CTV from GTV, PTV from CTV. A margin of 0 adds nothing.

    ``margins``: dicts of ``source`` (name), ``name``, ``interpreted_type`` and ``margin_mm``, applied in order, so that one
    may build on another. A margin of 0 lets later margins grow from its source instead. Raises StructureError for an
    unknown source and InputError for a negative margin.
    """

    FIELDS = {"source", "name", "interpreted_type", "margin_mm"}

    def __init__(self, keys="structures", margins: Sequence[Mapping[str, Any]] = ()):
        super().__init__(keys)
        for margin in margins:
            if set(margin) != self.FIELDS:
                raise InputError(f"margin {dict(margin)}: expected exactly the fields {', '.join(sorted(self.FIELDS))}.")
            if margin["margin_mm"] < 0:
                raise InputError(f"margin {margin['name']}: {margin['margin_mm']} mm; expected 0 (off) or more.")
        self.margins = tuple(margins)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self._grow(d[key])
        return d

    def _grow(self, result: CaseStructures) -> CaseStructures:
        masks = dict(result.masks)
        by_name = {structure.name: mask for structure, mask in masks.items()}
        for margin in self.margins:
            if margin["source"] not in by_name:
                raise StructureError(f"margin {margin['name']}: no structure {margin['source']}; have {', '.join(by_name)}.")
            if margin["margin_mm"] == 0:
                by_name[margin["name"]] = by_name[margin["source"]]
                continue
            grown = expand(binary(by_name[margin["source"]]), result.case.geometry, margin["margin_mm"])
            masks[Structure(margin["name"], interpreted_type=margin["interpreted_type"])] = grown
            by_name[margin["name"]] = grown
        return result.with_masks(masks)


def case_folder(name: str, output_dir: str | Path) -> Path:
    """The folder of the case called ``name`` under ``output_dir``, made when missing; see readers.folder_name."""
    folder = Path(output_dir) / folder_name(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Saved(MapTransform):
    """Shared shape of the writers: one file, or several, per case under ``output_dir/<case name>/``."""

    def __init__(self, keys="structures", output_dir: str | Path = "."):
        super().__init__(keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        for key in self.key_iterator(dict(data)):
            name = data.get("case_name") or source_path(data[key].case.source).name
            self.save(data[key], case_folder(name, self.output_dir))
        return dict(data)

    def save(self, result: CaseStructures, folder: Path) -> None:
        raise NotImplementedError


def _series(result: CaseStructures, what: str):
    if result.case.series is None:
        raise InputError(f"{result.case.source}: {what} needs a DICOM series to refer to; this case is a NIfTI file.")
    return result.case.series


class SaveRTStructd(_Saved):
    """Write ``RS.dcm``: contours of probabilities at 0.5 (sub-pixel), of boolean masks along voxel edges.

    ``model_name`` and ``model_version`` are recorded in the file. ``holes`` and ``simplify_mm``: see
    :func:`medseg.dicom.write_rtstruct`.
    """

    def __init__(self, keys="structures", output_dir=".", model_name="", model_version="", holes="keyhole", simplify_mm=0.0):
        super().__init__(keys, output_dir)
        if simplify_mm < 0:
            raise InputError(f"simplify_mm is {simplify_mm}; expected 0 (keep every vertex) or more.")
        self.options = {"model": (model_name, model_version), "holes": holes, "simplify_mm": simplify_mm}

    def save(self, result: CaseStructures, folder: Path) -> None:
        from medseg.dicom import write_rtstruct

        write_rtstruct(result.masks, _series(result, "RTSTRUCT"), folder / "RS.dcm", **self.options)


class SaveDicomSegd(_Saved):
    """Write ``SEG.dcm``, a binary DICOM Segmentation with one segment per structure."""

    def __init__(self, keys="structures", output_dir=".", model_name="", model_version=""):
        super().__init__(keys, output_dir)
        self.model = (model_name, model_version)

    def save(self, result: CaseStructures, folder: Path) -> None:
        from medseg.dicom import write_seg

        masks = {structure: binary(mask) for structure, mask in result.masks.items()}
        write_seg(masks, _series(result, "DICOM SEG"), folder / "SEG.dcm", model=self.model)


class SaveNiftid(_Saved):
    """Write ``<Structure>.nii.gz`` (uint8, 0 and 1) for every structure, on the case's grid.

    Raises GeometryError for uneven or tilted stacks, which no NIfTI affine describes.
    """

    def save(self, result: CaseStructures, folder: Path) -> None:
        from medseg.nifti import write_mask

        for structure, mask in result.masks.items():
            write_mask(binary(mask), result.case.geometry, folder / f"{folder_name(structure.name)}.nii.gz")


class SavePreviewd(_Saved):
    """Write ``preview.png``: three planes through the target and a strip of slices, with outlines and volumes."""

    def save(self, result: CaseStructures, folder: Path) -> None:
        from medseg.report.preview import write_preview

        write_preview(result.case.volume, result.case.geometry, result.masks, folder / "preview.png")
