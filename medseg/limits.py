"""How large an input may be, in one table. What a file declares is compared with it before anything is
allocated, and what a stream gives is counted.

A file of a megabyte can ask for terabytes: by a header that says 65535 x 65535 pixels, by a compressed stream
of zeros, by a hole in a sparse file. The defaults are several times what clinics have; the environment
variable ``MEDSEG_LIMIT_<NAME>`` (``MEDSEG_LIMIT_VOLUME_VOXELS=2000000000``) changes one for a sound file that
is larger.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from medseg.errors import InputError


class Limit(NamedTuple):
    """``most``: the default. ``unit``: what is counted, for messages."""

    most: int
    unit: str


LIMITS = {
    "volume_voxels": Limit(2**29, "voxels"),  # 512 x 512 x 2048, 2 GiB as float32
    "picture_pixels": Limit(2**26, "pixels"),  # 8192 x 8192: one slice, one radiograph
    "header_bytes": Limit(2**28, "bytes"),  # of a DICOM file beside its pixels; a structure set whole
    "elements": Limit(2_000_000, "data elements"),  # of a DICOM file, nested ones included
    "crossings": Limit(2**24, "crossings of outlines and lines"),  # of one slice of a structure
    "text_bytes": Limit(2**26, "bytes"),  # of a JSON file
    "table_bytes": Limit(2**32, "bytes"),  # of a table of records, packed and unpacked
    "trailing_bytes": Limit(2**20, "bytes"),  # behind the voxels of a compressed NIfTI file
    "margin_mm": Limit(300, "mm"),  # of a margin, gap or inset: several times the widest in use
    "decode_seconds": Limit(60, "seconds"),  # for one compressed image
    "decode_bytes": Limit(2**32, "bytes"),  # of memory for the decoder's process
}
"""What is limited, by name. docs/reference/limits.md says what each is for."""


def most(name: str) -> int:
    """The limit of that name: its environment variable, else its default.

    InputError when the variable is not a whole number of at least 1.
    """
    variable = f"MEDSEG_LIMIT_{name.upper()}"
    text = os.environ.get(variable, "").strip()
    if not text:
        return LIMITS[name].most
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{variable} is {text[:40]!r}; expected a whole number of at least 1.")
    return int(text)


def check(name: str, seen: int, what: str) -> None:
    """InputError when ``seen`` is above the limit ``name``; ``what`` says, in words, which thing is that
    large."""
    if seen > most(name):
        raise InputError(
            f"{what}: {seen} {LIMITS[name].unit}, at most {most(name)} are read; if the file is sound, set "
            f"MEDSEG_LIMIT_{name.upper()}"
        )


def check_margin(mm: float) -> None:
    """InputError for a margin, gap or inset, of either sign, beyond the limit ``margin_mm``."""
    if abs(mm) > most("margin_mm"):
        raise InputError(
            f"margin of {mm:g} mm: at most {most('margin_mm')} mm are made, more than any target "
            "needs; check the number, or set MEDSEG_LIMIT_MARGIN_MM."
        )
