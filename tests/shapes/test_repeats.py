"""Outlines stored more than once, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.shapes.repeats import first_copies

BOX = np.array([[0, 0], [20, 0], [20, 10], [0, 10]], dtype=float)
ON_AN_EDGE = np.array([[10, 0], [20, 0], [20, 10], [0, 10], [0, 0], [10, 0]], dtype=float)


@pytest.mark.parametrize(
    "copy",
    [BOX, np.roll(BOX, 2, axis=0), BOX[::-1], ON_AN_EDGE, BOX + 0.004, np.rint(BOX * 1.0004 * 10) / 10],
    ids=["equal", "other start", "other way", "started on an edge and closed", "shifted", "rounded"],
)
def test_an_outline_is_the_same_however_its_vertices_are_listed(copy):
    assert first_copies([BOX, copy, copy]) == [0, 0, 0]


@pytest.mark.parametrize(
    "other",
    [BOX + 1, BOX * 0.9, BOX * 0.9 + [1.0, 0.5], BOX[:3], BOX[[0, 2, 1, 3]]],
    ids=["shifted by 1 mm", "smaller", "nested", "half", "the same corners in another order"],
)
def test_other_shapes_are_not_the_same(other):
    assert first_copies([BOX, other]) == [0, 1]


def test_two_bars_that_cross_have_one_box_and_one_area_and_are_two():
    leaning = np.array([[0, 0], [0, 1], [10, 6], [10, 5]], dtype=float)
    assert first_copies([leaning, leaning * [1, -1] + [0, 6]]) == [0, 1]


def test_a_hole_of_one_pixel_in_a_speck_of_nine_is_no_copy_however_small_the_pixels():
    speck = np.array([[0, 0], [3, 0], [3, 3], [0, 3]]) * 0.05
    hole = speck / 3 + 0.05
    assert first_copies([speck, hole, speck + 0.0001]) == [0, 1, 0]


def test_one_loop_and_none():
    assert first_copies([]) == []
    assert first_copies([BOX]) == [0]
