"""Boxes around masks, on arrays whose box is known."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.shapes.boxes import box_of, boxes_of_map


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


def test_bright_pieces_of_a_map_are_boxes_the_brightest_first():
    heat = np.zeros((10, 12))
    heat[1:3, 2:5] = 0.6
    heat[6:9, 7:8] = 0.9
    heat[0, 11] = 0.4  # below half of the greatest value
    corners, scores = boxes_of_map(heat)
    assert corners.tolist() == [[[6, 7], [9, 8]], [[1, 2], [3, 5]]] and scores.tolist() == [0.9, 0.6]
    assert boxes_of_map(heat, share=0.3)[0].shape == (3, 2, 2)
    assert boxes_of_map(heat, least=4)[1].tolist() == [0.6]


def test_a_map_of_zeros_has_no_box_and_a_share_of_nothing_is_refused():
    corners, scores = boxes_of_map(np.zeros((4, 5, 6)))
    assert corners.shape == (0, 2, 3) and scores.shape == (0,)
    with pytest.raises(ValueError, match="share 0"):
        boxes_of_map(np.ones((3, 3)), share=0)
