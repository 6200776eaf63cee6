"""What is refused between the slices of a series, and what can be allowed."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from ct_files import SHAPE, change, ramp_hu, refusal, stack
from pydicom.uid import JPEGLosslessSV1, RLELossless

from medseg.dicom import ALLOWABLE, find_series, read_series
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series


def test_a_missing_slice_is_refused_and_named(files):
    files[3].unlink()
    message = refusal(files[0].parent)
    assert "6.00 mm between slices 3 and 4 (CT_0003.dcm, CT_0005.dcm), 3.00 mm beside it" in message
    assert "missing_slice" in message


def test_with_leave_a_missing_slice_stays_a_hole_and_is_said(files):
    files[3].unlink()
    series = read_series(files[0].parent, allow={"missing_slice"})
    assert np.allclose(np.diff(series.geometry.slice_positions_mm), [3, 3, 6, 3])
    assert any(warning.startswith("accepted missing_slice") for warning in series.warnings)


def test_two_missing_slices_near_the_end_are_refused(files):
    for index in (2, 4):
        files[index].unlink()
    assert "1 more holes" in refusal(files[0].parent)


def test_the_same_image_twice_is_refused_and_with_leave_counted_once(files):
    shutil.copy(files[2], files[2].with_name("copy.dcm"))
    assert "duplicate_position" in refusal(files[0].parent)
    series = read_series(files[0].parent, allow=["duplicate_position"])
    assert series.geometry.shape == SHAPE and np.array_equal(series.volume(), ramp_hu())


def test_two_images_of_one_position_that_differ_are_refused_even_with_leave(tmp_path, files):
    write_series(ramp_hu() + 1, stack(frame_of_reference_uid="1.2.3"), tmp_path / "ct" / "second phase")
    for allow in ((), ["duplicate_position"], ALLOWABLE):
        message = refusal(tmp_path, allow=allow)
        assert "several phases" in message and "different pixels" in message and "allow" not in message


def test_no_way_out_is_offered_where_another_fault_has_none(files):
    shutil.copy(files[2], files[2].with_name("copy.dcm"))
    change(files[4], PixelSpacing=[1.0, 1.1])
    message = refusal(files[0].parent)
    assert "1 x 1.1 mm" in message and "allow" not in message


def test_a_way_out_names_everything_that_has_to_be_accepted(files):
    shutil.copy(files[2], files[2].with_name("copy.dcm"))
    files[4].unlink()
    assert "To accept it: `allow=duplicate_position` and `allow=missing_slice`." in refusal(files[0].parent)
    series = read_series(files[0].parent, allow=["duplicate_position", "missing_slice"])
    assert series.geometry.shape[0] == 5


def test_a_folder_of_another_kind_says_what_it_holds(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz", "notes.txt"):
        (tmp_path / name).write_text("not DICOM")
    assert "it holds: 2 x .nii.gz file; .txt file" in refusal(tmp_path)


def test_two_images_side_by_side_in_one_plane_are_refused_even_with_leave(files):
    position = pydicom.dcmread(files[2]).ImagePositionPatient
    change(files[3], ImagePositionPatient=[position[0] + 7, position[1], position[2]])
    assert "7.00 mm sideways" in refusal(files[0].parent, allow=ALLOWABLE)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "oriented (0, 1, 0, 0, 0, -1)"),
        ({"ImageOrientationPatient": [0.9998, 0.02, 0, -0.02, 0.9998, 0]}, "oriented"),
        ({"PixelSpacing": [1.0, 1.1]}, "1 x 1.1 mm"),
        ({"FrameOfReferenceUID": "1.2.4"}, "2 different values of FrameOfReferenceUID: 1.2.3, 1.2.4"),
        ({"FrameOfReferenceUID": None}, "2 different values of FrameOfReferenceUID: 1.2.3, none"),
        ({"PatientID": "somebody else"}, "2 different values of PatientID"),
    ],
)
def test_slices_that_do_not_belong_together_are_refused_even_with_leave(files, attributes, words):
    change(files[2], **attributes)
    assert words in refusal(files[0].parent, allow=ALLOWABLE)


def test_slices_of_several_studies_are_refused_and_read_with_leave(files):
    change(files[2], StudyInstanceUID="1.2.9")
    assert "2 different values of StudyInstanceUID" in refusal(files[0].parent)
    assert read_series(files[0].parent, allow={"mixed_study"}).geometry.shape == SHAPE


def test_slices_of_another_matrix_are_refused_even_with_leave(tmp_path, files):
    (extra,) = write_series(
        ramp_hu((1, 10, 13)), stack_geometry((1, 10, 13), centre_lps_mm=(0, 0, 12)), tmp_path / "x"
    )
    change(extra, FrameOfReferenceUID="1.2.3", SOPInstanceUID="1.2.5")
    assert "(10, 13) rows and columns" in refusal(tmp_path, allow=ALLOWABLE)


PLACE_AND_SIZE = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "BitsAllocated"]


@pytest.mark.parametrize("keyword", PLACE_AND_SIZE)
def test_a_slice_without_its_place_or_size_is_refused(files, keyword):
    change(files[2], **{keyword: None})
    message = refusal(files[0].parent)
    assert keyword in message and "CT_0003.dcm" in message


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", [0, 1]),
        ("PixelSpacing", [1, -1]),
        ("PixelSpacing", 1),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 0, 2, 0]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("RescaleSlope", 0),
        ("SamplesPerPixel", 3),
        ("NumberOfFrames", 4),
    ],
)
def test_a_slice_with_nonsense_for_its_place_or_values_is_refused(files, keyword, value):
    change(files[2], **{keyword: value})
    assert "CT_0003.dcm" in refusal(files[0].parent)


def test_a_ct_without_rescale_is_refused_and_with_leave_taken_as_hu(tmp_path):
    write_series(ramp_hu(), stack(), tmp_path, RescaleSlope=None, RescaleIntercept=None)
    assert "not known to be HU" in refusal(tmp_path)
    assert np.array_equal(read_series(tmp_path, allow={"missing_rescale"}).volume(), ramp_hu())


def test_values_that_are_declared_not_to_be_hu_are_read_and_said(tmp_path):
    write_series(ramp_hu(), stack(), tmp_path, RescaleType="US")
    assert any("not declared to be HU" in warning for warning in read_series(tmp_path).warnings)


def test_of_several_series_one_has_to_be_named(tmp_path, files):
    other = phantom_uid("other")
    write_series(ramp_hu(), stack(), tmp_path / "b", SeriesInstanceUID=other, SeriesDescription="Lung kernel")
    message = refusal(tmp_path)
    assert (
        "2 series" in message
        and f"{other} (CT, Lung kernel, 6 slices)" in message
        and "choose one by its UID" in message
    )
    assert read_series(tmp_path, series_uid=other).description == "Lung kernel"
    assert "no series 1.2.77" in refusal(tmp_path, series_uid="1.2.77")


def test_localizers_inside_a_series_are_refused_and_with_leave_left_out(files):
    change(
        files[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]
    )
    assert "localizer" in refusal(files[0].parent)
    series = read_series(files[0].parent, allow={"localizer"})
    assert series.files == tuple(files[1:])


def test_a_localizer_series_is_left_aside_and_alone_refused(tmp_path, files):
    scout = phantom_uid("scout")
    words = {"SeriesInstanceUID": scout, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_series(ramp_hu(), stack(), tmp_path / "scout", **words)
    series = read_series(tmp_path)
    assert series.files == tuple(files) and any(scout in warning for warning in series.warnings)
    assert "is a localizer" in refusal(tmp_path / "scout", allow=ALLOWABLE)


def test_a_file_cut_off_in_its_pixels_is_refused_before_anything_is_decoded(files):
    files[2].write_bytes(files[2].read_bytes()[:-10])
    message = refusal(files[0].parent)
    assert "CT_0003.dcm: pixel data cut off: 230 bytes, expected 240" in message


def test_a_compressed_file_cut_off_in_its_pixels_is_refused(files):
    dataset = pydicom.dcmread(files[2])
    dataset.compress(RLELossless)
    dataset.save_as(files[2])
    files[2].write_bytes(files[2].read_bytes()[:-60])
    message = refusal(files[0].parent)
    assert "CT_0003.dcm" in message and "RLE Lossless" in message


def test_pixels_that_are_not_what_the_transfer_syntax_says_are_refused_and_the_file_named(files):
    dataset = pydicom.dcmread(files[2])
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8nonsense" * 10])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(files[2])
    message = refusal(files[0].parent)
    assert str(files[2]) in message and "JPEG Lossless" in message


def test_a_broken_file_beside_the_slices_is_refused_and_with_leave_left_out(files):
    (files[0].parent / "rest.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\x00\x16\x00UI\xff\xff rubbish")
    (files[0].parent / "empty.dcm").touch()
    message = refusal(files[0].parent)
    assert "2 files beside its slices could not be read" in message and "empty.dcm" in message
    assert np.array_equal(read_series(files[0].parent, allow={"broken_file"}).volume(), ramp_hu())


def test_a_broken_file_in_another_folder_does_not_stop_a_series(tmp_path, files):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "empty.dcm").touch()
    assert read_series(tmp_path).files == tuple(files)
    assert [note.path.name for note in find_series(tmp_path).broken] == ["empty.dcm"]


def test_other_files_are_ignored_by_name_and_reason(tmp_path, files):
    (tmp_path / "notes.txt").write_text("seen")
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "empty").touch()
    found = find_series(tmp_path)
    assert [(note.path.name, note.why) for note in found.ignored] == [
        ("empty", "not DICOM"),
        ("notes.txt", "not DICOM"),
        ("table.csv", "not DICOM"),
    ]
    assert not found.broken and list(found.series) == [phantom_uid("series", "CT", 0)]


def test_the_index_of_a_disc_is_ignored_and_not_taken_for_a_damaged_slice(files):
    index = pydicom.dcmread(files[0])
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    del index.SOPClassUID
    index.save_as(files[0].with_name("DICOMDIR"))
    assert read_series(files[0].parent).files == tuple(files)


def bare(dataset, path):
    """Write a data set without preamble and file meta, as some planning systems do."""
    dataset = pydicom.Dataset(dataset)
    pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"


@pytest.mark.parametrize(
    ("uid", "modality", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.481.5", "RTPLAN", "RT Plan Storage"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE", "RT Dose Storage"),
        ("1.2.840.10008.5.1.4.1.1.66.7", "SEG", "Label Map Segmentation Storage"),
        ("1.2.840.10008.5.1.4.1.1.999.1", "NEW", "1.2.840.10008.5.1.4.1.1.999.1"),
    ],
)
@pytest.mark.parametrize("preamble", [True, False])
def test_other_objects_beside_the_slices_are_no_damaged_slices(files, uid, modality, name, preamble):
    other = pydicom.dcmread(files[0])
    other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = uid
    other.Modality, other.SeriesInstanceUID, other.SOPInstanceUID = modality, "1.2.8", "1.2.9"
    path = files[0].with_name("other.dcm")
    if preamble:
        other.save_as(path)
    elif modality == "NEW":
        pytest.skip("without a mark and without a known class nothing says that it is DICOM")
    else:
        bare(other, path)
    assert read_series(files[0].parent).files == tuple(files)
    assert [note.why for note in find_series(files[0].parent).ignored] == [
        f"{name} ({modality}), not a slice"
    ]


def test_a_slice_without_preamble_that_has_another_class_is_broken(files):
    slice_ = pydicom.dcmread(files[5])
    slice_.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.5"
    bare(slice_, files[5])
    assert "CT_0006.dcm" in refusal(files[0].parent)


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.5.1.4.1.1.x", "1.2.3.4"])
def test_a_slice_whose_sop_class_is_damaged_is_broken_and_not_ignored(files, uid):
    raw = files[5].read_bytes()
    place = raw.index(b"1.2.840.10008.5.1.4.1.1.2\0", 300)
    files[5].write_bytes(raw[:place] + uid.encode().ljust(26, b"\0")[:26] + raw[place + 26 :])
    assert "CT_0006.dcm: SOPClassUID" in refusal(files[0].parent)


def test_a_projection_radiograph_is_no_series(files):
    dataset = pydicom.dcmread(files[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.save_as(files[0])
    assert "it is: projection radiograph (CR)" in refusal(files[0])


def test_a_folder_without_images_and_a_path_that_is_not_there_are_refused(tmp_path):
    assert "no CT, MR or PET series; there is no file" in refusal(tmp_path)
    assert "no such file or folder" in refusal(tmp_path / "nowhere")
    assert "no such file" in refusal([tmp_path / "nowhere.dcm"])


def test_a_fault_that_cannot_be_allowed_is_not_silently_ignored(files):
    assert "expected names from missing_slice" in refusal(files[0].parent, allow={"mixed_orientation"})


def test_a_list_of_files_is_a_series_too(files):
    assert np.array_equal(read_series(files[1:4]).volume(), ramp_hu()[1:4])


def test_odd_values_do_not_print_pydicom_warnings(files, recwarn, capfd):
    for file in files:
        raw = file.read_bytes().replace(b"20260101", b"2026AB01").replace(b"HFS ", b"\xffF\xfe ")
        file.write_bytes(raw)
    read_series(files[0].parent).volume()
    assert not recwarn.list and capfd.readouterr() == ("", "")
