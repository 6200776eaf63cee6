"""Added path length. Referees: lengths by hand, DeepMind's table of contour lengths, SciPy's distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from small_masks import EMPTY, A, blobs, box_mask, stack

from medseg import metrics
from medseg.errors import GeometryError


def test_the_added_path_of_a_box_moved_along_the_columns_is_its_two_sides_and_what_sticks_out():
    geometry = stack(np.arange(12.0), spacing_mm=(1.0, 3.0))
    moved = box_mask(A.shape, (2, 8), (2, 8), (4, 10))
    slant_mm = math.hypot(1, 3) / 2
    # Of each outline: 5 straight elements on each side, 4 corners. Moved by two: both sides (5 rows of 1 mm
    # each), the left corners, and one element of top and of bottom (3 mm each), since the next one is the
    # other's corner.
    lacking_mm, whole_mm = metrics.added_path_length_mm(A, moved, geometry)
    assert whole_mm == pytest.approx(6 * (10 * 1 + 10 * 3 + 4 * slant_mm))
    assert lacking_mm == pytest.approx(6 * (10 * 1 + 2 * 3 + 2 * slant_mm))
    # 6 mm off at most; the right side lies 3 mm from the moved box's top and bottom only at its ends.
    assert metrics.added_path_length_mm(A, moved, geometry, 6.0)[0] == 0.0
    assert metrics.added_path_length_mm(A, moved, geometry, 1.0)[0] < lacking_mm


def test_what_is_drawn_too_much_costs_no_path_and_what_is_missing_costs_all_of_it():
    geometry = stack(np.arange(12.0))
    half = box_mask(A.shape, (2, 5), (2, 8), (2, 8))
    _, whole_mm = metrics.added_path_length_mm(A, A, geometry)
    assert metrics.added_path_length_mm(half, A, geometry)[0] == 0.0
    assert metrics.added_path_length_mm(A, half, geometry)[0] == pytest.approx(whole_mm / 2)
    assert metrics.added_path_length_mm(A, EMPTY, geometry) == (whole_mm, whole_mm)
    assert (
        metrics.added_path_length_mm(EMPTY, A, geometry)
        == metrics.added_path_length_mm(EMPTY, EMPTY, geometry)
        == (0, 0)
    )
    with pytest.raises(GeometryError, match="shape"):
        metrics.added_path_length_mm(A, A, stack([0.0, 1.0]))


def test_the_added_path_equals_deepminds_contour_lengths_and_scipys_distances():
    tables = pytest.importorskip("surface_distance.lookup_tables", reason="surface-distance is not installed")
    a, b = blobs((6, 40, 36))
    spacing_mm = (0.8, 1.3)
    geometry = stack([0.0, 1.0, 5.0, 6.0, 9.0, 11.0], 40, 36, spacing_mm=spacing_mm)
    kernel = np.array([[8, 4], [2, 1]])
    lengths_mm = np.array(tables.create_table_neighbour_code_to_contour_length(spacing_mm))
    for tolerance_mm in (0.0, 1.0, 2.9, 14.0, 1e5):
        expected_mm = 0.0
        for plane, other in zip(a, b, strict=True):
            codes = [
                ndimage.correlate(np.pad(m, 1).astype(np.uint8), kernel, mode="constant")[1:, 1:]
                for m in (plane, other)
            ]
            border = [(code > 0) & (code < 15) for code in codes]
            far = (
                ndimage.distance_transform_edt(~border[1], sampling=spacing_mm) > tolerance_mm
                if border[1].any()
                else True
            )
            expected_mm += lengths_mm[codes[0]][border[0] & far].sum()
        assert metrics.added_path_length_mm(a, b, geometry, tolerance_mm)[0] == pytest.approx(expected_mm)
