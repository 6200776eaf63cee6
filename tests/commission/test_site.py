"""A small clinic's plans against automatic contours: every number as it can be worked out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pydicom
import pytest
from chiral_cases import chiral_series

from medseg.cli.main import main
from medseg.commission.doses import plan_doses
from medseg.commission.judge import Judge
from medseg.dicom import find_series, read_series, read_structure_set, write_rtstruct
from medseg.phantoms.dose import write_dose
from medseg.phantoms.series import stack_geometry


def ramp(points_lps_mm):
    """30 Gy at x = 0, 0.5 Gy more with each mm to the left."""
    return 30 + 0.5 * points_lps_mm[..., 0]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Three patients whose Marker a person drew: p0 exactly, p1 two voxels (2.5 mm) too far to the left, p2
    with half of its slices. p0 and p1 have a planned dose; p1's RTPLAN names its structure set."""
    folder = tmp_path_factory.mktemp("clinic")
    for number in range(3):
        own = folder / "plans" / f"p{number}"
        phantom = chiral_series(own / "CT", seed=number)
        series, mask = read_series(own / "CT"), phantom.masks["Marker"].copy()
        if number == 1:
            mask = np.roll(mask, 2, axis=2)
        if number == 2:
            mask[: int(np.argwhere(mask)[:, 0].mean()) + 1] = False
        write_rtstruct({"ball drawn": mask, "L": phantom.masks["L"]}, series, own / "RS.dcm")
        if number < 2:
            grid = stack_geometry(
                (40, 60, 60),
                gaps_mm=3.0,
                pixel_spacing_mm=(2, 2),
                centre_lps_mm=(7, -20, 110),
                frame_of_reference_uid=series.geometry.frame_of_reference_uid,
            )
            write_dose(ramp, grid, own / "RD.dcm", PatientID=series.headers[0].PatientID)
    rois, limits = folder / "rois.json", folder / "limits.json"
    rois.write_text(json.dumps({"GTV": ["ball.*"]}))
    levels = {"*": {"dsc": 0.9}, "GTV": {"tolerance_mm": 1.0, "shift_mm": 2.0, "dose": {"Dmean": 1.0}}}
    limits.write_text(json.dumps({**levels, "cases_within": 0.3}))
    return folder


@pytest.fixture(scope="module")
def site(clinic, bright_bundle):
    out = clinic / "out"
    words = ["--plans", clinic / "plans", "--bundle", bright_bundle, "--roi-map", clinic / "rois.json"]
    words += ["--limits", clinic / "limits.json", "-o", out]
    code = main(["commission", "site", *map(str, words)])
    return out, code, json.loads((out / "site.json").read_text())


def rows(site):
    return {case["case"]: case["structures"][0] for case in site[2]["cases"]}


def test_a_plan_like_the_contours_agrees_and_moved_and_halved_ones_do_as_much_as_they_are(site):
    found = rows(site)
    # The network works on voxels of 1.5 mm: outlines move by parts of one.
    assert found["p0_CT"]["dsc"] > 0.98 and found["p0_CT"]["shift_mm"] < 0.1
    assert found["p1_CT"]["shift_lps_mm"] == pytest.approx([-2.5, 0, 0], abs=0.1)
    assert found["p1_CT"]["volume_percent"] == pytest.approx(0, abs=3)
    half = found["p2_CT"]
    assert half["volume_percent"] == pytest.approx(
        100 * (half["other_cc"] / half["reference_cc"] - 1), abs=1e-3
    )
    assert half["shift_lps_mm"][2] < -2 and half["roi"] == "ball drawn" and half["tolerance_mm"] == 1.0


def test_the_dose_differs_by_the_shift_times_the_slope(site):
    found = rows(site)
    manual, automatic = found["p1_CT"]["dose"]["Dmean"]
    assert manual - automatic == pytest.approx(2.5 * 0.5, abs=0.05)
    assert found["p0_CT"]["dose"]["Dmean"] == pytest.approx(
        [found["p0_CT"]["dose"]["Dmean"][0]] * 2, abs=0.05
    )
    assert "dose" not in found["p2_CT"]


def test_levels_pass_by_the_share_of_cases_and_the_exit_code_tells(site, clinic, bright_bundle):
    out, code, record = site
    verdicts = {v["number"]: (v["within"], v["n"]) for v in record["structures"][0]["verdicts"]}
    assert verdicts == {"dsc": (1, 3), "shift_mm": (1, 3), "Dmean": (1, 2)}
    assert record["passed"] is True and record["unjudged"] == [] and code == 0
    beyond = {case["case"]: case["beyond"] for case in record["cases"]}
    assert beyond == {"p0_CT": [], "p1_CT": ["GTV"], "p2_CT": ["GTV"]}


def test_a_level_that_no_plan_can_be_judged_by_is_told_and_ends_in_2(
    clinic, site, bright_bundle, tmp_path, capsys
):
    out, limits = tmp_path / "out", tmp_path / "limits.json"
    shutil.copytree(site[0] / "contours", out / "contours")
    # The ball has no 500 cc, so no plan has this number of the dose.
    limits.write_text(json.dumps({"cases_within": 0.3, "GTV": {"dsc": 0.5, "dose": {"D500cc": 1.0}}}))
    words = ["site", "--plans", clinic / "plans", "--bundle", bright_bundle, "-o", out]
    words += ["--roi-map", clinic / "rois.json", "--limits", limits]
    assert main(["commission", *map(str, words)]) == 2
    told = capsys.readouterr()
    assert "not judged: GTV: no case could be judged by D500cc; no plan's contour has that number" in told.err
    assert "within all action levels that could be judged" in told.out
    page = (out / "site.html").read_text()
    assert "within all action levels that could be judged" in page and "Not judged: GTV" in page


def test_plans_bundle_and_guidance_are_recorded_and_no_patient(site, clinic):
    out, _, record = site
    assert record["bundle"]["name"] == "bright" and len(record["bundle"]["weights_sha256"]) == 64
    plan = read_structure_set(clinic / "plans" / "p0" / "RS.dcm")
    assert record["cases"][0]["plan"]["SOPInstanceUID"] == plan.sop_instance_uid
    assert any("ESTRO" in name for name in record["guidance"])
    for text in ((out / "site.json").read_text(), (out / "site.html").read_text()):
        assert plan.patient_name not in text and plan.patient_id not in text.replace(str(clinic), "")


def test_the_page_shows_charts_pictures_and_dose_and_needs_no_other_file(site):
    page = (site[0] / "site.html").read_text()
    assert page.count('class="chart"') >= 2 and "data:image/png" in page and "<script" not in page
    assert "within all action levels" in page and "Bland-Altman" in page and "V20Gy" in page


def test_a_second_run_contours_and_compares_nothing_again(site, clinic, bright_bundle, capsys):
    before = {path: path.stat().st_mtime_ns for path in site[0].glob("c*/*/run.json")}
    words = [
        "--plans",
        clinic / "plans",
        "--bundle",
        bright_bundle,
        "--roi-map",
        clinic / "rois.json",
        "--json",
    ]
    words += ["--limits", clinic / "limits.json", "-o", site[0], "--baseline", site[0] / "site.json"]
    assert main(["commission", "site", *map(str, words)]) == 0
    assert json.loads(capsys.readouterr().out)["plans"] == 3
    assert {path: path.stat().st_mtime_ns for path in site[0].glob("c*/*/run.json")} == before


def test_the_dose_of_the_plan_on_the_set_is_taken_before_a_near_one(clinic, tmp_path):
    own = clinic / "plans" / "p0"
    found, structures = find_series(own), read_structure_set(own / "RS.dcm")
    (uid,) = found.series
    assert plan_doses(found, {uid: structures}) == ({uid: own / "RD.dcm"}, [])
    plan = pydicom.dcmread(own / "RD.dcm")
    other = tmp_path / "other.dcm"
    plan.SOPInstanceUID = "1.2.3.4"
    plan.save_as(other)
    both = find_series([*own.glob("CT/*"), own / "RS.dcm", own / "RD.dcm", other])
    doses, notes = plan_doses(both, {uid: structures})
    assert doses == {} and "2 doses fit it, none taken" in notes[0]


def refused(capsys, *words):
    """The one line that a wrong call gets."""
    assert main(["commission", *map(str, words)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


def test_what_is_missing_or_does_not_belong_is_said_in_one_line(capsys):
    assert "no --plans given" in refused(capsys, "site", "--bundle", "mm_gtv")
    assert "--no-contouring does not go with medseg commission site" in refused(
        capsys,
        *("site", "--plans", "p", "--bundle", "mm_gtv", "--roi-map", "r", "-o", "o", "--no-contouring"),
    )
    for words in (["--within", "0,1,0,1,0,1"], ["--workers", "2"], ["--device", "cpu"], ["--format", "seg"]):
        assert f"{words[0]} does not go with medseg commission." in refused(capsys, *words)


def test_a_structure_that_is_spelt_otherwise_in_a_file_is_refused_and_not_left_out(
    clinic, site, bright_bundle, tmp_path, capsys
):
    words = ["site", "--plans", clinic / "plans", "--bundle", bright_bundle, "-o", site[0], "--roi-map"]
    levels, rois = tmp_path / "limits.json", tmp_path / "rois.json"
    levels.write_text(json.dumps({"GTVp": {"dsc": 0.9}}))
    line = refused(capsys, *words, clinic / "rois.json", "--limits", levels)
    assert "limits.json: no structure 'GTVp'" in line and "rois.json has GTV" in line
    rois.write_text(json.dumps({"GTVp": ["ball.*"]}))
    assert "rois.json: no structure 'GTVp'; bright contours GTV" in refused(capsys, *words, rois)


def test_a_pattern_that_fits_no_plan_is_told_and_passes_nothing(
    clinic, site, bright_bundle, tmp_path, capsys
):
    shutil.copytree(site[0] / "contours", tmp_path / "out" / "contours")
    rois = tmp_path / "rois.json"
    rois.write_text(json.dumps({"GTV": ["no such"]}))
    words = ["site", "--plans", clinic / "plans", "--bundle", bright_bundle, "-o", tmp_path / "out"]
    words += ["--roi-map", rois, "--limits", clinic / "limits.json"]
    assert main(["commission", *map(str, words)]) == 2
    told = capsys.readouterr()
    assert "GTV: no ROI of any plan fits it" in told.err
    assert "3 plans: no structure that an action level could judge" in told.out


def judged(site, clinic, tmp_path, plan, dose):
    """The first structure of p0 against another plan and dose, and what was odd."""
    values = {
        "case": "p0",
        "folder": str(site[0] / "contours" / "p0_CT"),
        "set": str(plan),
        "dose": str(dose),
    }
    values |= {"series": str(clinic / "plans" / "p0" / "CT"), "plan": {}}
    judge = Judge(clinic / "plans", {}, tmp_path / "judged", {}, {"GTV": ["ball.*"]})
    judge.output_dir.mkdir()
    with judge.open() as run:
        record = run(values)
    return record["structures"][0], record["warnings"]


def test_an_roi_of_a_template_that_nobody_drew_is_no_plan_to_compare_with(site, clinic, tmp_path):
    plan = pydicom.dcmread(clinic / "plans" / "p0" / "RS.dcm")
    del plan.ROIContourSequence[0].ContourSequence
    plan.save_as(tmp_path / "RS.dcm")
    found, _ = judged(site, clinic, tmp_path, tmp_path / "RS.dcm", "")
    assert found == {"name": "GTV", "roi": "ball drawn", "state": "no plan"}


def test_a_dose_that_covers_no_whole_structure_or_cannot_be_read_costs_the_dose_alone(site, clinic, tmp_path):
    own = clinic / "plans" / "p0"
    frame = read_series(own / "CT").geometry.frame_of_reference_uid
    middle = stack_geometry((3, 8, 8), centre_lps_mm=(25, -34, 122), frame_of_reference_uid=frame)
    write_dose(ramp, middle, tmp_path / "small.dcm")
    found, notes = judged(site, clinic, tmp_path, own / "RS.dcm", tmp_path / "small.dcm")
    assert found["dsc"] > 0.98 and found["dose"]["Dmean"] == [None, None]
    assert sum("lies outside the dose grid" in words for words in notes) == 2
    relative = pydicom.dcmread(own / "RD.dcm")
    relative.DoseUnits = "RELATIVE"
    relative.save_as(tmp_path / "relative.dcm")
    shutil.rmtree(tmp_path / "judged")
    found, notes = judged(site, clinic, tmp_path, own / "RS.dcm", tmp_path / "relative.dcm")
    assert found["dsc"] > 0.98 and "dose" not in found
    assert any("without its dose" in words and "RELATIVE" in words for words in notes)
