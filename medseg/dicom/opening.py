"""The one door through which DICOM files come in: pydicom reads them from a source that counts.

pydicom walks a hole of a sparse file 8 bytes at a time, inflates a deflated file whole, and goes on behind
the pixels. Here elements and bytes are counted against :mod:`medseg.limits`, deflated files are inflated only
as far as they are read, and reading ends with the pixels.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from medseg import limits
from medseg.dicom.plain import Known, read_plain
from medseg.errors import InputError

PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
"""Float Pixel Data, Double Float Pixel Data, Pixel Data."""

CHUNK_BYTES = 1 << 16
ITEM_GROUP = 0xFFFE
UNDEFINED = 0xFFFFFFFF
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


def read_dicom(path: str | os.PathLike, *, pixel_bytes: int | None = None) -> FileDataset:
    """The data set of a DICOM file, with or without preamble, up to the end of its pixel data.

    ``pixel_bytes``: how many bytes the pixels may take as stored; None stops before them. Raises InputError
    for a file above a limit and for one that is no DICOM file, and what pydicom raises for damage
    (:mod:`medseg.dicom.damage`).
    """
    try:
        with open(path, "rb") as file:
            head = file.read(132)
            if not starts_like_dicom(head):
                raise InputError(f"no DICOM file, {no_dicom(head)}")
            file.seek(0)
            return read_open(file, path, pixel_bytes=pixel_bytes)[0]
    except InputError as error:
        raise InputError(f"{path}: {error}.") from error


def starts_like_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file hold the DICM mark, or begin with an element that a data set
    without preamble starts with: low in group 2 or 8."""
    if head[128:132] == b"DICM":
        return True
    starts = [struct.unpack(f"{order}HH", head[:4]) for order in "<>"] if len(head) >= 8 else []
    return any(group in (0x0002, 0x0008) and element <= 0x0018 for group, element in starts)


def no_dicom(head: bytes) -> str:
    """Why a file that does not start so is none, from its first bytes."""
    if not head:
        return "it is empty (0 bytes)"
    return "neither the DICM mark nor a DICOM element stands at its start"


def read_open(
    file: BinaryIO, path: str | os.PathLike, *, pixel_bytes: int | None = None, known: Known | None = None
) -> tuple[FileDataset, Source]:
    """:func:`read_dicom` of an open file, and its source, which stands where reading ended.

    ``known``: values of files read before, see :func:`medseg.dicom.plain.read_plain`.
    """
    if pixel_bytes is None:
        source = Source(file, 0)
        dataset = read_plain(file, cast(BinaryIO, source), PIXEL_TAGS, {} if known is None else known)
        if dataset is not None:
            dataset.filename, dataset.buffer = os.fspath(path), None
            return dataset, source
        file.seek(0)
    prefix = _prefix_of_a_deflated_file(file)
    source = Source(file if prefix is None else _Inflated(file, prefix), pixel_bytes or 0)
    dataset = read_partial(cast(BinaryIO, source), stop_when=_end(pixel_bytes is not None), force=True)
    dataset.filename, dataset.buffer = os.fspath(path), None
    if prefix is not None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    most = limits.most("elements")
    for tag in dataset.keys():
        if tag in PIXEL_TAGS:
            _check_behind(source, dataset.get_item(tag))
        else:
            _check_nested(dataset.get_item(tag), most)
    return dataset, source


def _end(with_pixels: bool) -> Callable[[int, str | None, int], bool]:
    """When pydicom stops: before the pixels, or before whatever follows them.

    It also counts the elements that are in no sequence, of which sound files have hundreds.
    """
    seen, count, most = False, 0, limits.most("elements") // 100

    def is_end(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal seen, count
        count += 1
        if count > most:
            raise InputError(f"over {most} data elements outside sequences; the file is damaged")
        if seen or (tag in PIXEL_TAGS and not with_pixels):
            return True
        seen = tag in PIXEL_TAGS
        return False

    return is_end


class Source:
    """A file to pydicom, which asks for 8 bytes for every element; InputError once a limit is passed.

    Two elements of nothing but zeros in a row never occur: they are a hole of the file.
    """

    def __init__(self, file, pixel_bytes: int) -> None:
        self._file, self._in_a_hole = file, False
        self._elements, self._most_elements = 0, limits.most("elements")
        self._bytes, self._pixel_bytes = 0, pixel_bytes
        self._most_bytes = limits.most("header_bytes") + pixel_bytes
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > CHUNK_BYTES:  # a declared length is not trusted: as much as there is
            left = self._most_bytes - self._bytes + 1
            count = left if count < 0 else min(count, left)
        content = self._file.read(count)
        self._bytes += len(content)
        if self._bytes > self._most_bytes:
            limits.check("header_bytes", self._bytes - self._pixel_bytes, "the file holds, beside its pixels")
        if count == 8:
            self._elements += 1
            if self._elements > self._most_elements:
                limits.check("elements", self._elements, "the file holds")
            hole = content == b"\0\0\0\0\0\0\0\0"
            if hole and self._in_a_hole:
                raise InputError("zeros stand where data elements should; the file is damaged or incomplete")
            self._in_a_hole = hole
        else:
            self._in_a_hole = False
        return content


class _Inflated:
    """``prefix`` and, behind it, what the rest of a file inflates to, as far as somebody reads."""

    def __init__(self, file: BinaryIO, prefix: bytes) -> None:
        self._file, self._inflater = file, zlib.decompressobj(-zlib.MAX_WBITS)
        self._content, self._place = bytearray(prefix), 0

    def read(self, count: int) -> bytes:
        end = self._place + count
        while len(self._content) < end and not self._inflater.eof:
            stored = self._inflater.unconsumed_tail or self._file.read(CHUNK_BYTES)
            if not stored:
                raise EOFError("the deflated data set is cut off")
            self._content += self._inflater.decompress(stored, end - len(self._content))
        content = bytes(self._content[self._place : end])
        self._place += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """From the start, or from where reading stands; never from the end, which is not known."""
        self._place = offset + (self._place if whence == os.SEEK_CUR else 0)
        return self._place

    def tell(self) -> int:
        return self._place


def _prefix_of_a_deflated_file(file: BinaryIO) -> bytes | None:
    """Preamble and file meta information, changed to say that what follows is not deflated; None for other
    files.

    Leaves the file at the first deflated byte, or else at its start.
    """
    if file.read(132)[128:] == b"DICM":
        source = cast(BinaryIO, Source(file, 0))
        meta = read_dataset(source, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            end = file.tell()
            file.seek(0)
            deflated = DeflatedExplicitVRLittleEndian.encode()
            return file.read(end).replace(
                deflated, ExplicitVRLittleEndian.encode().ljust(len(deflated), b"\0")
            )
    file.seek(0)
    return None


def _check_behind(source: Source, pixels) -> None:
    """InputError unless the file ends behind pixels of a declared length, or an element follows that may
    stand there: a private one, or trailing padding or signatures (DICOM PS3.10 7.2, PS3.3 C.12.1.1.3).

    Anything else is pushed there by bytes that were inserted before, which have shifted the pixels; a few
    zeros are left alone, with which some archives fill up.
    """
    if not isinstance(pixels, RawDataElement) or pixels.length in (UNDEFINED, 0):
        return
    source.seek(pixels.value_tell + pixels.length)
    head = source.read(12)[:8]
    if not head.strip(b"\0"):
        return
    group, element = struct.unpack("<HH" if pixels.is_little_endian else ">HH", head[:4].ljust(4, b"\0"))
    is_private = group % 2 == 1 and (pixels.is_implicit_VR or head[4:6].isupper())
    follows = (group << 16 | element) > pixels.tag and (is_private or group in (0x7FE0, 0xFFFA, 0xFFFC))
    if len(head) < 8 or not follows:
        raise InputError(
            "what stands behind the pixels is no data element: bytes were inserted or a length is wrong, and "
            "the pixels are shifted. Copy the file again from where it came"
        )


def _check_nested(element, most: int) -> None:
    """Count the elements inside a sequence that pydicom keeps as bytes until somebody asks for it; InputError
    above ``most``.

    Only in one of enough bytes to hold too many. A header, of a sequence or item too, is one; a sequence's
    content is gone through, any other value is passed over.
    """
    if not isinstance(element, RawDataElement) or len(element.value or b"") <= 8 * most:
        return
    content, place, count = element.value or b"", 0, 0
    order = "<" if element.is_little_endian else ">"
    header = struct.Struct(f"{order}HHI")
    item = header.pack(ITEM_GROUP, 0xE000, 0)[:4]
    if content[:4] != item:
        return
    while place + 12 <= len(content):
        group, _, length = header.unpack_from(content, place)
        long = not element.is_implicit_VR and content[place + 4 : place + 6] in LONG_VRS
        short = not element.is_implicit_VR and not long and content[place + 4 : place + 6].isalpha()
        if group != ITEM_GROUP and long:
            (length,) = struct.unpack_from(f"{order}I", content, place + 8)
        elif group != ITEM_GROUP and short:
            (length,) = struct.unpack_from(f"{order}H", content, place + 6)
        place += 12 if long and group != ITEM_GROUP else 8
        count += 1
        if count > most:
            limits.check("elements", count, "a sequence holds")
        if group != ITEM_GROUP and length != UNDEFINED and content[place : place + 4] != item:
            place += length
