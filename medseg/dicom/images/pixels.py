"""Stored pixels to values: decode, rescale, and lift padding to air."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.codestream import check_codestream
from medseg.dicom.images.frames import decode_frame
from medseg.dicom.images.header import stored_bytes
from medseg.dicom.images.scan import SliceRecord
from medseg.dicom.opening import read_dicom
from medseg.errors import InputError

AIR_HU = -1024.0
"""What padding outside the field of view of a CT is lifted to: the lowest number of the Hounsfield scale in
use."""


def read_slices(records: Sequence[SliceRecord]) -> Iterator[tuple[int, np.ndarray]]:
    """(index in ``records``, float32 [row, column]) of each slice, one file at a time, each file opened once.

    Values are stored * RescaleSlope + RescaleIntercept of that very slice (HU for CT). MONOCHROME1 is a way
    of showing, not of storing: values stay as they are (DICOM PS3.3 C.7.6.3.1.2). InputError names a file
    that cannot be decoded.
    """
    by_file: dict = {}
    for index, record in enumerate(records):
        by_file.setdefault(record.path, []).append(index)
    for path, indices in by_file.items():
        first = records[indices[0]]
        syntax = first.dataset.file_meta.TransferSyntaxUID
        frames = [(records[index].frame or 1) - 1 for index in indices]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for index, stored in zip(indices, _decode(first, frames), strict=True):
                    yield index, _values(stored, records[index])
        except PARSE_ERRORS as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(f"{path}: pixels cannot be decoded ({syntax.name}): {reason}") from error


def _decode(record: SliceRecord, frames: list[int]) -> Iterator[np.ndarray]:
    """Stored integers [row, column] of the frames (from 0) of one file."""
    dataset = read_dicom(record.path, pixel_bytes=stored_bytes(record.dataset))
    if "PixelData" not in dataset:
        # pydicom gives up the whole data set when the end of compressed pixel data is missing.
        raise ValueError("pixel data are cut off")
    if dataset.get("SOPInstanceUID") != record.dataset.SOPInstanceUID:
        raise ValueError("the file has changed since its header was read")
    dataset.file_meta = record.dataset.file_meta
    yield from stored_frames(dataset, frames)


def stored_frames(dataset: Dataset, frames: Sequence[int]) -> Iterator[np.ndarray]:
    """Stored integers [row, column] of frames (from 0) of a data set of one sample per pixel, one at a time.

    Compressed ones are decoded in a process of their own. ValueError, or what pydicom raises, for damage.
    """
    shape = (int(dataset.Rows), int(dataset.Columns))
    count = int(dataset.get("NumberOfFrames") or 1)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        encoded = list(generate_frames(dataset.PixelData, number_of_frames=count))
        for frame in encoded:
            check_codestream(frame, *shape)
        found: Iterator[np.ndarray] = (decode_frame(dataset, encoded[index]) for index in frames)
    else:
        found = iter_pixels(dataset, indices=list(frames), raw=True)
    for stored in found:
        if stored.shape != shape:
            raise ValueError(f"decoded to {stored.shape}, the header says {shape}")
        yield stored


def _values(stored: np.ndarray, record: SliceRecord) -> np.ndarray:
    """float32 values of stored integers. A CT that declares padding below AIR_HU keeps nothing below AIR_HU.

    Everything below is lifted, not only the exact padding value, because lossy compression smears it. Padding
    above AIR_HU is left alone: a careless PixelPaddingValue of 0 must not turn water into air.
    """
    slope, intercept = record.rescale or (1.0, 0.0)
    values = stored * np.float64(slope) + intercept
    if record.dataset.Modality == "CT" and "PixelPaddingValue" in record.dataset:
        padding = _signed_like(stored.dtype, record.dataset["PixelPaddingValue"].value)
        if padding * slope + intercept < AIR_HU:
            values = np.maximum(values, AIR_HU)
    return values.astype(np.float32)


def _signed_like(dtype: np.dtype, padding: int | bytes) -> int:
    """A padding value with the sign of the pixels: some writers store it unsigned beside signed pixels."""
    number = int.from_bytes(padding[:2], "little") if isinstance(padding, bytes) else int(padding)
    return int(np.uint16(number & 0xFFFF).astype(dtype)) if dtype.itemsize == 2 else number
