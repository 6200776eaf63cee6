"""Agreement of masks. Referees: closed forms by hand and DeepMind's own surface-distance package."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg import metrics
from medseg.errors import GeometryError
from medseg.geometry import Geometry


def box_mask(shape, *ranges) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*pair) for pair in ranges)] = True
    return mask


A = box_mask((12, 12, 12), (2, 8), (2, 8), (2, 8))
SHIFTED = box_mask((12, 12, 12), (4, 10), (2, 8), (2, 8))
EMPTY = np.zeros((12, 12, 12), dtype=bool)


def test_dice_of_two_boxes_that_share_two_thirds():
    assert metrics.dice(A, SHIFTED) == pytest.approx(2 * (4 * 36) / (2 * 216))
    assert metrics.dice(A, A) == 1.0


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
    theirs, ours = referee.compute_surface_distances(a, b, spacing_mm), metrics.surface_distances(a, b, spacing_mm)
    for tolerance_mm in (0.5, 1.0, 2.0):
        expected = referee.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
        assert ours.dice(tolerance_mm) == pytest.approx(expected, abs=1e-5)
    for percent in (50, 95, 100):
        assert ours.hausdorff_mm(percent) == pytest.approx(referee.compute_robust_hausdorff(theirs, percent), abs=1e-6)
    both = referee.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    assert ours.mean_mm() == pytest.approx(np.average(both, weights=areas), abs=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 0.977, 0.977), (3.0, 1.0, 2.0)])
def test_areas_of_all_256_neighbourhoods_equal_deepminds_table(spacing_mm):
    tables = pytest.importorskip("surface_distance.lookup_tables", reason="surface-distance is not installed")
    expected = tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    assert metrics._area_by_code(tuple(np.diag(spacing_mm).ravel().tolist())) == pytest.approx(expected, rel=1e-6)


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


def test_volume_counts_each_slice_with_its_own_height():
    # Gaps of 2, 2 and 6 mm: heights 2, 2, 4 and 6 mm. 10 voxels of 1 x 2 mm on each slice.
    origins = [[0, 0, z] for z in (0.0, 2.0, 4.0, 10.0)]
    geometry = Geometry((4, 4, 5), origins, [0, 1.0, 0], [2.0, 0, 0])
    mask = box_mask((4, 4, 5), (0, 4), (1, 3), (0, 5))
    assert metrics.volume_cc(mask, geometry) == pytest.approx(10 * 2 * (2 + 2 + 4 + 6) / 1000)
    assert metrics.volume_cc(np.zeros_like(mask), geometry) == 0.0
    with pytest.raises(GeometryError, match="shape"):
        metrics.volume_cc(mask[1:], geometry)
    single = Geometry((1, 4, 5), origins[:1], [0, 1.0, 0], [2.0, 0, 0])
    assert math.isnan(metrics.volume_cc(mask[:1], single))
