"""What photographs and radiographs share: one picture in one file, and the pictures written of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from medseg import limits
from medseg.errors import InputError, sizes, unusable
from medseg.files import atomic_path

if TYPE_CHECKING:  # both are loaded only where a picture is opened or written
    from PIL.Image import Image
    from pydicom.dataset import Dataset

Decoded = TypeVar("Decoded")

ORIENTATION_TAG, UPRIGHT = 0x0112, 1
"""Of EXIF data: which way up a viewer shows the file."""

GREY_16_BITS = ("I;16", "I;16L", "I;16B", "I")
"""Pillow's names of such pixels."""


def file_state(source: str | os.PathLike) -> tuple[int, int]:
    """(time, size) of a file, by which what was decoded of it is kept. InputError when it is missing or
    empty."""
    path = Path(source)
    if not path.is_file():
        raise unusable(path, "a picture")
    state = path.stat()
    if not state.st_size:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again.")
    return state.st_mtime_ns, state.st_size


def read_picture(path: Path, values_of: Callable[[Image, Path, int], Decoded]) -> Decoded:
    """What ``values_of(image, path, EXIF orientation)`` takes from a picture file of one frame. InputError,
    in one line, for a picture that is too large, of several frames, or that cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            limits.check("picture_pixels", width * height, f"{path}: a picture of {height} x {width}")
            if getattr(image, "n_frames", 1) != 1:
                raise InputError(f"{path}: {image.n_frames} frames; expected one picture.")
            return values_of(image, path, image.getexif().get(ORIENTATION_TAG, UPRIGHT))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path}: the picture cannot be read ({' '.join(str(error).split())[:120]})."
        ) from error


def grey_values(image: Image, path: Path) -> np.ndarray | None:
    """uint8 or uint16 [row, column] of a picture of plain grey, None of any other. InputError for numbers of
    more than 16 bits."""
    if image.mode == "L":
        return np.asarray(image)
    if image.mode not in GREY_16_BITS:
        return None
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: values {values.min()} to {values.max()}; expected 16 bits.")
    return values.astype(np.uint16)


def read_bit_field(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers [row, column] of a label picture whose bits are structures. InputError for a picture that
    cannot be read, of colours, and of another size than ``shape``."""

    def values_of(image: Image, path: Path, _orientation: int) -> np.ndarray:
        values = np.asarray(image)
        if values.ndim != 2 or values.dtype.kind not in "biu":
            raise InputError(f"{path}: mode {image.mode}; expected a label of one whole number per pixel.")
        if values.shape != shape:
            raise InputError(
                f"{path}: a label of {sizes(values.shape)} on an image of {sizes(shape)} pixels."
            )
        return values.astype(np.int64)

    return read_picture(path, values_of)


def opaque_colours(image: Image, path: Path, instead: str) -> np.ndarray:
    """uint8 [row, column, 3] of colours, of a palette, and beside an alpha channel that hides nothing;
    InputError with ``instead`` where one does."""
    parts = np.asarray(image.convert("RGBA"))
    if parts[..., 3].min() < 255:
        raise InputError(f"{path}: the picture is partly transparent; {instead}.")
    return parts[..., :3]


def scaled(values: np.ndarray) -> np.ndarray:
    """float32, 0 to 1 for none to all bits of unsigned integers."""
    return values.astype(np.float32) / np.float32(2 ** (8 * values.dtype.itemsize) - 1)


def input_record(header: Dataset | None, **known: Any) -> dict[str, Any]:
    """What run.json says of the file: ``header`` of DICOM, None of a picture file; ``known`` besides. No
    patient names."""
    if header is None:
        return {"kind": "picture", "files": 1, **known}
    keywords = ("StudyInstanceUID", "SeriesInstanceUID")
    return {
        "kind": "DICOM",
        "modality": str(header.get("Modality", "")),
        **{keyword: str(header.get(keyword, "")) for keyword in keywords},
        "SOPInstanceUIDs": [str(header.get("SOPInstanceUID", ""))],
        **known,
    }


def write_mask_png(mask: np.ndarray, out: str | Path) -> Path:
    """Write a bool mask [row, column] as an 8-bit grey PNG of 0 and 255, atomically."""
    return _write_png(mask.astype(np.uint8) * 255, out)


def write_probability_png(probability: np.ndarray, out: str | Path) -> Path:
    """Write probabilities [row, column] as a grey PNG of 16 bits, 0 to 65535 for 0 to 1, atomically."""
    return _write_png(np.rint(np.clip(probability, 0, 1) * 65535).astype(np.uint16), out)


def _write_png(values: np.ndarray, out: str | Path) -> Path:
    from PIL import Image

    with atomic_path(out) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")
    return Path(out)
