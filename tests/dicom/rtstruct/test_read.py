"""Reading RT Structure Sets made by medseg and changed by hand, as real writers do."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from roi_files import box, contours, loop_on, only, said, set_points

from medseg.dicom import read_rtstruct, read_structure_set


def test_a_first_point_repeated_as_last_changes_nothing(changed, small_ct):
    def repeat(dataset):
        for contour in contours(dataset):
            contour.ContourData = [*contour.ContourData, *contour.ContourData[:3]]

    masks, words = said(changed(repeat), small_ct)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert words == ""


def test_a_contour_stored_twice_counts_once_whatever_its_start_and_direction(changed, small_ct):
    def twice(dataset):
        for contour in list(contours(dataset)):
            copy = pydicom.Dataset()
            copy.ContourGeometricType = "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3)[::-1]
            copy.ContourData = [str(value) for value in np.roll(points, 2, axis=0).ravel()]
            contours(dataset).append(copy)

    masks, words = said(changed(twice), small_ct)
    assert masks["GTV"].sum() == 4 * 8 * 10
    assert "4 contours stored twice, used once" in words


def test_of_the_xor_type_an_equal_contour_cancels_as_the_standard_says(changed, small_ct):
    def cancel(dataset):
        for contour in list(contours(dataset)):
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
            contours(dataset).append(pydicom.Dataset(contour))

    masks, words = said(changed(cancel), small_ct)
    assert not masks["GTV"].any()
    assert "cancel" in words


def test_nested_contours_are_holes_at_any_depth(changed, small_ct):
    def nest(dataset):
        outer = contours(dataset)[0]
        height = outer.ContourData[2]
        for low, high in ((6.5, 9.5), (7.5, 8.5)):
            ring = pydicom.Dataset()
            ring.ContourGeometricType = "CLOSED_PLANAR"
            points = small_ct.geometry.points_lps_mm(1, [(low, low), (low, high), (high, high), (high, low)])
            ring.ContourData = [f"{value:.3f}" for value in points.ravel()]
            assert float(ring.ContourData[2]) == pytest.approx(float(height))
            contours(dataset).append(ring)

    masks, _ = said(changed(nest), small_ct)
    # On slice 1: 8 x 10 pixels, less rows and columns 7-9 (9 pixels), plus the single pixel (8, 8).
    assert masks["GTV"][1].sum() == 80 - 9 + 1
    assert masks["GTV"][1, 8, 8] and not masks["GTV"][1, 7, 7]


def test_the_plane_of_a_contour_decides_and_wrong_image_references_are_only_reported(changed, small_ct):
    def mislead(dataset):
        for contour in contours(dataset):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = small_ct.sop_instance_uids[0]

    masks, words = said(changed(mislead), small_ct)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert "4 contours that name an image other than the one they lie on" in words


def test_contours_without_any_image_reference_are_placed_in_silence(changed, small_ct):
    def forget(dataset):
        for contour in contours(dataset):
            del contour.ContourImageSequence
        del dataset.ReferencedFrameOfReferenceSequence

    masks, words = said(changed(forget), small_ct)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert words == ""


@pytest.mark.parametrize(("shift_mm", "kept"), [(1.4, True), (-1.4, True), (1.6, False)])
def test_a_contour_belongs_to_a_slice_nearer_than_half_the_spacing(shift_mm, kept, changed, small_ct):
    def lift(dataset):
        for contour in list(contours(dataset))[1:]:
            contours(dataset).remove(contour)
        points = np.array(contours(dataset)[0].ContourData, float).reshape(-1, 3) + (0, 0, shift_mm)
        contours(dataset)[0].ContourData = [f"{value:.3f}" for value in points.ravel()]

    masks, _ = said(changed(lift), small_ct)
    assert np.flatnonzero(masks["GTV"].any((1, 2))).tolist() == ([1] if kept else [2])


def test_contours_beyond_the_images_are_counted_and_the_rest_is_kept(changed, small_ct):
    def outside(dataset):
        points = np.array(contours(dataset)[0].ContourData, float).reshape(-1, 3) + (0, 0, -30)
        contours(dataset)[0].ContourData = [f"{value:.3f}" for value in points.ravel()]

    masks, words = said(changed(outside), small_ct)
    assert np.flatnonzero(masks["GTV"].any((1, 2))).tolist() == [2, 3, 4]
    assert "1 contours on no slice of the images" in words


def test_a_missing_slice_inside_is_reported_and_not_filled(changed, small_ct):
    masks, words = said(changed(lambda dataset: contours(dataset).pop(1)), small_ct)
    assert np.flatnonzero(masks["GTV"].any((1, 2))).tolist() == [1, 3, 4]
    assert "1 slices inside it without a contour" in words


def test_planes_closer_than_the_slices_do_not_cancel_each_other(changed, small_ct):
    def between(dataset):
        for contour in list(contours(dataset)):
            copy = pydicom.Dataset()
            copy.ContourGeometricType = "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3) + (0, 0, 1.0)
            copy.ContourData = [f"{value:.3f}" for value in points.ravel()]
            contours(dataset).append(copy)

    masks, words = said(changed(between), small_ct)
    assert masks["GTV"].sum() == 4 * 8 * 10
    assert "4 contours between the slices" in words


def test_points_and_open_lines_are_left_out_and_empty_structures_are_empty(changed, small_ct):
    two = {
        "Iso": box(slice(0, 3), slice(0, 3)),
        "GTV": box(slice(4, 12), slice(5, 15)),
        "Void": box(slice(0, 1), slice(0, 1)),
    }

    def edit(dataset):
        for contour in contours(dataset, 0):
            contour.ContourGeometricType = "POINT"
            set_points(contour, contour.ContourData[:3])
        contours(dataset, 1)[0].ContourGeometricType = "OPEN_PLANAR"
        del dataset.ROIContourSequence[2]

    masks, words = said(changed(edit, two), small_ct)
    assert list(masks) == ["GTV", "Void"]
    assert masks["GTV"].sum() == 3 * 8 * 10
    assert not masks["Void"].any()
    assert "'Iso': left out" in words and "'Void': it is empty" in words and "1 points or open lines" in words


def test_sequences_in_another_order_are_linked_by_number(changed, small_ct):
    two = {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 12), slice(5, 15))}

    def shuffle(dataset):
        dataset.ROIContourSequence = dataset.ROIContourSequence[::-1]
        dataset.RTROIObservationsSequence[0].RTROIInterpretedType = "UNSUPPORTED"
        dataset.RTROIObservationsSequence = dataset.RTROIObservationsSequence[::-1]

    path = changed(shuffle, two)
    masks, _ = said(path, small_ct)
    assert all(np.array_equal(masks[name], two[name]) for name in two)
    first, second = read_structure_set(path).rois
    assert (first.structure.name, first.raw_type, first.structure.interpreted_type) == (
        "A",
        "UNSUPPORTED",
        "",
    )
    assert (second.structure.name, second.raw_type) == ("B", "ORGAN")


def test_a_contour_with_two_different_points_is_left_out(changed, small_ct):
    def squash(dataset):
        contour = contours(dataset)[0]
        set_points(contour, [*contour.ContourData[:6], *contour.ContourData[:3]])

    masks, words = said(changed(squash), small_ct)
    assert masks["GTV"].sum() == 3 * 8 * 10
    assert "1 contours of fewer than 3 points" in words


def test_a_structure_smaller_than_a_voxel_is_reported(changed, small_ct):
    def shrink(dataset):
        del dataset.ROIContourSequence[0].ContourSequence[1:]
        points = small_ct.geometry.points_lps_mm(1, [(4.2, 4.2), (4.2, 4.4), (4.4, 4.4)])
        set_points(contours(dataset)[0], points)

    masks, words = said(changed(shrink), small_ct)
    assert not masks["GTV"].any()
    assert "smaller than a voxel" in words


def test_coordinates_with_spaces_and_exponents_are_read(changed, small_ct):
    def restyle(dataset):
        for contour in contours(dataset):
            contour.ContourData = [f" {float(value):.6E} " for value in contour.ContourData]

    masks, _ = said(changed(restyle), small_ct)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))


def test_a_keyhole_with_an_island_as_a_second_contour_keeps_both(changed, small_ct):
    # 10 x 10 pixels less a hole of 6 x 6, reached by a channel along row 4.5, with an island of 2 x 2 in it.
    outer = [(2.5, 2.5), (2.5, 12.5), (12.5, 12.5), (12.5, 2.5), (4.5, 2.5)]
    hole = [(4.5, 4.5), (10.5, 4.5), (10.5, 10.5), (4.5, 10.5), (4.5, 4.5)]
    island = [(6.5, 6.5), (6.5, 8.5), (8.5, 8.5), (8.5, 6.5)]
    keyhole = loop_on(small_ct, 2, [*outer, *hole, (4.5, 2.5)])
    masks, words = said(changed(only(keyhole, loop_on(small_ct, 2, island))), small_ct)
    assert masks["GTV"].sum() == 100 - 36 + 4
    assert words == ""


def test_a_contour_that_crosses_itself_is_read_by_the_even_odd_rule_and_reported(changed, small_ct):
    # Round a square of 8 x 8 pixels, then round its inner 4 x 4 again: enclosed twice, so outside.
    outer = [(2.5, 2.5), (2.5, 10.5), (10.5, 10.5), (10.5, 2.5), (2.5, 2.5)]
    inner = [(4.5, 4.5), (4.5, 8.5), (8.5, 8.5), (8.5, 4.5), (4.5, 4.5)]
    masks, words = said(changed(only(loop_on(small_ct, 1, outer + inner))), small_ct)
    assert masks["GTV"].sum() == 64 - 16
    assert "1 contours that cross themselves" in words


def test_contours_that_overlap_without_nesting_are_reported(changed, small_ct):
    def square(low):
        return loop_on(small_ct, 1, [(low, low), (low, low + 4), (low + 4, low + 4), (low + 4, low)])

    masks, words = said(changed(only(square(2.5), square(4.5))), small_ct)
    assert masks["GTV"].sum() == 16 + 16 - 2 * 4
    assert "1 slices on which contours overlap without one lying in the other" in words
    beside, words = said(changed(only(square(2.5), square(6.5))), small_ct)
    assert beside["GTV"].sum() == 32 and words == ""


def test_a_contour_that_reaches_beyond_the_image_is_cut_at_its_edge_and_reported(changed, small_ct):
    past = loop_on(small_ct, 1, [(15.5, 3.5), (15.5, 6.5), (30.0, 6.5), (30.0, 3.5)])
    masks, words = said(changed(only(past)), small_ct)
    assert masks["GTV"].sum() == 4 * 3  # rows 16 to 19 of 20
    assert "1 contours that reach beyond the image" in words
    touching, words = said(changed(lambda dataset: None, {"GTV": box(slice(0, 20), slice(0, 24))}), small_ct)
    assert touching["GTV"].sum() == 4 * 20 * 24 and words == ""


def test_a_contour_across_the_slices_is_left_out(changed, small_ct):
    upright = loop_on(small_ct, 2, [(4.0, 4.0), (4.0, 9.0), (9.0, 9.0), (9.0, 4.0)])
    values = [float(value) for value in upright.ContourData]
    values[2] += 6.0
    upright.ContourData = [str(value) for value in values]
    flat = loop_on(small_ct, 2, [(4.5, 4.5), (4.5, 9.5), (9.5, 9.5), (9.5, 4.5)])
    masks, words = said(changed(only(upright, flat)), small_ct)
    assert masks["GTV"].sum() == 25
    assert "1 contours that lie in no plane of the slices" in words


def test_slices_on_which_a_contour_encloses_no_voxel_centre_are_counted(changed, small_ct):
    speck = loop_on(small_ct, 3, [(4.2, 4.2), (4.2, 4.4), (4.4, 4.4)])
    whole = loop_on(small_ct, 2, [(4.5, 4.5), (4.5, 9.5), (9.5, 9.5), (9.5, 4.5)])
    masks, words = said(changed(only(speck, whole)), small_ct)
    assert masks["GTV"].sum() == 25
    assert "1 slices on which it encloses no voxel centre" in words


def test_references_to_images_that_are_not_there_are_counted_once_for_the_whole_set(changed, small_ct):
    def dangle(dataset):
        for contour in contours(dataset):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"

    masks, words = said(changed(dangle), small_ct)
    assert masks["GTV"].sum() == 4 * 8 * 10
    assert words == "4 of 4 contours name an image which is not in the series; position decides."


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"Pr\xc3\xb6stata", "Pröstata"),
        (b"Pr\xf6stata", "Pröstata"),
        (b"Lung\\L ", "Lung_L"),
        (b" GTV 1, re - x", "GTV 1, re - x"),
    ],
)
def test_names_without_a_character_set_are_read_as_they_were_meant(raw, name, changed, small_ct):
    def rename(dataset):
        if "SpecificCharacterSet" in dataset:
            del dataset.SpecificCharacterSet
        dataset.StructureSetROISequence[0]["ROIName"] = pydicom.DataElement("ROIName", "UN", raw)

    masks, _ = said(changed(rename), small_ct)
    assert list(masks) == [name]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("x" * 70 + "1", "x" * 70 + "2", ["x" * 53 + " (number 1)", "x" * 53 + " (number 2)"]),
        ("a\\b", "a_b", ["a_b (number 1)", "a_b"]),
    ],
    ids=["long", "backslash"],
)
def test_names_that_only_reading_makes_equal_get_their_numbers(first, second, names, changed, small_ct):
    def rename(dataset):
        for row, name in zip(dataset.StructureSetROISequence, (first, second), strict=True):
            row["ROIName"] = pydicom.DataElement("ROIName", "UN", name.encode())

    two = {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 12), slice(5, 15))}
    masks, words = said(changed(rename, two), small_ct)
    assert list(masks) == names
    assert [mask.sum() for mask in masks.values()] == [4 * 9, 4 * 80]
    assert "ROI number 1 is called" in words and ("cut to 64" in words) == (len(first) > 64)


def test_sequences_and_coordinates_of_unknown_vr_are_read(changed, small_ct, tmp_path):
    path = changed(lambda dataset: None)
    dataset = pydicom.dcmread(path)
    contents = pydicom.filebase.DicomBytesIO()
    contents.is_little_endian, contents.is_implicit_VR = True, True
    pydicom.filewriter.write_sequence(contents, dataset["ROIContourSequence"], ["iso8859"])
    value = contents.getvalue()
    del dataset.ROIContourSequence
    dataset.add_new(0x30091001, "UN", b"private ")
    odd = tmp_path / "odd.dcm"
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(odd, implicit_vr=False, little_endian=True)
    head, rest = odd.read_bytes().split(b"\x06\x30\x80\x00SQ")
    unknown = b"\x06\x30\x39\x00UN\0\0" + len(value).to_bytes(4, "little") + value
    odd.write_bytes(head + unknown + b"\x06\x30\x80\x00SQ" + rest)
    assert np.array_equal(read_rtstruct(odd, small_ct)["GTV"], box(slice(4, 12), slice(5, 15)))
