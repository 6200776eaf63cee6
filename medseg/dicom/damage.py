"""What pydicom raises on damaged files, as one error that names the file."""

from __future__ import annotations

import errno
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


def reading_failed(error: BaseException) -> str:
    """In words what stopped the reading of a DICOM file: the system does not let it be read, or damage."""
    if isinstance(error, OSError) and (error.filename or error.errno in (errno.EIO, errno.ESTALE)):
        return f"cannot be read ({error.strerror})"
    return f"damaged DICOM ({type(error).__name__}: {' '.join(str(error).split())[:120]})"


@contextmanager
def damage_as_input_error(path: str | os.PathLike) -> Iterator[None]:
    """Turn whatever pydicom raises on a damaged or unreadable file into one InputError that names it; for
    reading code only."""
    try:
        yield
    except PARSE_ERRORS as error:
        what = reading_failed(error)
        advice = "; export it again" if what.startswith("damaged") else ""
        raise InputError(f"{path}: {what}{advice}.") from error
