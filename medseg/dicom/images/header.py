"""The header of one DICOM file: what kind of object it is, and whether its pixels follow it whole."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from medseg import limits
from medseg.dicom.damage import PARSE_ERRORS, reading_failed
from medseg.dicom.opening import Source, no_dicom, read_open, starts_like_dicom
from medseg.dicom.plain import Known, value_of
from medseg.errors import InputError

SLICE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
    "1.2.840.10008.5.1.4.1.1.130": "PT",
    "1.2.840.10008.5.1.4.1.1.128.1": "PT",
}
"""SOP Classes of tomographic slices: CT, MR and PET; plain, enhanced multi-frame and legacy-converted
enhanced."""

MODALITIES = frozenset(SLICE_CLASSES.values())

MULTI_FRAME_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2.1", "2.2", "4.1", "4.4", "130", "128.1")
)
"""Those of SLICE_CLASSES that keep the place of each frame in functional groups (DICOM PS3.3 C.7.6.16)."""

PROJECTION_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",
    "1.2.840.10008.5.1.4.1.1.1.2": "MG",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
    "1.2.840.10008.5.1.4.1.1.481.1": "RTIMAGE",
}
"""SOP Classes of projection radiographs: pictures without a place in the patient."""

OTHER_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}
"""SOP Classes of the standard (2024) that pydicom does not name yet."""

RTSTRUCT_CLASS_UID = "1.2.840.10008.5.1.4.1.1.481.3"

SPATIAL_REGISTRATION_UID = "1.2.840.10008.5.1.4.1.1.66.1"
DEFORMABLE_REGISTRATION_UID = "1.2.840.10008.5.1.4.1.1.66.3"
REGISTRATION_CLASSES = (SPATIAL_REGISTRATION_UID, DEFORMABLE_REGISTRATION_UID)
"""SOP Classes of registration objects; see :mod:`medseg.dicom.registration`."""


MOST_RUN_LENGTH_GAIN = 64
"""Two bytes stand for at most 128 (DICOM PS3.5 G.3.1)."""


class PixelElement(NamedTuple):
    """Pixel data: ``length`` as declared (None: encapsulated), ``available`` bytes up to the end of the
    file."""

    length: int | None
    available: int


def read_header(path: Path, known: Known | None = None) -> tuple[Dataset | None, PixelElement | None]:
    """(header, pixel element). Header None: not DICOM. Pixel element None: the file ends without pixel
    data.

    ``known``: values of other files of the same scan, see :func:`medseg.dicom.plain.read_plain`.
    """
    with open(path, "rb") as file:
        head = file.read(132)
        part10 = head[128:132] == b"DICM"
        if not starts_like_dicom(head):
            if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
                raise InputError(f"named as DICOM, but {no_dicom(head)}")
            return None, None
        file.seek(0)
        dataset, source = read_open(file, path, known=known)
        if not part10 and not _is_known(dataset):
            raise InputError("no DICM mark, and what follows is no object that DICOM knows either")
        _ensure_transfer_syntax(dataset)
        deflated = dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        # Inside a deflated file the position says nothing; its pixels are checked when they are read.
        pixels = PixelElement(None, 1) if deflated else _pixel_element(source, file, dataset)
    return dataset, pixels


def why_refused(path: Path, other_kind: Callable[[Dataset], str | None]) -> str | None:
    """Why a file is not of the kind that a reader takes, by its header alone: what ``other_kind`` says of it,
    or what is damaged; None when it is of that kind, "" for a file that is not DICOM at all."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header, _ = read_header(path)
            return "" if header is None else other_kind(header)
    except InputError as error:
        return str(error)
    except PARSE_ERRORS as error:
        return reading_failed(error)


def class_name(sop_class: str) -> str:
    """The name of a SOP Class; the UID itself where nobody knows it."""
    return OTHER_CLASSES.get(sop_class, UID(sop_class).name)


def _is_known(dataset: Dataset) -> bool:
    """Whether a data set without DICM mark is an object of a known class; one that calls itself CT, MR or PET
    under the class of something else may be a damaged slice."""
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class in {*SLICE_CLASSES, *PROJECTION_CLASSES, *REGISTRATION_CLASSES, RTSTRUCT_CLASS_UID}:
        return True
    return class_name(sop_class) != sop_class and str(dataset.get("Modality", "")) not in MODALITIES


def _ensure_transfer_syntax(dataset: Dataset) -> None:
    """Write down the encoding that pydicom recognised where the file itself does not name a transfer
    syntax."""
    meta = getattr(dataset, "file_meta", None)
    if meta is None:
        meta = dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian


def _pixel_element(source: Source, file: BinaryIO, dataset: Dataset) -> PixelElement | None:
    """The pixel data element that starts where pydicom stopped reading; None when there is none."""
    start = source.tell()
    element = source.read(12)
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    if len(element) < 12 or struct.unpack(f"{order}HH", element[:4]) != (0x7FE0, 0x0010):
        return None
    implicit = dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    (length,) = struct.unpack(f"{order}I", element[4:8] if implicit else element[8:12])
    available = os.fstat(file.fileno()).st_size - start - (8 if implicit else 12)
    return PixelElement(None if length == 0xFFFFFFFF else length, available)


def require_pixels(dataset: Dataset, pixels: PixelElement | None, samples: tuple[int, ...] = (1,)) -> None:
    """InputError unless one image (or its frames) of a known size follows the header, whole where that shows.

    ``samples``: how many per pixel are taken: 1 is grey, 3 is colour.
    """
    if pixels is None:
        raise InputError("no pixel data (the file may be cut off)")
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    found, bits = integer(dataset, "SamplesPerPixel"), integer(dataset, "BitsAllocated")
    frames = integer(dataset, "NumberOfFrames", 1)
    size = f"{rows} rows x {columns} columns x {frames} frames"
    if min(rows, columns, frames) < 1:
        raise InputError(f"{size}; each must be at least 1")
    if found not in samples or bits not in (8, 16, 32):
        wanted = "1 grey sample" if samples == (1,) else f"{' or '.join(map(str, samples))} samples"
        raise InputError(f"{found} samples of {bits} bits per pixel; expected {wanted} of 8, 16 or 32 bits")
    if integer(dataset, "PixelRepresentation", 0) not in (0, 1):
        raise InputError(f"PixelRepresentation {dataset.PixelRepresentation}; expected 0 or 1")
    stored = integer(dataset, "BitsStored", bits)
    high = integer(dataset, "HighBit", stored - 1)
    if not 0 < stored <= bits or high != stored - 1:  # PS3.3 C.7.6.3.1
        raise InputError(
            f"BitsStored {stored} and HighBit {high} in {bits} bits; expected HighBit one below BitsStored"
        )
    limits.check("picture_pixels", rows * columns, f"{rows} rows x {columns} columns")
    limits.check(
        "volume_voxels", rows * columns * frames, f"{rows} rows x {columns} columns x {frames} frames"
    )
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if compressed != (pixels.length is None) and pixels.available > 1:
        raise InputError(
            f"pixel data do not fit the transfer syntax ({dataset.file_meta.TransferSyntaxUID.name})"
        )
    half = value_of(dataset, "PhotometricInterpretation") == "YBR_FULL_422"  # two pixels share their colour
    needed = rows * columns * frames * bits * (2 if half else found) // 8
    is_rle = dataset.file_meta.TransferSyntaxUID == RLELossless
    if is_rle and needed > MOST_RUN_LENGTH_GAIN * pixels.available:
        raise InputError(
            f"{pixels.available} bytes of run lengths cannot hold {size} of {bits} bits; the file is damaged"
        )
    if not compressed and pixels.length is not None and min(pixels.length, pixels.available) < needed:
        raise InputError(
            f"pixel data cut off: {min(pixels.length, pixels.available)} bytes, expected {needed} "
            f"({rows} x {columns} x {frames} of {bits} bits)"
        )


def stored_bytes(header: Dataset) -> int:
    """At most so many bytes are the pixels of a header in its file: twice what they hold, since compressed
    noise grows, and room for the tables of every frame."""
    frames = integer(header, "NumberOfFrames", 1)
    pixels = integer(header, "Rows") * integer(header, "Columns") * frames
    pixels *= integer(header, "SamplesPerPixel", 1)
    return 2 * pixels * integer(header, "BitsAllocated") // 8 + frames * (1 << 16)


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value = value_of(dataset, keyword)
    if value is None or value == "":
        if default is None:
            raise InputError(f"no {keyword} (the header may be cut off)")
        return default
    if not isinstance(value, int):
        raise InputError(f"{keyword} {str(value)[:60]!r}; expected one whole number")
    return int(value)
