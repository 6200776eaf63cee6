"""Small CT series whose every voxel holds another number, and the words that refuse a changed one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.dicom import read_series
from medseg.errors import InputError
from medseg.geometry import Geometry
from medseg.phantoms.series import stack_geometry

SHAPE = (6, 10, 12)


def stack(**settings) -> Geometry:
    return stack_geometry(SHAPE, **settings)


def ramp_hu(shape=SHAPE) -> np.ndarray:
    """Whole numbers that differ everywhere, so that no swap or flip goes unseen."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 300


def change(path: Path, **attributes) -> None:
    """Set DICOM attributes of a file in place; None deletes."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def refusal(path, **settings) -> str:
    with pytest.raises(InputError) as caught:
        read_series(path, **settings).volume()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message
