"""medseg inspect: everything in a folder is named, with what is wrong with it."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy

import numpy as np
import pydicom
import pytest
from patient_series import CT_FRAME, write_patient

from medseg.dicom import read_series, write_rtstruct
from medseg.errors import InputError
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series
from medseg.workbench.inspect import inspect, report_lines

SHAPE = (8, 20, 24)


@pytest.fixture
def case(tmp_path):
    """A folder with one CT series, its structure set, a text file and an empty .dcm; returns (folder, CT
    files)."""
    geometry = stack_geometry(SHAPE, gaps_mm=2.5, pixel_spacing_mm=(1.0, 0.5))
    files = write_series(np.zeros(SHAPE), geometry, tmp_path / "ct", SeriesDescription="Thorax")
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:5, 5:10, 5:12] = True
    write_rtstruct({"GTV": mask}, read_series(tmp_path / "ct"), tmp_path / "RS.dcm")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.dcm").touch()
    return tmp_path, files


def only_series(report: dict) -> dict:
    (patient,) = report["patients"]
    (study,) = patient["studies"]
    (series,) = study["series"]
    return series


def test_a_clean_series_is_named_with_its_size_and_place(case):
    folder, _ = case
    report = inspect(folder)
    series = only_series(report)
    assert report["patients"][0]["patient_name"] == "PHANTOM^MEDSEG"
    assert (series["modality"], series["description"], series["slices"]) == ("CT", "Thorax", 8)
    assert (series["rows"], series["columns"], series["pixel_spacing_mm"]) == (20, 24, [1.0, 0.5])
    assert (
        series["slice_gaps_mm"] == [2.5, 2.5]
        and series["orientation"] == "axial"
        and series["tilt_degrees"] == 0
    )
    assert series["frame_of_reference_uid"] == phantom_uid("frame of reference", 0)
    assert series["problems"] == []


def test_a_structure_set_is_listed_with_the_series_that_it_fits(case):
    folder, _ = case
    (structure_set,) = inspect(folder)["patients"][0]["studies"][0]["structure_sets"]
    uid = phantom_uid("series", "CT", 0)
    # 5 x 7 voxels of 1 x 0.5 mm on three slices, 2.5 mm apart.
    (gtv,) = structure_set["rois"]
    assert (gtv["number"], gtv["name"], gtv["type"], gtv["contours"]) == (1, "GTV", "GTV", 3)
    assert (gtv["points_only"], gtv["damage"], gtv["volume_cc"]) == (False, "", 0.131)
    assert 5 * 7 * 1.0 * 0.5 * 3 * 2.5 / 1000 == 0.13125
    assert (
        structure_set["series_with_same_frame_of_reference"]
        == structure_set["referenced_series_uids"]
        == [uid]
    )
    assert structure_set["problems"] == []


def test_a_damaged_roi_is_shown_with_its_damage_beside_the_sound_ones(case):
    folder, _ = case
    (file,) = folder.rglob("*RS*.dcm")
    dataset = pydicom.dcmread(file)
    sound = deepcopy(dataset.ROIContourSequence[0])
    dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 99
    dataset.StructureSetROISequence.append(deepcopy(dataset.StructureSetROISequence[0]))
    dataset.StructureSetROISequence[1].ROINumber, dataset.StructureSetROISequence[1].ROIName = 2, "Sound"
    sound.ReferencedROINumber = 2
    del sound.ContourSequence[0]
    dataset.ROIContourSequence.append(sound)
    dataset.save_as(file)
    report = inspect(folder)
    (structure_set,) = report["patients"][0]["studies"][0]["structure_sets"]
    bad, good = structure_set["rois"]
    assert "NumberOfContourPoints 99" in bad["damage"] and bad["volume_cc"] is None
    assert good["contours"] == 2 and good["damage"] == ""
    assert any("GTV" in line and "! damaged: " in line for line in report_lines(report))


def test_a_structure_set_of_another_frame_of_reference_is_a_problem(case):
    folder, _ = case
    shutil.rmtree(folder / "ct")
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE, frame_of_reference_uid="1.2.3"), folder / "ct")
    (structure_set,) = inspect(folder)["patients"][0]["studies"][0]["structure_sets"]
    assert structure_set["series_with_same_frame_of_reference"] == []
    assert "cannot be placed" in structure_set["problems"][0]


def test_a_structure_set_of_a_series_that_is_not_there_is_a_problem(case):
    folder, files = case
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.save_as(file)
    (structure_set,) = inspect(folder)["patients"][0]["studies"][0]["structure_sets"]
    assert f"refers to series {phantom_uid('series', 'CT', 0)}, not found here" in structure_set["problems"]
    assert structure_set["series_with_same_frame_of_reference"] == ["1.2.3.4"]


def test_broken_and_ignored_files_are_named_with_the_reason(case):
    folder, _ = case
    report = inspect(folder)
    assert [note["file"] for note in report["broken"]] == [str(folder / "empty.dcm")]
    assert report["ignored"] == [{"file": str(folder / "notes.txt"), "why": "not DICOM"}]


def test_every_fault_is_listed_with_its_name_and_whether_it_can_be_accepted(case):
    folder, files = case
    files[3].unlink()
    (files[0].parent / "cut.dcm").touch()
    problems = {
        problem["fault"]: problem["allowable"] for problem in only_series(inspect(folder))["problems"]
    }
    assert problems == {"missing_slice": True, "broken_file": True}
    (folder / "RS.dcm").unlink()
    dataset = pydicom.dcmread(files[5])
    dataset.PatientID, dataset.PixelSpacing = "other", [2, 2]
    dataset.save_as(files[5])
    problems = {
        problem["fault"]: problem["allowable"] for problem in only_series(inspect(folder))["problems"]
    }
    assert problems == {"mixed_patient": False, "mixed_spacing": False, "broken_file": True}


def test_the_report_survives_json_and_reads_as_a_table(case):
    folder, files = case
    files[3].unlink()
    report = json.loads(json.dumps(inspect(folder)))
    text = report_lines(report)
    assert text[0] == "Patient PHANTOM-0  PHANTOM^MEDSEG"
    assert "    CT  7 x 20 x 24  1 x 0.5 mm, 2.5 to 5 mm slices  axial  Thorax" in text
    assert any(line.startswith("      ! missing_slice: 5.00 mm between slices 3 and 4") for line in text)
    assert any(line.split() == ["1", "GTV", "GTV", "3", "contours,", "0.13", "cc"] for line in text)
    assert "Broken or unreadable files (1)" in text and "Ignored files (1)" in text


def test_an_empty_folder_gives_an_empty_report_and_a_missing_one_an_error(tmp_path):
    report = inspect(tmp_path)
    assert (report["patients"], report["broken"], report["ignored"]) == ([], [], [])
    assert report_lines(report) == [f"No CT, MR or PET series in {tmp_path}"]
    with pytest.raises(InputError, match="no such file"):
        inspect(tmp_path / "nowhere")


def test_a_folder_of_two_patients_lists_both(tmp_path):
    for seed in (1, 2):
        write_series(np.zeros(SHAPE), stack_geometry(SHAPE), tmp_path / str(seed), seed=seed)
    assert [patient["patient_id"] for patient in inspect(tmp_path)["patients"]] == ["PHANTOM-1", "PHANTOM-2"]


# ---- real files --------------------------------------------------------------------------------------------


def test_the_real_planning_ct_and_its_structures_are_listed(shared_data):
    report = inspect(shared_data / "rt/lung1_001")
    assert only_series(report)["slices"] == 134 and only_series(report)["slice_gaps_mm"] == [3.0, 3.0]
    (structure_set,) = report["patients"][0]["studies"][0]["structure_sets"]
    contours = {roi["name"]: roi["contours"] for roi in structure_set["rois"]}
    # Its README: "1,SUV_primair" and the accented or spaced names are kept; I1 to I4 and Isocenter 6-10 are
    # points.
    assert contours["GTV-1"] == 21 and contours["Spinal cord"] == 84 and contours["1,SUV_primair"] == 170
    assert sum(roi["points_only"] for roi in structure_set["rois"]) == 9


def test_the_tilted_scan_is_shown_as_tilted_and_uneven(shared_data):
    series = only_series(inspect(shared_data / "odd_dicom/gantry_tilt"))
    assert series["tilt_degrees"] == pytest.approx(18.5, abs=0.01)
    assert series["slice_gaps_mm"] == pytest.approx([1.08, 7.0], abs=0.01)
    assert series["problems"] == []


def test_odd_files_are_all_accounted_for(shared_data):
    folder = shared_data / "odd_dicom"
    report = inspect(folder)
    studies = [study for patient in report["patients"] for study in patient["studies"]]
    shown = (
        sum(series["slices"] for study in studies for series in study["series"]) - 1
    )  # one file has two frames
    shown += (
        sum(len(study["structure_sets"]) for study in studies)
        + len(report["broken"])
        + len(report["ignored"])
    )
    assert shown == sum(1 for file in folder.rglob("*") if file.is_file())
    whys = {note["file"].rpartition("/")[2]: note["why"] for note in report["broken"] + report["ignored"]}
    assert "projection radiograph" in whys["gdcm-CR-MONO1-10-chest.dcm"]
    assert "no ROI" in whys["RS_eclipse_prostate_crlf_corrupted.dcm"]
    assert "DICM mark" in whys["no_meta.dcm"]
    assert json.dumps(report) and all("\n" not in line for line in report_lines(report))


def test_a_report_says_which_series_belong_together_and_through_what(tmp_path):
    patient = write_patient(tmp_path / "P1")
    report = inspect(patient)["patients"][0]
    (group,) = report["together"]
    assert group["modality"] == "CT"
    said = {other["modality"]: other["through"] for other in group["others"]}
    assert said == {"MR": "REG.dcm", "PT": "shared Frame of Reference"}
    assert report["registrations"][0]["registered_to"] == CT_FRAME
    lines = report_lines(inspect(patient))
    assert any(line.startswith("  REG  REG.dcm  maps ") and line.endswith(CT_FRAME) for line in lines)
    assert "  Together: CT " in "\n".join(lines)


def test_a_report_says_of_a_series_that_nothing_links_that_it_is_alone(tmp_path):
    patient = write_patient(tmp_path / "P1")
    (patient / "REG.dcm").write_bytes(b"DICM" * 100)
    lines = "\n".join(report_lines(inspect(patient)))
    assert "  Alone: MR " in lines and "and PT " in lines and "and MR " not in lines


def test_a_report_says_why_a_registration_cannot_be_read(tmp_path):
    patient = write_patient(tmp_path / "P1")
    dataset = pydicom.dcmread(patient / "REG.dcm")
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.3"
    dataset.save_as(patient / "REG.dcm")
    assert "  ! REG  REG.dcm: a Deformable Spatial Registration" in "\n".join(report_lines(inspect(patient)))
