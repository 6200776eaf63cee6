"""The header of a plain image file from one block of bytes, and values that a stack repeats converted once.

pydicom asks the file twice for each element and makes every value of every slice anew. Here a scan takes a
third of that time, by which a stack is read with its contours twice as fast as by plastimatch
(tools/benchmarks/rtstruct/run.py times; docs/reference/benchmark_rtstruct.md). What is not plain is left to
pydicom: it says what is wrong.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, MutableSequence
from functools import lru_cache
from typing import BinaryIO, cast

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element, empty_value_for_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from medseg import limits
from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.nesting import UNDEFINED, end_of_sequence, is_sequence, says_its_vr
from medseg.errors import InputError

BLOCK_BYTES = 1 << 14
"""Read at once; a slice's header is 1 to 4 KiB long."""

START = 132
"""Preamble and DICM mark."""


@lru_cache(maxsize=4096)
def _tag(number: int) -> BaseTag:
    """The same object for the same tag: pydicom compares others in Python."""
    return BaseTag(number)


@lru_cache(maxsize=4096)
def tag_of(keyword: str) -> BaseTag:
    """The tag of an attribute that DICOM's dictionary names."""
    return _tag(cast(int, tag_for_keyword(keyword)))


SEQUENCE_DELIMITER, CHARACTER_SET_BYTES = b"\xfe\xff\xdd\xe0\0\0\0\0", b"\x08\0\x05\0"
META_LENGTH, TRANSFER_SYNTAX, CHARACTER_SET = _tag(0x00020000), _tag(0x00020010), _tag(0x00080005)
VRS = {vr.value.encode(): (vr.value, vr in EXPLICIT_VR_LENGTH_32) for vr in VR if len(vr.value) == 2}
"""{as stored in Explicit VR: (as pydicom writes it, whether its length takes four bytes)}"""

REPEATED = [
    tag_of(keyword)
    for keyword in (
        "AccessionNumber BitsAllocated BitsStored Columns DeidentificationMethod FrameOfReferenceUID HighBit "
        "LossyImageCompression Modality NumberOfFrames PatientBirthDate PatientID PatientIdentityRemoved "
        "PatientName PatientSex PhotometricInterpretation PixelRepresentation PositionReferenceIndicator "
        "ReferringPhysicianName RescaleIntercept RescaleSlope RescaleType Rows SamplesPerPixel "
        "SeriesDescription SeriesInstanceUID SOPClassUID StudyDate StudyDescription StudyID StudyInstanceUID "
        "StudyTime Units"
    ).split()
]
"""Attributes that are read of every slice and have mostly the same value in all."""

Elements = dict[BaseTag, RawDataElement | DataElement]

Known = dict[object, dict[tuple, tuple[str, object]]]
"""{character set and encoding: {element as stored: its value representation and value}} of files that were
read before."""


class _NotPlain(Exception):
    """The bytes are not what this short reader knows."""


def read_plain(
    file: BinaryIO, source: BinaryIO, pixel_tags: frozenset[int], known: Known
) -> FileDataset | None:
    """The data set before the pixels of a file that stands at its start, as pydicom's read_partial makes it.

    ``source``: the file, counting; it then stands at the pixels. ``known``: values are taken from here, and
    new ones are added. None for all but files with DICM mark in a Little Endian syntax of the standard whose
    tags ascend and whose pixels begin within BLOCK_BYTES: whoever asked has to read from the start again.

    Sequences without a length are converted when they are asked for, as pydicom does with the others: in
    Implicit VR their US or SS values then have the sign of the pixels, where pydicom takes all for US.
    """
    content = file.read(BLOCK_BYTES)
    if content[START - 4 : START] != b"DICM":
        return None
    try:
        return _read(content, source, pixel_tags, known)
    except (_NotPlain, InputError, *PARSE_ERRORS):
        return None


def _read(content: bytes, source: BinaryIO, pixel_tags: frozenset[int], known: Known) -> FileDataset:
    place = START
    meta: Elements = {}
    while content[place : place + 2] == b"\x02\x00":
        element, place = _element(content, place, False)
        meta[element.tag] = element
    file_meta = FileMetaDataset(meta)
    file_meta.set_original_encoding(False, True, default_encoding)
    _settle(file_meta, meta, (META_LENGTH, TRANSFER_SYNTAX), known.setdefault(None, {}))
    implicit = _is_implicit(file_meta)
    length_is_sound = isinstance(meta.get(META_LENGTH), DataElement)
    if not length_is_sound or implicit and says_its_vr(content, place):
        raise _NotPlain
    elements, place = _elements(content, place, implicit, pixel_tags)
    # The limits are kept by whoever reads this file again, from its start.
    if place > limits.most("header_bytes") or len(elements) >= limits.most("elements") // 100:
        raise _NotPlain
    source.seek(place)
    dataset = FileDataset(source, elements, content[: START - 4], file_meta, implicit, True)
    dataset.set_original_encoding(implicit, True, _encoding(elements))
    character_set = elements[CHARACTER_SET].value if CHARACTER_SET in elements else None
    _settle(dataset, elements, REPEATED, known.setdefault((character_set, implicit), {}))
    return dataset


def _is_implicit(file_meta: FileMetaDataset) -> bool:
    """Whether the transfer syntax is Implicit VR Little Endian, and not Explicit VR Little Endian as in all
    others that are read here: those of the standard but two."""
    syntax = file_meta[TRANSFER_SYNTAX].value
    is_of_standard = syntax.startswith(ImplicitVRLittleEndian)
    if not is_of_standard or syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        raise _NotPlain
    return syntax == ImplicitVRLittleEndian


def _elements(content: bytes, place: int, implicit: bool, pixel_tags: frozenset[int]) -> tuple[Elements, int]:
    """({tag: element}, where the first of ``pixel_tags`` stands)."""
    elements: Elements = {}
    last = _tag(0)
    while True:
        element, after = _element(content, place, implicit)
        if element.tag in pixel_tags:
            return elements, place
        if not last < element.tag:  # pydicom reads sequences by the character set that stands before them
            raise _NotPlain
        last = element.tag
        if element.length == UNDEFINED and (element.VR == "SQ" or implicit and is_sequence(element.tag)):
            after = end_of_sequence(content, element.value_tell, implicit)
            items = content[element.value_tell : after - len(SEQUENCE_DELIMITER)]
            ends_well = content[after - len(SEQUENCE_DELIMITER) : after] == SEQUENCE_DELIMITER
            if not ends_well or CHARACTER_SET_BYTES in items:
                raise _NotPlain
            element = element._replace(value=items)
        elif element.length == UNDEFINED or after > len(content):
            raise _NotPlain
        elements[element.tag] = element
        place = after


def _element(content: bytes, place: int, implicit: bool) -> tuple[RawDataElement, int]:
    """The element at a place, and where it ends by its length."""
    if implicit:
        vr, (group, number, length) = None, _IMPLICIT.unpack_from(content, place)
        start = place + 8
    else:
        group, number, stored_vr, length = _EXPLICIT.unpack_from(content, place)
        if stored_vr not in VRS:
            raise _NotPlain
        vr, is_long = VRS[stored_vr]
        start = place + 8
        if is_long:
            (length,), start = _LENGTH.unpack_from(content, start), place + 12
    if group in (0, 0xFFFE):
        raise _NotPlain
    value = (
        content[start : start + length] if length else cast(bytes | None, empty_value_for_VR(vr, raw=True))
    )
    tag = _tag(group << 16 | number)
    return RawDataElement(tag, vr, length, value, start, implicit, True), start + length


_IMPLICIT, _EXPLICIT, _LENGTH = struct.Struct("<HHI"), struct.Struct("<HH2sH"), struct.Struct("<I")


def _encoding(elements: Elements) -> str | list[str]:
    """The Python encodings of a data set's text, as pydicom finds them."""
    stored = elements.get(CHARACTER_SET)
    if not isinstance(stored, RawDataElement):
        return default_encoding
    if stored.VR not in (None, "CS"):
        raise _NotPlain
    return convert_encodings(convert_raw_data_element(stored).value)


def _settle(dataset: Dataset, elements: Elements, tags: Iterable[BaseTag], known: dict) -> None:
    """Convert those of a data set's own ``elements`` that have one of the ``tags``, each in a new object, by
    ``known`` where the same was seen before.

    Damaged ones stay as they are, so that whoever asks for them is told. A list may be changed in its place,
    so that none is shared.
    """
    for tag in tags:
        raw = elements.get(tag)
        if not isinstance(raw, RawDataElement):
            continue
        as_stored = tag, raw.VR, raw.value
        if as_stored in known:
            vr, value = known[as_stored]
            elements[tag] = DataElement(tag, vr, value, raw.value_tell, already_converted=True)
            continue
        try:
            element = dataset[tag]
        except PARSE_ERRORS:
            continue
        if not isinstance(element.value, MutableSequence):
            known[as_stored] = element.VR, element.value


def value_of(dataset: Dataset, keyword: str, default: object = None):
    """``dataset.get(keyword, default)`` in a fifth of its time, once the value is converted."""
    tag = tag_of(keyword)
    element = dataset.get_item(tag)
    if element is None:
        return default
    return dataset[tag].value if isinstance(element, RawDataElement) else element.value


def plain_decimals(dataset: Dataset, keyword: str) -> list[float] | None:
    """The finite numbers of a decimal string (VR DS) that pydicom has not converted yet, six in the time of
    one of its objects.

    None where it has, and for anything but decimals.
    """
    raw = dataset.get_item(tag_of(keyword))
    if not isinstance(raw, RawDataElement) or raw.VR not in (None, "DS") or not raw.value:
        return None
    text = raw.value.rstrip(b" \0")
    if text.translate(None, b"0123456789.+-eE\\"):
        return None
    try:
        numbers = [float(part) for part in text.split(b"\\")]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
