"""Masks and probabilities to polygons and back. Referees: pixel counts by hand, shapely, closed forms of
discs."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from medseg.errors import GeometryError, StructureError
from medseg.geometry import Geometry
from medseg.shapes import loops as loops_of
from medseg.shapes import outlines as contours
from medseg.shapes.scanline import even_odd_area, rasterise

SHAPES = {
    "one pixel": ("#", 1, 0),
    "one-pixel line": (".#####.", 1, 0),
    "one-pixel diagonal": ("#..|.#.|..#", 3, 0),
    "full slice": ("####|####|####", 1, 0),
    "touches two borders": ("##..|##..|....", 1, 0),
    "donut": (".....|.###.|.#.#.|.###.|.....", 1, 1),
    "island in a hole": ("#####|#...#|#.#.#|#...#|#####", 2, 1),
    "diagonal touch": ("##..|##..|..##|..##", 2, 0),
    "ring closed by a diagonal touch": (".##|#.#|##.", 2, 0),
    "C closed by a diagonal touch": ("###.|#..#|####", 1, 1),
    "holes that touch at a corner": ("####|#.##|##.#|####", 1, 2),
    "hole that touches the outside at a corner": ("###.|#.##|####", 1, 1),
    "checkerboard": ("#.#.|.#.#|#.#.|.#.#", 8, 0),
    "hole in island in hole": ("#######|#.....#|#.###.#|#.#.#.#|#.###.#|#.....#|#######", 2, 2),
    "two neighbours with a hole each": ("###.###|#.#.#.#|###.###", 2, 2),
}
"""Drawn mask: how many polygons and how many holes it has, counted by hand with 4-connected pixels."""


def drawn(text: str) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in text.split("|")])


def as_shapely(polygons) -> list[shapely.Polygon]:
    return [shapely.Polygon(polygon.exterior, polygon.holes) for polygon in polygons]


def random_masks(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.random((rng.integers(1, 12), rng.integers(1, 12))) < rng.random()


# ---- masks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_drawn_mask_has_the_polygons_and_holes_counted_by_hand(name):
    text, polygons_expected, holes_expected = SHAPES[name]
    polygons = contours.mask_polygons(drawn(text))
    assert len(polygons) == polygons_expected
    assert sum(len(polygon.holes) for polygon in polygons) == holes_expected
    assert sum(shape.area for shape in as_shapely(polygons)) == drawn(text).sum()


@pytest.mark.parametrize("mode", loops_of.HOLE_MODES)
@pytest.mark.parametrize("name", SHAPES)
def test_drawn_mask_comes_back_from_every_hole_encoding(name, mode):
    mask = drawn(SHAPES[name][0])
    loops, _ = loops_of.encode_holes(contours.mask_polygons(mask), mode)
    assert (rasterise(loops, mask.shape) == mask).all()


def test_a_rectangle_has_four_vertices_on_the_pixel_edges():
    mask = np.zeros((5, 9), dtype=bool)
    mask[1:4, 2:8] = True
    (polygon,) = contours.mask_polygons(mask)
    assert polygon.exterior.tolist() == [[0.5, 1.5], [0.5, 7.5], [3.5, 7.5], [3.5, 1.5]]


def test_random_masks_give_valid_polygons_whose_area_is_the_pixel_count():
    for mask in random_masks(400):
        shapes = as_shapely(contours.mask_polygons(mask))
        assert all(shape.is_valid for shape in shapes)
        assert sum(shape.area for shape in shapes) == mask.sum() == shapely.union_all(shapes).area


def test_random_masks_come_back_exactly_from_every_hole_encoding():
    for mask in random_masks(300, seed=1):
        polygons = contours.mask_polygons(mask)
        for mode in loops_of.HOLE_MODES:
            loops, _ = loops_of.encode_holes(polygons, mode)
            assert (rasterise(loops, mask.shape) == mask).all()


def test_exteriors_run_clockwise_on_screen_and_holes_against():
    for mask in random_masks(100, seed=2):
        for polygon in contours.mask_polygons(mask):
            # shapely sees (row, column) as (x, y), a mirrored screen, on which clockwise is
            # counter-clockwise.
            assert not shapely.LinearRing(polygon.exterior).is_ccw
            assert all(shapely.LinearRing(hole).is_ccw for hole in polygon.holes)


def test_whole_numbers_0_and_1_are_a_mask_but_a_label_map_is_refused():
    assert len(contours.mask_polygons(np.array([[0, 1]], dtype=np.uint8))) == 1
    with pytest.raises(StructureError, match="split a label map"):
        contours.mask_polygons(np.array([[0, 2]]))
    with pytest.raises(StructureError, match="expected one slice"):
        contours.mask_polygons(np.zeros((2, 2, 2), dtype=bool))


def test_an_empty_mask_gives_no_polygons():
    assert contours.mask_polygons(np.zeros((3, 4), dtype=bool)) == []


# ---- cut stairs --------------------------------------------------------------------------------------------


def blobs(count: int, seed: int = 0, size: int = 32):
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield ndimage.gaussian_filter(rng.random((size, size)), rng.uniform(0.8, 3)) > 0.5


@pytest.mark.parametrize("mode", loops_of.HOLE_MODES)
def test_cut_stairs_keep_the_area_and_the_mask_exactly_even_rounded_to_micrometres(mode):
    for mask in [*random_masks(150, seed=9), *blobs(60, seed=10)]:
        polygons = contours.cut_stairs(contours.mask_polygons(mask))
        shapes = as_shapely(polygons)
        assert all(shape.is_valid for shape in shapes)
        assert (
            sum(shape.area for shape in shapes) == mask.sum() == pytest.approx(shapely.union_all(shapes).area)
        )
        loops, _ = loops_of.encode_holes(polygons, mode)
        assert (rasterise(loops, mask.shape) == mask).all()
        assert (rasterise([np.round(loop * 0.977, 3) / 0.977 for loop in loops], mask.shape) == mask).all()


def test_cut_stairs_move_an_outline_by_less_than_half_a_pixel():
    for mask in blobs(30, seed=11):
        edges = contours.mask_polygons(mask)
        for given, cut in zip(edges, contours.cut_stairs(edges), strict=True):
            assert farthest_mm(given.exterior, cut.exterior, 1.0) <= 0.5
            assert farthest_mm(cut.exterior, given.exterior, 1.0) <= 0.5


def test_a_disc_needs_less_than_half_the_vertices_when_its_stairs_are_cut():
    row, column = np.mgrid[:200, :200]
    edges = contours.mask_polygons(np.hypot(row - 99.2, column - 100.4) < 80)
    assert 2 * len(contours.cut_stairs(edges)[0].exterior) < len(edges[0].exterior)


def test_a_diagonal_stair_becomes_one_straight_line():
    (polygon,) = contours.cut_stairs(contours.mask_polygons(np.tril(np.ones((6, 6), dtype=bool))))
    # The flight of six steps runs from half a pixel below its first corner to half a pixel before its last.
    assert polygon.exterior.tolist() == [
        [-0.5, -0.5],
        [-0.5, 0.5],
        [0.0, 0.5],
        [5.0, 5.5],
        [5.5, 5.5],
        [5.5, -0.5],
    ]


def test_a_rectangle_has_no_stairs_to_cut_and_nothing_stays_nothing():
    edges = contours.mask_polygons(np.ones((3, 5), dtype=bool))
    assert (contours.cut_stairs(edges)[0].exterior == edges[0].exterior).all()
    assert contours.cut_stairs([]) == []


# ---- hole encodings ----------------------------------------------------------------------------------------


def test_keyhole_is_one_loop_per_polygon_that_keeps_the_area():
    for mask in random_masks(200, seed=3):
        polygons = contours.mask_polygons(mask)
        loops, geometric_type = loops_of.encode_holes(polygons, "keyhole")
        assert (len(loops), geometric_type) == (len(polygons), "CLOSED_PLANAR")
        assert sum(shapely.Polygon(loop).area for loop in loops) == mask.sum()
        assert all((np.abs(loop - np.roll(loop, -1, axis=0)).max(axis=1) > 0).all() for loop in loops)


def test_keyhole_channels_keep_half_a_pixel_from_voxel_centres_and_never_leave_the_polygon():
    for mask in random_masks(100, seed=4):
        polygons = contours.mask_polygons(mask)
        for polygon, loop in zip(polygons, loops_of.encode_holes(polygons, "keyhole")[0], strict=True):
            line, centres = shapely.LinearRing(loop), shapely.MultiPoint(np.argwhere(mask))
            assert line.distance(centres) == 0.5
            assert shapely.Polygon(polygon.exterior, polygon.holes).covers(line)


def test_keyhole_of_a_donut_is_the_loop_drawn_by_hand():
    (loop,), _ = loops_of.encode_holes(contours.mask_polygons(drawn("###|#.#|###")), "keyhole")
    outer = [[-0.5, -0.5], [-0.5, 2.5], [2.5, 2.5], [2.5, -0.5]]
    inner = [[0.5, 0.5], [1.5, 0.5], [1.5, 1.5], [0.5, 1.5], [0.5, 0.5]]
    assert loop.tolist() == [*outer, [0.5, -0.5], *inner, [0.5, -0.5]]


def test_nested_and_xor_write_the_same_loops_under_different_types():
    polygons = contours.mask_polygons(drawn("###|#.#|###"))
    nested, nested_type = loops_of.encode_holes(polygons, "nested")
    xor, xor_type = loops_of.encode_holes(polygons, "xor")
    assert len(nested) == len(xor) == 2
    assert all((a == b).all() for a, b in zip(nested, xor, strict=True))
    assert (nested_type, xor_type) == ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def test_an_unknown_hole_encoding_is_refused():
    with pytest.raises(StructureError, match="keyhole, nested, xor"):
        loops_of.encode_holes([], "donut")


# ---- probability maps --------------------------------------------------------------------------------------


def soft_disc(radius: float, centre=(20.3, 19.6), size: int = 41, softness: float = 3.0) -> np.ndarray:
    """A probability that crosses 0.5 exactly on a circle, as a straight slope of the given width in
    pixels."""
    row, column = np.mgrid[:size, :size]
    distance = radius - np.hypot(row - centre[0], column - centre[1])
    return np.clip(0.5 + distance / (2 * softness), 0, 1)


@pytest.mark.parametrize("radius", [5.0, 8.0, 15.0])
def test_iso_contour_of_a_soft_disc_has_the_area_of_the_disc_within_one_percent(radius):
    (polygon,) = contours.probability_polygons(soft_disc(radius))
    assert shapely.Polygon(polygon.exterior).area == pytest.approx(np.pi * radius**2, rel=0.01)


def test_iso_contour_lies_within_a_tenth_of_a_pixel_of_the_circle_where_the_mask_edge_is_half_a_pixel_off():
    def worst(polygon):
        return np.abs(np.hypot(*(polygon.exterior - [20.3, 19.6]).T) - 8).max()

    assert worst(contours.probability_polygons(soft_disc(8.0))[0]) < 0.1
    assert worst(contours.mask_polygons(soft_disc(8.0) >= 0.5)[0]) > 0.4


@pytest.mark.parametrize("mode", loops_of.HOLE_MODES)
def test_exactly_the_voxel_centres_at_or_above_the_level_lie_inside(mode):
    rng = np.random.default_rng(5)
    for decimals in (1, 2, 8):
        for _ in range(60):
            probability = np.round(rng.random(rng.integers(1, 14, 2)), decimals)
            polygons = contours.probability_polygons(probability)
            assert all(shape.is_valid for shape in as_shapely(polygons))
            loops, _ = loops_of.encode_holes(polygons, mode)
            assert (rasterise(loops, probability.shape) == (probability >= 0.5)).all()


def test_iso_contours_survive_rounding_to_micrometres():
    rng = np.random.default_rng(6)
    for _ in range(60):
        probability = np.clip(rng.normal(0.5, 0.01, (9, 9)), 0, 1)
        loops, _ = loops_of.encode_holes(contours.probability_polygons(probability), "keyhole")
        rounded = [np.round(loop * 0.7, 3) / 0.7 for loop in loops]
        assert (rasterise(rounded, (9, 9)) == (probability >= 0.5)).all()


def test_a_single_voxel_just_at_the_level_survives():
    probability = np.zeros((3, 3))
    probability[1, 1] = 0.5
    (polygon,) = contours.probability_polygons(probability)
    assert shapely.Polygon(polygon.exterior).contains(shapely.Point(1, 1))


def test_probability_one_at_the_border_is_closed_at_the_pixel_edge():
    (polygon,) = contours.probability_polygons(np.ones((3, 4)))
    assert polygon.exterior.min(axis=0).tolist() == [-0.5, -0.5]
    assert polygon.exterior.max(axis=0).tolist() == [2.5, 3.5]
    # The four corners are cut: linear interpolation to 0 outside takes an eighth of a pixel from each.
    assert shapely.Polygon(polygon.exterior).area == pytest.approx(12 - 4 / 8)


def test_a_map_of_zeros_and_ones_is_the_mask_that_it_is_and_any_other_stays_a_map():
    zeros_and_ones = np.zeros((2, 5, 6), dtype=np.float32)
    zeros_and_ones[0, 1:3, 1:5] = zeros_and_ones[1, 3, 3] = 1
    found = contours.mask_if_binary(zeros_and_ones)
    assert found.dtype == bool and np.array_equal(found, zeros_and_ones == 1)
    loops, _ = loops_of.structure_loops(
        zeros_and_ones, Geometry.from_lps_affine(np.eye(4), zeros_and_ones.shape)
    )
    assert {index: even_odd_area(own) for index, own in loops.items()} == {0: 8.0, 1: 1.0}
    zeros_and_ones[1, 3, 4] = 0.2
    assert contours.mask_if_binary(zeros_and_ones) is zeros_and_ones


def test_voxels_that_lose_area_are_those_that_are_certain_and_have_no_neighbour():
    plane = np.zeros((6, 7))
    plane[0, 0] = plane[2, 2] = 1.0  # alone, one of them in the corner of the image
    plane[2, 4], plane[3, 5] = 0.98, 1.0  # not certain; alone, since they touch at a corner only
    plane[5, 0:2] = 1.0  # two side by side
    assert contours.count_lost_voxels(plane) == 3
    plane[2, 1] = 0.5  # now it has a neighbour
    assert contours.count_lost_voxels(plane) == 2


def test_a_higher_level_gives_a_smaller_contour():
    area = [
        shapely.Polygon(contours.probability_polygons(soft_disc(8.0), level)[0].exterior).area
        for level in (0.3, 0.7)
    ]
    # The slope is 6 pixels wide, so a step of 0.2 moves the circle by 1.2 pixels.
    assert area == pytest.approx([np.pi * 9.2**2, np.pi * 6.8**2], rel=0.01)


def test_maps_that_are_no_probabilities_are_refused():
    with pytest.raises(StructureError, match="sigmoid"):
        contours.probability_polygons(np.array([[-3.0, 4.0]]))
    with pytest.raises(StructureError, match="sigmoid"):
        contours.probability_polygons(np.array([[np.nan, 1.0]]))
    with pytest.raises(StructureError, match="floats"):
        contours.probability_polygons(np.array([[0, 1]]))
    with pytest.raises(StructureError, match="level"):
        contours.probability_polygons(np.array([[0.0, 1.0]]), level=1.0)


def test_a_map_below_the_level_gives_no_polygons():
    assert contours.probability_polygons(np.full((4, 4), 0.49)) == []


# ---- simplification ----------------------------------------------------------------------------------------


def farthest_mm(ring: np.ndarray, other: np.ndarray, spacing_mm) -> float:
    """Largest distance from points set densely along one ring to the other ring, in mm."""
    line, other = shapely.LinearRing(ring * spacing_mm), shapely.LinearRing(other * spacing_mm)
    points = shapely.line_interpolate_point(line, np.linspace(0, 1, 500), normalized=True)
    return float(shapely.distance(points, other).max())


@pytest.mark.parametrize("tolerance_mm", [0.05, 0.4, 3.0])
def test_simplified_outlines_stay_within_the_stated_distance_and_lose_no_ring(tolerance_mm):
    from scipy import ndimage

    rng, spacing_mm, before, after = np.random.default_rng(7), np.array([0.7, 1.3]), 0, 0
    for _ in range(25):
        field = ndimage.gaussian_filter(rng.random((24, 24)), 1.5)
        field = (field - field.min()) / np.ptp(field)
        for polygons in (contours.probability_polygons(field), contours.mask_polygons(field >= 0.5)):
            simple = loops_of.simplify(polygons, tolerance_mm, tuple(spacing_mm))
            assert all(shape.is_valid for shape in as_shapely(simple))
            assert [len(p.holes) for p in simple] == [len(p.holes) for p in polygons]
            for given, kept in zip(polygons, simple, strict=True):
                for a, b in zip((given.exterior, *given.holes), (kept.exterior, *kept.holes), strict=True):
                    assert (
                        max(farthest_mm(a, b, spacing_mm), farthest_mm(b, a, spacing_mm))
                        <= tolerance_mm + 1e-9
                    )
                    before, after = before + len(a), after + len(b)
    assert after < before


def test_a_negative_tolerance_is_refused_and_nothing_stays_nothing():
    with pytest.raises(StructureError, match="0 or more"):
        loops_of.simplify([], -1.0, (1.0, 1.0))
    assert loops_of.simplify([], 1.0, (1.0, 1.0)) == []


# ---- structures --------------------------------------------------------------------------------------------


def geometry_of(shape, row_mm=1.0, column_mm=1.0) -> Geometry:
    return Geometry.from_lps_affine(
        np.array([[0, 0, column_mm, 0], [0, row_mm, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]]), shape
    )


def test_structure_loops_skip_empty_slices_and_share_one_type():
    volume = np.zeros((4, 5, 5), dtype=bool)
    volume[1, 1:4, 1:4] = volume[3, 0, 0] = True
    loops, geometric_type = loops_of.structure_loops(volume, geometry_of(volume.shape), holes="xor")
    assert (sorted(loops), geometric_type) == ([1, 3], "CLOSED_PLANAR")
    volume[1, 2, 2] = False
    loops, geometric_type = loops_of.structure_loops(volume, geometry_of(volume.shape), holes="xor")
    assert (len(loops[1]), len(loops[3]), geometric_type) == (2, 1, "CLOSEDPLANAR_XOR")
    assert loops_of.structure_loops(volume, geometry_of(volume.shape), holes="keyhole")[1] == "CLOSED_PLANAR"


def test_a_float_volume_is_contoured_and_simplified_in_mm():
    volume = soft_disc(8.0)[None]
    fine, _ = loops_of.structure_loops(volume, geometry_of(volume.shape))
    coarse, _ = loops_of.structure_loops(volume, geometry_of(volume.shape), simplify_mm=0.2)
    coarser, _ = loops_of.structure_loops(volume, geometry_of(volume.shape, 0.1, 0.1), simplify_mm=0.2)
    assert len(fine[0][0]) > len(coarse[0][0]) > len(coarser[0][0]) >= 3
    wide, _ = loops_of.structure_loops(volume, geometry_of(volume.shape), level=0.3)
    assert np.ptp(wide[0][0][:, 0]) > np.ptp(fine[0][0][:, 0]) + 1


def test_a_volume_on_another_grid_is_refused_and_an_empty_one_has_no_loops():
    with pytest.raises(GeometryError, match="shape"):
        loops_of.structure_loops(np.zeros((2, 5, 5), dtype=bool), geometry_of((3, 5, 5)))
    assert loops_of.structure_loops(np.zeros((3, 5, 5), dtype=bool), geometry_of((3, 5, 5))) == (
        {},
        "CLOSED_PLANAR",
    )
