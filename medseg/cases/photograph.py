"""Photographs (of the back of the eye, above all): colour or grey pictures that a user points at. One reader
for every door.

A photograph has no place in the patient and mostly no size in mm; sizes are then given in pixels. Arrays are
[row, column] and [row, column, colour], upright as any viewer shows the file: a turn that its EXIF data ask
for has been made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.cases.pictures import (
    UPRIGHT,
    file_state,
    grey_values,
    input_record,
    opaque_colours,
    read_picture,
    scaled,
)
from medseg.errors import InputError

if TYPE_CHECKING:  # pydicom is loaded only when a DICOM file is opened: training on JPEG must run without it
    from medseg.dicom.images.photographs import StoredPhotograph

PHOTOGRAPH_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
FEWEST_COLOURS = 32
"""A picture with fewer is a mask or a drawing."""

PIXELS_LOOKED_AT = 20_000
COLOUR_TOLERANCE = 4 / 255
"""How far red, green and blue of a grey picture may differ: JPEG rounds them apart."""

DARK_SHARE = 0.1
"""Outside the field of view a camera's picture is darker than this share of its bright parts."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """``pixels``: float32 [row, column, 3], red, green and blue from 0 to 1; three equal channels where
    ``is_grey``. ``shown``: how the file's numbers became these.

    ``stored``: the DICOM side, None for a picture file.
    """

    source: str
    pixels: np.ndarray
    is_grey: bool
    shown: str
    stored: StoredPhotograph | None = None

    kind = "photograph"
    warnings = ()
    """Nothing is said about a photograph that is taken: what is odd about one is refused."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), which every mask of it has."""
        return self.pixels.shape[:2]

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(between rows, between columns) on the retina as the camera states it, else None."""
        return None if self.stored is None else self.stored.spacing_mm

    def record(self) -> dict[str, Any]:
        """Input UIDs, size and spacing as plain values. No patient names."""
        geometry = {
            "shape_rows_columns": list(self.shape),
            "pixel_spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
        }
        header = None if self.stored is None else self.stored.header
        colour = "grey" if self.is_grey else "colour"
        return {"input": input_record(header, shown=self.shown, colour=colour), "geometry": geometry}

    def size_of(self, mask: np.ndarray) -> dict[str, float | None]:
        """The area of a bool mask, or of a map from 0.5 on, in pixels, and in mm2 where a spacing is
        given."""
        pixels = int(np.count_nonzero(mask >= 0.5))
        mm2 = None if self.spacing_mm is None else pixels * self.spacing_mm[0] * self.spacing_mm[1]
        return {"area_pixels": pixels, "area_mm2": None if mm2 is None else round(mm2, 3)}


def open_photograph(source: str | os.PathLike) -> Photograph:
    """Open a PNG, JPEG, TIFF or DICOM photograph. The last three stay in memory, so that reader and writers
    share one decoding.

    8 bits of grey or colour and 16 bits of grey are taken as they are, a palette is looked up, an opaque
    alpha channel is left out, and of a PNG of 16 bits per colour the upper 8 count. InputError, in one line,
    for CMYK and other colour spaces, transparency, several frames, fewer than 32 colours (a mask), an empty
    or damaged file; see also dicom.images.photographs.read_photograph.
    """
    return _open(os.fspath(source), file_state(source))


@lru_cache(maxsize=3)
def _open(source: str, _state: tuple[int, int]) -> Photograph:
    if is_photograph_file(source):
        pixels, shown = _read_picture(Path(source))
        is_grey = bool(np.ptp(pixels, axis=2).max() <= COLOUR_TOLERANCE)
        return Photograph(source, pixels, is_grey, shown)
    from medseg.dicom.images.photographs import read_photograph

    stored = read_photograph(source)
    return Photograph(source, stored.pixels, stored.is_grey, stored.shown, stored)


def is_photograph_file(path: str | os.PathLike) -> bool:
    """True for names that end in .png, .jpg, .jpeg, .tif or .tiff."""
    return str(path).lower().endswith(PHOTOGRAPH_SUFFIXES)


def _read_picture(path: Path) -> tuple[np.ndarray, str]:
    """(float32 [row, column, 3] in 0..1, in words how)."""
    values, kind, turned = read_picture(path, _upright)
    step = max(1, values.size // PIXELS_LOOKED_AT)
    flat = values.reshape(-1, *values.shape[2:])[::step]
    found = len(np.unique(flat, axis=0))
    if found < FEWEST_COLOURS:
        raise InputError(f"{path}: {found} different colours; a photograph has more (is this a mask?).")
    colours = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    return scaled(colours), f"{kind} as stored{turned}"


def _upright(image, path: Path, turn: int) -> tuple[np.ndarray, str, str]:
    """What _colours gives of the picture turned upright, and in words whether it was."""
    from PIL import ImageOps

    if turn == UPRIGHT:
        return *_colours(image, path), ""
    return *_colours(ImageOps.exif_transpose(image), path), f", turned upright (EXIF orientation {turn})"


def _colours(image, path: Path) -> tuple[np.ndarray, str]:
    """uint8 or uint16 [row, column] of grey, uint8 [row, column, 3] of colour, and their kind in words."""
    grey = grey_values(image, path)
    if grey is not None:
        return grey, f"{8 * grey.dtype.itemsize}-bit grey values"
    if image.mode == "CMYK":
        raise InputError(f"{path}: printing inks (CMYK), not light; save the photograph as RGB.")
    if image.mode not in ("RGB", "RGBA", "LA", "P", "PA"):
        raise InputError(
            f"{path}: pixels of kind {image.mode}; expected grey (8 or 16 bits) or RGB (8 bits)."
        )
    values = opaque_colours(image, path, "save it without alpha channel")
    return values, "upper 8 of 16 bits per colour" if _is_deep_png(path) else "8-bit colours"


def _is_deep_png(path: Path) -> bool:
    """Whether a PNG stores 16 bits per sample, of which Pillow gives the upper 8 of colours."""
    with open(path, "rb") as file:
        head = file.read(25)
    return head[1:4] == b"PNG" and head[24] == 16


def field_of_view(pixels: np.ndarray) -> np.ndarray:
    """bool [row, column]: what the camera saw of the eye, without the dark frame around it.

    ``pixels``: float [row, column, 3]. Pixels that are clearly darker than the bright parts are frame, unless
    they lie inside; of several bright areas (text in a corner) the largest counts. A picture without a dark
    frame is all field of view, and so is one that is dark throughout.
    """
    from scipy import ndimage  # here, because listing the bundles must stay fast

    step = max(1, max(pixels.shape[:2]) // 512)
    light = pixels[::step, ::step].max(axis=2)
    light = ndimage.median_filter(light, 5)
    inside = light > DARK_SHARE * np.percentile(light, 90)
    labels, count = ndimage.label(inside)
    if not count:
        return np.ones(pixels.shape[:2], dtype=bool)
    largest = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    whole = ndimage.binary_fill_holes(largest)
    rows, columns = (
        np.minimum(np.arange(n) // step, m - 1) for n, m in zip(pixels.shape[:2], whole.shape, strict=True)
    )
    return whole[rows[:, None], columns]
