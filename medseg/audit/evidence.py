"""What an audit knows of one case: its label, what a network that never saw it predicts, and the image behind
both.

Arrays are turned to the display convention, so that directions have names: in 3D axis 0 runs to Superior,
axis 1 to Posterior and axis 2 to Left; in 2D axis 0 runs down and axis 1 to the right of the image as it is
shown.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError, InputError, StructureError, sizes, why
from medseg.files import atomic_path
from medseg.geometry import Geometry

DIRECTIONS = {
    3: (("caudally", "cranially"), ("anteriorly", "posteriorly"), ("to the right", "to the left")),
    2: (("up", "down"), ("left in the image", "right in the image")),
}
"""For each axis the words for its lower and its higher end; left and right of a 3D image are the
patient's."""

PIXEL_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
"""Files without a trustworthy pixel size: their sizes are told in pixels of the file."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """One case. ``label`` and ``probability``: bool and float32 (structures, *spatial), turned as the module
    says.

    ``known``: bool (structures,), False where nobody contoured. ``image``: uint8 (*spatial) for pictures, or
    None. ``spacing``: of each spatial axis, in ``unit`` ("mm" or "px"). ``affine_ras``: 4x4 from the turned
    3D indices to RAS mm, None in 2D. ``image_source`` and ``label_source``: the paths they came from, "" when
    unknown. ``group``: the annotator or centre, "" without one. ``fold``: the number of the fold that
    predicted it, -1 without folds. ``own_slices``: the slices of the image as it was read, before anything
    was cropped or resampled; None in 2D and where they are not known.
    """

    case: str
    names: tuple[str, ...]
    label: np.ndarray
    known: np.ndarray
    probability: np.ndarray
    image: np.ndarray | None
    spacing: tuple[float, ...]
    unit: str
    affine_ras: np.ndarray | None = None
    image_source: str = ""
    label_source: str = ""
    group: str = ""
    fold: int = -1
    own_slices: Geometry | None = None

    def __post_init__(self) -> None:
        count, shape = len(self.names), self.label.shape[1:]
        if self.label.shape != self.probability.shape or len(self.label) != count or len(self.known) != count:
            raise GeometryError(
                f"{self.case}: label of {sizes(self.label.shape)} and prediction of "
                f"{sizes(self.probability.shape)} values for {count} structures; expected one mask and one "
                "prediction of each, on one grid."
            )
        if self.image is not None and self.image.shape != shape:
            raise GeometryError(
                f"{self.case}: label of {sizes(shape)} on an image of {sizes(self.image.shape)} voxels."
            )
        if len(shape) not in DIRECTIONS or len(self.spacing) != len(shape):
            raise GeometryError(
                f"{self.case}: label of {sizes(shape)} values; expected 2 or 3 spatial axes, and spacings."
            )
        if (
            not np.isfinite(self.probability).all()
            or self.probability.min() < -1e-3
            or self.probability.max() > 1.001
        ):
            raise StructureError(f"{self.case}: the prediction is not between 0 and 1.")


def turn(array: np.ndarray, affine_ras: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """(array (channels, x, y[, z]) turned as Evidence is, affine of the turned indices); 2D arrays come as
    (x, y)."""
    if array.ndim == 3:
        return np.ascontiguousarray(array.transpose(0, 2, 1)), None
    from nibabel import orientations

    own = orientations.io_orientation(affine_ras)
    change = orientations.ornt_transform(own, orientations.axcodes2ornt("SPL"))
    result = np.stack([orientations.apply_orientation(channel, change) for channel in array])
    return result, np.asarray(affine_ras) @ orientations.inv_ornt_aff(change, array.shape[1:])


def grey_levels(image: np.ndarray) -> np.ndarray:
    """uint8 of an image's values between their 1st and 99th percentile, for pictures."""
    low, high = np.percentile(image, [1, 99])
    return (np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).round().astype(np.uint8)


def unit_of(image_source: str) -> str:
    """ "px" for picture files, which have no trustworthy pixel size, else "mm"."""
    return "px" if image_source.lower().endswith(PIXEL_SUFFIXES) else "mm"


def file_stem(case: str) -> str:
    """A case's name as that of a file: what a file system might refuse is replaced, and a checksum keeps
    names apart."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", case).strip(".")[-80:]
    return plain if plain == case else f"{plain}-{zlib.crc32(case.encode()):08x}"


# ---- files -------------------------------------------------------------------------------------------------


def save_evidence(evidence: Evidence, folder: Path) -> Path:
    """Write FOLDER/<case>.npz atomically, probabilities as float16."""
    words = {
        "case": evidence.case,
        "names": evidence.names,
        "spacing": evidence.spacing,
        "unit": evidence.unit,
        "image_source": evidence.image_source,
        "label_source": evidence.label_source,
        "group": evidence.group,
        "fold": evidence.fold,
        "shape": evidence.label.shape,
    }
    own = evidence.own_slices
    if own is not None:
        words["own_shape"] = own.shape
    arrays = {"label": np.packbits(evidence.label), "known": evidence.known}
    arrays["probability"] = evidence.probability.astype(np.float16)
    if evidence.image is not None:
        arrays["image"] = evidence.image
    if evidence.affine_ras is not None:
        arrays["affine_ras"] = evidence.affine_ras
    if own is not None:
        arrays["own_origins_lps_mm"] = own.origins_lps_mm
        arrays["own_steps_lps_mm"] = np.stack([own.row_step_lps_mm, own.column_step_lps_mm])
    out = folder / f"{file_stem(evidence.case)}.npz"
    with atomic_path(out) as temporary:
        np.savez_compressed(temporary, words=json.dumps(words), **arrays)
    return out


def load_evidence(path: Path, group: str | None = None) -> Evidence:
    """Read what save_evidence wrote; ``group`` replaces the stored one. InputError for any other file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            words = json.loads(str(file["words"]))
            shape = tuple(words.pop("shape"))
            label = np.unpackbits(file["label"], count=int(np.prod(shape))).astype(bool).reshape(shape)
            arrays = {name: file[name] if name in file else None for name in ("image", "affine_ras")}
            probability, known = file["probability"].astype(np.float32), file["known"]
            own_shape = words.pop("own_shape", None)
            if own_shape is not None:
                steps = file["own_steps_lps_mm"]
                arrays["own_slices"] = Geometry(tuple(own_shape), file["own_origins_lps_mm"], *steps)
        words = {**words, "names": tuple(words["names"]), "spacing": tuple(words["spacing"])}
        if group is not None:
            words["group"] = group
        return Evidence(label=label, known=known, probability=probability, **arrays, **words)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, *_BROKEN_ZIP) as error:
        raise InputError(
            f"{path}: not the prediction of a case as an audit keeps it ({why(error)}); delete it."
        ) from error


_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError, RecursionError)
"""What a damaged .npz file raises beside what any damaged file does."""
