"""Reading DICOM series: where slices lie and what their values are."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import SHAPE, change, ramp_hu, refusal, stack
from pydicom.uid import RLELossless

from medseg.dicom import read_series
from medseg.dicom.images import pixels
from medseg.geometry import difference
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

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


@pytest.mark.parametrize("inserted", [b"x", b"xyz1", bytes(range(100)), bytes(range(1, 200, 2))])
def test_bytes_inserted_into_the_pixels_are_seen_by_what_they_push_behind_them(files, inserted):
    raw = bytearray(files[2].read_bytes())
    raw[-30:-30] = inserted
    files[2].write_bytes(raw)
    assert "what stands behind the pixels is no data element" in refusal(files[0].parent)


def test_padding_private_elements_and_zeros_behind_the_pixels_are_left_alone(files):
    padding = pydicom.dcmread(files[0])
    padding.add_new(0xFFFCFFFC, "OB", b"abcd")
    padding.save_as(files[0])
    private = pydicom.dcmread(files[1])
    private.add_new(0x7FE10010, "LO", "A VENDOR")
    private.save_as(files[1])
    files[2].write_bytes(files[2].read_bytes() + bytes(3))
    files[3].write_bytes(files[3].read_bytes() + bytes(512))
    assert np.array_equal(read_series(files[0].parent).volume(), ramp_hu())


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
    monkeypatch.setattr(
        pixels, "read_dicom", lambda path, **_: read_bytes.append(path) or pydicom.dcmread(path)
    )
    series = read_series(tmp_path)
    assert len(series.files) == 200 and read_bytes == []
    series.volume()
    assert sorted(read_bytes) == sorted(files)
