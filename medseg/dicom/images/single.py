"""Files that hold one picture (radiographs, photographs): their header, and what both kinds have in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.images.header import integer, read_header, require_pixels
from medseg.errors import InputError


@contextmanager
def picture_header(
    path: Path,
    other_kind: Callable[[Dataset], str | None],
    check: Callable[[Dataset], None],
    samples: tuple[int, ...] = (1,),
) -> Iterator[Dataset]:
    """The header of a file of one frame with ``samples`` per pixel; damage that is met while its pixels are
    read inside becomes one InputError too.

    ``other_kind`` says what else the file is, None where it is of the kind that is wanted; ``check`` raises
    InputError for what the reader does not take. Every message names the file.
    """
    with warnings.catch_warnings(), damage_as_input_error(path):
        warnings.simplefilter("ignore")
        try:
            header, element = read_header(path)
            if header is None:
                raise InputError("not DICOM")
            other = other_kind(header)
            if other is not None:
                raise InputError(other)
            require_pixels(header, element, samples)
            frames = integer(header, "NumberOfFrames", 1)
            if frames != 1:
                raise InputError(f"{frames} frames; expected one picture")
            check(header)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        yield header


def positive_pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """The two positive numbers of a spacing, None where it is not given; ValueError for anything else."""
    value = header.get(keyword)
    if value in (None, ""):
        return None
    numbers = tuple(float(part) for part in np.atleast_1d(value))
    if len(numbers) != 2 or not np.isfinite(numbers).all() or min(numbers) <= 0:
        raise ValueError(f"{keyword} {str(value)[:60]!r}; expected two positive numbers")
    return numbers


def require_a_picture(lowest: float, highest: float, path: Path) -> None:
    """InputError when all values are one."""
    if not highest > lowest:
        raise InputError(f"{path}: every pixel has the same value; there is no picture.")
