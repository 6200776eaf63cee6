"""Outlines that masks and maps stand for. Referees: circles, rectangles and their areas."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.shapes.outlines import mask_polygons, probability_polygons
from medseg.shapes.scanline import even_odd_area
from medseg.shapes.true_outlines import steps_along, true_outlines

ROWS, COLUMNS = np.mgrid[:64, :60].astype(float)


@pytest.mark.parametrize("radius", [5.3, 9.7, 16.2, 24.1])
def test_a_disc_of_pixels_becomes_its_circle_within_half_a_pixel_and_keeps_its_area(radius):
    disc = np.hypot(ROWS - 31.3, COLUMNS - 29.8) <= radius
    (ring,) = true_outlines(disc)
    owner, part = steps_along(ring, 0.2)
    points = ring[owner] + part[:, None] * (np.roll(ring, -1, axis=0) - ring)[owner]
    off = np.linalg.norm(points - [31.3, 29.8], axis=1) - radius
    assert np.abs(off).max() < 0.5
    assert even_odd_area([ring]) == pytest.approx(np.count_nonzero(disc), rel=0.012)
    (stairs,) = mask_polygons(disc)
    rough = np.linalg.norm(stairs.exterior - [31.3, 29.8], axis=1) - radius
    assert off.std() < 0.4 * rough.std()


def test_a_rectangle_of_pixels_stays_one_with_its_hole():
    plane = np.zeros((30, 40), dtype=bool)
    plane[5:20, 8:33] = True
    plane[9:14, 12:20] = False
    outer, inner = true_outlines(plane)
    assert even_odd_area([outer]) == pytest.approx(15 * 25) and even_odd_area([inner]) == pytest.approx(5 * 8)
    assert [*outer.min(axis=0), *outer.max(axis=0)] == [4.5, 7.5, 19.5, 32.5]
    assert {tuple(point) for point in outer.tolist()} >= {(4.5, 7.5), (4.5, 32.5), (19.5, 32.5), (19.5, 7.5)}


def test_a_corner_that_a_map_cuts_comes_back_and_a_circle_gets_none():
    inset = np.minimum.reduce([ROWS - 9.3, 40.6 - ROWS, COLUMNS - 10.2, 45.8 - COLUMNS])
    box = np.clip(0.5 + inset / 4, 0, 1)
    (cut,), (found,) = [polygon.exterior for polygon in probability_polygons(box)], true_outlines(box)
    assert len(found) == len(cut) + 4
    whole = 31.3 * 35.6
    assert 0 < whole - even_odd_area([found]) < 0.4 * (whole - even_odd_area([cut]))
    round_map = np.clip(0.5 + (12.4 - np.hypot(ROWS - 31.3, COLUMNS - 29.8)) / 4, 0, 1)
    (ring,) = true_outlines(round_map)
    assert len(ring) == len(probability_polygons(round_map)[0].exterior)


def test_a_single_pixel_a_line_and_nothing_have_an_outline_each_or_none():
    plane = np.zeros((9, 9), dtype=bool)
    assert true_outlines(plane) == []
    plane[4, 4] = True
    (ring,) = true_outlines(plane)
    assert ring.mean(axis=0) == pytest.approx([4, 4]) and np.abs(ring - 4).max() <= 0.5
    plane[4, 1:8] = True
    (ring,) = true_outlines(plane)
    # Edges of one pixel at its ends are stairs, so they round off.
    assert 7 - 2.5 < even_odd_area([ring]) <= 7 and np.abs(ring[:, 0] - 4).max() < 0.55
