"""Photographs in DICOM: VL Photographic and Ophthalmic Photography, colour or grey, 8 or 16 bits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels
from pydicom.uid import UID

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.codestream import check_codestream
from medseg.dicom.images.frames import decode_frame
from medseg.dicom.images.header import integer, stored_bytes, why_refused
from medseg.dicom.images.single import picture_header, positive_pair, require_a_picture
from medseg.dicom.opening import read_dicom
from medseg.errors import InputError

PHOTOGRAPH_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic",
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "Ophthalmic Photography 8 Bit",
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "Ophthalmic Photography 16 Bit",
    "1.2.840.10008.5.1.4.1.1.7": "secondary capture of modality OP or XC",
}
"""SOP Classes that are read."""

SECONDARY_CAPTURE_CLASS_UID = "1.2.840.10008.5.1.4.1.1.7"
PHOTOGRAPH_MODALITIES = ("OP", "XC")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
GREYS = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True, eq=False)
class StoredPhotograph:
    """One DICOM photograph. ``pixels``: float32 [row, column, 3], red, green, blue from 0 to 1; a grey image
    has three equal channels and ``is_grey``.

    ``header``: without pixels. ``shown``: in words, how stored numbers became colours. ``spacing_mm``:
    (between rows, between columns) as the camera states it, None where it does not.
    """

    header: Dataset = field(repr=False)
    pixels: np.ndarray = field(repr=False)
    is_grey: bool
    shown: str
    spacing_mm: tuple[float, float] | None


def why_no_photograph(path: str | os.PathLike) -> str | None:
    """Why a file is no photograph that :func:`read_photograph` takes, by its header alone; None when it is
    one. "" stands for a file that is not DICOM at all."""
    return why_refused(Path(path), _other_kind)


def _other_kind(header: Dataset) -> str | None:
    kind = str(header.get("SOPClassUID", ""))
    if kind not in PHOTOGRAPH_CLASSES:
        return f"{UID(kind).name or 'no SOP Class'}, not a photograph (VL Photographic, Ophthalmic)"
    modality = str(header.get("Modality", ""))
    if kind == SECONDARY_CAPTURE_CLASS_UID and modality not in PHOTOGRAPH_MODALITIES:
        return f"a secondary capture of modality {modality or 'unknown'}, not of a photograph (OP, XC)"
    return None


def read_photograph(path: str | os.PathLike) -> StoredPhotograph:
    """Read one photograph of a DICOM file.

    Colours are converted to RGB and divided by the largest number of their bits. Grey images (angiography,
    red-free) are stretched between their smallest and largest stored value, MONOCHROME1 is turned over.
    InputError for any other SOP Class, several frames, palettes, a picture of one value, and damage.
    """
    path = Path(path)
    with picture_header(path, _other_kind, _require_known_colours, samples=(1, 3)) as header:
        pixels, shown = _shown(_decoded(path, header), header, path)
        is_grey = header.PhotometricInterpretation in GREYS
        return StoredPhotograph(header, pixels, is_grey, shown, positive_pair(header, "PixelSpacing"))


def _require_known_colours(header: Dataset) -> None:
    kind = str(header.get("PhotometricInterpretation", ""))
    expected = GREYS if integer(header, "SamplesPerPixel") == 1 else COLOURS
    if kind not in expected:
        raise InputError(
            f"PhotometricInterpretation {kind or 'missing'} of {header.SamplesPerPixel} samples; expected "
            f"one of {', '.join(expected)}"
        )


def _decoded(path: Path, header: Dataset) -> np.ndarray:
    """Stored integers [row, column] or, converted to RGB, [row, column, 3]."""
    dataset = read_dicom(path, pixel_bytes=stored_bytes(header))
    samples, rows, columns = (integer(header, name) for name in ("SamplesPerPixel", "Rows", "Columns"))
    try:
        if "PixelData" not in dataset:
            raise ValueError("pixel data are cut off")
        dataset.file_meta = header.file_meta
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            encoded = next(generate_frames(dataset.PixelData, number_of_frames=1))
            check_codestream(encoded, rows, columns, samples)
            stored = decode_frame(dataset, encoded)
        else:
            stored = next(iter_pixels(dataset, indices=[0], raw=samples == 1))
        expected = (rows, columns) if samples == 1 else (rows, columns, samples)
        if stored.shape != expected:
            raise ValueError(f"decoded to {stored.shape}, the header says {expected}")
        return stored
    except PARSE_ERRORS as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        name = header.file_meta.TransferSyntaxUID.name
        raise InputError(f"{path}: pixels cannot be decoded ({name}): {reason}") from error


def _shown(stored: np.ndarray, header: Dataset, path: Path) -> tuple[np.ndarray, str]:
    low, high = int(stored.min()), int(stored.max())
    require_a_picture(low, high, path)
    bits = integer(header, "BitsStored")
    if stored.ndim == 3:
        return stored.astype(np.float32) / np.float32(2**bits - 1), f"{bits}-bit colours"
    grey = (stored.astype(np.float32) - low) / np.float32(high - low)
    words = f"{bits}-bit grey values from {low} to {high}"
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey, words = 1 - grey, f"{words}, MONOCHROME1 turned over"
    return np.repeat(grey[..., None], 3, axis=2), words
