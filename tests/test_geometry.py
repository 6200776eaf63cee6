"""Positions of voxels, against numbers computed by hand and against SimpleITK and nibabel."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.geometry import LPS_TO_RAS, Geometry, difference


def axial(slices=4, gap_mm=3.0, frame="1.2.3", origin=(-100.0, -80.0, 50.0)):
    """5 rows 2 mm apart (to posterior), 6 columns 1.5 mm apart (to the left)."""
    origins = np.array(origin) + np.arange(slices)[:, None] * [0, 0, gap_mm]
    return Geometry((slices, 5, 6), origins, (0, 2.0, 0), (1.5, 0, 0), frame)


def uneven():
    origins = [(0, 0, 0), (0, 0, 2), (0, 0, 4), (0, 0, 9)]
    return Geometry((4, 5, 6), origins, (0, 2, 0), (1.5, 0, 0), "1.2.3")


def tilted(step_mm=(0, 1.0, 3.0)):
    return Geometry((4, 5, 6), np.arange(4)[:, None] * np.array(step_mm), (0, 2, 0), (1.5, 0, 0), "1.2.3")


# ---- positions ---------------------------------------------------------------------------------------------


def test_an_index_becomes_the_point_computed_by_hand_and_back():
    geometry = axial()
    points = geometry.points_lps_mm(2, [(0, 0), (3, 4), (-0.5, 5.5)])
    assert points.tolist() == [[-100, -80, 56], [-94, -74, 56], [-91.75, -81, 56]]
    assert geometry.rows_columns(2, points).tolist() == [[0, 0], [3, 4], [-0.5, 5.5]]


def test_a_point_off_the_slice_is_projected_straight_onto_it():
    assert axial().rows_columns(0, [(-94, -74, 999)]).tolist() == [[3, 4]]


def test_spacing_normal_and_volumes_of_an_axial_stack():
    geometry = axial()
    assert geometry.pixel_spacing_mm == (2.0, 1.5)
    assert geometry.spacing_mm == (3.0, 2.0, 1.5)
    assert geometry.normal_lps.tolist() == [0, 0, 1]
    assert geometry.slice_positions_mm.tolist() == [50, 53, 56, 59]
    assert geometry.voxel_volumes_cc.tolist() == pytest.approx([0.009] * 4)


def test_the_normal_follows_the_right_hand_rule_of_dicom():
    # Coronal: columns to the left, rows to inferior; the normal is column x row = x cross -z = +y, to
    # posterior.
    coronal = Geometry((2, 3, 3), [(0, 0, 0), (0, 4, 0)], (0, 0, -1), (1, 0, 0))
    assert coronal.normal_lps.tolist() == [0, 1, 0]
    assert coronal.spacing_mm[0] == 4


def test_each_slice_stands_for_half_the_gap_to_each_neighbour():
    assert uneven().slice_thickness_mm.tolist() == [2, 2, 3.5, 5]
    assert uneven().voxel_volumes_cc.tolist() == pytest.approx([0.006, 0.006, 0.0105, 0.015])


def test_the_height_of_a_single_slice_is_unknown_and_never_1():
    single = axial(slices=1)
    assert np.isnan(single.slice_thickness_mm).all() and np.isnan(single.voxel_volumes_cc).all()
    with pytest.raises(GeometryError, match="at least two slices"):
        _ = single.spacing_mm
    assert single.is_regular


def test_the_nearest_slice_and_its_distance():
    index, distance_mm = uneven().nearest_slice([(10, 10, 6.0), (20, 20, 6.2)])
    assert index == 2 and distance_mm == pytest.approx(2.1)


def test_a_stack_that_descends_keeps_positive_spacing():
    descending = axial(gap_mm=-3.0)
    assert descending.spacing_mm == (3.0, 2.0, 1.5)
    assert descending.slice_positions_mm.tolist() == [50, 47, 44, 41]
    assert descending.slice_thickness_mm.tolist() == [3, 3, 3, 3]
    assert descending.affine_lps[:3, 0].tolist() == [0, 0, -3]


# ---- even, sheared, regular --------------------------------------------------------------------------------


def test_even_uneven_and_tilted_stacks_are_told_apart():
    assert (axial().is_uniform, axial().is_sheared, axial().is_regular) == (True, False, True)
    assert (uneven().is_uniform, uneven().is_sheared, uneven().is_regular) == (False, False, False)
    assert (tilted().is_uniform, tilted().is_sheared, tilted().is_regular) == (True, True, False)


def test_positions_rounded_to_centimillimetres_still_count_as_even_and_upright():
    heights = np.round(np.arange(40) * 3.2701, 2)
    origins = np.stack([np.zeros(40), np.round(np.arange(40) * 0.0004, 2), heights], axis=1)
    assert Geometry((40, 5, 6), origins, (0, 2, 0), (1.5, 0, 0)).is_regular


def test_a_slow_drift_that_adds_up_to_a_pixel_is_a_shear():
    origins = np.stack([np.zeros(60), np.arange(60) * 0.04, np.arange(60) * 3.0], axis=1)
    assert Geometry((60, 5, 6), origins, (0, 2, 0), (1.5, 0, 0)).is_sheared


def test_positions_that_a_scanner_rounded_to_one_decimal_still_count_as_even():
    # 0.625 mm apart, written 0.0, 0.6, 1.2, 1.9, 2.5 ...: the affine is never more than 0.1 mm off.
    origins = np.zeros((400, 3))
    origins[:, 2] = np.round(np.arange(400) * 0.625 + 0.03, 1)
    stack = Geometry((400, 5, 6), origins, (0, 2, 0), (1.5, 0, 0))
    assert stack.is_regular and stack.regular_grid() is stack
    on_affine = (stack.affine_lps @ [399 / 2, 0, 0, 1])[2]
    assert abs(on_affine - origins[199:201, 2].mean()) < 0.1


def test_one_slice_out_of_place_by_more_than_a_tenth_of_a_millimetre_is_uneven():
    for gap_mm, off_mm in ((1.0, 0.15), (5.0, 0.15), (0.2, 0.05)):
        origins = np.zeros((10, 3))
        origins[:, 2] = np.arange(10) * gap_mm
        origins[4, 2] += off_mm
        assert not Geometry((10, 5, 6), origins, (0, 2, 0), (1.5, 0, 0)).is_uniform


def test_large_pixels_do_not_hide_a_lean_of_more_than_a_quarter_of_a_millimetre():
    origins = np.stack([np.zeros(45), np.arange(45) * 0.04, np.arange(45) * 4.0], axis=1)
    assert Geometry(
        (45, 5, 6), origins, (0, 4.0, 0), (4.0, 0, 0)
    ).is_sheared  # 1.76 mm in all, less than half a pixel


def test_slices_that_lean_out_and_back_are_not_regular():
    sideways = 0.04 * np.minimum(np.arange(60), np.arange(60)[::-1])
    origins = np.stack([np.zeros(60), sideways, np.arange(60) * 3.0], axis=1)
    assert not Geometry((60, 5, 6), origins, (0, 2, 0), (1.5, 0, 0)).is_regular


def test_an_uneven_stack_has_no_affine_and_no_single_spacing():
    with pytest.raises(GeometryError, match="no affine"):
        _ = uneven().affine_lps
    with pytest.raises(GeometryError, match=r"2\.00 to 5\.00 mm"):
        _ = uneven().spacing_mm


def test_the_spacing_of_a_tilted_stack_is_the_distance_between_its_planes():
    assert tilted().spacing_mm[0] == pytest.approx(3.0)
    assert tilted().affine_lps[:3, 0].tolist() == [0, 1, 3]


def test_the_regular_grid_covers_a_tilted_and_an_uneven_stack():
    assert difference(axial().regular_grid(), axial()) is None
    grid = tilted().regular_grid()
    # Slices shift by 3 mm in all = 1.5 rows of 2 mm, so two rows are added and every slice fits in.
    assert grid.shape == (4, 7, 6) and grid.is_regular
    grid = uneven().regular_grid()
    # Heights 0 to 9 mm at the median gap of 2 mm: planes 0, 2, 4, 6, 8 and 10.
    assert grid.shape == (6, 5, 6)
    assert grid.slice_positions_mm.tolist() == [0, 2, 4, 6, 8, 10]


def test_a_stack_tilted_to_the_other_side_starts_its_regular_grid_where_its_last_slice_reaches():
    grid = tilted(step_mm=(0, -1.0, 3.0)).regular_grid()
    assert grid.shape == (4, 7, 6)
    assert grid.origins_lps_mm[0].tolist() == [0, -4, 0]


# ---- affines -----------------------------------------------------------------------------------------------


def test_the_affine_agrees_with_the_points():
    geometry = tilted()
    for slice_index, row, column in [(0, 0, 0), (3, 4, 5), (2, 1.5, -0.5)]:
        by_affine = geometry.affine_lps @ [slice_index, row, column, 1]
        in_plane = np.array([(row, column)])
        assert by_affine[:3] == pytest.approx(geometry.points_lps_mm(slice_index, in_plane)[0])


def test_lps_becomes_ras_by_turning_two_axes():
    geometry = axial()
    assert (LPS_TO_RAS @ LPS_TO_RAS).tolist() == np.eye(4).tolist()
    # Voxel x = column 4, y = row 3, z = slice 2 lies at LPS (-94, -74, 56), which is RAS (94, 74, 56).
    assert (geometry.affine_ras @ [4, 3, 2, 1]).tolist() == [94, 74, 56, 1]


def test_simpleitk_and_nibabel_put_a_voxel_at_the_same_place(tmp_path):
    import nibabel
    import SimpleITK

    axes = np.linalg.qr(np.array([[0.9, 0.2, 0.1], [-0.3, 0.8, 0.2], [0.1, -0.2, 1.0]]))[0]
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    origins = np.array([12.0, -7.0, 30.0]) + np.arange(4)[:, None] * 2.5 * axes[:, 2]
    geometry = Geometry((4, 5, 6), origins, axes[:, 1] * 2.0, axes[:, 0] * 1.5)
    image = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), geometry.affine_ras)
    nibabel.save(image, tmp_path / "image.nii.gz")
    read = SimpleITK.ReadImage(str(tmp_path / "image.nii.gz"))
    assert read.GetSize() == (6, 5, 4)
    for column, row, index in [(0, 0, 0), (5, 0, 1), (2, 4, 3)]:
        point = geometry.points_lps_mm(index, [(row, column)])[0]
        assert read.TransformIndexToPhysicalPoint((column, row, index)) == pytest.approx(point, abs=1e-3)


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
def test_a_nifti_affine_of_any_handedness_comes_back_unchanged(flip):
    affine = np.diag([*np.array([1.5, 2.0, 3.0]) * flip, 1.0])
    affine[:3, 3] = (90, -126, -72)
    geometry = Geometry.from_ras_affine(affine, (6, 5, 4))
    assert geometry.shape == (4, 5, 6)
    assert geometry.affine_ras == pytest.approx(affine)


def test_a_nifti_affine_with_skewed_pixels_is_refused():
    affine = np.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(GeometryError, match="not perpendicular"):
        Geometry.from_ras_affine(affine, (6, 5, 4))


# ---- equality: shape, place, Frame of Reference ------------------------------------------------------------


def test_equal_geometries_do_not_differ():
    assert difference(axial(), axial()) is None
    assert difference(axial(), axial(frame=None)) is None  # unknown is not unequal
    axial().require_same(axial(), "the mask")


def test_another_shape_place_or_frame_of_reference_is_a_difference_in_words():
    assert difference(axial(), axial(slices=5)) == "shape (4, 5, 6) against (5, 5, 6) (slices, rows, columns)"
    assert "Frame of Reference 1.2.3 against 9.9" in difference(axial(), axial(frame="9.9"))
    assert "slice 0 lies up to 0.500 mm apart" in difference(axial(), axial(origin=(-100, -80, 50.5)))
    assert "slice 1 lies up to 0.100 mm apart" in difference(axial(), axial(gap_mm=3.1))


def test_a_mirrored_stack_of_the_same_shape_and_corner_is_another():
    mirrored = Geometry((4, 5, 6), axial().origins_lps_mm, (0, 2.0, 0), (-1.5, 0, 0), "1.2.3")
    assert "15.000 mm apart" in difference(axial(), mirrored)


def test_a_small_turn_counts_by_the_distance_that_it_makes():
    angle = 0.002  # over 4 rows of 2 mm: 0.016 mm; over 5 columns of 1.5 mm: 0.015 mm
    turned = Geometry(
        (4, 5, 6),
        axial().origins_lps_mm,
        np.array([-np.sin(angle), np.cos(angle), 0]) * 2,
        np.array([np.cos(angle), np.sin(angle), 0]) * 1.5,
        "1.2.3",
    )
    assert "0.016 mm" in difference(axial(), turned)
    assert difference(axial(), turned, tolerance_mm=0.02) is None


def test_require_same_names_what_does_not_fit():
    with pytest.raises(GeometryError, match="mask GTV does not lie on the image's grid: shape"):
        axial().require_same(axial(slices=5), "mask GTV")


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "origins", "row_step", "column_step", "words"),
    [
        ((2, 5, 6), [(0, 0, 0)], (0, 2, 0), (1, 0, 0), "1 slice positions for 2 slices"),
        ((0, 5, 6), np.zeros((0, 3)), (0, 2, 0), (1, 0, 0), "at least 1"),
        ((5, 6), [(0, 0, 0)], (0, 2, 0), (1, 0, 0), "expected"),
        ((1, 5, 6), [(0, 0, 0)], (0, 0, 0), (1, 0, 0), "spacing is zero"),
        ((1, 5, 6), [(0, 0, 0)], (1, 1, 0), (1, 0, 0), "not perpendicular"),
        ((1, 5, 6), [(0, 0, np.nan)], (0, 1, 0), (1, 0, 0), "not a finite number"),
        ((2, 5, 6), [(0, 0, 1), (0, 0, 1)], (0, 1, 0), (1, 0, 0), "sort them"),
        ((3, 5, 6), [(0, 0, 1), (0, 0, 4), (0, 0, 2)], (0, 1, 0), (1, 0, 0), "sort them"),
        ((2, 5, 6), [(0, 0, 1), (5, 5, 1)], (0, 1, 0), (1, 0, 0), "sort them"),
    ],
)
def test_a_stack_that_cannot_exist_is_refused(shape, origins, row_step, column_step, words):
    with pytest.raises(GeometryError, match=words):
        Geometry(shape, origins, row_step, column_step)


def test_a_geometry_cannot_be_changed_by_accident():
    geometry = axial()
    for array in (
        geometry.origins_lps_mm,
        geometry.row_step_lps_mm,
        geometry.normal_lps,
        geometry.slice_positions_mm,
    ):
        with pytest.raises(ValueError):
            array[0] = 1
    with pytest.raises(AttributeError):
        geometry.shape = (1, 1, 1)
