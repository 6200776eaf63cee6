"""Label files as clients send and want them: NIfTI, NRRD, OHIF's bare bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg import limits
from medseg.cases.nifti import read_mask, write_volume
from medseg.errors import InputError, StructureError
from medseg.files import atomic_path
from medseg.geometry import LPS_TO_RAS, Geometry

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".bin")
"""What a label may come as. Of a client's file name nothing else is used."""

MOST_LABEL = 254
"""Numbers fit one byte; a mask of 0 and 255 is read as 0 and 1."""


def suffix_of(name: str) -> str:
    """The suffix of a client's file name. InputError for another kind of file."""
    found = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if found is None:
        raise InputError(f"a label file of another kind was sent; expected one of {', '.join(SUFFIXES)}.")
    return found


def read_label(path: Path, suffix: str, geometry: Geometry) -> np.ndarray:
    """int16 [slice, row, column] of a label file on the image's grid, 0 outside.

    NIfTI and NRRD are put in the image's order by their affine, never resampled. ``.bin``: one byte a voxel,
    columns fastest, as OHIF sends it. InputError or GeometryError for what is no label of this image.
    """
    if suffix == ".bin":
        return _read_bytes(path, geometry)
    values = _read_nrrd(path, geometry) if suffix.endswith(".nrrd") else read_mask(path, geometry)
    if values.dtype == bool:
        return values.astype(np.int16)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        raise InputError("the label file holds values that are no whole numbers; expected a label map.")
    if values.min() < 0 or values.max() > MOST_LABEL:
        raise InputError(
            f"the label file holds values from {values.min():g} to {values.max():g}; expected 0 to "
            f"{MOST_LABEL}."
        )
    return values.astype(np.int16)


def _read_bytes(path: Path, geometry: Geometry) -> np.ndarray:
    expected = int(np.prod(geometry.shape))
    if path.stat().st_size != expected:
        raise InputError(
            f"the label holds {path.stat().st_size} bytes; the image has {expected} voxels of a byte each."
        )
    return np.fromfile(path, dtype=np.uint8).reshape(geometry.shape).astype(np.int16)


def _read_nrrd(path: Path, geometry: Geometry) -> np.ndarray:
    """By SimpleITK, whose header says how large the image will be before anything is allocated."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if reader.GetNumberOfComponents() != 1 or len(size) != 3:
            raise InputError(
                "the NRRD file holds several layers; in 3D Slicer switch overlapping segments off, or send "
                "NIfTI."
            )
        limits.check(
            "volume_voxels", int(np.prod([float(side) for side in size])), "the NRRD header declares"
        )
        if sorted(size) != sorted(geometry.shape):
            raise InputError(
                f"the label is of {'x'.join(map(str, size))} voxels, the image of "
                f"{'x'.join(map(str, geometry.shape[::-1]))}."
            )
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError("the label file cannot be read as NRRD.") from error
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    own = Geometry.from_ras_affine(LPS_TO_RAS @ affine, size)
    with tempfile.TemporaryDirectory() as folder:
        same = write_volume(SimpleITK.GetArrayFromImage(image), own, Path(folder) / "label.nii")
        return read_mask(same, geometry)


def write_nrrd(values: np.ndarray, geometry: Geometry, out: Path) -> Path:
    """Write a label map [slice, row, column] as uncompressed NRRD of one byte a voxel, atomically: what
    OHIF's panel reads. StructureError for values above 255."""
    import SimpleITK

    if values.max(initial=0) > 255:
        raise StructureError(f"label {values.max()}: a NRRD file for OHIF holds values up to 255.")
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values, dtype=np.uint8))
    affine = geometry.affine_lps[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    with atomic_path(out) as temporary:
        SimpleITK.WriteImage(image, str(temporary), useCompression=False)
    return out


# ---- several structures in one map -------------------------------------------------------------------------


def compose(
    masks: Mapping[str, np.ndarray], names: Sequence[str], *, gapless: bool
) -> tuple[np.ndarray, dict[str, int], dict[str, int]]:
    """(int16 label map, {structure: its value}, {structure: voxels of it that another one hides}).

    ``names``: all that the model can answer with, in order. A label map holds one structure a voxel, and the
    one that is named first shows. ``gapless``: those that are present are numbered 1 to N in that order, as
    3D Slicer needs it, which names segments by position; else each has its place among ``names``, as OHIF's
    panel expects. InputError without a mask.
    """
    if not masks:
        raise InputError("the result has no structures.")
    shape = next(iter(masks.values())).shape
    present = [name for name in names if name in masks and masks[name].any()]
    numbers = {name: count for count, name in enumerate(present if gapless else names, 1)}
    values, hidden = np.zeros(shape, dtype=np.int16), {}
    for name in present:
        free = masks[name] & (values == 0)
        values[free] = numbers[name]
        covered = int(masks[name].sum()) - int(free.sum())
        if covered:
            hidden[name] = covered
    # One that others cover wholly would leave a gap in what is really there.
    vanished = [name for name in present if hidden.get(name) == int(masks[name].sum())]
    if gapless and vanished:
        kept = {name: mask for name, mask in masks.items() if name not in vanished}
        again, numbers, others = compose(kept, names, gapless=True) if kept else (values, {}, {})
        return again, numbers, {**others, **{name: hidden[name] for name in vanished}}
    return values, {name: numbers[name] for name in present}, hidden


def names_of(label_info: Any, values: np.ndarray, known: Sequence[str]) -> dict[str, int]:
    """{structure: value} of a submitted label map by the ``label_info`` that 3D Slicer sends: a list of
    ``{"name", "idx"}``.

    Without one, values are places among ``known``, the structures of the bundles served, if there is only one
    way to read them. InputError for what is no such list, for two names of a value, and without names.
    """
    if label_info is None or label_info == []:
        present = [int(value) for value in np.unique(values) if value]
        if present and max(present) > len(known):
            raise InputError(
                f"the label holds the value {max(present)} and no `label_info` says what it is called; send "
                '[{"name": …, "idx": …}].'
            )
        return {known[value - 1]: value for value in present}
    rows = label_info if isinstance(label_info, list) else [label_info]
    names: dict[str, int] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise InputError('`label_info`: expected a list of {"name": …, "idx": …}.')
        number = row.get("idx", len(names) + 1)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_LABEL:
            raise InputError(f"`label_info`: idx {number!r} of {row['name'][:64]!r} is no label's number.")
        if row["name"] in names or number in names.values():
            raise InputError(f"`label_info`: {row['name'][:64]!r} or the value {number} is there twice.")
        names[row["name"]] = number
    return names
