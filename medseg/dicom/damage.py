"""What pydicom raises on damaged files, as one error that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.errors import BytesLengthException, InvalidDicomError

from medseg.errors import InputError

PARSE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    BytesLengthException,
    InvalidDicomError,
)
"""What pydicom and its decoders raise on damaged files; each becomes one InputError that names the file."""


@contextmanager
def damage_as_input_error(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever pydicom raises on a damaged file into one InputError that names it; for reading code
    only."""
    try:
        yield
    except PARSE_ERRORS as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(f"{path}: damaged DICOM ({what}); export it again.") from error
