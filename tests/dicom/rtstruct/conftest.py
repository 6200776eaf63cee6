"""Images and structures that several tests write and read."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from roi_files import SHAPE as SMALL
from roi_files import box

from medseg.dicom import read_series, write_rtstruct
from medseg.phantoms.series import stack_geometry, write_series

SHAPE = (30, 48, 56)


@pytest.fixture(scope="module")
def masks(phantom):
    """Structures that overlap, one with holes that hold islands, one in two pieces, single pixels, and the
    whole image."""
    border = np.zeros(SHAPE, dtype=bool)
    border[3:9, :5] = border[3:9, 40:] = True
    specks = np.zeros(SHAPE, dtype=bool)
    specks[4, 10, 10] = specks[4, 11, 11] = specks[5, 0, 0] = specks[29, 47, 55] = True
    hollow = phantom.masks["Body"] & ~phantom.masks["L"] & ~phantom.masks["Marker"]
    hollow[15, 22:25, 20:23] = True
    return {
        "External": phantom.masks["Body"],
        "GTV": phantom.masks["Marker"],
        "Hollow": hollow,
        "L": phantom.masks["L"],
        "Border": border,
        "Specks": specks,
        "Everything": np.ones(SHAPE, dtype=bool),
    }


@pytest.fixture(scope="module")
def written(masks, series, tmp_path_factory):
    return write_rtstruct(masks, series, tmp_path_factory.mktemp("rs") / "rs.dcm", model=("thigh", "0.1"))


@pytest.fixture(scope="module")
def small_ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    write_series(np.zeros(SMALL), stack_geometry(SMALL, gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0)), folder)
    return read_series(folder)


@pytest.fixture
def changed(small_ct, tmp_path):
    """A function that writes one structure of 8 x 10 pixels on slices 1-4, lets a test change the file, and
    names it."""

    def change(edit, masks=None):
        masks = masks or {"GTV": box(slice(4, 12), slice(5, 15))}
        path = write_rtstruct(masks, small_ct, tmp_path / "rs.dcm", overwrite=True)
        dataset = pydicom.dcmread(path)
        edit(dataset)
        dataset.save_as(path)
        return path

    return change
