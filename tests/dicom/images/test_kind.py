"""Numbers that are no HU, or absurd, and slices that are not there: refused or named."""

from __future__ import annotations

import numpy as np
import pytest
from ct_files import SHAPE, change, ramp_hu, refusal, stack

from medseg.dicom import ALLOWABLE, read_series
from medseg.phantoms.series import stack_geometry, write_series


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"RescaleSlope": "1e300"}, "RescaleSlope 1e+300"),
        ({"RescaleSlope": "1e-12"}, "RescaleSlope 1e-12"),
        ({"RescaleIntercept": "-1e39"}, "RescaleIntercept -1e+39"),
        ({"PixelSpacing": ["1e300", "1e300"]}, "PixelSpacing 1e+300"),
        ({"PixelSpacing": ["1", "1e-9"]}, "PixelSpacing 1 x 1e-09"),
        ({"ImagePositionPatient": ["0", "0", "1e12"]}, "ImagePositionPatient 1e+12"),
    ],
)
def test_absurd_numbers_are_refused_whichever_slices_have_them(tmp_path, attributes, words):
    files = write_series(ramp_hu(), stack(), tmp_path)
    change(files[2], **attributes)
    assert words in refusal(tmp_path) and "CT_0003.dcm" in refusal(tmp_path)
    for file in files:
        change(file, **attributes)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize(("modality", "slope"), [("PT", 1e-12), ("PT", 1e6), ("CT", 0.001)])
def test_numbers_that_scanners_do_write_are_read(tmp_path, modality, slope):
    volume = np.arange(SHAPE[0], dtype=float)[:, None, None] * slope * np.ones(SHAPE)
    write_series(volume, stack(), tmp_path, modality=modality, RescaleSlope=slope, RescaleIntercept=0)
    assert np.allclose(read_series(tmp_path).volume(), volume, rtol=1e-6)


def test_slices_of_one_ct_with_different_intercepts_are_refused_and_read_by_their_own_when_allowed(tmp_path):
    files = write_series(ramp_hu(), stack(), tmp_path, RescaleIntercept=0)
    change(files[3], RescaleIntercept=-1024)
    message = refusal(tmp_path)
    assert "differ between slices: CT_0001.dcm 1 and 0, CT_0004.dcm 1 and -1024" in message
    expected = ramp_hu()
    expected[3] -= 1024
    assert np.array_equal(read_series(tmp_path, allow=["mixed_rescale"]).volume(), expected)


def test_one_slice_of_a_ct_whose_numbers_are_unsigned_is_refused_and_read_by_its_own_when_allowed(tmp_path):
    files = write_series(ramp_hu(), stack(), tmp_path, RescaleIntercept=0)
    change(files[1], PixelRepresentation=0)
    assert "PixelRepresentation differs between slices: CT_0006.dcm 1, CT_0002.dcm 0" in refusal(tmp_path)
    expected = ramp_hu()
    expected[1][expected[1] < 0] += 65536
    assert np.array_equal(read_series(tmp_path, allow=["mixed_rescale"]).volume(), expected)


def test_a_sign_that_is_no_whole_number_or_neither_0_nor_1_is_refused(tmp_path):
    file = write_series(ramp_hu(), stack(), tmp_path)[1]
    sound = file.read_bytes()
    change(file, PixelRepresentation=2)
    assert "PixelRepresentation 2; expected 0 or 1" in refusal(tmp_path)
    file.write_bytes(sound.replace(b"\x28\x00\x03\x01US", b"\x28\x00\x03\x01FD"))
    assert file.read_bytes() != sound and file.name in refusal(tmp_path)


@pytest.mark.parametrize(("stored", "high"), [(2, 15), (12, 15), (17, 16), (0, -1)])
def test_a_highest_bit_that_does_not_fit_the_stored_bits_is_refused(tmp_path, stored, high):
    files = write_series(ramp_hu(), stack(), tmp_path)
    change(files[1], BitsStored=stored, HighBit=max(high, 0))
    assert f"BitsStored {stored} and HighBit {max(high, 0)} in 16 bits" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("modality", "keyword", "values"),
    [("CT", "RescaleType", ("HU", "US")), ("PT", "Units", ("BQML", "CNTS"))],
)
def test_slices_of_different_units_are_refused_whatever_is_allowed(tmp_path, modality, keyword, values):
    units = {keyword: lambda index: values[index % 2]}
    write_series(ramp_hu(), stack(), tmp_path, modality=modality, **units)
    message = refusal(tmp_path, allow=ALLOWABLE)
    assert f"{keyword} differ" in message and all(value in message for value in values)


def test_a_modality_that_is_not_that_of_the_sop_class_is_refused(tmp_path):
    write_series(ramp_hu(), stack(), tmp_path, Modality="MR")
    assert "Modality MR under the SOP Class of CT images" in refusal(tmp_path, allow=ALLOWABLE)


@pytest.mark.parametrize(
    "attributes",
    [
        {"RescaleType": "MGML"},
        {"RescaleType": "Z_EFF"},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "IODINE_MAP"]},
        {"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "MAT_SPECIFIC"]},
    ],
)
def test_maps_of_a_material_are_not_taken_for_hu_unless_allowed(tmp_path, attributes):
    write_series(ramp_hu(), stack(), tmp_path, **attributes)
    assert "the numbers are no HU" in refusal(tmp_path)
    series = read_series(tmp_path, allow=["not_hu"])
    assert np.array_equal(series.volume(), ramp_hu())
    assert any(warning.startswith("accepted not_hu") for warning in series.warnings)


@pytest.mark.parametrize("word", ["VNC", "VMI", "VIRTUAL MONOENERGETIC 70KEV"])
def test_virtual_images_are_read_and_named(tmp_path, word):
    write_series(ramp_hu(), stack(), tmp_path, ImageType=["DERIVED", "PRIMARY", "AXIAL", word])
    assert any(f"ImageType {word}: the images were computed" in w for w in read_series(tmp_path).warnings)


def warnings_of(folder) -> str:
    return " ".join(read_series(folder).warnings)


def test_every_second_slice_missing_is_named_by_thickness_or_by_instance_numbers(tmp_path):
    for number, file in enumerate(write_series(ramp_hu(), stack(gaps_mm=3.0), tmp_path)):
        change(file, SliceThickness=3)
        if number % 2:
            file.unlink()
    assert "slices are 6.00 mm apart and 3.00 mm thick" in warnings_of(tmp_path)
    for file in tmp_path.iterdir():
        change(file, SliceThickness=None)
    assert "InstanceNumber goes in steps of 2" in warnings_of(tmp_path)


@pytest.mark.parametrize("missing", [0, 5])
def test_the_first_or_last_slice_missing_is_named_when_the_headers_count_them(tmp_path, missing):
    files = write_series(ramp_hu(), stack(), tmp_path, ImagesInAcquisition=6)
    assert warnings_of(tmp_path) == ""
    files[missing].unlink()
    assert "its headers count 6 images, 5 are here" in warnings_of(tmp_path)


def test_a_header_that_counts_nonsense_is_no_reason_to_refuse_or_to_warn(tmp_path, recwarn):
    for file in write_series(ramp_hu(), stack(), tmp_path, SliceThickness="7.1251"):
        file.write_bytes(file.read_bytes().replace(b"7.1251", b"thinly"))
    assert warnings_of(tmp_path) == "" and not recwarn.list


def test_thick_slices_that_overlap_or_touch_say_nothing(tmp_path):
    for gap_mm, thickness_mm in ((3.0, 3.0), (1.5, 3.0), (5.0, 3.0)):
        folder = tmp_path / str(gap_mm)
        write_series(ramp_hu(), stack_geometry(SHAPE, gaps_mm=gap_mm), folder, SliceThickness=thickness_mm)
        assert warnings_of(folder) == ""
