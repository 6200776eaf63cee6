"""Boxes around masks, on arrays whose box is known."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.shapes.boxes import box_of


def test_a_box_ends_at_the_outermost_set_voxels_of_every_axis():
    mask = np.zeros((5, 6, 7), dtype=bool)
    mask[1, 2, 3] = mask[3, 4, 3] = True
    assert box_of(mask) == (slice(1, 4), slice(2, 5), slice(3, 4))
    assert np.argwhere(mask[box_of(mask)]).tolist() == [[0, 0, 0], [2, 2, 0]]


def test_a_margin_ends_at_the_edge_of_the_array():
    mask = np.zeros((5, 20), dtype=bool)
    mask[1, 10] = True
    assert box_of(mask, 2) == (slice(0, 4), slice(8, 13))
    assert box_of(mask, [0, 15]) == (slice(1, 2), slice(0, 20))
    with pytest.raises(ValueError):
        box_of(mask, [1, 2, 3])


@pytest.mark.parametrize("margin", [0, 4])
def test_an_empty_mask_has_a_box_of_no_size(margin):
    assert box_of(np.zeros((3, 4), dtype=bool), margin) == (slice(0, 0), slice(0, 0))
    assert box_of(np.zeros((0, 4), dtype=bool), margin) == (slice(0, 0), slice(0, 0))
