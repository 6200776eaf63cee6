"""Margins in mm. Referees: Steiner's formula for boxes and balls, distances computed one by one, and hand
counts."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import GeometryError, InputError, StructureError
from medseg.geometry import Geometry
from medseg.metrics import volume_cc
from medseg.shapes.margins import crop, expand, subtract

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


# ---- volumes against closed forms --------------------------------------------------------------------------


@pytest.mark.parametrize("tilt", [0.0, 0.3])
@pytest.mark.parametrize("heights", HEIGHTS_MM)
def test_a_ball_grows_by_the_margin_to_within_a_third_of_a_voxel(heights, tilt):
    geometry = stack(HEIGHTS_MM[heights], tilt=tilt)
    middle = geometry.shape[0] // 2
    centre = centres_lps_mm(geometry)[middle, 25, 25] + [0.3, -0.2, 0.4]
    for radius_mm, margin_mm in ((10, 5), (8, 8), (14, -5)):
        mask = ball(geometry, centre, radius_mm)
        grown = expand(mask, geometry, margin_mm)
        largest_mm = np.diff(HEIGHTS_MM[heights]).max()
        off_mm = radius_of_mm(grown, geometry) - radius_of_mm(mask, geometry) - margin_mm
        assert abs(off_mm) < 0.33 * largest_mm


@pytest.mark.parametrize("heights", ["1 mm", "3 mm"])
def test_a_box_grows_to_the_volume_of_steiners_formula(heights):
    geometry = stack(HEIGHTS_MM[heights])
    mask = np.zeros(geometry.shape, dtype=bool)
    height_mm = HEIGHTS_MM[heights][1]
    mask[tuple(slice(round(15 / s), round(36 / s)) for s in (height_mm, 1, 1))] = True
    side, m = 21.0, 6.0
    expected_mm3 = side**3 + 6 * side**2 * m + 3 * np.pi * side * m**2 + 4 / 3 * np.pi * m**3
    assert volume_cc(expand(mask, geometry, m), geometry) * 1000 == pytest.approx(expected_mm3, rel=0.04)


def test_a_flat_face_moves_by_the_margin_rounded_to_whole_voxels():
    geometry = stack(3.0 * np.arange(12), pixels=8)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[5:7] = True
    for margin_mm, slices in ((1.4, 0), (1.5, 1), (4.4, 1), (4.5, 2), (-1.4, 0), (-1.6, -1)):
        expected = np.zeros_like(mask)
        expected[5 - slices : 7 + slices] = True
        if margin_mm < 0:
            # Shrinking also comes in from the image border, by the same rule in pixels of 1 mm.
            cut = round(-margin_mm)
            expected[:, :cut] = expected[:, -cut:] = expected[:, :, :cut] = expected[:, :, -cut:] = False
        assert (expand(mask, geometry, margin_mm) == expected).all(), margin_mm


def test_on_uneven_slices_only_those_within_reach_are_filled():
    geometry = stack([0, 1, 2, 3, 8, 9, 10], pixels=3)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[3] = True
    # Faces half-way: at 2.5 and 5.5 mm. Reach 2 mm: slices at 2 and 1 mm below; above, 8 mm is 2.5 mm away.
    assert expand(mask, geometry, 2.0)[:, 1, 1].tolist() == [False, True, True, True, False, False, False]
    assert expand(mask, geometry, 2.6)[:, 1, 1].tolist() == [True, True, True, True, True, False, False]


# ---- the rule itself, one voxel at a time ------------------------------------------------------------------


def by_hand(mask: np.ndarray, geometry: Geometry, half_axes_mm: dict[str, float]) -> np.ndarray:
    """The rule of the module's first paragraph, with every distance computed."""
    centres = centres_lps_mm(geometry)
    faces = []
    for axis in range(3):
        index = np.argwhere(np.diff(mask, axis=axis))
        after = index + np.eye(3, dtype=int)[axis]
        faces.append((centres[tuple(index.T)] + centres[tuple(after.T)]) / 2)
    distance = centres[..., None, :] - np.concatenate(faces)
    positive = np.array([half_axes_mm[name] for name in ("left", "posterior", "superior")])
    negative = np.array([half_axes_mm[name] for name in ("right", "anterior", "inferior")])
    scaled = distance / np.where(distance > 0, positive, negative)
    return mask | ((scaled**2).sum(-1) <= 1.0001).any(-1)


SIX = {"left": 5.3, "right": 2.2, "anterior": 3.1, "posterior": 6.4, "superior": 7.7, "inferior": 1.9}


@pytest.mark.parametrize("turn_degrees", [0, 35])
def test_six_directions_on_uneven_tilted_oblique_slices_follow_the_rule_voxel_by_voxel(turn_degrees):
    angle = np.radians(turn_degrees)
    row = np.array([0, np.cos(angle), np.sin(angle)]) * 1.3
    column = np.array([0.9, 0, 0])
    normal = np.cross(column, row) / np.linalg.norm(np.cross(column, row))
    heights = np.array([0, 2.0, 4.0, 5.5, 7.0, 11.0, 13.0, 15.0])
    origins = heights[:, None] * (normal + [0.2, 0, 0])
    geometry = Geometry((8, 18, 20), origins, row, column)
    mask = ball(geometry, centres_lps_mm(geometry)[3, 8, 9], 4.0)
    mask[5, 3, 15] = True
    assert (expand(mask, geometry, SIX) == by_hand(mask, geometry, SIX)).all()


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
        new = expand(mask, geometry, {name: 3.0}) & ~mask
        moved = (centres[new] - centres[5, 5, 5]) * sign
        assert sorted(moved[:, axis]) == [1, 2, 3]
        assert (np.delete(moved, axis, axis=1) == 0).all()


def test_growing_and_shrinking_a_large_box_are_inverse():
    geometry = stack(2.0 * np.arange(20))
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[6:14, 15:36, 12:40] = True
    assert (expand(expand(mask, geometry, 6.0), geometry, -6.0) == mask).all()


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


def test_a_full_image_shrinks_from_its_border():
    geometry = stack(np.arange(6), pixels=7)
    result = expand(np.ones(geometry.shape, dtype=bool), geometry, -1.2)
    assert (result.sum(), result[1:-1, 1:-1, 1:-1].all()) == (4 * 5 * 5, True)


def test_what_cannot_be_grown_is_refused():
    geometry = stack(np.arange(4), pixels=5)
    mask = np.zeros(geometry.shape, dtype=bool)
    with pytest.raises(StructureError, match="bool"):
        expand(mask.astype(float), geometry, 5.0)
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
    assert np.array_equal(expand(mask[::-1], descending, margin_mm)[::-1], grown)


# ---- cropping and subtracting ------------------------------------------------------------------------------


def test_a_crop_leaves_no_voxel_outside_and_an_inset_keeps_its_distance():
    geometry = stack(HEIGHTS_MM["uneven"])
    body = ball(geometry, [25, 25, 25], 20)
    ptv = expand(ball(geometry, [40, 25, 25], 6), geometry, 5)
    assert (ptv & ~body).any()
    assert not (crop(ptv, body, geometry) & ~body).any()
    inset = crop(ptv, body, geometry, 4)
    radii_mm = np.linalg.norm(centres_lps_mm(geometry)[inset] - [25, 25, 25], axis=1)
    assert inset.any() and radii_mm.max() < 20 - 4 + 0.5 * 4  # to half of the widest gap between slices


def test_what_is_subtracted_stays_free_and_so_does_the_gap_around_it():
    geometry = stack(HEIGHTS_MM["3 mm"])
    target, cord = ball(geometry, [25, 25, 25], 15), ball(geometry, [38, 25, 25], 5)
    assert (subtract(target, cord, geometry) == target & ~cord).all()
    assert (subtract(target, cord, geometry, 3) == target & ~expand(cord, geometry, 3)).all()
    empty = np.zeros_like(target)
    assert (subtract(target, empty, geometry, 3) == target).all() and not crop(target, empty, geometry).any()
    for function in (crop, subtract):
        with pytest.raises(InputError, match="0 or more"):
            function(target, cord, geometry, -1.0)


def test_a_margin_beyond_the_image_fills_it_without_looking_farther():
    geometry = stack(3.0 * np.arange(4), 12)
    mask = np.zeros(geometry.shape, dtype=bool)
    mask[1, 5, 5] = True
    assert expand(mask, geometry, 1e6).all()
    assert not expand(~mask, geometry, -1e6).any()
    left = expand(mask, geometry, {"left": 1e6})
    assert left[1, 5, 5:].all() and np.count_nonzero(left) == 7
