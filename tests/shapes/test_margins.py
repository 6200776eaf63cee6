"""Margins in mm. Referees: closed forms of balls and boxes, the support of a sum of convex bodies, and hand
counts."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import GeometryError, InputError, StructureError
from medseg.geometry import Geometry
from medseg.metrics import volume_cc
from medseg.shapes.drawn import outline_map
from medseg.shapes.loops import encode_holes
from medseg.shapes.margins import crop, expand, subtract
from medseg.shapes.outlines import Polygon, probability_polygons
from medseg.shapes.scanline import rasterise

HEIGHTS_MM = {
    "1 mm": np.arange(50.0),
    "3 mm": 3.0 * np.arange(18),
    "uneven": np.array(
        [0, 2, 4, 6, 8, 10, 13, 16, 19, 20, 21, 22, 23, 24, 26, 28, 30, 34, 38, 40, 42, 44, 46, 48, 50.0]
    ),
}


def stack(heights_mm, pixels: int = 52, tilt: float = 0.0) -> Geometry:
    """Axial slices of 1 x 1 mm at these heights, each shifted to the left by ``tilt`` times its height."""
    heights_mm = np.asarray(heights_mm, dtype=float)
    origins = np.stack([heights_mm * tilt, np.zeros_like(heights_mm), heights_mm], axis=1)
    return Geometry((len(heights_mm), pixels, pixels), origins, [0, 1.0, 0], [1.0, 0, 0])


def centres_lps_mm(geometry: Geometry) -> np.ndarray:
    row, column = np.mgrid[: geometry.shape[1], : geometry.shape[2]][..., None]
    in_plane = row * geometry.row_step_lps_mm + column * geometry.column_step_lps_mm
    return geometry.origins_lps_mm[:, None, None] + in_plane


def ball(geometry: Geometry, centre_lps_mm, radius_mm: float) -> np.ndarray:
    return np.linalg.norm(centres_lps_mm(geometry) - np.asarray(centre_lps_mm), axis=-1) <= radius_mm


def radius_of_mm(mask: np.ndarray, geometry: Geometry) -> float:
    return float(np.cbrt(volume_cc(mask, geometry) * 1000 / (4 / 3 * np.pi)))


def contour_points_lps_mm(grown: np.ndarray, geometry: Geometry) -> np.ndarray:
    return np.concatenate(
        [
            geometry.points_lps_mm(index, polygon.exterior)
            for index, plane in enumerate(grown)
            for polygon in probability_polygons(plane)
        ]
    )


def drawn_ball(geometry: Geometry, centre_lps_mm, radius_mm: float) -> np.ndarray:
    """The ball as a structure set holds it: a circle of 720 points on every slice that cuts it."""
    outlines = {}
    turn = np.linspace(0, 2 * np.pi, 720, endpoint=False)[:, None]
    row, column = geometry.row_step_lps_mm, geometry.column_step_lps_mm
    for index, origin in enumerate(geometry.origins_lps_mm):
        height_mm = float((origin - centre_lps_mm) @ geometry.normal_lps)
        if abs(height_mm) < radius_mm:
            middle = np.asarray(centre_lps_mm) + height_mm * geometry.normal_lps
            around = np.cos(turn) * row / np.linalg.norm(row) + np.sin(turn) * column / np.linalg.norm(column)
            circle = middle + np.sqrt(radius_mm**2 - height_mm**2) * around
            outlines[index] = [geometry.rows_columns(index, circle)]
    return outline_map(ball(geometry, centre_lps_mm, radius_mm), outlines, geometry)


def sections_cc(geometry: Geometry, centre_lps_mm, radius_mm: float) -> float:
    """What exact contours of the ball on these slices enclose."""
    heights_mm = (geometry.origins_lps_mm - centre_lps_mm) @ geometry.normal_lps
    return float(np.pi * np.maximum(radius_mm**2 - heights_mm**2, 0) @ geometry.slice_thickness_mm) / 1000


# ---- closed forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("heights", HEIGHTS_MM)
@pytest.mark.parametrize(("start", "volume_off", "inside_mm"), [("drawn", 0.01, 0.2), ("mask", 0.02, 0.45)])
def test_a_ball_grows_and_shrinks_to_the_volume_of_exact_contours(
    heights, tilt, start, volume_off, inside_mm
):
    geometry = stack(HEIGHTS_MM[heights], tilt=tilt)
    centre = centres_lps_mm(geometry)[geometry.shape[0] // 2, 25, 25] + [0.3, -0.2, 0.4]
    for radius_mm, margin_mm in ((10, 5), (8, 8), (15, -5)):
        begin = (drawn_ball if start == "drawn" else ball)(geometry, centre, radius_mm)
        grown = expand(begin, geometry, margin_mm)
        after_mm = radius_mm + margin_mm
        exact_cc = sections_cc(geometry, centre, after_mm)
        assert volume_cc(grown, geometry) == pytest.approx(exact_cc, rel=volume_off)
        radii_mm = np.linalg.norm(contour_points_lps_mm(grown, geometry) - centre, axis=1)
        assert radii_mm.min() > after_mm - inside_mm


def test_a_flat_face_moves_by_the_margin_below_the_voxel():
    geometry = stack(3.0 * np.arange(13), pixels=40)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[4:9, 12:28, 10:30] = True  # faces at rows 11.5 and 27.5, columns 9.5 and 29.5, heights 10.5 and 25.5
    for margin_mm, slices in (
        (0.4, 5),
        (1.4, 5),
        (1.6, 7),
        (4.4, 7),
        (4.6, 9),
        (-1.4, 5),
        (-1.6, 3),
        (-4.6, 1),
    ):
        grown = expand(mask, geometry, margin_mm)
        (middle,) = probability_polygons(grown[6])
        ends = [*middle.exterior.min(axis=0), *middle.exterior.max(axis=0)]
        expected = np.array([11.5, 9.5, 27.5, 29.5]) + margin_mm * np.array([-1, -1, 1, 1])
        assert ends == pytest.approx(expected, abs=0.06), margin_mm
        assert np.count_nonzero((grown >= 0.5).any(axis=(1, 2))) == slices, margin_mm


def test_a_map_of_zeros_and_ones_grows_as_the_mask_that_it_is():
    geometry = stack(3.0 * np.arange(9), pixels=24)
    mask = ball(geometry, [12, 12, 12], 6)
    mask[4, 3, 3] = True
    assert np.array_equal(expand(mask.astype(np.float32), geometry, 2.5), expand(mask, geometry, 2.5))


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_hole_shrinks_as_the_structure_grows_and_a_channel_to_it_stays_closed(tilt):
    geometry = stack(3.0 * np.arange(9), pixels=44, tilt=tilt)
    square = np.array([[5.2, 6.1], [5.2, 38.4], [39.3, 38.4], [39.3, 6.1]])
    hole = np.array([[15.4, 16.1], [27.2, 16.1], [27.2, 28.3], [15.4, 28.3]])
    (keyhole,), _ = encode_holes([Polygon(square, (hole,))], "keyhole")
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[2:7] = rasterise([keyhole], geometry.shape[1:])
    grown = expand(outline_map(mask, dict.fromkeys(range(2, 7), [keyhole]), geometry), geometry, 2.0)
    (polygon,) = probability_polygons(grown[4])
    (inner,) = polygon.holes
    if not tilt:  # upright walls: each moves by the margin
        ends = [*inner.min(axis=0), *inner.max(axis=0)]
        assert ends == pytest.approx([17.4, 18.1, 25.2, 26.3], abs=0.15)
        ends = [*polygon.exterior.min(axis=0), *polygon.exterior.max(axis=0)]
        assert ends == pytest.approx([3.2, 4.1, 41.3, 40.4], abs=0.1)


def test_on_uneven_slices_only_those_within_reach_are_filled():
    geometry = stack([0, 1, 2, 3, 8, 9, 10], pixels=12)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[3, 1:-1, 1:-1] = True
    # Faces half-way: at 2.5 and 5.5 mm. Reach 2 mm: slices at 2 and 1 mm below; above, 8 mm is 2.5 mm away.
    for margin_mm, filled in ((2.0, [0, 1, 1, 1, 0, 0, 0]), (2.6, [1, 1, 1, 1, 1, 0, 0])):
        grown = expand(mask, geometry, margin_mm)
        assert (grown[:, 5, 5] >= 0.5).tolist() == [bool(n) for n in filled]


# ---- six directions ----------------------------------------------------------------------------------------


SIX = {"left": 5.3, "right": 2.2, "anterior": 3.1, "posterior": 6.4, "superior": 7.7, "inferior": 1.9}


@pytest.mark.parametrize("turn_degrees", [0, 35])
def test_six_directions_on_uneven_tilted_oblique_slices_reach_as_far_as_asked(turn_degrees):
    angle = np.radians(turn_degrees)
    row = np.array([0, np.cos(angle), np.sin(angle)]) * 1.3
    column = np.array([0.9, 0, 0])
    normal = np.cross(column, row) / np.linalg.norm(np.cross(column, row))
    heights = np.cumsum([0, *[2.0, 2.0, 1.5, 1.5, 2.0, 1.0] * 4])
    geometry = Geometry((25, 40, 44), heights[:, None] * (normal + [0.2, 0, 0]), row, column)
    centre = centres_lps_mm(geometry)[12, 20, 21]
    grown = expand(drawn_ball(geometry, centre, 6.0), geometry, SIX)
    # The farthest point of a sum of convex bodies is the sum of their farthest points, in every direction.
    reach = contour_points_lps_mm(grown, geometry) - centre
    low, high = reach.min(axis=0), reach.max(axis=0)
    assert [high[0], -low[0], -low[1], high[1]] == pytest.approx([11.3, 8.2, 9.1, 12.4], abs=0.35)
    assert 13.7 - 2.0 < high[2] < 13.7 + 0.35 and 7.9 - 2.0 < -low[2] < 7.9 + 0.35  # to the last slice within


def test_six_equal_directions_are_one_margin():
    geometry = stack(HEIGHTS_MM["uneven"])
    start = drawn_ball(geometry, [25.2, 24.8, 25.3], 9)
    almost = {**dict.fromkeys(SIX, 5.0), "left": 5.001}
    both = [volume_cc(expand(start, geometry, mm), geometry) for mm in (5.0, almost)]
    assert both[1] == pytest.approx(both[0], rel=0.01)


def test_directions_are_the_patients_whatever_the_image_orientation():
    # Coronal: columns run to the right of the patient, rows to the feet, so slices run to the front or back.
    geometry = Geometry.from_lps_affine(
        np.array([[0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]]), (11, 11, 11)
    )
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[5, 5, 5] = True
    centres = centres_lps_mm(geometry)
    towards = {"left": (0, 1), "right": (0, -1), "posterior": (1, 1), "anterior": (1, -1), "superior": (2, 1)}
    for name, (axis, sign) in {**towards, "inferior": (2, -1)}.items():
        new = (expand(mask, geometry, {name: 3.4}) >= 0.5) & ~mask
        moved = (centres[new] - centres[5, 5, 5]) * sign
        assert sorted(moved[:, axis]) == [1, 2, 3]
        assert (np.delete(moved, axis, axis=1) == 0).all()


def test_growing_and_shrinking_a_large_box_are_inverse_but_for_its_edges():
    geometry = stack(2.0 * np.arange(20))
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[6:14, 15:36, 12:40] = True
    back = expand(expand(mask, geometry, 6.0), geometry, -6.0) >= 0.5
    assert np.count_nonzero(back & ~mask) == 0
    assert np.count_nonzero(mask & ~back) < 0.03 * np.count_nonzero(mask)


# ---- borders, nothing, and what is refused -----------------------------------------------------------------


def test_growth_ends_at_the_image_border():
    geometry = stack(np.arange(4), pixels=5)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[0, 0, 0] = True
    assert expand(mask, geometry, 50.0).all()


def test_an_empty_mask_stays_empty_and_a_margin_of_nothing_changes_nothing():
    geometry = stack(np.arange(4), pixels=5)
    mask = np.zeros(geometry.shape, dtype=bool)
    assert not expand(mask, geometry, 5.0).any()
    assert not expand(mask, geometry, -5.0).any()
    mask[1, 2, 2] = True
    for nothing in (0.0, {}, {"left": 0.0}):
        result = expand(mask, geometry, nothing)
        assert (result == mask).all() and result is not mask


def test_the_end_of_the_scan_is_no_surface():
    geometry = stack(3.0 * np.arange(6), pixels=20)
    assert (expand(np.ones(geometry.shape, dtype=bool), geometry, -4.0) == 1).all()
    body = np.zeros(geometry.shape, dtype=bool)
    body[:, :, 3:15] = True  # from the first slice to the last, and from edge to edge of the image
    shrunk = expand(body, geometry, -4.0) >= 0.5
    expected = np.zeros_like(body)
    expected[:, :, 7:11] = True  # 4 mm from the faces at 2.5 and 14.5
    assert (shrunk == expected).all()
    body[-1] = False  # now it ends half-way to the last slice, at 13.5 mm, and there it is a surface
    assert (expand(body, geometry, -4.0) >= 0.5).any(axis=(1, 2)).tolist() == [True] * 4 + [False] * 2


def test_a_structure_shrinks_to_nothing():
    geometry = stack(3.0 * np.arange(8), pixels=24)
    mask = ball(geometry, [12, 12, 11], 6)
    for margin_mm in (-7.0, -300.0):
        gone = expand(mask, geometry, margin_mm)
        assert mask.any() and not (gone >= 0.5).any() and volume_cc(gone, geometry) == 0


def test_what_cannot_be_grown_is_refused():
    geometry = stack(np.arange(4), pixels=5)
    mask = np.zeros(geometry.shape, dtype=bool)
    with pytest.raises(StructureError, match="bool"):
        expand(mask.astype(int), geometry, 5.0)
    with pytest.raises(StructureError, match="from 0 to 1"):
        expand(np.full(geometry.shape, np.nan), geometry, 5.0)
    with pytest.raises(GeometryError, match="shape"):
        expand(mask[1:], geometry, 5.0)
    with pytest.raises(GeometryError, match="one slice"):
        expand(mask[:1], stack([0.0], pixels=5), 5.0)
    with pytest.raises(InputError, match="left, right"):
        expand(mask, geometry, {"up": 3.0})
    with pytest.raises(InputError, match="0 or more"):
        expand(mask, geometry, {"left": -3.0})
    with pytest.raises(InputError, match="finite"):
        expand(mask, geometry, float("nan"))


# ---- slices in the other order -----------------------------------------------------------------------------


@pytest.mark.parametrize("margin_mm", [6.0, -2.0, {"superior": 7, "left": 4}])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_slices_that_descend_get_the_same_margin(margin_mm, tilt):
    geometry = stack(HEIGHTS_MM["3 mm"], tilt=tilt)
    mask = ball(geometry, centres_lps_mm(geometry)[8, 25, 25], 9.0)
    descending = Geometry(geometry.shape, geometry.origins_lps_mm[::-1], [0, 1.0, 0], [1.0, 0, 0])
    grown = expand(mask, geometry, margin_mm)
    assert (grown != mask).any()
    assert np.allclose(expand(mask[::-1], descending, margin_mm)[::-1], grown, atol=0.03)


# ---- cropping and subtracting ------------------------------------------------------------------------------


def test_a_crop_leaves_no_voxel_outside_and_an_inset_keeps_its_distance():
    geometry = stack(HEIGHTS_MM["uneven"])
    body = ball(geometry, [25, 25, 25], 20)
    ptv = expand(ball(geometry, [40, 25, 25], 6), geometry, 5)
    assert ((ptv >= 0.5) & ~body).any()
    assert not ((crop(ptv, body, geometry) >= 0.5) & ~body).any()
    inset = crop(ptv, body, geometry, 4) >= 0.5
    radii_mm = np.linalg.norm(centres_lps_mm(geometry)[inset] - [25, 25, 25], axis=1)
    assert inset.any() and radii_mm.max() < 20 - 4 + 0.4


def test_what_is_subtracted_stays_free_and_so_does_the_gap_around_it():
    geometry = stack(HEIGHTS_MM["3 mm"])
    target, cord = ball(geometry, [25, 25, 25], 15), ball(geometry, [38, 25, 25], 5)
    assert ((subtract(target, cord, geometry) >= 0.5) == target & ~cord).all()
    around = expand(cord, geometry, 3) >= 0.5
    assert ((subtract(target, cord, geometry, 3) >= 0.5) == target & ~around).all()
    empty = np.zeros_like(target)
    assert (subtract(target, empty, geometry, 3) == target).all() and not crop(target, empty, geometry).any()
    for function in (crop, subtract):
        with pytest.raises(InputError, match="0 or more"):
            function(target, cord, geometry, -1.0)


def test_a_margin_beyond_the_image_fills_it_without_looking_farther():
    geometry = stack(3.0 * np.arange(4), 12)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[1, 5, 5] = True
    assert expand(mask, geometry, 300).all()
    assert not expand(~mask, geometry, -300).any()
    left = expand(mask, geometry, {"left": 300})
    assert left[1, 5, 5:].all() and np.count_nonzero(left >= 0.5) == 7


@pytest.mark.parametrize("mm", [301, -301, {"left": 1e9}])
def test_a_margin_beyond_the_limit_is_refused_with_the_limit(mm, monkeypatch):
    geometry = stack(3.0 * np.arange(4), 12)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[1, 5, 5] = True
    with pytest.raises(InputError, match="at most 300 mm are made.*MEDSEG_LIMIT_MARGIN_MM"):
        expand(mask, geometry, mm)
    monkeypatch.setenv("MEDSEG_LIMIT_MARGIN_MM", "2000000000")
    assert expand(mask, geometry, mm)[1].any() == (mm != -301)
