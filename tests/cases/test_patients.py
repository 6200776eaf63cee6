"""Which series of a folder make a case, and the one line that says why they do not."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
from patient_series import CENTRE_LPS_MM, CT_FRAME, write_patient

from medseg.cases.multimodal import open_multimodal
from medseg.cases.patients import Wanted, find_patients
from medseg.dicom import read_series
from medseg.errors import InputError
from medseg.phantoms.registration import write_registration
from medseg.phantoms.series import stack_geometry, write_series

MODALITIES = {"image": "CT", "pt": "PT", "mr": "MR"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("patients") / "P1")


@pytest.fixture
def patient(written, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(written, tmp_path / "P1")


def opened(folder, *chosen):
    """The one case of a folder, open; InputError with its refusal."""
    (case,), _ = find_patients(folder, Wanted(MODALITIES, ("pt", "mr"), chosen))
    if case.refusal:
        raise InputError(case.refusal)
    return open_multimodal(case.source, case.others, case.registrations)


def refusal(folder, *chosen) -> str:
    with pytest.raises(InputError) as caught:
        opened(folder, *chosen)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_frames_without_a_registration_are_refused_in_one_line(patient):
    (patient / "REG.dcm").unlink()
    said = refusal(patient)
    assert f"instead of {CT_FRAME}, and no registration object (REG) links the two (there is none)" in said


def test_a_registration_that_maps_elsewhere_is_refused_in_one_line(patient):
    write_registration(patient / "REG.dcm", CT_FRAME, {"1.2.3.99": np.eye(4)})
    assert "(REG.dcm maps 1.2.3.99 to 1.2.826.1)" in refusal(patient)


def test_two_registrations_that_disagree_are_refused_and_naming_one_decides(patient):
    mr_frame = read_series(patient / "MR").geometry.frame_of_reference_uid
    write_registration(patient / "second.dcm", CT_FRAME, {mr_frame: np.eye(4)})
    said = refusal(patient)
    assert "REG.dcm and second.dcm both register" in said and "mm apart" in said
    case = opened(patient, ("REG", str(patient / "REG.dcm")))
    assert case.companions["mr"].through.startswith("registration object REG.dcm")


def test_no_registration_is_used_where_the_caller_says_none(patient):
    assert "no registration object (REG) links the two (there is none)" in refusal(patient, ("REG", "none"))


def test_a_deformable_registration_is_named_as_the_reason(patient):
    dataset = pydicom.dcmread(patient / "REG.dcm")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.3"
    dataset.save_as(patient / "REG.dcm")
    said = refusal(patient)
    assert "Not read: REG.dcm: a Deformable Spatial Registration" in said


def test_pet_without_weight_is_refused_in_one_line(patient):
    for path in (patient / "PET").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.PatientWeight
        dataset.save_as(path)
    assert "no SUV: no PatientWeight" in refusal(patient)


def test_pet_in_other_units_than_its_file_says_is_refused_and_a_single_slice_by_its_series(patient):
    pet = read_series(patient / "PET")
    suv_5_as_stored = nib.Nifti1Image(pet.volume().T, np.diag([-4.0, -4.0, 4.0, 1.0]))  # becquerel per ml
    nib.save(suv_5_as_stored, patient / "pet.nii.gz")
    case, chosen = str(patient / "CT"), {"pt": str(patient / "pet.nii.gz")}
    with pytest.raises(
        InputError, match=r"pet.nii.gz: a hundredth of its values lie above 1\d+, which is no SUV"
    ):
        open_multimodal(case, chosen)
    for path in (patient / "PET").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.Units = "GML"
        dataset.save_as(path)
    assert "which is no SUV; expected PET in g/ml" in refusal(patient)
    for path in sorted((patient / "PET").iterdir())[1:]:
        path.unlink()
    assert f"PT series {pet.series_instance_uid}: one slice" in refusal(patient)


def test_the_same_modality_twice_needs_a_choice(patient):
    geometry = stack_geometry((4, 20, 20), pixel_spacing_mm=(4, 4), frame_of_reference_uid=CT_FRAME)
    write_series(
        np.zeros(geometry.shape),
        geometry,
        patient / "second PET",
        modality="PT",
        SeriesInstanceUID="1.2.3.77",
        SOPInstanceUID=lambda index: f"1.2.3.77.{index + 1}",
    )
    said = refusal(patient)
    assert said.startswith("2 PT series fit: ") and "Choose one: `series=PT=UID`." in said
    own = read_series(patient / "PET").series_instance_uid
    case = opened(patient, ("PT", own))
    assert case.companions["pt"].case.series.series_instance_uid == own


def test_two_cts_in_one_frame_need_a_choice(patient):
    write_series(
        np.zeros((3, 8, 8)),
        stack_geometry((3, 8, 8), centre_lps_mm=CENTRE_LPS_MM, frame_of_reference_uid=CT_FRAME),
        patient / "second CT",
        SeriesInstanceUID="1.2.3.78",
        SOPInstanceUID=lambda index: f"1.2.3.78.{index + 1}",
    )
    said = refusal(patient)
    assert said.startswith("two CT series fit: ") and "Choose one: `series=CT=UID`." in said
    own = read_series(patient / "CT").series_instance_uid
    case = opened(patient, ("CT", own))
    assert case.series.series_instance_uid == own and case.series_in_words() == "CT + PT + MR"


def test_series_in_one_flat_folder_are_told_apart_by_their_uids(patient):
    for folder in ("CT", "PET", "MR"):
        for path in (patient / folder).iterdir():
            shutil.move(path, patient / path.name)
    case = opened(patient)
    assert case.series_in_words() == "CT + PT + MR"
    assert case.geometry.shape == (24, 40, 40) and case.companions["pt"].case.geometry.shape[1:] == (20, 20)


def test_a_follow_up_in_a_frame_of_its_own_is_a_case_of_its_own(patient):
    # The same person a year later: another CT and PET, which lie to one another and not to the first.
    write_patient(patient / "later", seed="later", frame="1.2.826.2")
    for path in (patient / "later").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "PHANTOM-0"
        dataset.save_as(path)
    cases, notes = find_patients(patient, Wanted(MODALITIES, ("pt", "mr")))
    assert [(case.name, case.refusal) for case in cases] == [("CT", ""), ("later_CT", "")]
    assert [sorted(case.others) for case in cases] == [["mr", "pt"]] * 2 and notes == []
    assert cases[1].others["pt"].endswith("later/PET")


def test_a_series_without_a_frame_of_reference_is_refused(patient):
    for path in (patient / "PET").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    assert "has no FrameOfReferenceUID" in refusal(patient)
    assert opened(patient, ("PT", "none")).series_in_words() == "CT + MR"


def test_a_needed_modality_that_is_not_there_is_refused(patient):
    shutil.rmtree(patient / "PET")
    (case,), _ = find_patients(patient, Wanted(MODALITIES, ("mr",)))
    assert case.refusal == "no PT series of this patient, which the bundle cannot do without."


def test_nifti_files_beside_are_passed_over_since_nothing_says_their_modality(patient):
    (patient / "pet.nii.gz").touch()
    _, notes = find_patients(patient, Wanted(MODALITIES, ("pt", "mr")))
    assert len(notes) == 1 and "no file says its modality; name each: `series`" in notes[0]
    for name in ("CT", "PET", "MR"):
        shutil.rmtree(patient / name)
    said = refusal(patient)
    assert "no series of CT or PT or MR found" in said and "name each: `series`" in said


def test_a_registration_of_another_patient_links_nothing(patient):
    dataset = pydicom.dcmread(patient / "REG.dcm")
    dataset.PatientID = "SOMEBODY ELSE"
    dataset.save_as(patient / "REG.dcm")
    said = refusal(patient)
    assert "Not read: REG.dcm: a registration object of another patient" in said and "SOMEBODY" not in said
    (case,), _ = find_patients(patient, Wanted(MODALITIES, ("pt", "mr"), (("MR", "none"),)))
    others = {"mr": str(patient / "MR")}
    with pytest.raises(InputError, match=r"REG.dcm: of another patient .* \(PatientID differs\)"):
        open_multimodal(case.source, others, [str(patient / "REG.dcm")])
