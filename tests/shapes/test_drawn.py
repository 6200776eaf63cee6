"""Outlines kept in a map of voxels: the 0.5 level is what was drawn, holes and keyholes included."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.phantoms.series import stack_geometry
from medseg.shapes.drawn import outline_map, outline_rings
from medseg.shapes.loops import encode_holes
from medseg.shapes.outlines import Polygon, probability_polygons
from medseg.shapes.scanline import even_odd_area, rasterise

PIXEL_MM = (1.5, 1.25)
GEOMETRY = stack_geometry((3, 40, 44), gaps_mm=3.0, pixel_spacing_mm=PIXEL_MM)
SQUARE = np.array([[8.3, 9.2], [8.3, 30.7], [31.6, 30.7], [31.6, 9.2]])
HOLE = np.array([[15.4, 16.1], [24.2, 16.1], [24.2, 25.3], [15.4, 25.3]])


def circle(middle, radius_mm: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    return np.asarray(middle) + radius_mm * np.stack([np.sin(turn), np.cos(turn)], axis=1) / PIXEL_MM


def mapped(loops) -> np.ndarray:
    """The middle slice of the map of loops on that slice."""
    mask = np.zeros(GEOMETRY.shape, dtype=bool)
    mask[1] = rasterise(loops, GEOMETRY.shape[1:])
    found = outline_map(mask, {1: loops}, GEOMETRY)
    assert (found[[0, 2]] == 0).all() and ((found[1] >= 0.5) == mask[1]).all()
    return found[1]


def level_rings(plane: np.ndarray) -> list[np.ndarray]:
    return [ring for polygon in probability_polygons(plane) for ring in (polygon.exterior, *polygon.holes)]


@pytest.mark.parametrize("outer", [SQUARE, circle((20.2, 19.7), 15.0)], ids=["straight edges", "a circle"])
def test_the_level_of_a_map_is_the_outline_that_was_drawn_below_the_voxel(outer):
    (ring,) = level_rings(mapped([outer]))
    # Four corners of a square are cut, each by half a pixel at most.
    assert even_odd_area([ring]) == pytest.approx(even_odd_area([outer]), abs=2.0)
    if outer is SQUARE:
        assert [*ring.min(axis=0), *ring.max(axis=0)] == pytest.approx([8.3, 9.2, 31.6, 30.7], abs=0.02)
    else:
        radii_mm = np.linalg.norm((ring - [20.2, 19.7]) * PIXEL_MM, axis=1)
        assert np.abs(radii_mm - 15.0).max() < 0.06


@pytest.mark.parametrize("mode", ["keyhole", "nested", "xor"])
def test_a_hole_is_the_same_however_it_is_encoded_and_a_channel_is_no_surface(mode):
    loops, _ = encode_holes([Polygon(SQUARE, (HOLE,))], mode)
    assert len(loops) == (1 if mode == "keyhole" else 2)
    plane = mapped(loops)
    outer, inner = sorted(level_rings(plane), key=len, reverse=True)
    assert [*outer.min(axis=0), *outer.max(axis=0)] == pytest.approx([8.3, 9.2, 31.6, 30.7], abs=0.02)
    # A voxel in a corner of the hole has one value for the crossings on both sides.
    assert [*inner.min(axis=0), *inner.max(axis=0)] == pytest.approx([15.4, 16.1, 24.2, 25.3], abs=0.15)
    assert np.allclose(plane, mapped([SQUARE, HOLE]), atol=0.01)
    # The channel runs along row 15.4 from column 9.2 to 16.1. Beside it the map knows only the outer edge and
    # the hole: two voxels from the edge the ramp of 6 mm has its value there.
    assert plane[15, 11] == pytest.approx(0.5 + (11 - 9.2) * 1.25 / 6, abs=0.01)


def test_channels_of_any_writer_vanish_and_areas_stay():
    # A channel of two edges down and back through a corner, as another system draws it.
    keyhole = np.array([[0, 0], [0, 10], [10, 10], [10, 0], [5, 0], [5, 2], [4, 3]], dtype=float)
    hole = np.array([[4, 3], [6, 3], [6, 7], [4, 7], [4, 3]], dtype=float)
    loop = np.concatenate([keyhole, hole[1:], [[5, 2], [5, 0]]])
    rings = outline_rings([loop])
    assert sorted(even_odd_area([ring]) for ring in rings) == pytest.approx([8.0, 100.0])
    assert len(rings) == 2


def test_an_outline_that_is_stored_twice_counts_once_however_it_is_listed():
    once = outline_rings([SQUARE])
    for again in (SQUARE, np.roll(SQUARE, 2, axis=0), SQUARE[::-1], SQUARE + 1e-5):
        (ring,) = outline_rings([SQUARE, again])
        assert even_odd_area([ring]) == pytest.approx(even_odd_area(once), abs=0.01)


def test_loops_without_area_and_none_give_values_of_0_and_1():
    line = np.array([[3.0, 3.0], [3.0, 9.0], [3.0, 5.0]])
    assert outline_rings([]) == outline_rings([line]) == outline_rings([line[:2]]) == []
    mask = np.zeros(GEOMETRY.shape, dtype=bool)
    mask[1, 5:9, 5:9] = True
    for outlines in ({}, {1: [line]}, {0: [SQUARE]}):
        assert np.array_equal(outline_map(mask, outlines, GEOMETRY), mask.astype(np.float32))
