"""A box holds the voxels of a mask whole, on upright, turned and uneven slices."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.cases.mask_boxes import mask_box, mask_boxes, voxels_about
from medseg.errors import InputError
from medseg.phantoms.series import stack_geometry


def test_the_box_reaches_the_outer_faces_of_the_voxels():
    grid = stack_geometry((5, 4, 6), gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[2, 1, 3] = True
    middle = grid.points_lps_mm(2, [(1, 3)])[0]
    assert mask_box(mask, grid) == ((middle - [0.5, 1, 1.5]).tolist(), (middle + [0.5, 1, 1.5]).tolist())


def test_uneven_slices_stand_for_half_the_gap_to_either_side():
    grid = stack_geometry((4, 3, 3), gaps_mm=(2.0, 2.0, 6.0))
    mask = np.zeros(grid.shape, bool)
    mask[2] = True
    low, high = mask_box(mask, grid)
    assert high[2] - low[2] == pytest.approx(4.0)


def test_an_oblique_stack_gets_the_upright_box_around():
    grid = stack_geometry((3, 3, 3), gaps_mm=1.0, orientation=(np.sqrt(0.5), np.sqrt(0.5), 0, 0, 0, -1))
    mask = np.zeros(grid.shape, bool)
    mask[1, 1, 1] = True
    low, high = mask_box(mask, grid)
    assert np.allclose(np.subtract(high, low), [np.sqrt(2), np.sqrt(2), 1.0], atol=2e-3)


def test_every_piece_is_a_box_and_an_empty_mask_is_none():
    grid = stack_geometry((4, 9, 9))
    mask = np.zeros(grid.shape, bool)
    assert list(mask_boxes(mask, grid, "GTV")) == []
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 8, 8] = True
    found = list(mask_boxes(mask, grid, "GTV"))
    assert [box["class"] for box in found] == ["GTV", "GTV"]
    assert np.subtract(found[0]["high"], found[0]["low"]).tolist() == [2.0, 2.0, 6.0]
    with pytest.raises(InputError, match="empty mask"):
        mask_box(np.zeros(grid.shape, bool), grid)


def test_one_slice_alone_has_no_height():
    grid = stack_geometry((1, 4, 4))
    with pytest.raises(InputError, match="one slice alone has no height"):
        mask_box(np.ones(grid.shape, bool), grid)


def test_only_the_voxels_about_a_box_are_looked_at():
    grid = stack_geometry((8, 200, 200), gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0))
    middle = grid.points_lps_mm(3, [(10, 20)])[0]
    corner, points = voxels_about(grid, np.array([middle - [2, 4, 3], middle + [2, 4, 3]]))
    assert corner == (2, 8, 18) and points.shape == (3, 5, 5, 3)
    assert points[1, 2, 2] == pytest.approx(middle)
    between = np.array([middle + [-2, -4, 1], middle + [2, 4, 2]])
    assert voxels_about(grid, between)[1].shape == (0, 0, 0, 3)
