"""The phantom of several series: each lies where it says, with the uptake that it says."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from patient_series import CENTRE_LPS_MM, CT_FRAME, write_patient

from medseg.dicom import read_series
from medseg.dicom.images.suv import suv_factors
from medseg.dicom.registration import moved, read_registration
from medseg.phantoms.several import MR_TO_CT


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("phantom") / "P1")


def centroid_lps_mm(volume, geometry, limit):
    slices, rows, columns = np.nonzero(volume > limit)
    points = [geometry.points_lps_mm(k, [(i, j)])[0] for k, i, j in zip(slices, rows, columns, strict=True)]
    return np.mean(points, axis=0)


def test_the_pet_of_the_phantom_lies_in_the_ct_s_frame_with_an_suv_of_five(patient):
    pet = read_series(patient / "PET")
    suv = suv_factors(pet).suv(pet.volume())
    assert pet.geometry.frame_of_reference_uid == CT_FRAME
    assert suv.max() == pytest.approx(5.0, abs=0.1)
    assert np.allclose(centroid_lps_mm(suv, pet.geometry, 2.5), CENTRE_LPS_MM, atol=0.7)


def test_the_mr_of_the_phantom_lies_in_a_turned_frame_that_its_registration_undoes(patient):
    mr = read_series(patient / "MR")
    own = centroid_lps_mm(mr.volume(), mr.geometry, 500)
    assert np.linalg.norm(own - CENTRE_LPS_MM) > 20
    matrix = read_registration(patient / "REG.dcm").matrix(mr.geometry.frame_of_reference_uid, CT_FRAME)
    assert np.allclose(matrix, MR_TO_CT, atol=1e-7)
    assert np.allclose(moved([own], matrix), [CENTRE_LPS_MM], atol=0.5)


def test_pet_mr_and_registration_conform_to_the_standard(patient, program):
    dciodvfy = program("dciodvfy")
    for file in (patient / "PET" / "PT_0001.dcm", patient / "MR" / "MR_0001.dcm", patient / "REG.dcm"):
        said = subprocess.run([dciodvfy, "-new", str(file)], capture_output=True, text=True).stderr
        assert ("Image" in said or "SpatialRegistration" in said) and "Error" not in said, said
