"""Radiographs: flat pictures (PNG, JPEG, CR and DX) that a user points at, opened as grey values. One reader
for every door.

A radiograph has no slices, no place in the patient and often no pixel spacing, so it is no
:class:`medseg.cases.volume.Case`. What is not known stays unknown: sizes are then given in pixels. Arrays are
[row, column], the patient's right on the viewer's left.
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

if TYPE_CHECKING:  # pydicom is loaded only when a DICOM file is opened: training on PNG must run without it
    from medseg.dicom.images.projections import Projection

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
FEWEST_GREY_VALUES = 32
"""A picture with fewer is a mask or a drawing; a radiograph of 8 bits has over a hundred."""

COLOUR_TOLERANCE = 4
"""How far red, green and blue of a grey picture may differ, of 255: JPEG rounds them apart."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """``pixels``: float32 [row, column], 0 (black) to 1 (white, dense). ``shown``: how the file's numbers
    became grey.

    ``stored``: the DICOM side, None for a picture file, which says nothing of spacing or patient.
    """

    source: str
    pixels: np.ndarray
    shown: str
    stored: Projection | None = None

    kind = "radiograph"
    warnings = ()
    """Nothing is said about a radiograph that is taken: what is odd about one is refused."""

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(between rows, between columns), None where the file does not say."""
        return None if self.stored is None else self.stored.spacing_mm

    @property
    def spacing_from(self) -> str:
        """Where the spacing comes from and holds; "" where it is not known."""
        return "" if self.stored is None else self.stored.spacing_from

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), which every mask of it has."""
        return self.pixels.shape

    def record(self) -> dict[str, Any]:
        """Input UIDs, size and spacing as plain values. No patient names."""
        geometry = {
            "shape_rows_columns": list(self.pixels.shape),
            "pixel_spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "spacing_from": self.spacing_from or "not known",
        }
        header = None if self.stored is None else self.stored.header
        return {"input": input_record(header, shown=self.shown), "geometry": geometry}

    def size_of(self, mask: np.ndarray) -> dict[str, float | None]:
        """The area of a bool mask, or of a map from 0.5 on, in pixels, and in cm2 where the file gives a
        spacing."""
        pixels = int(np.count_nonzero(mask >= 0.5))
        cm2 = None if self.spacing_mm is None else pixels * self.spacing_mm[0] * self.spacing_mm[1] / 100
        return {"area_pixels": pixels, "area_cm2": None if cm2 is None else round(cm2, 2)}


def open_radiograph(source: str | os.PathLike) -> Radiograph:
    """Open a PNG, JPEG, CR or DX file. The last three stay in memory, so that reader and writers share one
    decoding.

    InputError, in one line, for anything that is not one grey picture; see also
    dicom.projections.read_projection.
    """
    return _open(os.fspath(source), file_state(source))


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
    values = read_picture(path, _grey_values)
    found = len(np.unique(values))
    if found < FEWEST_GREY_VALUES:
        raise InputError(f"{path}: {found} different grey values; a radiograph has more (is this a mask?).")
    return scaled(values), 8 * values.dtype.itemsize


def _grey_values(image, path: Path, turn: int) -> np.ndarray:
    """uint8 or uint16 [row, column]; InputError for colour, transparency and other kinds of pixels, and for a
    picture that lies on its side."""
    if turn != UPRIGHT:
        raise InputError(f"{path}: the file asks for turning (EXIF orientation); save it upright first.")
    grey = grey_values(image, path)
    if grey is not None:
        return grey
    if image.mode not in ("RGB", "RGBA", "LA", "P"):
        raise InputError(f"{path}: pixels of kind {image.mode}; expected 8 or 16 bits of grey.")
    colours = opaque_colours(image, path, "expected opaque grey").astype(np.int16)
    if np.ptp(colours, axis=2).max() > COLOUR_TOLERANCE:
        raise InputError(f"{path}: the picture is coloured; expected a grey radiograph.")
    return colours[..., 1].astype(np.uint8)
