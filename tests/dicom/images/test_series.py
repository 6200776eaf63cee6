"""Reading DICOM series: where slices lie, what their values are, and what is refused."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLosslessSV1, RLELossless

from medseg.dicom import ALLOWABLE, find_series, read_series
from medseg.dicom.images import pixels
from medseg.errors import InputError
from medseg.geometry import Geometry, difference
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series

SHAPE = (6, 10, 12)


def stack(**settings) -> Geometry:
    return stack_geometry(SHAPE, **settings)


def ramp_hu(shape=SHAPE) -> np.ndarray:
    """Whole numbers that differ everywhere, so that no swap or flip goes unseen."""
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 300


def change(path: Path, **attributes) -> None:
    """Set DICOM attributes of a file in place; None deletes."""
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def refusal(path, **settings) -> str:
    with pytest.raises(InputError) as caught:
        read_series(path, **settings).volume()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(ramp_hu(), stack(frame_of_reference_uid="1.2.3"), tmp_path / "ct")


# ---- where slices lie --------------------------------------------------------------------------------------


def write_at(folder: Path, orientation, positions, spacing=(2.0, 0.5)) -> None:
    """Slices at literal ImagePositionPatient values, in the order given."""
    write_series(
        ramp_hu((len(positions), 4, 5)),
        stack_geometry((len(positions), 4, 5)),
        folder,
        ImageOrientationPatient=orientation,
        ImagePositionPatient=lambda index: list(positions[index]),
        PixelSpacing=list(spacing),
    )


def test_a_voxel_lies_where_the_standard_says(tmp_path):
    write_at(tmp_path, [1, 0, 0, 0, 1, 0], [(-10, -20, -5), (-10, -20, 0), (-10, -20, 5)])
    geometry = read_series(tmp_path).geometry
    # Row 3, column 4: 4 columns of 0.5 mm to the left, 3 rows of 2.0 mm to posterior (PixelSpacing: rows
    # first).
    assert np.allclose(geometry.points_lps_mm(1, [(3, 4)]), [(-8.0, -14.0, 0.0)])
    assert geometry.spacing_mm == (5.0, 2.0, 0.5)


def test_slices_ascend_along_their_normal_when_a_cosine_is_negated(tmp_path):
    write_at(tmp_path, [-1, 0, 0, 0, 1, 0], [(-10, -20, -5), (-10, -20, 0), (-10, -20, 5)])
    series = read_series(tmp_path)
    # (-1, 0, 0) x (0, 1, 0) = (0, 0, -1): the stack ascends towards the feet, columns run to the right.
    assert np.allclose(series.geometry.normal_lps, (0, 0, -1))
    assert series.geometry.origins_lps_mm[:, 2].tolist() == [5, 0, -5]
    assert np.allclose(series.geometry.points_lps_mm(0, [(3, 4)]), [(-12.0, -14.0, 5.0)])
    assert np.array_equal(series.volume(), ramp_hu((3, 4, 5))[::-1])


def test_a_sagittal_stack_is_sorted_from_right_to_left(tmp_path):
    # Columns to posterior, rows to the feet: (0, 1, 0) x (0, 0, -1) = (-1, 0, 0), so slices ascend to the
    # right.
    write_at(tmp_path, [0, 1, 0, 0, 0, -1], [(30, 1, 2), (34, 1, 2), (38, 1, 2)])
    assert read_series(tmp_path).geometry.origins_lps_mm[:, 0].tolist() == [38, 34, 30]


def test_file_names_and_instance_numbers_do_not_matter(tmp_path, files):
    names = list(range(len(files)))
    random.Random(1).shuffle(names)
    for file, number in zip(files, names, strict=True):
        change(file, InstanceNumber=100 - number, PatientPosition="FFP")
        (tmp_path / "deep" / str(number)).mkdir(parents=True)
        shutil.move(file, tmp_path / "deep" / str(number) / f"{number}")
    series = read_series(tmp_path)
    assert np.array_equal(series.volume(), ramp_hu())
    assert difference(series.geometry, stack(frame_of_reference_uid="1.2.3")) is None


ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial, columns negated": (-1, 0, 0, 0, 1, 0),
    "axial, rows negated": (1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "axial, rows and columns swapped": (0, 1, 0, 1, 0, 0),
    "oblique": (0.9, 0.3, -0.2, -0.25, 0.9, 0.35),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize("tilt_degrees", [0.0, 15.0])
def test_the_marker_on_the_patients_left_is_found_there(tmp_path, orientation, tilt_degrees):
    geometry = stack_geometry(
        (34, 66, 70),
        gaps_mm=2.5,
        pixel_spacing_mm=(1.4, 1.2),
        orientation=orientation,
        tilt_degrees=tilt_degrees,
        centre_lps_mm=(5, -30, 200),
        frame_of_reference_uid="1.2.3",
    )
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, geometry, tmp_path)
    series = read_series(tmp_path)
    assert difference(series.geometry, geometry) is None
    assert np.array_equal(series.volume(), phantom.volume_hu)
    for name, low_hu in (("Marker", 900), ("L", 400)):
        indices = np.argwhere((series.volume() > low_hu) & (series.volume() < low_hu + 200))
        points = [series.geometry.points_lps_mm(k, [(i, j)])[0] for k, i, j in indices]
        drawn = np.argwhere(phantom.masks[name])
        assert np.array_equal(indices, drawn)
        if name == "Marker":
            assert np.abs(np.mean(points, axis=0) - phantom.points_lps_mm["Marker"]).max() < 0.6


def test_a_tilted_stack_of_4_then_7_mm_keeps_every_position(tmp_path):
    geometry = stack(gaps_mm=[4, 4, 4, 7, 7], tilt_degrees=18.5, frame_of_reference_uid="1.2.3")
    write_series(ramp_hu(), geometry, tmp_path)
    series = read_series(tmp_path)
    assert np.allclose(np.diff(series.geometry.slice_positions_mm), [4, 4, 4, 7, 7])
    assert np.allclose(series.geometry.origins_lps_mm, geometry.origins_lps_mm, atol=1e-6)
    assert any("4.00 to 7.00 mm" in warning for warning in series.warnings)
    assert any("18.5 degrees" in warning for warning in series.warnings)


def test_thin_slices_between_thick_ones_are_a_plan_and_not_holes(tmp_path):
    write_series(
        ramp_hu((11, 4, 4)),
        stack_geometry((11, 4, 4), gaps_mm=[5, 5, 5, 2.5, 2.5, 2.5, 2.5, 5, 5, 5]),
        tmp_path,
    )
    assert read_series(tmp_path).geometry.shape == (11, 4, 4)


def test_one_slice_has_no_known_thickness(tmp_path):
    write_series(ramp_hu((1, 4, 4)), stack_geometry((1, 4, 4)), tmp_path)
    assert np.isnan(read_series(tmp_path).geometry.slice_thickness_mm).all()


def test_an_unknown_frame_of_reference_stays_unknown_and_is_said(tmp_path):
    write_series(ramp_hu(), stack(), tmp_path, FrameOfReferenceUID=None)
    series = read_series(tmp_path)
    assert series.geometry.frame_of_reference_uid is None
    assert any("FrameOfReferenceUID" in warning for warning in series.warnings)


def test_a_slice_shifted_sideways_is_kept_there_and_said(tmp_path, files):
    change(files[2], ImagePositionPatient=[20.0, *pydicom.dcmread(files[2]).ImagePositionPatient[1:]])
    series = read_series(files[2].parent)
    assert series.geometry.origins_lps_mm[2, 0] == 20.0
    assert any("shifted sideways" in warning for warning in series.warnings)


# ---- values ------------------------------------------------------------------------------------------------


def test_each_pet_slice_has_its_own_rescale(tmp_path):
    slopes = [0.5, 0.25, 2.0, 1.0, 0.125, 4.0]
    volume = np.stack([np.full(SHAPE[1:], 40.0 * slope) for slope in slopes])
    write_series(volume, stack(), tmp_path, modality="PT", RescaleSlope=lambda index: slopes[index])
    stored = {int(pydicom.dcmread(file).pixel_array.max()) for file in tmp_path.iterdir()}
    assert stored == {40}
    series = read_series(tmp_path)
    assert series.modality == "PT" and np.array_equal(series.volume(), volume)


def test_an_mr_without_rescale_keeps_its_numbers(tmp_path):
    write_series(ramp_hu() + 300, stack(), tmp_path, modality="MR", RescaleSlope=None, RescaleIntercept=None)
    series = read_series(tmp_path)
    assert series.modality == "MR" and np.array_equal(series.volume(), ramp_hu() + 300)


def test_monochrome1_changes_how_a_ct_is_shown_and_not_its_hu(tmp_path):
    write_series(ramp_hu(), stack(), tmp_path, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_series(tmp_path).volume(), ramp_hu())


def test_declared_padding_below_air_becomes_air_whether_its_sign_is_right_or_not(tmp_path):
    volume = ramp_hu()
    volume[:, 0] = -3024
    expected = volume.copy()
    expected[:, 0] = -1024
    for folder, padding in (("signed", -2000), ("unsigned", 65536 - 2000)):
        files = write_series(volume, stack(), tmp_path / folder)
        for file in files:
            dataset = pydicom.dcmread(file)
            dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
            dataset.save_as(file)
        assert np.array_equal(read_series(tmp_path / folder).volume(), expected)


def test_a_careless_padding_value_of_zero_does_not_turn_tissue_into_air(tmp_path):
    files = write_series(ramp_hu(), stack(), tmp_path, RescaleIntercept=0)
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.add_new("PixelPaddingValue", "SS", 0)
        dataset.save_as(file)
    assert np.array_equal(read_series(tmp_path).volume(), ramp_hu())


def test_compressed_slices_give_the_same_hu(tmp_path):
    for file in write_series(ramp_hu(), stack(), tmp_path):
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file)
    assert np.array_equal(read_series(tmp_path).volume(), ramp_hu())


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_and_file_meta_are_read(tmp_path, files, implicit):
    for file in files:
        dataset = pydicom.dcmread(file)
        bare = pydicom.Dataset({element.tag: element for element in dataset})
        bare.save_as(tmp_path / file.stem, implicit_vr=implicit, little_endian=True)
        assert (tmp_path / file.stem).read_bytes()[:2] == b"\x08\x00"
    shutil.rmtree(files[0].parent)
    assert np.array_equal(read_series(tmp_path).volume(), ramp_hu())


def write_enhanced(path: Path, order: list[int], **top_level) -> None:
    """The ramp as one Enhanced CT file whose frames come in ``order``, each with its own position and
    rescale."""
    folder = path.parent / "plain"
    plain = [pydicom.dcmread(file) for file in write_series(ramp_hu(), stack(), folder)]
    shutil.rmtree(folder)
    dataset = plain[0]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = len(order)
    shared, measures, plane = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing, plane.ImageOrientationPatient = (
        dataset.PixelSpacing,
        dataset.ImageOrientationPatient,
    )
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    frames, stored = [], []
    for index in order:
        frame, position, rescale = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = plain[index].ImagePositionPatient
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024 - index, "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [rescale]
        frames.append(frame)
        stored.append((ramp_hu()[index] + 1024 + index).astype("<i2"))
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    dataset.PixelData = np.stack(stored).tobytes()
    for keyword, value in top_level.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_frames_of_an_enhanced_ct_are_sorted_and_rescaled_one_by_one(tmp_path):
    write_enhanced(tmp_path / "enhanced.dcm", order=[3, 0, 5, 1, 4, 2])
    series = read_series(tmp_path)
    assert series.frame_numbers == (2, 4, 6, 1, 5, 3)
    assert np.array_equal(series.volume(), ramp_hu())
    assert difference(series.geometry, stack()) is None
    assert len(set(series.sop_instance_uids)) == 1


def test_an_enhanced_ct_with_fewer_positions_than_frames_is_refused(tmp_path):
    write_enhanced(tmp_path / "enhanced.dcm", order=[0, 1, 2, 3], NumberOfFrames=3)
    assert "3 frames, but 4 per-frame functional groups" in refusal(tmp_path)


def test_headers_hold_no_pixels(files):
    assert not any("PixelData" in header for header in read_series(files[0].parent).headers)


def test_hundreds_of_slices_are_found_without_decoding_and_then_opened_once(tmp_path, monkeypatch):
    files = write_series(ramp_hu((200, 2, 2)), stack_geometry((200, 2, 2), gaps_mm=1.0), tmp_path)
    read_bytes = []
    monkeypatch.setattr(pixels, "dcmread", lambda path, **_: read_bytes.append(path) or pydicom.dcmread(path))
    series = read_series(tmp_path)
    assert len(series.files) == 200 and read_bytes == []
    series.volume()
    assert sorted(read_bytes) == sorted(files)


# ---- refusals ----------------------------------------------------------------------------------------------


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
    assert "different pixels" in refusal(tmp_path, allow=ALLOWABLE)


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
    assert "2 files beside its slices are broken" in message and "empty.dcm" in message
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
    assert "projection radiograph (CR), not a slice" in refusal(files[0])


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


# ---- real scans --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["rt/lung1_001/CT", "rt/sts/STS_024/CT", "rt/ibsi1_lung_gtv/dicom/image"])
def test_real_series_equal_what_simpleitk_reads(shared_data, folder):
    sitk = pytest.importorskip("SimpleITK")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(shared_data / folder))
    image = sitk.ReadImage(names)
    series = read_series(shared_data / folder)
    assert np.array_equal(series.volume(), sitk.GetArrayFromImage(image).astype(np.float32))
    last = tuple(int(n) - 1 for n in series.geometry.shape)
    for k, i, j in ((0, 0, 0), (last[0], 0, 0), (last[0] // 2, 7, 3), last):
        theirs = image.TransformIndexToPhysicalPoint((j, i, k))
        assert np.abs(series.geometry.points_lps_mm(k, [(i, j)])[0] - theirs).max() < 0.02


def test_the_tilted_and_uneven_head_scan_keeps_each_position(shared_data):
    folder = shared_data / "odd_dicom/gantry_tilt/GE_tilt_variable_spacing"
    series = read_series(folder)
    by_height = sorted(
        (pydicom.dcmread(file).ImagePositionPatient for file in folder.iterdir()), key=lambda ipp: ipp[2]
    )
    assert np.allclose(series.geometry.origins_lps_mm, np.array(by_height, dtype=float))
    # Its README: 4.0 mm x 13, 1.08 mm x 1, 7.0 mm x 13, and 18.5 degrees.
    gaps_mm = np.diff(series.geometry.slice_positions_mm)
    assert np.allclose(gaps_mm, [4.0] * 13 + [1.08] + [7.0] * 13, atol=0.01)
    assert np.allclose(np.degrees(np.arccos(series.geometry.normal_lps[2])), 18.5, atol=0.01)
    assert series.geometry.is_sheared


@pytest.mark.parametrize(
    ("name", "kinds"), [("CT1", ["J2KR", "JLSL", "JPLL", "RLE"]), ("CT2", ["J2KR", "JLSL"])]
)
def test_lossless_transfer_syntaxes_give_the_pixels_of_the_uncompressed_file(shared_data, name, kinds):
    folder = shared_data / "odd_dicom/compressed_ct"
    plain = read_series(folder / f"{name}_UNC.dcm").volume()
    for kind in kinds:
        assert np.array_equal(read_series(folder / f"{name}_{kind}.dcm").volume(), plain), kind


def test_lossy_transfer_syntaxes_are_near_and_say_so(shared_data):
    folder = shared_data / "odd_dicom/compressed_ct"
    plain = read_series(folder / "CT1_UNC.dcm").volume()
    for kind, mean_hu in (("J2KI", 60), ("JLSN", 10)):
        series = read_series(folder / f"CT1_{kind}.dcm")
        assert np.abs(series.volume() - plain).mean() < mean_hu
        assert series.warnings == ("the images were compressed with loss.",)


READ_RIGHT = {
    "enhanced_multiframe/eCT_Supplemental.dcm": (2, 512, 512),
    "orientation_ffs": (2, 512, 512),
    "malformed/bad_sequence.dcm": (1, 512, 512),
    "malformed/explicit_VR-UN.dcm": (1, 512, 512),
}

REFUSED = {
    "malformed/no_meta.dcm": "neither the DICM mark nor a DICOM element",
    "malformed/RS_eclipse_prostate_crlf_corrupted.dcm": "only 1 structure set",
    "monochrome1": "projection radiograph (CR)",
    "non_ascii_names/chrGerm.dcm": "Secondary Capture",
    "non_ascii_names/chrSQEncoding.dcm": "SOPClassUID",
    "non_ascii_names": "other files",
    "compressed_ct": "3 series",
    "malformed": "2 series",
}


@pytest.mark.parametrize("name", READ_RIGHT)
def test_odd_files_that_hold_slices_are_read(shared_data, name):
    series = read_series(shared_data / "odd_dicom" / name)
    volume = series.volume()
    assert volume.shape == READ_RIGHT[name] and volume.min() >= -1024 and volume.max() > 150


@pytest.mark.parametrize("name", REFUSED)
def test_odd_files_that_hold_no_single_series_are_refused(shared_data, name):
    assert REFUSED[name] in refusal(shared_data / "odd_dicom" / name)


def test_every_odd_file_is_read_or_refused_in_one_line(shared_data):
    files = sorted((shared_data / "odd_dicom").rglob("*.dcm"))
    assert len(files) >= 50
    for file in files:
        try:
            series = read_series(file)
        except InputError as error:
            assert "\n" not in str(error) and file.name in str(error)
        else:
            assert np.isfinite(series.volume()).all()


def test_feet_first_frames_of_the_enhanced_ct_lie_as_its_functional_groups_say(shared_data):
    series = read_series(shared_data / "odd_dicom/enhanced_multiframe/eCT_Supplemental.dcm")
    # Columns (-1, 0, 0), rows (0, 1, 0): the normal points to the feet, so the frame at z = -149 comes first.
    assert series.geometry.origins_lps_mm.tolist() == [[99.5, -301.5, -149.0], [99.5, -301.5, -159.0]]
    assert series.frame_numbers == (2, 1)
