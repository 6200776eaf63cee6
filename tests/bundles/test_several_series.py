"""One patient, several series, one door: which are found, what is refused, what run.json says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pydicom
import pytest
from patient_series import CT_FRAME, ball, ct_geometry, write_patient
from referees import dice

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.cases.nifti import write_volume
from medseg.cli.main import main
from medseg.dicom import read_rtstruct, read_series
from medseg.errors import InputError
from medseg.phantoms.registration import write_registration
from medseg.phantoms.series import stack_geometry


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("patients") / "P1")


@pytest.fixture
def patient(written, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(written, tmp_path / "P1")


def run(bundle, source, out, **settings):
    cohort = segment(Request(source, bundle, out, formats=("rtstruct",), **settings))
    return [json.loads((out / case["case"] / "run.json").read_text()) for case in cohort["cases"]]


def refusal(bundle, source, out, **settings) -> str:
    (record,) = run(bundle, source, out, **settings)
    assert record["status"] == "failed" and record["fault"] == "input", record
    assert "\n" not in record["error"]
    return record["error"]


def contoured(patient, out):
    series = read_series(patient / "CT")
    return dice(read_rtstruct(out / patient.name / "RS.dcm", series)["GTV"], ball(series.geometry))


# ---- found -------------------------------------------------------------------------------------------------


def test_pet_and_mr_are_found_by_modality_frame_and_registration(several_bundle, patient, tmp_path):
    out = tmp_path / "out"
    (record,) = run(several_bundle, patient, out)
    assert record["case"] == "P1" and record["status"] == "done"
    series = record["series"]
    assert series["summary"] == "CT + PT + MR" and series["missing"] == []
    assert series["used"]["pt"]["through"] == "shared Frame of Reference"
    assert series["used"]["pt"]["units"].startswith("SUV (g/ml), from BQML, 350 MBq, 70 kg")
    assert series["used"]["mr"]["through"].startswith("registration object REG.dcm (2.25.")
    assert record["input"]["modality"] == "CT"
    # The PET is blurred and its voxels are 4 mm: half of the uptake is where the ball ends, about.
    assert contoured(patient, out) > 0.9
    contours = pydicom.dcmread(out / "P1" / "RS.dcm")
    assert contours.FrameOfReferenceUID == CT_FRAME


def test_the_registered_mr_alone_puts_the_contour_where_the_ct_has_the_ball(
    several_bundle, patient, tmp_path
):
    (record,) = run(several_bundle, patient, tmp_path / "out", series=(("PT", "none"),))
    assert record["series"]["summary"] == "CT + MR, no PT"
    assert contoured(patient, tmp_path / "out") > 0.97
    assert any("covers 5" in said or "covers 6" in said for said in record["warnings"])


def test_a_patient_with_a_ct_alone_is_contoured_from_it_and_the_record_says_what_is_missing(
    several_bundle, patient, tmp_path
):
    for name in ("PET", "MR"):
        shutil.rmtree(patient / name)
    (record,) = run(several_bundle, patient, tmp_path / "out")
    assert record["series"] == {"summary": "CT, no PT or MR", "used": {}, "missing": ["pt", "mr"]}
    assert contoured(patient, tmp_path / "out") > 0.99


def test_a_folder_of_patients_is_a_cohort_in_which_one_refusal_stops_nobody(
    several_bundle, patient, tmp_path
):
    other = write_patient(tmp_path / "P2", seed="other")
    (other / "REG.dcm").unlink()
    cohort = tmp_path / "cohort"
    for folder in (patient, other):
        shutil.move(folder, cohort / folder.name)
    records = {record["case"]: record for record in run(several_bundle, cohort, tmp_path / "out")}
    assert records["P1"]["status"] == "done"
    assert "no registration object (REG) links the two (there is none)" in records["P2"]["error"]
    assert "To do without it: `series=MR=none`." in records["P2"]["error"]


def test_a_second_run_skips_and_a_change_of_one_series_contours_anew(several_bundle, patient, tmp_path):
    out = tmp_path / "out"
    said = []
    for series in ((), (), (("MR", "none"),), (("MR", "none"), ("PT", "none"))):
        request = Request(patient, several_bundle, out, formats=("rtstruct",), series=series)
        segment(request, report=lambda record: said.append((record["status"], record["series"]["summary"])))
    assert said == [
        ("done", "CT + PT + MR"),
        ("skipped", "CT + PT + MR"),
        ("done", "CT + PT, no MR"),
        ("done", "CT, no PT or MR"),
    ]


# ---- there, and not readable -------------------------------------------------------------------------------


def spoil(folder, how):
    """Every file of a folder becomes unreadable: its pixels cut off, its pixels of no size, empty."""
    for file in folder.iterdir():
        if how == "cut off":
            file.write_bytes(file.read_bytes()[:-100])
        elif how == "empty":
            file.write_bytes(b"")
        else:
            dataset = pydicom.dcmread(file)
            dataset.PixelSpacing = [0, 0]
            dataset.save_as(file)


@pytest.mark.parametrize(
    ("how", "why"), [("cut off", "pixel data cut off"), ("of no size", "PixelSpacing 0 x 0 mm")]
)
def test_a_pet_of_which_no_slice_can_be_read_is_refused_and_may_be_left_out(
    several_bundle, patient, tmp_path, capsys, how, why
):
    spoil(patient / "PET", how)
    words = ["segment", str(patient), "--bundle", str(several_bundle), "--format", "rtstruct"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 2
    error = json.loads((tmp_path / "out" / "P1" / "run.json").read_text())["error"]
    assert f"(PT, 18 files, e.g. PT_0001.dcm: {why}" in error and "cannot be read; export it again" in error
    said = capsys.readouterr().err
    assert "error: P1: PT series 2.25." in said and "To do without it: --series PT=none." in said
    assert not (tmp_path / "out" / "P1" / "RS.dcm").exists()
    assert main([*words, "-o", str(tmp_path / "out"), "--series", "PT=none"]) == 0
    record = json.loads((tmp_path / "out" / "P1" / "run.json").read_text())
    assert record["series"]["summary"] == "CT + MR, no PT"


def test_files_that_may_be_a_pet_are_warned_of_on_the_terminal_and_in_run_json(
    several_bundle, patient, tmp_path, capsys
):
    spoil(patient / "PET", "empty")
    words = ["segment", str(patient), "--bundle", str(several_bundle), "--format", "rtstruct"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    warning = "18 files that cannot be read may be a PT of this patient, e.g. PET/PT_0001.dcm: named as DICOM"
    record = json.loads((tmp_path / "out" / "P1" / "run.json").read_text())
    assert [said for said in record["warnings"] if said.startswith(warning)]
    assert f"warning: P1: {warning}" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "none"), "--series", "PT=none"]) == 0
    assert "may be a PT" not in capsys.readouterr().err, "nobody asked for one"


def test_a_case_that_was_done_without_a_pet_is_not_skipped_when_an_unreadable_one_comes(
    several_bundle, patient, tmp_path
):
    pet = shutil.move(patient / "PET", tmp_path / "PET")
    out = tmp_path / "out"
    (record,) = run(several_bundle, patient, out)
    assert record["status"] == "done" and record["series"]["summary"] == "CT + MR, no PT"
    assert not any("cannot be read" in warning for warning in record["warnings"])
    shutil.copytree(pet, patient / "PET")
    spoil(patient / "PET", "empty")
    (record,) = run(several_bundle, patient, out)
    assert any("may be a PT" in warning for warning in record["warnings"])
    shutil.rmtree(patient / "PET")
    (record,) = run(several_bundle, patient, out)
    assert not any("may be a PT" in warning for warning in record["warnings"])
    spoil(pet, "cut off")
    shutil.copytree(pet, patient / "PET")
    assert "cannot be read; export it again" in refusal(several_bundle, patient, out)


def test_what_cannot_be_read_of_one_patient_concerns_no_other(several_bundle, patient, tmp_path):
    cohort = tmp_path / "cohort"
    other = write_patient(cohort / "P2", seed="other")
    shutil.move(patient, cohort / "P1")
    third = write_patient(cohort / "P3", seed="third")
    spoil(other / "PET", "cut off")
    spoil(third / "PET", "empty")
    (cohort / "loose.dcm").write_bytes(b"")
    records = {record["case"]: record for record in run(several_bundle, cohort, tmp_path / "out")}
    assert {name: record["status"] for name, record in records.items()} == {
        "P1": "done",
        "P2": "failed",
        "P3": "done",
    }
    beside = {name: [w for w in r["warnings"] if "cannot be read" in w] for name, r in records.items()}
    assert beside["P1"] == beside["P2"] == [] and len(beside["P3"]) == 1


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_a_series_that_fits_is_not_taken_for_one_that_cannot_be_read(
    several_bundle, patient, tmp_path, modality
):
    folder = patient / {"CT": "CT", "PT": "PET"}[modality]
    again = shutil.copytree(folder, patient / "again")
    for file in again.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.3.4"
        dataset.save_as(file)
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    spoil(again, "cut off")
    error = refusal(several_bundle, patient, tmp_path / "out")
    assert (
        f"{modality} series 1.2.3.4 ({modality}, " in error and f"choose: `series={modality}={uid}`" in error
    )
    (record,) = run(several_bundle, patient, tmp_path / "out", series=((modality, uid),))
    assert record["status"] == "done" and record["series"]["summary"] == "CT + PT + MR"


# ---- named by the caller -----------------------------------------------------------------------------------


def test_series_named_by_path_on_the_command_line_need_no_folder(several_bundle, patient, tmp_path, capsys):
    named = [f"{key}={patient / name}" for key, name in (("CT", "CT"), ("PT", "PET"), ("MR", "MR"))]
    named.append(f"REG={patient / 'REG.dcm'}")
    arguments = ["--bundle", str(several_bundle), "-o", str(tmp_path / "out"), "--series", *named]
    assert main(["segment", *arguments]) == 0
    assert "CT: done: GTV" in (said := capsys.readouterr().out) and "(from CT + PT + MR)" in said
    assert (tmp_path / "out" / "CT" / "preview.png").stat().st_size > 10_000


def test_nifti_files_named_by_the_caller_lie_where_their_coordinates_say(several_bundle, tmp_path):
    geometry, files = ct_geometry(), {}
    grids = {"CT": geometry, "PT": stack_geometry((30, 50, 50), gaps_mm=2.5, pixel_spacing_mm=(2.5, 2.5))}
    for modality, grid in grids.items():
        inside = ball(grid)
        volume = np.where(inside, 1000.0, 0.0) if modality == "CT" else np.where(inside, 5.0, 0.0)
        files[modality] = write_volume(volume, grid, tmp_path / f"{modality}.nii.gz")
    series = tuple((key, str(path)) for key, path in files.items())
    segment(Request(None, several_bundle, tmp_path / "out", formats=("nifti",), series=series))
    record = json.loads((tmp_path / "out" / "CT" / "run.json").read_text())
    assert record["series"]["summary"] == "CT + PT, no MR"
    assert "as the caller put them together" in record["series"]["used"]["pt"]["through"]
    assert record["structures"][0]["volume_cc"] == pytest.approx(4 / 3 * np.pi * 1.4**3, rel=0.1)


def test_a_choice_that_is_not_there_or_not_taken_is_refused_at_once(
    several_bundle, bright_bundle, patient, tmp_path
):
    out = tmp_path / "out"
    for series, words in (
        ((("PT", "1.2.3.4"),), "no PT series 1.2.3.4. There: "),
        ((("US", "none"),), "`series=US=none`: this bundle takes CT, PT, MR, REG."),
        ((("PT", "none"), ("PT", "1.2")), "`series`: PT is given 2 times."),
        ((("CT", "none"),), "this bundle cannot do without it"),
        ((("CT", str(patient / "CT")),), "give one of the two"),
        ((("PT", str(patient / "MR")),), "no PT series and no NIfTI file found"),
    ):
        with pytest.raises(InputError) as caught:
            failed = run(several_bundle, patient, out, series=series)
            raise InputError(failed[0]["error"])
        assert words in str(caught.value)
    with pytest.raises(InputError, match="takes one image of a case"):
        run(bright_bundle, patient / "CT", out, series=(("PT", "none"),))
    with pytest.raises(InputError, match="no `input` and no `series`"):
        Request(None, several_bundle, out)


# ---- refused -----------------------------------------------------------------------------------------------


def test_a_registration_that_moves_the_mr_away_from_the_ct_is_refused(several_bundle, patient, tmp_path):
    away = np.eye(4)
    away[0, 3] = 5000.0
    mr_frame = read_series(patient / "MR").geometry.frame_of_reference_uid
    write_registration(patient / "REG.dcm", CT_FRAME, {mr_frame: away})
    assert "covers nothing of what the network sees" in refusal(several_bundle, patient, tmp_path / "out")


def test_mr_of_another_patient_is_never_used(several_bundle, patient, tmp_path):
    for path in (patient / "MR").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID, dataset.FrameOfReferenceUID = "SOMEBODY ELSE", CT_FRAME
        dataset.save_as(path)
    # Found by itself it is a patient without a CT; the CT's own patient has no MR.
    records = run(several_bundle, patient, tmp_path / "out")
    failed = next(record for record in records if record["status"] == "failed")
    done = next(record for record in records if record["status"] == "done")
    assert "its patient has no CT series here" in failed["error"]
    assert done["series"]["missing"] == ["mr"]
    # Named by the caller it is refused by the field that differs, without what stands in it.
    named = tuple((key, str(patient / folder)) for key, folder in (("CT", "CT"), ("MR", "MR")))
    (record,) = run(several_bundle, None, tmp_path / "named", series=named)
    assert "of another patient than the image to contour (PatientID differs)" in record["error"]
    assert "SOMEBODY" not in json.dumps(record)
