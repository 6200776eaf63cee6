"""Whether the sequences of a DICOM file end where their lengths say (PS3.5 7.5).

pydicom trusts a length and reads on: an item whose length runs beyond its sequence swallows the items behind
it, and contours are gone without a word. Here every item has to end within its sequence, every element within
its item.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from pydicom.datadict import dictionary_VR
from pydicom.dataset import FileDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medseg.errors import InputError

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Value representations whose length takes four bytes in Explicit VR (DICOM PS3.5 7.1.2)."""

HEADERS = {order: tuple(struct.Struct(f"{order}{parts}") for parts in ("HHI", "I", "H")) for order in "<>"}
"""{byte order: (header of an element in Implicit VR, length of four bytes, of two)}"""

MOST_LEVELS = 16
"""Sequences in sequences; a structure set has four."""


def check_nesting(path: Path, dataset: FileDataset, tags: Collection[int]) -> None:
    """Raise InputError unless every item and element in the top-level sequences ``tags`` ends in its place.

    ``dataset``: as pydicom read it from ``path``, for its encoding. Other elements must end within the file.
    Deflated files are not looked into.
    """
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian or path.stat().st_size == 0:
        return
    implicit, little = dataset.original_encoding
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            start = _after_file_meta(content)
            _Walk(content, "<" if little else ">", frozenset(tags)).elements(
                start, len(content), bool(implicit), 0
            )
        except struct.error as error:
            raise InputError("the file ends within an element; it is cut off") from error


def _after_file_meta(content: mmap.mmap) -> int:
    place = 132 if content[128:132] == b"DICM" else 0
    while content[place : place + 2] == b"\x02\x00":
        implicit = not says_its_vr(content, place)
        _, value, _, length = _header(content, place, "<", implicit)
        place = value + length
    return place


def says_its_vr(content: mmap.mmap | bytes, place: int) -> bool:
    """Whether two capital letters follow the tag at ``place``: so pydicom tells Explicit VR from Implicit."""
    vr = content[place + 4 : place + 6]
    return vr.isalpha() and vr.isupper()


def _header(
    content: mmap.mmap | bytes, place: int, order: str, implicit: bool
) -> tuple[int, int, bytes, int]:
    """(tag, where its value starts, value representation, length) of the element at ``place``."""
    implicit_header, long_length, short_length = HEADERS[order]
    group, number, length = implicit_header.unpack_from(content, place)
    tag = group << 16 | number
    if implicit or group == 0xFFFE:
        return tag, place + 8, b"", length
    vr = content[place + 4 : place + 6]
    if vr in LONG_VRS:
        return tag, place + 12, vr, long_length.unpack_from(content, place + 8)[0]
    if not b"AA" <= vr <= b"ZZ":  # which pydicom takes for the length of an element in Implicit VR
        return tag, place + 8, b"", length
    return tag, place + 8, vr, short_length.unpack_from(content, place + 6)[0]


def end_of_sequence(content: bytes, place: int, implicit: bool) -> int:
    """Where the sequence of undefined length ends whose first item stands at ``place``, in Little Endian.

    Behind its delimiter; InputError or struct.error where an item or element does not end in its place.
    """
    return _Walk(content, "<", frozenset()).items(place, len(content), implicit, 1, delimited=True)


@lru_cache(maxsize=4096)
def is_sequence(tag: int) -> bool:
    """Whether DICOM's dictionary knows the tag as a sequence."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


class _Walk:
    """Goes through the elements of one file; ``tags``: the top-level sequences to go into."""

    def __init__(self, content: mmap.mmap | bytes, order: str, tags: frozenset[int]):
        self.content, self.order, self.tags = content, order, tags

    def elements(self, place: int, end: int, implicit: bool, level: int, delimited: bool = False) -> int:
        """Where the elements from ``place`` end: at ``end``, or ``delimited``, after the item's delimiter."""
        while place < end:
            tag, value, vr, length = _header(self.content, place, self.order, implicit)
            if delimited and tag == ITEM_END:
                return value
            if tag >> 16 == 0xFFFE:
                raise InputError(f"an item or delimiter stands among elements, at byte {place}")
            if length == UNDEFINED:
                place = self.items(value, end, implicit, level + 1, delimited=True)
                continue
            if value + length > end:
                what = f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) at byte {place} is {length} bytes long"
                raise InputError(f"{what}, {value + length - end} more than there is room for")
            wanted = level or tag in self.tags
            if length and wanted and (vr == b"SQ" or not vr and is_sequence(tag)):
                self.items(value, value + length, implicit, level + 1)
            place = value + length
        if delimited:
            raise InputError(f"an item has no end before byte {end}")
        return place

    def items(self, place: int, end: int, implicit: bool, level: int, delimited: bool = False) -> int:
        """Where the items of a sequence end."""
        if level > MOST_LEVELS:
            raise InputError(f"sequences are nested more than {MOST_LEVELS} deep")
        while place < end:
            tag, value, _, length = _header(self.content, place, self.order, implicit)
            if tag == SEQUENCE_END:
                if delimited or value == end:
                    return value
            if tag != ITEM:
                raise InputError(f"no item where one is expected, at byte {place} of a sequence")
            if length != UNDEFINED and value + length > end:
                beyond = value + length - end
                raise InputError(f"the item at byte {place} runs {beyond} bytes beyond its sequence")
            # As pydicom reads them: a file in Explicit VR may hold items in Implicit VR, never the other way.
            own = implicit or not says_its_vr(self.content, value)
            if length == UNDEFINED:
                place = self.elements(value, end, own, level, delimited=True)
            else:
                place = self.elements(value, value + length, own, level)
        if delimited:
            raise InputError(f"a sequence has no end before byte {end}")
        return place
