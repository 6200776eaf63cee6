"""What reading a structure set refuses, and what can be accepted on request."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from roi_files import SHAPE, accepted, box, contours, said

from medseg.cases.mask_sources import open_masks
from medseg.dicom import read_rtstruct, read_series, read_structure_set
from medseg.errors import GeometryError, InputError, StructureError
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series

# ---- what can be accepted on request -----------------------------------------------------------------------


@pytest.mark.parametrize("frame", ["1.2.3.4", None])
def test_another_or_no_frame_can_be_accepted_and_both_uids_are_said(frame, changed, small_ct, tmp_path):
    path = changed(lambda dataset: None)
    geometry = stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0))
    files = write_series(np.zeros(SHAPE), geometry, tmp_path / "other")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.FrameOfReferenceUID = frame
        dataset.save_as(file)
    other = read_series(tmp_path / "other")
    with pytest.raises(GeometryError, match="`allow=frame_of_reference`"):
        read_rtstruct(path, other)
    masks, words = accepted(path, other, "frame_of_reference")
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15)))
    assert small_ct.geometry.frame_of_reference_uid in words and (frame or "the images have none") in words


def test_an_roi_of_another_frame_is_left_out_unless_that_is_accepted(changed, small_ct):
    def move(dataset):
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"

    path = changed(move, {"PET": box(slice(0, 3), slice(0, 3)), "GTV": box(slice(4, 12), slice(5, 15))})
    masks, words = said(path, small_ct)
    assert list(masks) == ["GTV"] and "it lies in Frame of Reference 1.2.3.4" in words
    masks, _ = accepted(path, small_ct, "frame_of_reference")
    assert masks["PET"].sum() == 4 * 9


def test_of_two_rois_of_one_name_the_one_without_contours_gives_way(changed, small_ct):
    def rename(dataset):
        dataset.StructureSetROISequence[0].ROIName = "B"
        del dataset.ROIContourSequence[0].ContourSequence

    masks, words = said(
        changed(rename, {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 6), slice(5, 9))}), small_ct
    )
    assert list(masks) == ["B"] and masks["B"].sum() == 4 * 2 * 4
    assert "'B': 1 more of this name without contours left out" in words


def test_repeated_names_can_be_accepted_with_their_numbers(changed, small_ct):
    def rename(dataset):
        dataset.StructureSetROISequence[1].ROIName = "A"

    path = changed(rename, {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 6), slice(5, 9))})
    masks, _ = accepted(path, small_ct, "repeated_names")
    assert {name: mask.sum() for name, mask in masks.items()} == {"A (number 1)": 36, "A (number 2)": 32}


def test_an_unknown_fault_cannot_be_accepted(changed, small_ct):
    with pytest.raises(InputError, match="frame_of_reference, repeated_names"):
        read_rtstruct(changed(lambda dataset: None), small_ct, allow=("patient",))


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


def test_both_frames_are_named_when_they_differ(changed, small_ct, tmp_path):
    path = changed(lambda dataset: None)
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE, frame_of_reference_uid="1.2.3.4"), tmp_path / "other")
    with pytest.raises(GeometryError) as error:
        read_rtstruct(path, read_series(tmp_path / "other"))
    assert "1.2.3.4" in str(error.value) and small_ct.geometry.frame_of_reference_uid in str(error.value)


def test_a_set_without_any_roi_is_damaged(changed, small_ct):
    def empty(dataset):
        dataset.StructureSetROISequence = dataset.ROIContourSequence = []

    with pytest.raises(InputError, match="damaged"):
        read_rtstruct(changed(empty), small_ct)


def test_a_set_that_lies_beyond_the_images_is_refused_with_both_ranges(changed, small_ct):
    def lift(dataset):
        for contour in contours(dataset):
            points = np.array(contour.ContourData, float).reshape(-1, 3) + (0, 0, 100)
            contour.ContourData = [f"{value:.3f}" for value in points.ravel()]

    with pytest.raises(
        GeometryError, match=r"none of its 4 contours .* at 95.5 to 104.5 mm .* at -7.5 to 7.5 mm"
    ):
        read_rtstruct(changed(lift), small_ct)


def test_coordinates_that_are_no_numbers_name_the_structure(changed, small_ct):
    def spoil(dataset):
        contours(dataset)[2]["ContourData"] = pydicom.DataElement("ContourData", "OB", b"1\\2\\nonsense ")

    with pytest.raises(InputError, match="ROI 'GTV'"):
        read_rtstruct(changed(spoil), small_ct)

    def cut(dataset):
        contours(dataset)[2].ContourData = contours(dataset)[2].ContourData[:-1]

    with pytest.raises(InputError, match="triples"):
        read_rtstruct(changed(cut), small_ct)


TWO = {"Bad": box(slice(0, 3), slice(0, 3)), "Good": box(slice(4, 12), slice(5, 15))}


def lacks_a_coordinate(dataset):
    contours(dataset)[1].ContourData = contours(dataset)[1].ContourData[:-1]


def says_another_number(dataset):
    contours(dataset)[1].NumberOfContourPoints = 5


def has_two_sets(dataset):
    dataset.ROIContourSequence.append(pydicom.Dataset(dataset.ROIContourSequence[0]))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lacks_a_coordinate, "contour data are not triples of numbers"),
        (says_another_number, "a contour holds 4 points and says NumberOfContourPoints 5"),
        (has_two_sets, "it has 2 sets of contours where one is expected"),
    ],
)
def test_one_damaged_roi_is_named_and_the_sound_ones_are_read(edit, why, changed, small_ct):
    path = changed(edit, TWO)
    masks, words = said(path, small_ct)
    assert list(masks) == ["Good"] and np.array_equal(masks["Good"], TWO["Good"])
    assert f"ROI 'Bad' was left out: it is damaged ({why}" in words
    (bad, good) = read_structure_set(path).rois
    assert why in bad.damage and not bad.contours and good.damage == "" and len(good.contours) == 4


def test_a_damaged_roi_that_is_asked_for_is_refused_with_its_damage(changed, small_ct):
    source = open_masks(changed(lacks_a_coordinate, TWO), small_ct)
    source.require(["Good"])
    with pytest.raises(
        StructureError, match="no structure 'Bad'; there are 'Good'. .* not triples of numbers"
    ):
        source.require(["Bad"])


def test_a_closing_point_need_not_be_counted(changed, small_ct):
    def close(dataset):
        for contour in contours(dataset):
            contour.ContourData = [*contour.ContourData, *contour.ContourData[:3]]

    masks, words = said(changed(close), small_ct)
    assert np.array_equal(masks["GTV"], box(slice(4, 12), slice(5, 15))) and words == ""


def test_two_rois_of_one_name_or_number_are_refused(changed, small_ct):
    two = {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 12), slice(5, 15))}

    def rename(dataset):
        dataset.StructureSetROISequence[1].ROIName = "A"

    with pytest.raises(StructureError, match=r"2 ROIs are called 'A' \(numbers 1, 2\)"):
        read_rtstruct(changed(rename, two), small_ct)

    def renumber(dataset):
        dataset.StructureSetROISequence[1].ROINumber = 1

    with pytest.raises(StructureError, match="number 1 is used twice"):
        read_rtstruct(changed(renumber, two), small_ct)


def test_files_of_other_kinds_are_refused_by_name(small_ct, tmp_path):
    with pytest.raises(InputError, match="modality CT"):
        read_rtstruct(small_ct.files[0], small_ct)
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM here")
    with pytest.raises(InputError, match=r"notes\.txt"):
        read_rtstruct(text, small_ct)
    with pytest.raises(InputError, match="no such file"):
        read_rtstruct(tmp_path / "missing.dcm", small_ct)


def test_a_file_without_preamble_is_still_read(changed, small_ct, tmp_path):
    path = changed(lambda dataset: None)
    dataset = pydicom.dcmread(path)
    bare = tmp_path / "bare.dcm"
    pydicom.dcmwrite(
        bare, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False
    )
    assert bare.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_rtstruct(bare, small_ct)["GTV"], box(slice(4, 12), slice(5, 15)))
