"""Polygons to voxels and areas. Referees: pixels counted by hand, shapely at every voxel centre, closed
forms."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from medseg.errors import InputError
from medseg.phantoms.series import stack_geometry
from medseg.shapes.scanline import MOST_TOGETHER, cover, covers, even_odd_area, rasterise


def test_a_centre_on_an_outline_belongs_to_the_side_of_larger_row_and_column():
    square = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 3.0], [3.0, 1.0]])
    assert np.argwhere(rasterise([square], (5, 5))).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


@pytest.mark.parametrize("decimals", [3, 6, 12])
def test_outlines_traced_through_voxel_centres_are_read_without_rounding_noise(decimals):
    # As OpenCV-based writers make them; on the corner's side of larger row and column: 20 rows of 25.
    rows, columns = [5, 5, 25, 25], [5, 30, 30, 5]
    rng = np.random.default_rng(1)
    for _ in range(50):
        centre_lps_mm = rng.uniform(-300, 300, 3)
        geometry = stack_geometry(
            (2, 40, 40), pixel_spacing_mm=(0.7421875, 0.9765625), centre_lps_mm=centre_lps_mm
        )
        points = geometry.points_lps_mm(0, np.stack([rows, columns], axis=1)).round(decimals)
        mask = rasterise([geometry.rows_columns(0, points)], (40, 40))
        assert mask[5:25, 5:30].all() and mask.sum() == 500


def test_random_polygons_agree_with_shapely_at_every_voxel_centre():
    rng = np.random.default_rng(8)
    centres = np.argwhere(np.ones((20, 16)))
    for _ in range(40):
        angle = np.sort(rng.random(9)) * 2 * np.pi
        radius = rng.uniform(2, 14, 9)
        loop = np.stack([9 + radius * np.sin(angle), 7 + radius * np.cos(angle)], axis=1)
        expected = shapely.contains_xy(shapely.Polygon(loop).buffer(0), centres).reshape(20, 16)
        assert (rasterise([loop], (20, 16)) == expected).all()


def test_repeated_points_and_edges_of_no_length_do_no_harm():
    loop = np.array([[0.2, 0.2], [0.2, 3.7], [3.7, 3.7], [3.7, 0.2]])
    untidy = np.concatenate([loop[:2], loop[1:], loop[:1], loop[:1]])
    assert (rasterise([untidy], (5, 5)) == rasterise([loop], (5, 5))).all()


def test_parts_outside_the_image_are_cut_off():
    around = np.array([[-9.0, -9.0], [-9.0, 99.0], [99.0, 99.0], [99.0, -9.0]])
    assert rasterise([around], (3, 4)).all()
    assert not rasterise([around + 200], (3, 4)).any()
    assert not rasterise([], (3, 4)).any()


def test_two_loops_overlap_by_exclusive_or():
    square = np.array([[-0.5, -0.5], [-0.5, 2.5], [2.5, 2.5], [2.5, -0.5]])
    mask = rasterise([square, square + 1], (4, 4))
    assert mask.sum() == 9 + 9 - 2 * 4


# ---- how often a centre is enclosed ------------------------------------------------------------------------


def square(low, high, turned=False):
    loop = np.array([[low, low], [low, high], [high, high], [high, low]], dtype=float)
    return loop[::-1] if turned else loop


@pytest.mark.parametrize("turned", [False, True])
def test_a_hole_is_enclosed_twice_whichever_way_the_loops_run(turned):
    found = cover([square(0.5, 5.5), square(1.5, 3.5, turned)], (8, 8))
    assert found.window == (slice(1, 6), slice(1, 6))
    assert (found.enclosed == 2).sum() == 4 and (found.enclosed == 1).sum() == 25 - 4
    assert found.inside.sum() == 21


def test_a_figure_of_eight_shows_in_the_sign_and_a_double_turn_in_the_number():
    # Two unequal triangles that meet at a crossing: the larger one decides what counts 1.
    eight = np.array([[0.5, 0.5], [0.5, 8.5], [8.5, 3.5], [8.5, 5.5]])
    found = cover([eight], (10, 10))
    assert found.enclosed.max() == 1 and found.enclosed.min() == -1
    double = np.concatenate([square(0.5, 5.5), square(1.5, 3.5)])
    assert (cover([double], (8, 8)).enclosed == 2).sum() == 4


def test_a_keyhole_encloses_nothing_twice():
    outer, inner = square(0.5, 7.5), square(2.5, 5.5, turned=True)
    loop = np.concatenate([outer, outer[:1], inner, inner[:1]])
    found = cover([loop], (9, 9))
    assert found.enclosed.min() == 0 and found.enclosed.max() == 1
    assert found.inside.sum() == 7 * 7 - 3 * 3


def test_no_loops_cover_nothing():
    found = cover([], (3, 4))
    assert found.enclosed.shape == (0, 0) and found.inside.sum() == 0


# ---- area --------------------------------------------------------------------------------------------------


def test_the_area_of_a_ring_with_an_island_is_exact_for_odd_numbers():
    loops = [square(0.1, 10.4), square(1.7, 7.03), square(3.0, 4.5)]
    assert even_odd_area(loops) == pytest.approx(10.3**2 - 5.33**2 + 1.5**2, rel=1e-12)


def test_areas_of_random_polygons_agree_with_shapely():
    rng = np.random.default_rng(3)
    for _ in range(20):
        angle = np.sort(rng.random(40)) * 2 * np.pi
        radius = rng.uniform(20, 140, 40)
        loop = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
        area = shapely.Polygon(loop).area
        assert even_odd_area([loop]) == pytest.approx(area, rel=1e-9)
        assert even_odd_area([loop, loop / 2]) == pytest.approx(0.75 * area, rel=1e-9)


def test_a_keyhole_and_an_equal_loop_have_the_area_that_is_left():
    outer, inner = square(0, 7), square(2, 5, turned=True)
    assert even_odd_area([np.concatenate([outer, outer[:1], inner, inner[:1]])]) == pytest.approx(49 - 9)
    assert even_odd_area([outer, outer[::-1]]) == 0.0
    assert even_odd_area([]) == even_odd_area([outer[:2]]) == even_odd_area([outer[:1]]) == 0.0


def test_loops_that_cross_are_counted_once_where_they_overlap_not():
    assert even_odd_area([square(0, 2), square(1, 3)]) == pytest.approx(4 + 4 - 2)


def test_many_planes_are_covered_as_each_alone():
    rng = np.random.default_rng(3)
    sizes = [*rng.integers(3, 400, 70), MOST_TOGETHER + 1]
    planes = [[rng.uniform(-5, 45, (size, 2)).round(1)] * rng.integers(1, 3) for size in sizes]
    planes[5], planes[6], planes[7] = [], [np.full((4, 2), -9.0)], [np.array([[3, 1], [9, 1.0], [5, 1]])]
    found = list(covers(planes, (40, 30)))
    assert len(found) == len(planes)
    for plane, one in zip(planes, found, strict=True):
        alone = cover(plane, (40, 30))
        assert one.window == alone.window and (one.enclosed == alone.enclosed).all()
        assert (one.inside == (one.enclosed % 2 == 1)).all()
        if one.enclosed.size:
            assert (one.least, one.most) == (one.enclosed.min(), one.enclosed.max())


def test_the_limit_counts_the_crossings_of_a_plane_and_not_of_all(monkeypatch):
    monkeypatch.setenv("MEDSEG_LIMIT_CROSSINGS", "100")
    low, high = np.array([[0, 0], [0, 9], [40, 9], [40, 0.0]]), np.array([[0, 0], [0, 9], [60, 9], [60, 0.0]])
    assert len(list(covers([[low]] * 9, (80, 20)))) == 9  # two sides of 40 rows each
    with pytest.raises(InputError, match="120 crossings"):
        list(covers([[low], [high], [low]], (80, 20)))
