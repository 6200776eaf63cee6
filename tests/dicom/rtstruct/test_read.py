"""Reading RT Structure Sets, made by medseg and changed by hand, and real ones of planning systems."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest
from referees import area_and_centroid, dice

from medseg.dicom import find_series, read_rtstruct, read_series, read_structure_set, write_rtstruct
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series

SHAPE = (6, 20, 24)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0)), folder)
    return read_series(folder)


def box(rows, columns, slices=slice(1, 5)):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices, rows, columns] = True
    return mask


@pytest.fixture
def changed(series, tmp_path):
    """A function that writes one structure of 8 x 10 pixels on slices 1-4, lets a test change the file, and
    names it."""

    def change(edit, masks=None):
        masks = masks or {"GTV": box(slice(4, 12), slice(5, 15))}
        path = write_rtstruct(masks, series, tmp_path / "rs.dcm")
        dataset = pydicom.dcmread(path)
        edit(dataset)
        dataset.save_as(path)
        return path

    return change


def contours(dataset, roi=0):
    return dataset.ROIContourSequence[roi].ContourSequence


def said(path, series):
    """(masks, everything that was warned of, as one text)"""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = read_rtstruct(path, series)
    return masks, " ".join(str(warning.message) for warning in caught if warning.category is MedsegWarning)


# ---- what real writers do ----------------------------------------------------------------------------------


def test_a_first_point_repeated_as_last_changes_nothing(changed, series):
    def repeat(dataset):
        for contour in contours(dataset):
            contour.ContourData = [*contour.ContourData, *contour.ContourData[:3]]

    masks, words = said(changed(repeat), series)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert words == ""


def test_a_contour_stored_twice_counts_once_whatever_its_start_and_direction(changed, series):
    def twice(dataset):
        for contour in list(contours(dataset)):
            copy = pydicom.Dataset()
            copy.ContourGeometricType = "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3)[::-1]
            copy.ContourData = [str(value) for value in np.roll(points, 2, axis=0).ravel()]
            contours(dataset).append(copy)

    masks, words = said(changed(twice), series)
    assert masks["GTV"].sum() == 4 * 8 * 10
    assert "4 contours stored twice, used once" in words


def test_of_the_xor_type_an_equal_contour_cancels_as_the_standard_says(changed, series):
    def cancel(dataset):
        for contour in list(contours(dataset)):
            contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
            contours(dataset).append(pydicom.Dataset(contour))

    masks, words = said(changed(cancel), series)
    assert not masks["GTV"].any()
    assert "cancel" in words


def test_nested_contours_are_holes_at_any_depth(changed, series):
    def nest(dataset):
        outer = contours(dataset)[0]
        height = outer.ContourData[2]
        for low, high in ((6.5, 9.5), (7.5, 8.5)):
            ring = pydicom.Dataset()
            ring.ContourGeometricType = "CLOSED_PLANAR"
            points = series.geometry.points_lps_mm(1, [(low, low), (low, high), (high, high), (high, low)])
            ring.ContourData = [f"{value:.3f}" for value in points.ravel()]
            assert float(ring.ContourData[2]) == pytest.approx(float(height))
            contours(dataset).append(ring)

    masks, _ = said(changed(nest), series)
    # On slice 1: 8 x 10 pixels, less rows and columns 7-9 (9 pixels), plus the single pixel (8, 8).
    assert masks["GTV"][1].sum() == 80 - 9 + 1
    assert masks["GTV"][1, 8, 8] and not masks["GTV"][1, 7, 7]


def test_the_plane_of_a_contour_decides_and_wrong_image_references_are_only_reported(changed, series):
    def mislead(dataset):
        for contour in contours(dataset):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = series.sop_instance_uids[0]

    masks, words = said(changed(mislead), series)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert "4 contours that name an image other than the one they lie on" in words


def test_contours_without_any_image_reference_are_placed_in_silence(changed, series):
    def forget(dataset):
        for contour in contours(dataset):
            del contour.ContourImageSequence
        del dataset.ReferencedFrameOfReferenceSequence

    masks, words = said(changed(forget), series)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert words == ""


@pytest.mark.parametrize(("shift_mm", "kept"), [(1.4, True), (-1.4, True), (1.6, False)])
def test_a_contour_belongs_to_a_slice_nearer_than_half_the_spacing(shift_mm, kept, changed, series):
    def lift(dataset):
        for contour in list(contours(dataset))[1:]:
            contours(dataset).remove(contour)
        points = np.array(contours(dataset)[0].ContourData, float).reshape(-1, 3) + (0, 0, shift_mm)
        contours(dataset)[0].ContourData = [f"{value:.3f}" for value in points.ravel()]

    masks, _ = said(changed(lift), series)
    assert np.flatnonzero(masks["GTV"].any((1, 2))).tolist() == ([1] if kept else [2])


def test_contours_beyond_the_images_are_counted_and_the_rest_is_kept(changed, series):
    def outside(dataset):
        points = np.array(contours(dataset)[0].ContourData, float).reshape(-1, 3) + (0, 0, -30)
        contours(dataset)[0].ContourData = [f"{value:.3f}" for value in points.ravel()]

    masks, words = said(changed(outside), series)
    assert np.flatnonzero(masks["GTV"].any((1, 2))).tolist() == [2, 3, 4]
    assert "1 contours on no slice of the images" in words


def test_a_missing_slice_inside_is_reported_and_not_filled(changed, series):
    masks, words = said(changed(lambda dataset: contours(dataset).pop(1)), series)
    assert np.flatnonzero(masks["GTV"].any((1, 2))).tolist() == [1, 3, 4]
    assert "1 slices inside it without a contour" in words


def test_planes_closer_than_the_slices_do_not_cancel_each_other(changed, series):
    def between(dataset):
        for contour in list(contours(dataset)):
            copy = pydicom.Dataset()
            copy.ContourGeometricType = "CLOSED_PLANAR"
            points = np.array(contour.ContourData, float).reshape(-1, 3) + (0, 0, 1.0)
            copy.ContourData = [f"{value:.3f}" for value in points.ravel()]
            contours(dataset).append(copy)

    masks, words = said(changed(between), series)
    assert masks["GTV"].sum() == 4 * 8 * 10
    assert "4 contours between the slices" in words


def test_points_and_open_lines_are_left_out_and_empty_structures_are_empty(changed, series):
    two = {
        "Iso": box(slice(0, 3), slice(0, 3)),
        "GTV": box(slice(4, 12), slice(5, 15)),
        "Void": box(slice(0, 1), slice(0, 1)),
    }

    def edit(dataset):
        for contour in contours(dataset, 0):
            contour.ContourGeometricType = "POINT"
            contour.ContourData = contour.ContourData[:3]
        contours(dataset, 1)[0].ContourGeometricType = "OPEN_PLANAR"
        del dataset.ROIContourSequence[2]

    masks, words = said(changed(edit, two), series)
    assert list(masks) == ["GTV", "Void"]
    assert masks["GTV"].sum() == 3 * 8 * 10
    assert not masks["Void"].any()
    assert "'Iso': left out" in words and "'Void': it is empty" in words and "1 points or open lines" in words


def test_sequences_in_another_order_are_linked_by_number(changed, series):
    two = {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 12), slice(5, 15))}

    def shuffle(dataset):
        dataset.ROIContourSequence = dataset.ROIContourSequence[::-1]
        dataset.RTROIObservationsSequence[0].RTROIInterpretedType = "UNSUPPORTED"
        dataset.RTROIObservationsSequence = dataset.RTROIObservationsSequence[::-1]

    path = changed(shuffle, two)
    masks, _ = said(path, series)
    assert all(np.array_equal(masks[name], two[name]) for name in two)
    first, second = read_structure_set(path).rois
    assert (first.structure.name, first.raw_type, first.structure.interpreted_type) == (
        "A",
        "UNSUPPORTED",
        "",
    )
    assert (second.structure.name, second.raw_type) == ("B", "ORGAN")


def test_a_contour_with_two_different_points_is_left_out(changed, series):
    def squash(dataset):
        contour = contours(dataset)[0]
        contour.ContourData = [*contour.ContourData[:6], *contour.ContourData[:3]]

    masks, words = said(changed(squash), series)
    assert masks["GTV"].sum() == 3 * 8 * 10
    assert "1 contours of fewer than 3 points" in words


def test_a_structure_smaller_than_a_voxel_is_reported(changed, series):
    def shrink(dataset):
        del dataset.ROIContourSequence[0].ContourSequence[1:]
        points = series.geometry.points_lps_mm(1, [(4.2, 4.2), (4.2, 4.4), (4.4, 4.4)])
        contours(dataset)[0].ContourData = [f"{value:.3f}" for value in points.ravel()]

    masks, words = said(changed(shrink), series)
    assert not masks["GTV"].any()
    assert "smaller than a voxel" in words


def test_coordinates_with_spaces_and_exponents_are_read(changed, series):
    def restyle(dataset):
        for contour in contours(dataset):
            contour.ContourData = [f" {float(value):.6E} " for value in contour.ContourData]

    masks, _ = said(changed(restyle), series)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))


def loop_on(series, index, rows_columns):
    """A contour item through (row, column) points of one slice."""
    item = pydicom.Dataset()
    item.ContourGeometricType = "CLOSED_PLANAR"
    points = series.geometry.points_lps_mm(index, rows_columns)
    item.ContourData = [f"{value:.4f}" for value in points.ravel()]
    return item


def only(*items):
    """An edit that leaves one structure with these contours."""

    def edit(dataset):
        dataset.ROIContourSequence[0].ContourSequence = pydicom.Sequence(items)

    return edit


def test_a_keyhole_with_an_island_as_a_second_contour_keeps_both(changed, series):
    # 10 x 10 pixels less a hole of 6 x 6, reached by a channel along row 4.5, with an island of 2 x 2 in it.
    outer = [(2.5, 2.5), (2.5, 12.5), (12.5, 12.5), (12.5, 2.5), (4.5, 2.5)]
    hole = [(4.5, 4.5), (10.5, 4.5), (10.5, 10.5), (4.5, 10.5), (4.5, 4.5)]
    island = [(6.5, 6.5), (6.5, 8.5), (8.5, 8.5), (8.5, 6.5)]
    keyhole = loop_on(series, 2, [*outer, *hole, (4.5, 2.5)])
    masks, words = said(changed(only(keyhole, loop_on(series, 2, island))), series)
    assert masks["GTV"].sum() == 100 - 36 + 4
    assert words == ""


def test_a_contour_that_crosses_itself_is_read_by_the_even_odd_rule_and_reported(changed, series):
    # Round a square of 8 x 8 pixels, then round its inner 4 x 4 again: enclosed twice, so outside.
    outer = [(2.5, 2.5), (2.5, 10.5), (10.5, 10.5), (10.5, 2.5), (2.5, 2.5)]
    inner = [(4.5, 4.5), (4.5, 8.5), (8.5, 8.5), (8.5, 4.5), (4.5, 4.5)]
    masks, words = said(changed(only(loop_on(series, 1, outer + inner))), series)
    assert masks["GTV"].sum() == 64 - 16
    assert "1 contours that cross themselves" in words


def test_contours_that_overlap_without_nesting_are_reported(changed, series):
    def square(low):
        return loop_on(series, 1, [(low, low), (low, low + 4), (low + 4, low + 4), (low + 4, low)])

    masks, words = said(changed(only(square(2.5), square(4.5))), series)
    assert masks["GTV"].sum() == 16 + 16 - 2 * 4
    assert "1 slices on which contours overlap without one lying in the other" in words
    beside, words = said(changed(only(square(2.5), square(6.5))), series)
    assert beside["GTV"].sum() == 32 and words == ""


def test_a_contour_that_reaches_beyond_the_image_is_cut_at_its_edge_and_reported(changed, series):
    past = loop_on(series, 1, [(15.5, 3.5), (15.5, 6.5), (30.0, 6.5), (30.0, 3.5)])
    masks, words = said(changed(only(past)), series)
    assert masks["GTV"].sum() == 4 * 3  # rows 16 to 19 of 20
    assert "1 contours that reach beyond the image" in words
    touching, words = said(changed(lambda dataset: None, {"GTV": box(slice(0, 20), slice(0, 24))}), series)
    assert touching["GTV"].sum() == 4 * 20 * 24 and words == ""


def test_a_contour_across_the_slices_is_left_out(changed, series):
    upright = loop_on(series, 2, [(4.0, 4.0), (4.0, 9.0), (9.0, 9.0), (9.0, 4.0)])
    values = [float(value) for value in upright.ContourData]
    values[2] += 6.0
    upright.ContourData = [str(value) for value in values]
    flat = loop_on(series, 2, [(4.5, 4.5), (4.5, 9.5), (9.5, 9.5), (9.5, 4.5)])
    masks, words = said(changed(only(upright, flat)), series)
    assert masks["GTV"].sum() == 25
    assert "1 contours that lie in no plane of the slices" in words


def test_slices_on_which_a_contour_encloses_no_voxel_centre_are_counted(changed, series):
    speck = loop_on(series, 3, [(4.2, 4.2), (4.2, 4.4), (4.4, 4.4)])
    whole = loop_on(series, 2, [(4.5, 4.5), (4.5, 9.5), (9.5, 9.5), (9.5, 4.5)])
    masks, words = said(changed(only(speck, whole)), series)
    assert masks["GTV"].sum() == 25
    assert "1 slices on which it encloses no voxel centre" in words


def test_references_to_images_that_are_not_there_are_counted_once_for_the_whole_set(changed, series):
    def dangle(dataset):
        for contour in contours(dataset):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"

    masks, words = said(changed(dangle), series)
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
def test_names_without_a_character_set_are_read_as_they_were_meant(raw, name, changed, series):
    def rename(dataset):
        if "SpecificCharacterSet" in dataset:
            del dataset.SpecificCharacterSet
        dataset.StructureSetROISequence[0]["ROIName"] = pydicom.DataElement("ROIName", "UN", raw)

    masks, _ = said(changed(rename), series)
    assert list(masks) == [name]


def test_sequences_and_coordinates_of_unknown_vr_are_read(changed, series, tmp_path):
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
    assert np.array_equal(read_rtstruct(odd, series)["GTV"], box(slice(4, 12), slice(5, 15)))


# ---- what can be accepted on request -----------------------------------------------------------------------


def accepted(path, series, *allow):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = read_rtstruct(path, series, allow=allow)
    return masks, " ".join(str(warning.message) for warning in caught if warning.category is MedsegWarning)


@pytest.mark.parametrize("frame", ["1.2.3.4", None])
def test_another_or_no_frame_can_be_accepted_and_both_uids_are_said(frame, changed, series, tmp_path):
    path = changed(lambda dataset: None)
    geometry = stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0))
    files = write_series(np.zeros(SHAPE), geometry, tmp_path / "other")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.FrameOfReferenceUID = frame
        dataset.save_as(file)
    other = read_series(tmp_path / "other")
    with pytest.raises(GeometryError, match='allow "frame_of_reference"'):
        read_rtstruct(path, other)
    masks, words = accepted(path, other, "frame_of_reference")
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert series.geometry.frame_of_reference_uid in words and (frame or "the images have none") in words


def test_an_roi_of_another_frame_is_left_out_unless_that_is_accepted(changed, series):
    def move(dataset):
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"

    path = changed(move, {"PET": box(slice(0, 3), slice(0, 3)), "GTV": box(slice(4, 12), slice(5, 15))})
    masks, words = said(path, series)
    assert list(masks) == ["GTV"] and "it lies in Frame of Reference 1.2.3.4" in words
    masks, _ = accepted(path, series, "frame_of_reference")
    assert masks["PET"].sum() == 4 * 9


def test_of_two_rois_of_one_name_the_one_without_contours_gives_way(changed, series):
    def rename(dataset):
        dataset.StructureSetROISequence[0].ROIName = "B"
        del dataset.ROIContourSequence[0].ContourSequence

    masks, words = said(
        changed(rename, {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 6), slice(5, 9))}), series
    )
    assert list(masks) == ["B"] and masks["B"].sum() == 4 * 2 * 4
    assert "'B': 1 more of this name without contours left out" in words


def test_repeated_names_can_be_accepted_with_their_numbers(changed, series):
    def rename(dataset):
        dataset.StructureSetROISequence[1].ROIName = "A"

    path = changed(rename, {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 6), slice(5, 9))})
    masks, _ = accepted(path, series, "repeated_names")
    assert {name: mask.sum() for name, mask in masks.items()} == {"A (number 1)": 36, "A (number 2)": 32}


def test_an_unknown_fault_cannot_be_accepted(changed, series):
    with pytest.raises(InputError, match="frame_of_reference, repeated_names"):
        read_rtstruct(changed(lambda dataset: None), series, allow=("patient",))


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("PatientID", "SOMEONE-ELSE", "another patient"),
        ("FrameOfReferenceUID", phantom_uid("elsewhere"), "Frame of Reference"),
    ],
)
def test_a_set_of_another_patient_or_frame_is_refused(keyword, value, words, changed, tmp_path):
    path = changed(lambda dataset: None)
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE), tmp_path / "other", **{keyword: value})
    with pytest.raises(GeometryError, match=words):
        read_rtstruct(path, read_series(tmp_path / "other"))


def test_both_frames_are_named_when_they_differ(changed, series, tmp_path):
    path = changed(lambda dataset: None)
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE, frame_of_reference_uid="1.2.3.4"), tmp_path / "other")
    with pytest.raises(GeometryError) as error:
        read_rtstruct(path, read_series(tmp_path / "other"))
    assert "1.2.3.4" in str(error.value) and series.geometry.frame_of_reference_uid in str(error.value)


def test_a_set_without_any_roi_is_damaged(changed, series):
    def empty(dataset):
        dataset.StructureSetROISequence = dataset.ROIContourSequence = []

    with pytest.raises(InputError, match="damaged"):
        read_rtstruct(changed(empty), series)


def test_a_set_that_lies_beyond_the_images_is_refused_with_both_ranges(changed, series):
    def lift(dataset):
        for contour in contours(dataset):
            points = np.array(contour.ContourData, float).reshape(-1, 3) + (0, 0, 100)
            contour.ContourData = [f"{value:.3f}" for value in points.ravel()]

    with pytest.raises(
        GeometryError, match=r"none of its 4 contours .* at 95.5 to 104.5 mm .* at -7.5 to 7.5 mm"
    ):
        read_rtstruct(changed(lift), series)


def test_coordinates_that_are_no_numbers_name_the_structure(changed, series):
    def spoil(dataset):
        contours(dataset)[2]["ContourData"] = pydicom.DataElement("ContourData", "OB", b"1\\2\\nonsense ")

    with pytest.raises(InputError, match="ROI 'GTV'"):
        read_rtstruct(changed(spoil), series)

    def cut(dataset):
        contours(dataset)[2].ContourData = contours(dataset)[2].ContourData[:-1]

    with pytest.raises(InputError, match="triples"):
        read_rtstruct(changed(cut), series)


def test_two_rois_of_one_name_or_number_are_refused(changed, series):
    two = {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 12), slice(5, 15))}

    def rename(dataset):
        dataset.StructureSetROISequence[1].ROIName = "A"

    with pytest.raises(StructureError, match=r"2 ROIs are called 'A' \(numbers 1, 2\)"):
        read_rtstruct(changed(rename, two), series)

    def renumber(dataset):
        dataset.StructureSetROISequence[1].ROINumber = 1

    with pytest.raises(StructureError, match="number 1 is used twice"):
        read_rtstruct(changed(renumber, two), series)


def test_files_of_other_kinds_are_refused_by_name(series, tmp_path):
    with pytest.raises(InputError, match="modality CT"):
        read_rtstruct(series.files[0], series)
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM here")
    with pytest.raises(InputError, match=r"notes\.txt"):
        read_rtstruct(text, series)
    with pytest.raises(InputError, match="no such file"):
        read_rtstruct(tmp_path / "missing.dcm", series)


def test_a_file_without_preamble_is_still_read(changed, series, tmp_path):
    path = changed(lambda dataset: None)
    dataset = pydicom.dcmread(path)
    bare = tmp_path / "bare.dcm"
    pydicom.dcmwrite(
        bare, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False
    )
    assert bare.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_rtstruct(bare, series)["GTV"], box(slice(4, 12), slice(5, 15)))


# ---- real structure sets -----------------------------------------------------------------------------------


def volumes_cc(masks, series):
    voxel_cc = series.geometry.voxel_volumes_cc
    return {name: float((mask.sum((1, 2)) * voxel_cc).sum()) for name, mask in masks.items()}


def test_volumes_of_a_xio_lung_plan_agree_with_plastimatch(shared_data):
    series = read_series(shared_data / "rt" / "lung1_001" / "CT")
    masks, words = said(shared_data / "rt" / "lung1_001" / "RTSTRUCT.dcm", series)
    expected = {
        "GTV-1": 155.8,
        "CTV-1": 275.0,
        "PTV-1": 590.0,
        "Spinal cord": 44.5,
        "Lung L": 2221.6,
        "Lung R": 2957.2,
        "Patient": 27587.9,
        "1,SUV_primair": 124.5,
    }
    assert set(masks) == set(expected)
    # Some of XiO's vertices lie on voxel centres to 0.001 pixel: plastimatch and medseg decide those in their
    # own ways.
    assert volumes_cc(masks, series) == pytest.approx(expected, abs=0.1, rel=1e-4)
    assert (
        "stored twice" in words and "'Isocenter 6', 'Isocenter 7'" in words and words.count("left out") == 1
    )


def test_the_ibsi_lung_tumour_agrees_with_the_distributors_own_mask(shared_data):
    import nibabel

    case = shared_data / "rt" / "ibsi1_lung_gtv"
    series = read_series(case / "dicom" / "image")
    mask = read_rtstruct(next((case / "dicom" / "mask").glob("*.dcm")), series)["GTV-1"]
    image = nibabel.load(next((case / "nifti" / "mask").glob("*.nii*")))
    reference = np.asarray(image.dataobj).transpose(2, 1, 0) > 0
    if image.affine[2, 2] < 0:
        reference = reference[::-1]
    x_flips, y_flips = image.affine[0, 0] > 0, image.affine[1, 1] > 0
    reference = reference[:, :: -1 if y_flips else 1, :: -1 if x_flips else 1]
    assert dice(mask, reference) > 0.9999
    assert volumes_cc({"GTV-1": mask}, series)["GTV-1"] == pytest.approx(358.68, abs=0.01)


@pytest.mark.parametrize(
    ("patient", "volume_cc"),
    [
        ("002", 53.3),
        ("003", 80.1),
        ("008", 27.6),
        ("019", 17.4),
        ("024", 77.6),
        ("025", 30.1),
        ("040", 400.0),
        ("050", 168.2),
    ],
)
def test_sarcoma_volumes_agree_with_plastimatch_head_first_and_feet_first(patient, volume_cc, shared_data):
    case = shared_data / "rt" / "sts" / f"STS_{patient}"
    series = read_series(case / "CT")
    masks, words = said(case / "RS.dcm", series)
    assert volumes_cc(masks, series)["GTV_Mass_CT"] == pytest.approx(volume_cc, abs=0.06)
    assert "contours name an image which is not in the series" in words


def test_keyholes_and_spikes_of_mim_keep_their_area_and_a_foreign_frame_is_refused(shared_data):
    folder = shared_data / "rt" / "mim_keyhole_phantom"
    series = read_series([path for path in folder.glob("*.dcm") if not path.name.startswith("RS")])
    expected = {"ROI-1": 6.5, "ROI-2": 6.0, "ROI-3": 5.7, "ROI-4": 11.0}
    for name in ("RS_MIM_keyhole.dcm", "RS_MIM_missing_referenced_images.dcm"):
        assert volumes_cc(read_rtstruct(folder / name, series), series) == pytest.approx(expected, abs=0.06)
    with pytest.raises(GeometryError, match="Frame of Reference"):
        read_rtstruct(folder / "RS_rt_utils.dcm", series)


def test_the_eclipse_set_has_its_own_volumes_empty_rois_and_raw_types(shared_data):
    structure_set = read_structure_set(
        shared_data / "rt" / "structure_sets" / "eclipse81_prostate" / "RS.dcm"
    )
    contours_of = {
        roi.structure.name: [contour.points_lps_mm for contour in roi.contours] for roi in structure_set.rois
    }
    planned_cc = {
        "Bladder": 116.8,
        "Femoral Head Lt": 49.2,
        "Femoral Head RT": 50.0,
        "PTV": 48.6,
        "Rectum": 30.3,
    }
    for name, volume_cc in planned_cc.items():
        gap_mm = np.diff(np.unique([points[0, 2] for points in contours_of[name]])).min()
        areas = [abs(area_and_centroid(points)[0]) for points in contours_of[name]]
        assert sum(areas) * gap_mm / 1000 == pytest.approx(volume_cc, rel=0.014), name
    assert len(structure_set.rois) == 16
    assert sum(not roi.contours for roi in structure_set.rois) == 10
    assert {roi.structure.name: roi.raw_type for roi in structure_set.rois}["Bladder"] == "AVOIDANCE"


FITTING = {
    "lung1_001/RTSTRUCT.dcm": "lung1_001/CT",
    "ibsi1_lung_gtv/dicom/mask/DCM_RS_00060.dcm": "ibsi1_lung_gtv/dicom/image",
    "mim_keyhole_phantom/RS_MIM_keyhole.dcm": "mim_keyhole_phantom/*ct*.dcm",
    "mim_keyhole_phantom/RS_MIM_missing_referenced_images.dcm": "mim_keyhole_phantom/*ct*.dcm",
    "mim_keyhole_phantom/RS_rt_utils.dcm": "Frame of Reference",
    "structure_sets/dicompyler_breast/rtss.dcm": "structure_sets/dicompyler_breast",
    "structure_sets/eclipse136_headneck/RS*.dcm": "none of its 525 contours",
    "structure_sets/eclipse81_prostate/RS.dcm": "no CT, MR or PET series",
}
"""Every structure set of the real data without those of sts: the images that it was drawn on, or why it is
refused."""


def test_every_real_structure_set_is_read_or_refused_in_one_true_line(shared_data):
    folder = shared_data / "rt"
    known = {next(folder.glob(name)) for name in FITTING} | set(folder.glob("sts/*/RS.dcm"))
    assert set(find_series(folder).structure_sets) == known
    for name, where in FITTING.items():
        file = next(folder.glob(name))
        if "/" in where:
            images = list(folder.glob(where)) if "*" in where else folder / where
            assert any(mask.any() for mask in said(file, read_series(images))[0].values()), name
            continue
        with pytest.raises((GeometryError, InputError), match=where) as error:
            images = [path for path in file.parent.glob("*.dcm") if path != file]
            read_rtstruct(file, read_series(images))
        assert "\n" not in str(error.value)


def test_the_foreign_frame_of_an_rt_utils_file_can_be_accepted(shared_data):
    folder = shared_data / "rt" / "mim_keyhole_phantom"
    series = read_series([path for path in folder.glob("*.dcm") if not path.name.startswith("RS")])
    masks, words = accepted(folder / "RS_rt_utils.dcm", series, "frame_of_reference")
    assert masks["ROI-1"].sum() == 1443
    assert words.count("1.2.8") >= 1 and series.geometry.frame_of_reference_uid in words


def test_a_text_mode_transfer_is_called_damaged(shared_data):
    with pytest.raises(InputError, match="damaged"):
        read_structure_set(shared_data / "odd_dicom" / "malformed" / "RS_eclipse_prostate_crlf_corrupted.dcm")


def test_an_approved_set_says_so(shared_data):
    structure_set = read_structure_set(
        next((shared_data / "rt" / "structure_sets" / "dicompyler_breast").glob("*[sS]*.dcm"))
    )
    assert structure_set.approval_status == "APPROVED"


def test_masks_written_from_a_tilted_and_uneven_real_head_come_back_exactly(shared_data, tmp_path):
    series = read_series(shared_data / "odd_dicom" / "gantry_tilt" / "GE_tilt_variable_spacing")
    head = series.volume() > 0
    out = write_rtstruct({"Brain": head}, series, tmp_path / "rs.dcm")
    assert np.array_equal(read_rtstruct(out, series)["Brain"], head)


def test_the_phantom_of_the_writer_comes_back_from_its_file(tmp_path):
    phantom = chiral_phantom(stack_geometry((12, 40, 44), gaps_mm=np.linspace(2, 5, 11), tilt_degrees=10))
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")
    series = read_series(tmp_path / "ct")
    read = read_rtstruct(write_rtstruct(phantom.masks, series, tmp_path / "rs.dcm"), series)
    assert all(np.array_equal(read[name], phantom.masks[name]) for name in phantom.masks)
