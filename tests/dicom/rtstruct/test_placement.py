"""Contours stored more than once, off the slices, beside the images or across them: no wrong mask without a
word."""

from __future__ import annotations

import numpy as np
import pytest
from roi_files import box, contours, loop_on, only, points_of, said, set_points

from medseg.dicom import read_rtstruct, read_series, read_structure_set
from medseg.dicom.rtstruct.volumes import structure_set_volumes
from medseg.errors import GeometryError
from medseg.phantoms.series import stack_geometry, write_series

SQUARE = [(4.5, 4.5), (4.5, 14.5), (12.5, 14.5), (12.5, 4.5)]  # 8 x 10 pixels of 2 x 1 mm
ON_AN_EDGE = [(8.5, 4.5), (4.5, 4.5), (4.5, 14.5), (12.5, 14.5), (12.5, 4.5), (8.5, 4.5)]
SHIFTED = [(row + 0.002, column - 0.002) for row, column in SQUARE]


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
@pytest.mark.parametrize("copy", [ON_AN_EDGE, ON_AN_EDGE[::-1], SHIFTED], ids=["start", "way", "shift"])
def test_any_number_of_copies_counts_once_in_mask_and_volume(copy, copies, changed, small_ct):
    loops = [loop_on(small_ct, index, SQUARE) for index in (1, 2)]
    loops += [loop_on(small_ct, index, copy) for index in (1, 2) for _ in range(copies)]
    path = changed(only(*loops))
    masks, words = said(path, small_ct)
    assert np.array_equal(masks["GTV"], box(slice(5, 13), slice(5, 15), slice(1, 3)))
    assert words == f"ROI 'GTV': {2 * copies} contours stored twice, used once."
    (volume_cc,) = structure_set_volumes(read_structure_set(path))
    assert volume_cc == pytest.approx(2 * 8 * 10 * 2 * 1 * 3 / 1000)


def test_a_near_copy_that_leaves_a_thin_ring_or_nothing_is_named(changed, small_ct):
    inner = [(5.2, 5.2), (5.2, 13.8), (11.8, 13.8), (11.8, 5.2)]
    loops = [loop_on(small_ct, index, SQUARE) for index in (1, 2, 3)]
    masks, words = said(changed(only(*loops, loop_on(small_ct, 2, inner))), small_ct)
    assert masks["GTV"].sum((1, 2)).tolist() == [0, 80, 80 - 6 * 8, 80, 0, 0]
    assert "1 slices on which holes take more than half of what its contours enclose" in words
    nothing = [(4.7, 4.7), (4.7, 14.3), (12.3, 14.3), (12.3, 4.7)]
    masks, words = said(changed(only(*loops, loop_on(small_ct, 2, nothing))), small_ct)
    assert masks["GTV"].sum((1, 2)).tolist() == [0, 80, 0, 80, 0, 0]
    assert "1 slices between filled ones stay empty although contours lie on them" in words


def test_a_real_hole_is_not_named(changed, small_ct):
    hole = [(6.5, 6.5), (6.5, 11.5), (10.5, 11.5), (10.5, 6.5)]
    masks, words = said(changed(only(loop_on(small_ct, 2, SQUARE), loop_on(small_ct, 2, hole))), small_ct)
    assert masks["GTV"].sum() == 80 - 20 and words == ""


@pytest.mark.parametrize(
    ("height_mm", "words"), [(1.4, "1.40 mm off the plane"), (-0.4, "0.40 mm"), (0.2, "")]
)
def test_contours_off_the_plane_of_their_slice_are_drawn_on_it_and_said_in_mm(
    height_mm, words, changed, small_ct
):
    loops = [loop_on(small_ct, index, SQUARE, height_mm) for index in (1, 2)]
    masks, heard = said(changed(only(*loops)), small_ct)
    assert np.array_equal(masks["GTV"], box(slice(5, 13), slice(5, 15), slice(1, 3)))
    assert words in heard and bool(words) == bool(heard)


def test_contours_sparser_than_the_slices_are_said_with_both_distances(changed, small_ct):
    loops = [loop_on(small_ct, index, SQUARE) for index in (0, 2, 4)]
    masks, words = said(changed(only(*loops)), small_ct)
    assert masks["GTV"].any((1, 2)).tolist() == [True, False, True, False, True, False]
    assert (
        "2 slices inside it without a contour: its contours are 6.00 mm apart on slices of 3.00 mm" in words
    )


def test_contours_beside_the_image_are_left_out_with_their_distance(changed, small_ct):
    beside = [(row, column + 30) for row, column in SQUARE]  # columns 34.5 to 44.5; the image ends at 23.5
    masks, words = said(changed(only(loop_on(small_ct, 1, SQUARE), loop_on(small_ct, 1, beside))), small_ct)
    assert masks["GTV"].sum() == 80
    assert "1 contours 11.0 to 11.0 mm beside the image, left out" in words and "cancel" not in words


def lifted(by_mm):
    def lift(dataset):
        for contour in contours(dataset):
            set_points(contour, points_of(contour) + by_mm)

    return lift


def upright(dataset):
    for contour in contours(dataset):
        set_points(contour, points_of(contour)[:, [2, 1, 0]])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lifted((210, 0, 0)), r"they lie at x 203.0 to 213.0, .* beside the images at x -11.5 to 11.5, "),
        (lifted((0, 0, 1.5)), "the nearest lies 1.50 mm from a slice, half-way to the next"),
        (lifted((0, 0, 100)), "along the slices' normal, the images at -7.5 to 7.5 mm"),
        (upright, "they run across the slices, over up to 10.0 mm"),
    ],
    ids=["beside", "half-way", "above", "across"],
)
def test_a_set_of_which_nothing_lies_on_the_images_is_refused_in_mm(edit, words, changed, small_ct):
    with pytest.raises(GeometryError, match=f"none of its 4 contours lies on the images: .*{words}"):
        read_rtstruct(changed(edit), small_ct)


def test_on_a_single_slice_contours_within_half_a_millimetre_count(changed, small_ct, tmp_path):
    geometry = stack_geometry((1, 20, 24), pixel_spacing_mm=(2.0, 1.0), centre_lps_mm=(0, 0, -4.5))
    write_series(np.zeros((1, 20, 24)), geometry, tmp_path / "one")
    one = read_series(tmp_path / "one")
    path = changed(only(loop_on(small_ct, 1, SQUARE, 0.4)))
    masks, words = said(path, one)
    assert masks["GTV"].sum() == 80 and "0.40 mm off the plane" in words
    with pytest.raises(GeometryError, match="at -5.1 to -5.1 mm along"):
        read_rtstruct(changed(only(loop_on(small_ct, 1, SQUARE, -0.6))), one)
