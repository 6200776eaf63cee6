"""Connected pieces, counted by eye."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import cdist

from medseg.shapes.pieces import edge_of, gaps_to_piece_mm, label_pieces, largest_piece

MASK = np.array(
    [
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0],
    ],
    dtype=bool,
)


def test_pixels_that_touch_at_a_corner_are_one_piece_only_where_that_is_asked_for():
    assert label_pieces(MASK, diagonal=False)[1] == 3
    assert label_pieces(MASK, diagonal=True)[1] == 2


def test_the_largest_piece_depends_on_what_counts_as_touching():
    # Edge to edge the bar of four is largest; corner to corner the upper two are a piece of six.
    assert np.array_equal(np.argwhere(largest_piece(MASK, diagonal=False))[:, 0], [4, 4, 4, 4])
    assert largest_piece(MASK, diagonal=True).sum() == 6
    assert not largest_piece(MASK, diagonal=True)[4].any()


def test_of_two_equal_pieces_the_first_is_kept_and_an_empty_mask_stays_empty():
    twins = np.array([[1, 0, 1]], dtype=bool)
    assert largest_piece(twins, diagonal=True).tolist() == [[True, False, False]]
    empty = largest_piece(np.zeros((2, 3, 4), dtype=bool), diagonal=True)
    assert empty.shape == (2, 3, 4) and empty.dtype == bool and not empty.any()


def test_the_edge_of_a_block_is_all_but_its_inside():
    block = np.zeros((7, 6, 6), dtype=bool)
    block[1:6, 1:5, 2:] = True  # 5 x 4 x 4, the last on the array's own border
    assert edge_of(block).sum() == 80 - 3 * 2 * 2
    assert not edge_of(np.zeros((3, 3), bool)).any()


def test_gaps_over_the_edges_are_those_over_all_voxels():
    rng = np.random.default_rng(4)
    mask = ndimage.gaussian_filter(rng.random((20, 30, 30)), 2.0) > 0.53
    pieces, count = label_pieces(mask, diagonal=True)
    assert count > 3
    spacing_mm = np.array([3.0, 1.0, 1.5])
    largest = 1 + np.bincount(pieces[mask])[1:].argmax()
    points_mm = {n: np.argwhere(pieces == n) * spacing_mm for n in range(1, count + 1)}
    expected = [0.0] + [cdist(points_mm[largest], points_mm[n]).min() for n in points_mm]
    edge = edge_of(mask)
    found = gaps_to_piece_mm(pieces[edge], np.argwhere(edge) * spacing_mm, largest)
    np.testing.assert_allclose(found, expected)
    assert gaps_to_piece_mm(np.zeros(0, int), np.zeros((0, 3)), 1).tolist() == [0.0]
