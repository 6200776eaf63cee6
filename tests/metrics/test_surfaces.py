"""Agreement of masks. Referees: closed forms by hand, DeepMind's own surface-distance package, and SciPy's
distance maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from small_masks import EMPTY, SHIFTED, A, blobs, box_mask, stack

from medseg import metrics
from medseg.errors import GeometryError
from medseg.metrics.marching import area_by_code, is_surface, neighbourhood_codes


def test_a_box_moved_two_slices_of_three_mm_lies_six_mm_off():
    distances = metrics.surface_distances(A, SHIFTED, (3.0, 1.0, 1.0))
    assert distances.hausdorff_mm(100) == pytest.approx(6.0)
    # Both end faces, a quarter of the surface, lie 6 mm off and so decide the 95th percentile.
    assert metrics.hd95_mm(A, SHIFTED, (3.0, 1.0, 1.0)) == pytest.approx(6.0)
    assert distances.dice(6.0) == pytest.approx(1.0)
    assert distances.dice(0.5) < 0.8
    assert metrics.surface_dice(A, SHIFTED, (3.0, 1.0, 1.0), 0.5) == distances.dice(0.5)
    assert metrics.mean_surface_distance_mm(A, SHIFTED, (3.0, 1.0, 1.0)) == distances.mean_mm() > 0


def test_equal_masks_have_surface_dice_1_and_no_distance():
    distances = metrics.surface_distances(A, A.copy(), (3.0, 1.0, 2.0))
    assert (distances.dice(0.0), distances.hausdorff_mm(), distances.mean_mm()) == (1.0, 0.0, 0.0)


def test_the_surface_of_a_box_has_the_area_of_its_faces_less_the_cut_edges():
    area_mm2 = metrics.surface_distances(A, A, (1.0, 1.0, 1.0)).area_a_mm2.sum()
    # 6 x 6 x 6 voxels: marching cubes cut every edge by half a voxel's diagonal.
    assert 6 * 25 < area_mm2 < 6 * 36


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.977, 0.977), (3.0, 1.0, 2.0)])
def test_surface_measures_equal_deepminds_package(spacing_mm):
    referee = pytest.importorskip("surface_distance", reason="DeepMind's surface-distance is not installed")
    rng = np.random.default_rng(3)
    field, change = (ndimage.gaussian_filter(rng.standard_normal((20, 32, 28)), 2) for _ in range(2))
    a, b = field > 0.02, field + 0.4 * change > 0.02
    theirs, ours = (
        referee.compute_surface_distances(a, b, spacing_mm),
        metrics.surface_distances(a, b, spacing_mm),
    )
    for tolerance_mm in (0.5, 1.0, 2.0):
        expected = referee.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
        assert ours.dice(tolerance_mm) == pytest.approx(expected, abs=1e-5)
    for percent in (50, 95, 100):
        assert ours.hausdorff_mm(percent) == pytest.approx(
            referee.compute_robust_hausdorff(theirs, percent), abs=1e-6
        )
    both = referee.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert ours.mean_mm() == pytest.approx(np.average(both, weights=areas), abs=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.977, 0.977), (3.0, 1.0, 2.0)])
def test_areas_of_all_256_neighbourhoods_equal_deepminds_table(spacing_mm):
    tables = pytest.importorskip("surface_distance.lookup_tables", reason="surface-distance is not installed")
    expected = tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    assert area_by_code(tuple(np.diag(spacing_mm).ravel().tolist())) == pytest.approx(expected, rel=1e-6)


def test_one_voxel_has_the_surface_of_the_octahedron_between_its_neighbours():
    mask = box_mask((3, 3, 3), (1, 2), (1, 2), (1, 2))
    # Eight equilateral triangles of side sqrt(1/2).
    area_mm2 = metrics.surface_distances(mask, mask, (1.0, 1.0, 1.0)).area_a_mm2
    assert (len(area_mm2), area_mm2.sum()) == (8, pytest.approx(8 * math.sqrt(3) / 4 / 2))


def test_measures_are_the_same_both_ways_round():
    there, back = (metrics.surface_distances(*pair, (3.0, 1.0, 1.0)) for pair in ((A, SHIFTED), (SHIFTED, A)))
    assert there.dice(1.0) == pytest.approx(back.dice(1.0))
    assert there.hausdorff_mm() == back.hausdorff_mm()


def test_two_empty_masks_leave_nothing_to_compare():
    distances = metrics.surface_distances(EMPTY, EMPTY, (1.0, 1.0, 1.0))
    answers = [metrics.dice(EMPTY, EMPTY), distances.dice(1.0), distances.hausdorff_mm(), distances.mean_mm()]
    assert all(math.isnan(answer) for answer in answers)


def test_one_empty_mask_has_no_overlap_and_an_infinite_distance():
    for pair in ((A, EMPTY), (EMPTY, A)):
        distances = metrics.surface_distances(*pair, (1.0, 1.0, 1.0))
        answers = metrics.dice(*pair), distances.dice(99.0), distances.hausdorff_mm(), distances.mean_mm()
        assert answers == (0.0, 0.0, math.inf, math.inf)


def test_masks_of_other_shapes_and_impossible_spacings_are_refused():
    with pytest.raises(GeometryError, match="same voxel grid"):
        metrics.dice(A, A[:-1])
    with pytest.raises(GeometryError, match="same voxel grid"):
        metrics.surface_distances(A, A[:-1], (1.0, 1.0, 1.0))
    for spacing_mm in [(1.0, 1.0), (0.0, 1.0, 1.0), (float("nan"), 1.0, 1.0)]:
        with pytest.raises(GeometryError, match="expected three axes"):
            metrics.surface_distances(A, A, spacing_mm)


# ---- uneven and tilted stacks ------------------------------------------------------------------------------


def test_a_geometry_of_even_slices_counts_as_its_spacing():
    geometry = stack(np.arange(12) * 3.0)
    with_spacing = metrics.surface_distances(A, SHIFTED, geometry.spacing_mm)
    assert metrics.surface_distances(A, SHIFTED, geometry).mean_mm() == with_spacing.mean_mm()


def test_on_uneven_slices_a_face_lies_half_way_between_its_own_slices():
    # Slices at 0, 1, 2, 4, 6, 10 mm. Tops: between 2 and 4 (3 mm), and between 6 and 10 (8 mm).
    geometry = stack([0.0, 1.0, 2.0, 4.0, 6.0, 10.0])
    low = box_mask(geometry.shape, (1, 3), (3, 9), (3, 9))
    high = box_mask(geometry.shape, (1, 5), (3, 9), (3, 9))
    distances = metrics.surface_distances(low, high, geometry)
    assert distances.hausdorff_mm(100) == pytest.approx(5.0)
    # The side walls of the high box: 8 mm from 0.5 to 8, less what the cut edges take; 6 x 6 mm around.
    walls_mm2 = distances.area_b_mm2.sum() - 2 * 5 * 5
    assert 4 * 5 * 6.0 < walls_mm2 < 4 * 6 * 8.0


def test_a_tilted_stack_is_measured_as_the_upright_one_that_holds_the_same_voxels():
    a, b = blobs((14, 40, 40))
    a[:, :, 26:] = b[:, :, 26:] = False  # room to shift
    tilted = stack(np.arange(14) * 2.0, 40, 40, tilt=0.5)  # one column further left on each slice
    upright = [
        np.stack([np.roll(plane, index, axis=1) for index, plane in enumerate(mask)]) for mask in (a, b)
    ]
    there = metrics.surface_distances(a, b, tilted)
    here = metrics.surface_distances(*upright, (2.0, 1.0, 1.0))
    # Triangles between other neighbours bound the same voxels: areas differ by a few percent, distances
    # hardly.
    assert there.area_a_mm2.sum() == pytest.approx(here.area_a_mm2.sum(), rel=0.12)
    assert there.dice(1.5) == pytest.approx(here.dice(1.5), abs=0.02)
    assert there.mean_mm() == pytest.approx(here.mean_mm(), abs=0.05)
    assert there.hausdorff_mm() == pytest.approx(here.hausdorff_mm(), abs=0.5)


def test_masks_on_another_geometry_or_on_one_slice_have_no_surface_distance():
    with pytest.raises(GeometryError, match="shape"):
        metrics.surface_distances(A, A, stack([0.0, 1.0, 3.0]))
    with pytest.raises(GeometryError, match="one slice"):
        metrics.surface_distances(A[:1], A[:1], stack([0.0]))


# ---- far and near ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 1, 2), (3, 9, 14), (14, 0, 30)])
def test_near_and_far_surfaces_equal_a_distance_map(shift):
    a, _ = blobs((30, 40, 50), sigma=3.0)
    a[15:], a[:, 25:], a[:, :, 18:] = False, False, False
    b, spacing_mm = np.roll(a, shift, (0, 1, 2)), (2.5, 0.977, 0.977)
    ours = metrics.surface_distances(a, b, spacing_mm)
    codes_a, codes_b = neighbourhood_codes(a), neighbourhood_codes(b)
    to_b_mm = ndimage.distance_transform_edt(~is_surface(codes_b, 255), sampling=spacing_mm)
    assert ours.from_a_mm == pytest.approx(np.sort(to_b_mm[is_surface(codes_a, 255)]))


def test_a_real_lung_scores_as_with_deepminds_package(shared_data):
    referee = pytest.importorskip("surface_distance", reason="DeepMind's surface-distance is not installed")
    from medseg.cases.mask_sources import open_masks
    from medseg.dicom import read_series

    series = read_series(shared_data / "rt" / "lung1_001" / "CT")
    lung, _ = open_masks(shared_data / "rt" / "lung1_001" / "RTSTRUCT.dcm", series).read("Lung L")
    drawn = np.roll(ndimage.binary_erosion(lung), (1, 2, 0), (0, 1, 2))
    spacing_mm = series.geometry.spacing_mm
    theirs = referee.compute_surface_distances(lung, drawn, spacing_mm)
    ours = metrics.surface_distances(lung, drawn, series.geometry)
    assert ours.dice(2.0) == pytest.approx(referee.compute_surface_dice_at_tolerance(theirs, 2.0), abs=1e-3)
    assert ours.hausdorff_mm(95) == pytest.approx(referee.compute_robust_hausdorff(theirs, 95), abs=1e-3)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert ours.mean_mm() == pytest.approx(
        np.average(referee.compute_average_surface_distance(theirs), weights=areas), abs=1e-3
    )
    assert metrics.dice(lung, drawn, series.geometry) == pytest.approx(
        referee.compute_dice_coefficient(lung, drawn)
    )
