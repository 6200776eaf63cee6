"""A real patient of three series: found by headers alone, the same through DICOM, NIfTI and SimpleITK."""

from __future__ import annotations

import os

import numpy as np
import pytest

from medseg.cases.multimodal import open_multimodal
from medseg.cases.patients import Wanted, find_patients
from medseg.dicom import read_series

MODALITIES = {"image": "CT", "pt": "PT", "mr": "MR"}
FOLDERS = {
    "CT": "rt/sts/STS_002/CT",
    "PT": "training/sts_pet/dicom/STS_002",
    "MR": "training/sts_mr/dicom/STS_002",
}


@pytest.fixture(scope="module")
def patient(shared_data, tmp_path_factory):
    """All series of STS_002 in one folder, as links: a PACS would export them so."""
    folder = tmp_path_factory.mktemp("real") / "STS_002"
    folder.mkdir()
    for modality, place in FOLDERS.items():
        for file in (shared_data / place).iterdir():
            os.symlink(file, folder / f"{modality}_{file.name}")
    return folder


def test_three_series_of_a_real_patient_share_one_frame(patient):
    (case,), _ = find_patients(patient, Wanted(MODALITIES, ("pt", "mr")))
    assert case.name == "STS_002" and case.refusal == "" and sorted(case.others) == ["mr", "pt"]
    found = open_multimodal(case.source, case.others, case.registrations)
    assert found.series_in_words() == "CT + PT + MR" and found.series.modality == "CT"
    assert {other.through for other in found.companions.values()} == {"shared Frame of Reference"}


def test_dicom_and_nifti_of_a_real_patient_give_the_same_values_on_the_ct(patient, shared_data):
    (case,), _ = find_patients(patient, Wanted(MODALITIES, ("pt", "mr")))
    one = open_multimodal(case.source, case.others)
    folder = shared_data / "training"
    files = {"pt": folder / "sts_pet/STS_002/pet_suv.nii.gz", "mr": folder / "sts_mr/STS_002/mr_t1.nii.gz"}
    other = open_multimodal(case.source, {key: str(file) for key, file in files.items()})
    for key, step in (("pt", 6e-4), ("mr", 5.01)):  # the files are in steps of 0.001 and of 10
        (a, covered), (b, same) = (c.companions[key].sampled_on(c.geometry) for c in (one, other))
        assert (covered == same).mean() > 0.999 and covered.mean() > 0.1
        assert np.abs(a - b)[covered & same].max() <= step


def test_a_real_pet_on_the_ct_is_what_simpleitk_resamples(patient):
    sitk = pytest.importorskip("SimpleITK")
    (case,), _ = find_patients(patient, Wanted(MODALITIES, ("pt", "mr")))
    found = open_multimodal(case.source, case.others)
    pet = found.companions["pt"]

    def image(volume, geometry):
        made = sitk.GetImageFromArray(volume)
        affine = geometry.affine_lps[:3, [2, 1, 0]]
        steps = np.linalg.norm(affine, axis=0)
        made.SetSpacing(steps.tolist())
        made.SetDirection((affine / steps).ravel().tolist())
        made.SetOrigin(geometry.origins_lps_mm[0].tolist())
        return made

    grid = read_series(patient, series_uid=found.series.series_instance_uid).geometry
    reference = image(np.zeros(grid.shape, np.float32), grid)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(
            image(pet.volume, pet.case.geometry), reference, sitk.Transform(), sitk.sitkLinear, -1.0
        )
    )
    values, covered = pet.sampled_on(grid)
    inside = covered & (expected >= 0)  # SimpleITK ends at the outermost centres, half a voxel earlier
    assert inside.sum() > 0.8 * covered.sum()
    assert np.abs(values - expected)[inside].max() < 1e-3
