"""Phantoms: written series conform to the standard, and what is drawn lies where it is said to lie."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.dicom import read_series
from medseg.errors import GeometryError, InputError
from medseg.geometry import Geometry, difference
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.phantoms.thigh import write_thigh_phantom


@pytest.fixture(scope="module")
def thigh(tmp_path_factory):
    return write_thigh_phantom(tmp_path_factory.mktemp("thigh"))


# ---- geometries and the series writer ----------------------------------------------------------------------


def test_the_middle_of_a_stack_lies_at_its_centre():
    geometry = stack_geometry(
        (3, 5, 7), gaps_mm=[2, 4], pixel_spacing_mm=(1.5, 0.5), centre_lps_mm=(10, 20, 30)
    )
    # Heights 0, 2, 6 centred: -3, -1, 3. The middle pixel of 5 rows and 7 columns is (2, 3).
    assert np.allclose(geometry.points_lps_mm(1, [(2, 3)]), [(10, 20, 29)])
    assert np.allclose(geometry.points_lps_mm(2, [(0, 0)]), [(10 - 3 * 0.5, 20 - 2 * 1.5, 33)])


def test_a_tilt_moves_slices_along_their_rows():
    geometry = stack_geometry((2, 4, 4), gaps_mm=10, tilt_degrees=45)
    assert np.allclose(np.diff(geometry.origins_lps_mm, axis=0), [(0, 10, 10)])
    assert geometry.is_sheared


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_written_files_conform_to_the_standard(tmp_path, program, modality):
    dciodvfy = program("dciodvfy")
    geometry = stack_geometry(
        (2, 8, 9), gaps_mm=2.5, orientation=(0.9, 0.1, 0.2, -0.1, 0.8, 0.3), tilt_degrees=10
    )
    (first, _) = write_series(np.zeros(geometry.shape), geometry, tmp_path, modality=modality)
    said = subprocess.run([dciodvfy, "-new", str(first)], capture_output=True, text=True).stderr
    assert "Image" in said and "Error" not in said


def test_the_same_seed_writes_the_same_bytes_and_another_seed_another_patient(tmp_path):
    volume, geometry = np.zeros((2, 4, 4)), stack_geometry((2, 4, 4))
    one, again = (write_series(volume, geometry, tmp_path / name, seed=1) for name in "ab")
    other = write_series(volume, geometry, tmp_path / "c", seed=2)
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in again]
    first, second = pydicom.dcmread(one[0]), pydicom.dcmread(other[0])
    for keyword in (
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "FrameOfReferenceUID",
    ):
        assert first[keyword].value != second[keyword].value


def test_header_words_are_set_removed_or_made_per_slice(tmp_path):
    volume, geometry = np.zeros((2, 4, 4)), stack_geometry((2, 4, 4))
    words = {"PatientName": "Doe^J", "SliceThickness": None, "InstanceNumber": lambda index: 9 - index}
    headers = [pydicom.dcmread(file) for file in write_series(volume, geometry, tmp_path, **words)]
    assert [header.InstanceNumber for header in headers] == [9, 8]
    assert all(header.PatientName == "Doe^J" and "SliceThickness" not in header for header in headers)


def test_what_cannot_be_written_is_refused(tmp_path):
    geometry = stack_geometry((2, 4, 4))
    with pytest.raises(GeometryError, match="same shape"):
        write_series(np.zeros((2, 4, 5)), geometry, tmp_path)
    with pytest.raises(InputError, match="CT, MR, PT"):
        write_series(np.zeros((2, 4, 4)), geometry, tmp_path, modality="US")
    with pytest.raises(InputError, match="int16"):
        write_series(np.full((2, 4, 4), 40000.0), geometry, tmp_path)
    with pytest.raises(InputError, match="int16"):
        write_series(np.full((2, 4, 4), np.nan), geometry, tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- the chiral phantom ------------------------------------------------------------------------------------


def test_the_marker_lies_left_anterior_superior_and_the_heel_behind_the_foot():
    phantom = chiral_phantom()
    centre = np.array([7.0, -20.0, 110.0])
    left, posterior, superior = phantom.points_lps_mm["Marker"] - centre
    assert left > 15 and posterior < -10 and superior > 10
    for name in ("Marker", "Foot"):
        indices = np.argwhere(phantom.masks[name])
        points = np.array([phantom.geometry.points_lps_mm(k, [(i, j)])[0] for k, i, j in indices])
        assert np.abs(points.mean(0) - phantom.points_lps_mm[name]).max() < 1.6
    # The mid slice stands at the 15th of 30; foot 24 x 8 x 9 mm.
    volume_mm3 = phantom.masks["Foot"].sum() * np.prod(phantom.geometry.spacing_mm)
    assert volume_mm3 == pytest.approx(24 * 8 * 9, rel=0.35)


def test_the_chiral_phantom_equals_none_of_its_mirror_images():
    volume = chiral_phantom(stack_geometry((41, 41, 41), gaps_mm=2.0, pixel_spacing_mm=(2.0, 2.0))).volume_hu
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        assert (np.flip(volume, axes) != volume).sum() > 300
    for axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        assert (volume.transpose(axes) != volume).sum() > 300


# ---- the thigh ---------------------------------------------------------------------------------------------


def test_the_thigh_reads_back_on_its_own_geometry(thigh):
    series = read_series(thigh.ct_dir)
    assert series.geometry.shape == (64, 256, 256) and series.warnings == ()
    assert difference(series.geometry, thigh.geometry) is None
    assert series.geometry.frame_of_reference_uid == thigh.geometry.frame_of_reference_uid
    assert str(series.headers[0].PatientName) == "PHANTOM^MEDSEG"


def test_the_thigh_has_the_hounsfield_units_of_a_thigh(thigh):
    volume = read_series(thigh.ct_dir).volume()
    gtv, skin = thigh.truth["GTV"], thigh.truth["Thigh_L"]
    muscle = skin & ~gtv & (volume > 25) & (volume < 90)
    assert 20 <= volume[gtv].mean() <= 35
    assert 45 <= np.median(volume[muscle]) <= 60
    assert np.median(volume[skin & (volume > -150) & (volume < -60)]) == pytest.approx(-100, abs=12)
    assert volume[0, 10, 10] == pytest.approx(-1000, abs=60)
    assert np.percentile(volume[thigh.truth["Femur_L"]], 95) > 1000


def test_the_tumour_has_the_size_of_a_sarcoma_and_lies_within_its_box(thigh):
    gtv = thigh.truth["GTV"]
    volume_cc = float((gtv.sum(axis=(1, 2)) * thigh.geometry.voxel_volumes_cc).sum())
    assert 150 < volume_cc < 300
    assert not gtv[[0, -1]].any() and not (gtv & ~thigh.truth["Thigh_L"]).any()
    indices = np.argwhere(gtv)
    points = np.array([thigh.geometry.points_lps_mm(k, [(i, j)])[0] for k, i, j in indices])
    low, high = thigh.box_lps_mm
    assert np.allclose(points.min(0) - low, 12, atol=1e-6) and np.allclose(
        high - points.max(0), 12, atol=1e-6
    )


def test_the_truth_files_lie_on_the_series_in_patient_space(thigh):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(thigh.truth_dir / "GTV.nii.gz")
    geometry = Geometry.from_ras_affine(image.affine, image.shape)
    assert difference(geometry, thigh.geometry) is None
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0) > 0, thigh.truth["GTV"])


def test_the_thigh_conforms_to_the_standard_and_leaves_no_unfinished_file(thigh, program):
    dciodvfy = program("dciodvfy")
    files = sorted(Path(thigh.ct_dir).iterdir())
    assert len(files) == 64 and not [file for file in files if file.name.startswith(".")]
    for file in (files[0], files[-1]):
        said = subprocess.run([dciodvfy, "-new", str(file)], capture_output=True, text=True).stderr
        assert "Error" not in said and "Warning" not in said


@pytest.mark.slow
def test_another_seed_is_another_thigh_of_the_same_tumour(thigh, tmp_path):
    other = write_thigh_phantom(tmp_path, seed=1)
    first, second = read_series(thigh.ct_dir), read_series(other.ct_dir)
    assert first.series_instance_uid != second.series_instance_uid
    assert not np.array_equal(first.volume(), second.volume())
    assert np.array_equal(thigh.truth["GTV"], other.truth["GTV"])
