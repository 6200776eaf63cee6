"""Radiographs: flat pictures (PNG, JPEG, CR and DX) that a user points at, opened as grey values. One reader
for every door.

A radiograph has no slices, no place in the patient and often no pixel spacing, so it is no
:class:`medseg.cases.volume.Case`. What is not known stays unknown: sizes are then given in pixels. Arrays are
[row, column], the patient's right on the viewer's left.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from monai.data import ImageReader

from medseg.cases.volume import is_hidden, is_own_output, unique_name
from medseg.errors import InputError, StructureError
from medseg.files import atomic_path
from medseg.structures.structure import Structure

if TYPE_CHECKING:  # pydicom is loaded only when a DICOM file is opened: training on PNG must run without it
    from medseg.dicom.images.projections import Projection

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("png", "nifti", "seg", "preview")
"""What can be written about a radiograph."""

FEWEST_GREY_VALUES = 32
"""A picture with fewer is a mask or a drawing; a radiograph of 8 bits has over a hundred."""

COLOUR_TOLERANCE = 4
"""How far red, green and blue of a grey picture may differ, of 255: JPEG rounds them apart."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """``pixels``: float32 [row, column], 0 (black) to 1 (white, dense). ``shown``: how the file's numbers
    became grey.

    ``projection``: the DICOM side, None for a picture file, which says nothing of spacing or patient.
    """

    source: str
    pixels: np.ndarray
    shown: str
    projection: Projection | None = None

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(between rows, between columns), None where the file does not say."""
        return None if self.projection is None else self.projection.spacing_mm

    @property
    def spacing_from(self) -> str:
        """Where the spacing comes from and holds; "" where it is not known."""
        return "" if self.projection is None else self.projection.spacing_from


@dataclass(frozen=True)
class RadiographStructures:
    """Structures on their own radiograph: ``masks`` {Structure: bool [row, column]}, of the shape of
    ``case.pixels``."""

    case: Radiograph
    masks: Mapping[Structure, np.ndarray]

    def __post_init__(self):
        for structure, mask in self.masks.items():
            if mask.shape != self.case.pixels.shape:
                raise StructureError(
                    f"{structure.name}: mask {mask.shape} for a picture of {self.case.pixels.shape}."
                )


def open_radiograph(source: str | os.PathLike) -> Radiograph:
    """Open a PNG, JPEG, CR or DX file. The last three stay in memory, so that reader and writers share one
    decoding.

    InputError, in one line, for anything that is not one grey picture; see also
    dicom.projections.read_projection.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    state = path.stat()
    return _open(os.fspath(source), (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=3)
def _open(source: str, _state: tuple[int, int]) -> Radiograph:
    if is_picture(source):
        pixels, bits = _read_picture(Path(source))
        return Radiograph(source, pixels, f"{bits}-bit grey values as stored")
    from medseg.dicom.images.projections import read_projection

    projection = read_projection(source)
    return Radiograph(source, projection.pixels, projection.shown, projection)


def is_picture(path: str | os.PathLike) -> bool:
    """True for names that end in .png, .jpg or .jpeg."""
    return str(path).lower().endswith(PICTURE_SUFFIXES)


def _read_picture(path: Path) -> tuple[np.ndarray, int]:
    """(float32 [row, column] in 0..1, bits per pixel) of a grey PNG or JPEG, or of a colour file that holds
    only grey."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) != 1:
                raise InputError(f"{path}: {image.n_frames} frames; expected one picture.")
            if image.getexif().get(0x0112, 1) != 1:  # Orientation
                raise InputError(
                    f"{path}: the file asks for turning (EXIF orientation); save it upright first."
                )
            values = _grey_values(image, path)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: the picture cannot be read ({' '.join(str(error).split())[:120]})."
        ) from error
    bits = 8 * values.dtype.itemsize
    found = len(np.unique(values))
    if found < FEWEST_GREY_VALUES:
        raise InputError(f"{path}: {found} different grey values; a radiograph has more (is this a mask?).")
    return values.astype(np.float32) / np.float32(2**bits - 1), bits


def _grey_values(image, path: Path) -> np.ndarray:
    """uint8 or uint16 [row, column]; InputError for colour, transparency and other kinds of pixels."""
    if image.mode == "L":
        return np.asarray(image)
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path}: values {values.min()} to {values.max()}; expected 16 bits.")
        return values.astype(np.uint16)
    if image.mode not in ("RGB", "RGBA", "LA", "P"):
        raise InputError(f"{path}: pixels of kind {image.mode}; expected 8 or 16 bits of grey.")
    parts = np.asarray(image.convert("RGBA")).astype(np.int16)
    if parts[..., 3].min() < 255:
        raise InputError(f"{path}: the picture is partly transparent; expected opaque grey.")
    if np.ptp(parts[..., :3], axis=2).max() > COLOUR_TOLERANCE:
        raise InputError(f"{path}: the picture is coloured; expected a grey radiograph.")
    return parts[..., 1].astype(np.uint8)


class RadiographReader(ImageReader):
    """MONAI ImageReader for radiographs: arrays are (row, column), not turned over as MONAI's PILReader
    would.

    The affine that MONAI attaches counts pixels, since millimetres are often unknown and never needed by the
    network. Use :class:`medseg.transforms.LoadRadiographd`, which has no other reader to fall back on when
    this one refuses a file.
    """

    def verify_suffix(self, filename) -> bool:
        """MONAI's question whether this reader suits; pictures and DICOM files do."""
        return True

    def read(self, data, **kwargs) -> Radiograph:
        """Open one file (a path, or a sequence that holds one)."""
        sources = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        if len(sources) != 1:
            raise InputError(f"{len(sources)} sources for one picture; expected one file.")
        return open_radiograph(sources[0])

    def get_data(self, img: Radiograph) -> tuple[np.ndarray, dict]:
        """The grey values (row, column), and MONAI's meta data."""
        meta = {"spatial_shape": np.asarray(img.pixels.shape), "original_channel_dim": float("nan")}
        return img.pixels, meta


def write_mask_png(mask: np.ndarray, out: str | Path) -> Path:
    """Write a bool mask [row, column] as an 8-bit grey PNG of 0 and 255, atomically."""
    from PIL import Image

    with atomic_path(out) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")
    return Path(out)


def write_mask_nifti(mask: np.ndarray, spacing_mm: tuple[float, float] | None, out: str | Path) -> Path:
    """Write a bool mask [row, column] as a flat uint8 NIfTI file (x=column, y=row) of 0 and 1, atomically.

    Position and direction are marked unknown (qform and sform code 0), since a radiograph has none. Without
    ``spacing_mm`` (between rows, between columns) the unit of length is marked unknown too, and a pixel
    counts 1.
    """
    import nibabel

    image = nibabel.Nifti1Image(mask.astype(np.uint8).T, None)
    row, column = spacing_mm or (1.0, 1.0)
    image.header.set_zooms((column, row))
    image.header.set_xyzt_units("unknown" if spacing_mm is None else "mm")
    with atomic_path(out) as temporary:
        nibabel.save(image, temporary)
    return Path(out)


def find_radiographs(path: str | os.PathLike) -> tuple[list[tuple[str, str]], list[str]]:
    """Every radiograph under ``path``: ([(name, source), …] sorted by name, [what was passed over and why,
    …]).

    ``path``: a PNG, JPEG or DICOM file, or a folder (nested) of them. Hidden files and what an earlier run of
    medseg wrote are passed over. Names come from file names, never from the patient's name. Raises InputError
    when nothing is found.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    root = path if path.is_dir() else path.parent
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    cases: list[tuple[str, str]] = []
    passed_over: dict[str, list[Path]] = {}
    for file in files:
        if path.is_dir() and is_hidden(file.relative_to(root)):
            continue
        why = _why_passed_over(file)
        if why is None:
            name = "_".join(file.relative_to(root).parts)
            cases.append((unique_name(name.removesuffix(file.suffix), cases), str(file)))
        elif why:
            passed_over.setdefault(why, []).append(file)
    notes = [_note(why, found) for why, found in passed_over.items()]
    if not cases:
        kinds = Counter(file.suffix.lower() or "no suffix" for file in files)
        seen = (
            notes[:5] or [f"{count} files of {kind}" for kind, count in kinds.most_common(5)] or ["no file"]
        )
        raise InputError(
            f"{path}: no radiograph found (PNG, JPEG, or DICOM of CR or DX). Seen: {'; '.join(seen)}."
        )
    return sorted(cases), notes


def _why_passed_over(file: Path) -> str | None:
    """None for a radiograph, "" for a file that is nothing of the kind, else a reason worth telling."""
    if is_own_output(file):
        return "a file that medseg wrote: results are no cases"
    if is_picture(file):
        return None
    from medseg.dicom.images.projections import why_no_radiograph

    return why_no_radiograph(file)


def _note(why: str, files: list[Path]) -> str:
    return f"{files[0]}: {why}" if len(files) == 1 else f"{len(files)} files, e.g. {files[0]}: {why}"
