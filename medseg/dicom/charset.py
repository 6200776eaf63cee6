"""Names in any alphabet: a data set whose character set lacks a letter turns to UTF-8, its texts with it."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from pydicom.charset import convert_encodings, encode_string
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medseg.errors import StructureError

UTF_8 = "ISO_IR 192"
TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
"""Value representations that the Specific Character Set governs (DICOM PS3.5 6.1.2.2)."""

ROI_CONTOUR_SEQUENCE = 0x30060039
"""Holds no such text, and may hold a million coordinates that are kept as they stand."""


def can_hold(dataset: Dataset, texts: Collection[str]) -> bool:
    """Whether the character set that a data set states has every letter of the texts; ASCII without one."""
    if all(text.isascii() for text in texts):
        return True
    if not dataset.get("SpecificCharacterSet"):
        return False
    encodings = convert_encodings(dataset.SpecificCharacterSet)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for text in texts:
                encode_string(text, encodings)
    except (UnicodeError, UserWarning):
        return False
    return True


def hold_texts(dataset: Dataset, texts: Collection[str]) -> None:
    """Make sure that the texts can be written into a data set, which is turned to UTF-8 where it has to be.

    Its own texts then are encoded anew and say the same. Texts beyond ASCII without a stated character set
    are taken for UTF-8 where they are that, else for Latin-1. Raises StructureError for a text that even
    UTF-8 does not have.
    """
    if can_hold(dataset, texts):
        return
    _decode(dataset, is_stated=bool(dataset.get("SpecificCharacterSet")))
    dataset.SpecificCharacterSet = UTF_8
    for text in texts:
        if not can_hold(dataset, [text]):
            raise StructureError(f"name {text!r} holds something that is no letter; use letters.")


def unstated_text(text: str) -> str:
    """Text of a file without a character set, which pydicom read as Latin-1, as its writer meant it: mostly
    UTF-8, and Latin-1 text is hardly ever valid UTF-8."""
    try:
        return text if text.isascii() else text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _decode(dataset: Dataset, is_stated: bool) -> None:
    """Replace every text by new elements that hold it decoded, so that writing encodes it again."""
    for tag in [tag for tag in dataset.keys() if tag != ROI_CONTOUR_SEQUENCE]:
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _decode(item, is_stated)
        elif element.VR in TEXT_VRS and element.value:
            several = isinstance(element.value, MultiValue)
            words = [str(value) for value in (element.value if several else [element.value])]
            words = words if is_stated else [unstated_text(word) for word in words]
            dataset[tag] = DataElement(tag, element.VR, words if several else words[0])
