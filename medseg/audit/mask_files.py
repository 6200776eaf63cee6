"""Evidence from files where out-of-fold predictions exist already: masks or probabilities beside labels, no
training.

Predictions are PREDICTIONS/<case>/<Structure>.nii.gz or .png: masks, or probabilities (0 to 1; in PNG 0 to
255). Labels are a folder of such files or an RT Structure Set, which needs its CT. Everything has to lie on
one grid; nothing is resampled to fit, except an uneven or tilted stack onto its own regular box.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.audit.evidence import PIXEL_SUFFIXES, Evidence, grey_levels, turn
from medseg.cases.mask_sources import is_nifti, modality, open_masks
from medseg.cases.nifti import read_mask
from medseg.cases.volume import open_case, resample
from medseg.errors import GeometryError, InputError, sizes, unusable
from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of

SUFFIXES = (".nii.gz", ".nii", ".png")
IMAGE_NAMES = tuple(f"image{suffix}" for suffix in (*SUFFIXES, ".jpg", ".jpeg"))
AROUND = 20.0
"""So many mm (or px) are kept around label and prediction."""


def cases_of(
    data_dir: Path,
    predictions_dir: Path,
    datalist: Sequence[Mapping[str, Any]] | None,
    leave_out: Path | None = None,
) -> list[dict]:
    """The cases to audit: the datalist's, or one for each folder of ``data_dir``: {"case_id", "label",
    "image"}.

    Such a folder holds masks ("image.nii.gz" or "image.png" beside them is the image), or a CT and its RT
    Structure Set. ``leave_out``: a folder within ``data_dir`` that is no case. InputError when there is none,
    and for cases without a folder of predictions.
    """
    if datalist is None:
        no_case = [] if leave_out is None else [path.resolve() for path in (leave_out, *leave_out.parents)]
        folders = sorted(
            path
            for path in data_dir.iterdir()
            if path.is_dir() and not path.name.startswith(".") and path.resolve() not in no_case
        )
        items = [_item_of(path, data_dir) for path in folders]
    else:
        items = [dict(item) for item in datalist]
    if not items:
        raise InputError(f"{data_dir}: no case; expected a folder of label masks for each.")
    lacking = [item["case_id"] for item in items if not (predictions_dir / item["case_id"]).is_dir()]
    if lacking:
        raise InputError(
            f"{predictions_dir}: no folder of predictions for {len(lacking)} cases, the first {lacking[0]}."
        )
    return items


def _item_of(folder: Path, data_dir: Path) -> dict[str, str]:
    sets, masks = _structure_sets(folder), [path for path in folder.iterdir() if _is_mask(path)]
    image = next(
        (folder / name for name in IMAGE_NAMES if (folder / name).is_file()), folder if sets else None
    )
    label = sets[0] if len(sets) == 1 and not masks else folder
    return {
        "case_id": folder.name,
        "label": str(label.relative_to(data_dir)),
        "image": str(image.relative_to(data_dir)) if image else "",
    }


def structure_names(items: Sequence[Mapping[str, Any]], predictions_dir: Path) -> list[str]:
    """Every structure that some case has a prediction of, sorted. InputError when there is none."""
    names = {
        stem(path)
        for item in items
        for path in (predictions_dir / item["case_id"]).iterdir()
        if _is_mask(path)
    }
    if not names:
        raise InputError(f"{predictions_dir}: no prediction; expected <case>/<Structure>.nii.gz or .png.")
    return sorted(names)


def stem(path: Path) -> str:
    """A mask file's name without its suffix."""
    return next(path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix))


def _is_mask(path: Path) -> bool:
    return (
        path.name.lower().endswith(SUFFIXES)
        and not path.name.startswith(".")
        and path.name not in IMAGE_NAMES
    )


def evidence_from_files(
    item: Mapping[str, Any], data_dir: Path, predictions_dir: Path, names: Sequence[str]
) -> Evidence:
    """One case. A structure without a label file is not contoured here; one without a prediction file is not
    judged.

    InputError for a label folder without any of the structures, GeometryError for sizes or grids that differ.
    """
    label, folder = data_dir / item["label"], predictions_dir / item["case_id"]
    if not label.exists():
        raise unusable(label, "a file or folder of labels")
    files = {stem(path): path for path in sorted(folder.iterdir()) if _is_mask(path)}
    flat = any(path.suffix.lower() == ".png" for path in files.values())
    make = _picture_evidence if flat else _volume_evidence
    return _crop(make(item, data_dir, label, files, list(names)))


def names_without_prediction(item: Mapping[str, Any], data_dir: Path, predictions_dir: Path) -> list[str]:
    """Structures that a case has a label file of and no prediction file, sorted; [] where the label is a
    structure set."""
    label = data_dir / item["label"]
    drawn = {stem(path) for path in label.iterdir() if _is_mask(path)} if label.is_dir() else set()
    return sorted(
        drawn - {stem(path) for path in (predictions_dir / item["case_id"]).iterdir() if _is_mask(path)}
    )


def _picture_evidence(
    item, data_dir: Path, label: Path, files: Mapping[str, Path], names: list[str]
) -> Evidence:
    own = {stem(path): path for path in sorted(label.iterdir()) if _is_mask(path)} if label.is_dir() else {}
    drawn = {name: _mask(own[name]) for name in names if name in own}
    if not drawn:
        raise InputError(f"{label}: none of {', '.join(names)} is there as NAME.png.")
    shape = next(iter(drawn.values())).shape
    image = _picture(data_dir / item["image"]) if item.get("image") else None
    predicted = {name: _picture(path) for name, path in files.items()}
    for what, array in (
        *drawn.items(),
        *predicted.items(),
        *([("the image", image)] if image is not None else []),
    ):
        if array.shape != shape:
            raise GeometryError(
                f"{item['case_id']}: {what} has {sizes(array.shape)} pixels (rows x columns), a label "
                f"{sizes(shape)}."
            )
    masks, known, probability = _stack(drawn, predicted, names, shape)
    return Evidence(
        item["case_id"],
        tuple(names),
        masks,
        known,
        probability,
        None if image is None else grey_levels(image),
        (1.0, 1.0),
        "px",
        None,
        item.get("image") or "",
        item["label"],
    )


def _picture(path: Path) -> np.ndarray:
    """float32 [row, column] from 0 to 1 of a grey picture; masks of 0 and 1 stay as they are."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            array = np.asarray(file.convert("L") if file.mode in ("RGB", "RGBA", "P", "LA", "1") else file)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({error}).") from error
    highest = np.iinfo(array.dtype).max if array.dtype.kind in "iu" and array.max(initial=0) > 1 else 1
    return array.astype(np.float32) / (65535 if highest > 65535 else highest)


def _mask(path: Path) -> np.ndarray:
    """bool [row, column] of a label. InputError for more than two values: an outline is no matter of grey
    levels."""
    picture = _picture(path)
    values = np.unique(picture)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise InputError(f"{path}: {len(values)} grey levels; a label has two, and 0 is outside.")
    return picture > 0


def _volume_evidence(
    item, data_dir: Path, label: Path, files: Mapping[str, Path], names: list[str]
) -> Evidence:
    sets = _structure_sets(label)
    source = str(data_dir / item["image"]) if item.get("image") else ""
    if source.lower().endswith(PIXEL_SUFFIXES):
        raise InputError(
            f"{item['case_id']}: a picture as image of NIfTI predictions; expected NIfTI or DICOM."
        )
    case = open_case(source) if source else None
    if len(sets) > 1:
        raise InputError(f"{label}: {len(sets)} structure sets; name one as the label in a datalist.")
    masks = (
        open_masks(sets[0], case.series if case else None)
        if sets
        else open_masks(label, case.series if case else None)
    )
    geometry = masks.geometry
    if case is not None:
        geometry.require_same(case.geometry, f"{item['case_id']}: label")
    drawn = {name: masks.read(name)[0] >= 0.5 for name in names if name in masks.names}
    if not drawn:
        raise InputError(
            f"{label}: none of {', '.join(names)} is there; it has {', '.join(masks.names) or 'nothing'}."
        )
    predicted = {name: _probability(path, geometry) for name, path in files.items()}
    stacks = _stack(drawn, predicted, names, geometry.shape)
    return _evidence_on_grid(
        item, stacks, names, geometry, case, str(sets[0].relative_to(data_dir)) if sets else item["label"]
    )


def _probability(path: Path, geometry: Geometry) -> np.ndarray:
    """A predicted mask or probability map. InputError for values outside 0 to 1 (percent, logits)."""
    array = read_mask(path, geometry)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise InputError(
            f"{path}: values from {low:g} to {high:g}; expected a mask or probabilities, 0 to 1."
        )
    return array


def _structure_sets(path: Path) -> list[Path]:
    """The RT Structure Sets that a path names or a folder holds."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    return [
        file
        for file in files
        if file.is_file() and not _is_mask(file) and not is_nifti(file) and modality(file) == "RTSTRUCT"
    ]


def _stack(
    drawn, predicted, names: list[str], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, probability = np.zeros((len(names), *shape), bool), np.zeros((len(names), *shape), np.float32)
    for number, name in enumerate(names):
        if name in drawn:
            label[number] = drawn[name]
        if name in predicted:
            probability[number] = predicted[name]
    return label, np.array([name in drawn and name in predicted for name in names]), probability


def _evidence_on_grid(
    item, stacks, names: list[str], geometry: Geometry, case, label_source: str
) -> Evidence:
    grid = geometry.regular_grid()

    def place(array: np.ndarray) -> np.ndarray:
        """float32 (1, x, y, z) on the regular grid."""
        array = array if grid is geometry else resample(array.astype(np.float32), geometry, grid)
        return array.transpose(2, 1, 0)[None]

    def turn_all(arrays) -> np.ndarray:
        return np.concatenate([turn(place(array), grid.affine_ras)[0] for array in arrays])

    label, known, probability = stacks
    affine = turn(place(label[0]), grid.affine_ras)[1]
    image = grey_levels(turn_all([case.volume])[0]) if case is not None else None
    return Evidence(
        item["case_id"],
        tuple(names),
        turn_all(label) > 0.5,
        known,
        np.clip(turn_all(probability), 0, 1),
        image,
        tuple(float(step) for step in np.linalg.norm(affine[:3, :3], axis=0)),
        "mm",
        affine,
        item.get("image") or "",
        label_source,
        own_slices=geometry,
    )


def _crop(evidence: Evidence) -> Evidence:
    """The box of all labels and predictions with AROUND on each side: pictures need no more, and files stay
    small."""
    held = evidence.label.any(axis=0) | (evidence.probability.max(axis=0) > 0.02)
    if not held.any():
        return evidence
    margin = [round(AROUND / step) for step in evidence.spacing]
    box = tuple(
        slice(max(side.start - n, 0), side.stop + n) for side, n in zip(box_of(held), margin, strict=True)
    )
    affine = evidence.affine_ras
    if affine is not None:
        affine = affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    return replace(
        evidence,
        label=evidence.label[(slice(None), *box)],
        probability=evidence.probability[(slice(None), *box)],
        image=None if evidence.image is None else evidence.image[box],
        affine_ras=affine,
    )
