"""Real scans and odd files. Referee: SimpleITK."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from ct_files import refusal

from medseg.dicom import read_series
from medseg.errors import InputError


@pytest.mark.parametrize("folder", ["rt/lung1_001/CT", "rt/sts/STS_024/CT", "rt/ibsi1_lung_gtv/dicom/image"])
def test_real_series_equal_what_simpleitk_reads(shared_data, folder):
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
    "malformed/RS_eclipse_prostate_crlf_corrupted.dcm": "it is: RT Structure Set (RTSTRUCT)",
    "monochrome1": "projection radiograph (CR)",
    "non_ascii_names/chrGerm.dcm": "Secondary Capture",
    "non_ascii_names/chrSQEncoding.dcm": "SOPClassUID",
    "non_ascii_names": "it holds: 6 x Secondary Capture Image Storage (OT); projection",
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
