"""Structure sets that do not fit the images: what is refused, and what can be accepted on request."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from edited_sets import SHAPE, accepted, box, contours, said

from medseg.dicom import read_rtstruct, read_series
from medseg.errors import GeometryError, InputError, StructureError
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series


@pytest.mark.parametrize("frame", ["1.2.3.4", None])
def test_another_or_no_frame_can_be_accepted_and_both_uids_are_said(frame, changed, flat_series, tmp_path):
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
    assert flat_series.geometry.frame_of_reference_uid in words and (frame or "the images have none") in words


def test_an_roi_of_another_frame_is_left_out_unless_that_is_accepted(changed, flat_series):
    def move(dataset):
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"

    path = changed(move, {"PET": box(slice(0, 3), slice(0, 3)), "GTV": box(slice(4, 12), slice(5, 15))})
    masks, words = said(path, flat_series)
    assert list(masks) == ["GTV"] and "it lies in Frame of Reference 1.2.3.4" in words
    masks, _ = accepted(path, flat_series, "frame_of_reference")
    assert masks["PET"].sum() == 4 * 9


def test_of_two_rois_of_one_name_the_one_without_contours_gives_way(changed, flat_series):
    def rename(dataset):
        dataset.StructureSetROISequence[0].ROIName = "B"
        del dataset.ROIContourSequence[0].ContourSequence

    masks, words = said(
        changed(rename, {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 6), slice(5, 9))}), flat_series
    )
    assert list(masks) == ["B"] and masks["B"].sum() == 4 * 2 * 4
    assert "'B': 1 more of this name without contours left out" in words


def test_repeated_names_can_be_accepted_with_their_numbers(changed, flat_series):
    def rename(dataset):
        dataset.StructureSetROISequence[1].ROIName = "A"

    path = changed(rename, {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 6), slice(5, 9))})
    masks, _ = accepted(path, flat_series, "repeated_names")
    assert {name: mask.sum() for name, mask in masks.items()} == {"A (number 1)": 36, "A (number 2)": 32}


def test_an_unknown_fault_cannot_be_accepted(changed, flat_series):
    with pytest.raises(InputError, match="frame_of_reference, repeated_names"):
        read_rtstruct(changed(lambda dataset: None), flat_series, allow=("patient",))


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


def test_both_frames_are_named_when_they_differ(changed, flat_series, tmp_path):
    path = changed(lambda dataset: None)
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE, frame_of_reference_uid="1.2.3.4"), tmp_path / "other")
    with pytest.raises(GeometryError) as error:
        read_rtstruct(path, read_series(tmp_path / "other"))
    assert "1.2.3.4" in str(error.value) and flat_series.geometry.frame_of_reference_uid in str(error.value)


def test_a_set_without_any_roi_is_damaged(changed, flat_series):
    def empty(dataset):
        dataset.StructureSetROISequence = dataset.ROIContourSequence = []

    with pytest.raises(InputError, match="damaged"):
        read_rtstruct(changed(empty), flat_series)


def test_a_set_that_lies_beyond_the_images_is_refused_with_both_ranges(changed, flat_series):
    def lift(dataset):
        for contour in contours(dataset):
            points = np.array(contour.ContourData, float).reshape(-1, 3) + (0, 0, 100)
            contour.ContourData = [f"{value:.3f}" for value in points.ravel()]

    with pytest.raises(
        GeometryError, match=r"none of its 4 contours .* at 95.5 to 104.5 mm .* at -7.5 to 7.5 mm"
    ):
        read_rtstruct(changed(lift), flat_series)


def test_coordinates_that_are_no_numbers_name_the_structure(changed, flat_series):
    def spoil(dataset):
        contours(dataset)[2]["ContourData"] = pydicom.DataElement("ContourData", "OB", b"1\\2\\nonsense ")

    with pytest.raises(InputError, match="ROI 'GTV'"):
        read_rtstruct(changed(spoil), flat_series)

    def cut(dataset):
        contours(dataset)[2].ContourData = contours(dataset)[2].ContourData[:-1]

    with pytest.raises(InputError, match="triples"):
        read_rtstruct(changed(cut), flat_series)


def test_two_rois_of_one_name_or_number_are_refused(changed, flat_series):
    two = {"A": box(slice(0, 3), slice(0, 3)), "B": box(slice(4, 12), slice(5, 15))}

    def rename(dataset):
        dataset.StructureSetROISequence[1].ROIName = "A"

    with pytest.raises(StructureError, match=r"2 ROIs are called 'A' \(numbers 1, 2\)"):
        read_rtstruct(changed(rename, two), flat_series)

    def renumber(dataset):
        dataset.StructureSetROISequence[1].ROINumber = 1

    with pytest.raises(StructureError, match="number 1 is used twice"):
        read_rtstruct(changed(renumber, two), flat_series)


def test_files_of_other_kinds_are_refused_by_name(flat_series, tmp_path):
    with pytest.raises(InputError, match="modality CT"):
        read_rtstruct(flat_series.files[0], flat_series)
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM here")
    with pytest.raises(InputError, match=r"notes\.txt"):
        read_rtstruct(text, flat_series)
    with pytest.raises(InputError, match="no such file"):
        read_rtstruct(tmp_path / "missing.dcm", flat_series)


def test_a_file_without_preamble_is_still_read(changed, flat_series, tmp_path):
    path = changed(lambda dataset: None)
    dataset = pydicom.dcmread(path)
    bare = tmp_path / "bare.dcm"
    pydicom.dcmwrite(
        bare, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False
    )
    assert bare.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read_rtstruct(bare, flat_series)["GTV"], box(slice(4, 12), slice(5, 15)))
