"""Connected pieces, counted by eye."""

from __future__ import annotations

import numpy as np

from medseg.shapes.pieces import label_pieces, largest_piece

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
