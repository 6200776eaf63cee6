"""A folder of clinic exports becomes a datalist that says what it left out; the page about it runs as it
stands."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.bundles.datalist import check_datalist
from medseg.cases.mask_boxes import mask_boxes
from medseg.cli.main import main
from medseg.dicom import read_series, write_rtstruct
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series
from medseg.workbench.clinic_datalist import split

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how_to" / "train_from_clinic_exports.md"
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")


def export(folder, patient, names=("GTV 1", "LUNG_LT"), frame=None, structures="RS.dcm"):
    """One patient's CT and structure set in one folder; returns the structure set's path."""
    phantom = chiral_phantom(
        replace(chiral_phantom().geometry, frame_of_reference_uid=frame or f"1.2.{len(patient)}.7")
    )
    if not folder.exists():
        write_series(
            phantom.volume_hu, phantom.geometry, folder, seed=patient, PatientID=patient, PatientName=patient
        )
    masks = dict(zip(names, (phantom.masks["Marker"], phantom.masks["L"]), strict=True))
    images = [path for path in folder.glob("CT_*.dcm")]
    return write_rtstruct(masks, read_series(images), folder / structures)


def edited(path, **values):
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def prepare(tmp_path, aliases, *options):
    """(exit code, the datalist or None, the report)"""
    (tmp_path / "rois.json").write_text(json.dumps(aliases))
    out, report = tmp_path / "list.json", tmp_path / "report.json"
    code = main(
        [
            "datalist",
            str(tmp_path / "in"),
            str(tmp_path / "rois.json"),
            str(out),
            "--report",
            str(report),
            *options,
        ]
    )
    return code, json.loads(out.read_text()) if out.exists() else None, json.loads(report.read_text())


ALIASES = {"GTV": ["gtv.*"], "Lung_L": [], "Heart": []}


def test_matched_rois_are_named_and_what_is_left_is_counted(tmp_path, capsys):
    export(tmp_path / "in" / "a", "A")
    export(tmp_path / "in" / "deep" / "b", "B", names=("gtv", "X1"))
    code, datalist, report = prepare(tmp_path, ALIASES, "--validation", "0.5")
    assert code == 0
    items = {item["case_id"]: item for item in datalist["training"] + datalist["validation"]}
    assert items["a"]["rois"] == {"GTV": "GTV 1", "Lung_L": "LUNG_LT"} and items["deep/b"]["rois"] == {
        "GTV": "gtv"
    }
    assert items["a"]["image"] == "a" and items["a"]["label"] == "a/RS.dcm"
    assert report["matched"] == {"GTV": {"GTV 1": 1, "gtv": 1}, "Lung_L": {"LUNG_LT": 1}}
    assert report["unmatched_rois"] == {"X1": 1} and report["not_contoured"] == {"Heart": 2, "Lung_L": 1}
    assert report["cases"] == report["patients"] == {"training": 1, "validation": 1}
    check_datalist(tmp_path / "list.json", tmp_path / "in")
    assert "Heart: never matched; not contoured in 2" in capsys.readouterr().out
    assert '"A"' not in (tmp_path / "list.json").read_text()


def test_rois_become_boxes_where_the_voxels_lie(tmp_path):
    for patient in "AB":
        export(tmp_path / "in" / patient, patient, names=("Nodule 1", "Nodule 2"))
    code, datalist, report = prepare(tmp_path, {"nodule": ["nodule.*"]}, "--boxes", "--validation", "0.5")
    assert code == 0 and report["matched"] == {"nodule": {"Nodule 1": 2, "Nodule 2": 2}}
    case = datalist["training"][0]
    phantom = chiral_phantom()
    expected = [
        box for name in ("Marker", "L") for box in mask_boxes(phantom.masks[name], phantom.geometry, "nodule")
    ]
    assert "rois" not in case and len(case["label"]) == len(expected) == 2
    for found, box in zip(case["label"], expected, strict=True):
        assert found["class"] == "nodule"
        for corner in ("low", "high"):
            assert np.allclose(found[corner], box[corner], atol=0.01)


def test_an_roi_of_two_classes_is_left_out_with_the_reason(tmp_path):
    export(tmp_path / "in" / "a", "A", names=("Nodule 1", "Nodule 2"))
    aliases = {"nodule": ["nodule.*"], "mass": [".*2"]}
    code, datalist, report = prepare(tmp_path, aliases, "--boxes")
    assert code == 2 and datalist is None
    assert "'Nodule 2' fits both nodule and mass" in report["ambiguous_names"][0]


def test_all_series_of_a_patient_are_on_one_side_and_the_seed_decides_which():
    items = [
        {"case_id": f"{patient}{number}", "patient_id": patient} for patient in "ABCD" for number in (1, 2)
    ]
    sides = set()
    for seed in range(6):
        sections = split(items, 0.25, seed)
        validating = {item["case_id"][0] for item in sections["validation"]}
        assert len(sections["validation"]) == 2 and len(validating) == 1
        assert not validating & {item["case_id"][0] for item in sections["training"]}
        assert split(items, 0.25, seed) == sections
        sides |= validating
    assert len(sides) > 1
    assert {item["patient_id"] for item in sections["training"] + sections["validation"]} == {
        "P001",
        "P002",
        "P003",
        "P004",
    }


def test_of_several_sets_none_is_taken_in_silence(tmp_path):
    export(tmp_path / "in" / "b", "B")
    old = edited(
        export(tmp_path / "in" / "a", "A", names=("GTV", "Lung_L"), structures="old.dcm"),
        StructureSetDate="20200101",
        ApprovalStatus="APPROVED",
    )
    edited(export(tmp_path / "in" / "a", "A", structures="new.dcm"), StructureSetDate="20240101")
    export(tmp_path / "in" / "c", "CC")
    code, datalist, report = prepare(tmp_path, ALIASES, "--validation", "0.5")
    assert code == 0 and "a" not in {
        item["case_id"] for item in datalist["training"] + datalist["validation"]
    }
    (line,) = report["several_structure_sets"]
    assert "a/old.dcm" in line and "a/new.dcm" in line and line.endswith("none taken")
    for preference, taken in (("newest", "a/new.dcm"), ("approved", "a/old.dcm")):
        _, datalist, _ = prepare(tmp_path, ALIASES, "--validation", "0.5", "--prefer", preference)
        labels = {item["case_id"]: item["label"] for item in datalist["training"] + datalist["validation"]}
        assert labels["a"] == taken
    assert old.is_file()


def test_what_does_not_belong_together_is_listed(tmp_path):
    export(tmp_path / "in" / "a", "A")
    export(tmp_path / "in" / "bb", "BB")
    export(tmp_path / "in" / "ccc", "CCC").unlink()
    moved = export(tmp_path / "in" / "dddd", "DDDD")
    frames = pydicom.dcmread(moved)
    frames.FrameOfReferenceUID = frames.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"
    for row in frames.StructureSetROISequence:
        row.ReferencedFrameOfReferenceUID = "1.2.3"
    frames.save_as(moved)
    edited(export(tmp_path / "in" / "eeeee", "EEEEE"), PatientID="SOMEONE")
    (tmp_path / "in" / "broken.dcm").write_bytes(moved.read_bytes()[:700])
    code, _, report = prepare(tmp_path, ALIASES, "--validation", "0.5")
    assert code == 0 and sum(report["cases"].values()) == 2
    assert report["series_without_structure_set"] == ["ccc", "dddd", "eeeee"]
    assert report["structure_sets_without_series"] == ["eeeee/RS.dcm: no CT series of its patient and frame"]
    (line,) = report["other_frame_of_reference"]
    assert line.startswith(
        "dddd/RS.dcm: Frame of Reference 1.2.3, but the series it refers to, dddd, has 1.2.4.7"
    )
    assert any("broken.dcm" in line for line in report["not_readable"])


def test_two_rois_for_one_structure_are_listed_and_the_case_left_out(tmp_path):
    export(tmp_path / "in" / "a", "A", names=("GTV 1", "GTV 2"))
    code, datalist, report = prepare(tmp_path, ALIASES)
    assert code == 2 and datalist is None
    assert report["ambiguous_names"][0].startswith("a/RS.dcm: 'GTV 1', 'GTV 2' could all be GTV")


def sides(datalist):
    return {item["case_id"]: side for side in ("training", "validation") for item in datalist[side]}


def test_one_patient_under_two_spellings_of_an_id_or_in_one_study_is_never_on_both_sides(tmp_path):
    for folder, patient in (("a1", "PAT"), ("a2", "pat"), ("b1", "B1"), ("b2", "B2")):
        export(
            tmp_path / "in" / folder,
            patient,
            frame=f"1.2.{folder.encode().hex()}".replace("a", "1").replace("b", "2"),
        )
    for folder in ("b1", "b2"):  # two pseudonyms, but the anonymiser kept the study
        for file in (tmp_path / "in" / folder).iterdir():
            edited(file, StudyInstanceUID="1.2.3.4")
    for seed in range(4):
        code, datalist, report = prepare(tmp_path, ALIASES, "--validation", "0.5", "--seed", str(seed))
        found = sides(datalist)
        assert code == 0 and found["a1"] == found["a2"] != found["b1"] == found["b2"]
        assert report["notices"] == ["b2: shares a study with another PatientID; both count as one patient"]
        assert report["patients"] == {"training": 1, "validation": 1}


def test_without_patient_ids_the_report_says_what_counts_as_a_patient(tmp_path):
    for folder in ("a", "bb"):
        export(tmp_path / "in" / folder, folder)
        for file in (tmp_path / "in" / folder).iterdir():
            edited(file, PatientID="", PatientName="")
    code, _, report = prepare(tmp_path, ALIASES, "--validation", "0.5")
    assert code == 0 and report["notices"][0] == "a: no PatientID; its study counts as a patient"


def test_a_rejected_set_is_never_taken(tmp_path):
    for folder in ("a", "bb", "ccc"):
        export(tmp_path / "in" / folder, folder)
    edited(tmp_path / "in" / "a" / "RS.dcm", ApprovalStatus="REJECTED", StructureSetDate="20990101")
    export(tmp_path / "in" / "bb", "bb", structures="better.dcm")
    edited(tmp_path / "in" / "bb" / "RS.dcm", ApprovalStatus="REJECTED", StructureSetDate="20990101")
    code, datalist, report = prepare(tmp_path, ALIASES, "--validation", "0.5", "--prefer", "newest")
    labels = {item["case_id"]: item["label"] for item in datalist["training"] + datalist["validation"]}
    assert code == 0 and labels == {"bb": "bb/better.dcm", "ccc": "ccc/RS.dcm"}
    assert [line.split()[0] for line in report["rejected_structure_sets"]] == ["a/RS.dcm", "bb/RS.dcm"]


def test_a_case_that_the_loader_will_refuse_is_not_listed(tmp_path):
    for folder in ("a", "bb", "ccc"):
        export(tmp_path / "in" / folder, folder)
    last = max((tmp_path / "in" / "a").glob("CT_*"))
    last.write_bytes(last.read_bytes()[:2000])  # the end of the stack: no gap shows that it is missing
    code, datalist, report = prepare(tmp_path, ALIASES, "--validation", "0.5")
    assert code == 0 and set(sides(datalist)) == {"bb", "ccc"}
    assert any("a/RS.dcm" in line and "broken" in line for line in report["not_readable"])


def test_exports_may_be_links_into_an_archive(tmp_path):
    for folder in ("a", "bb"):
        export(tmp_path / "archive" / folder, folder)
        (tmp_path / "in" / folder).mkdir(parents=True)
        for file in (tmp_path / "archive" / folder).iterdir():
            (tmp_path / "in" / folder / file.name).symlink_to(file)
    code, datalist, _ = prepare(tmp_path, ALIASES, "--validation", "0.5")
    assert code == 0 and set(sides(datalist)) == {"a", "bb"}


@pytest.mark.parametrize(
    "wrong",
    [
        ["list.json", "--validation", "nan"],
        ["list.json", "--validation", "1"],
        ["no/list.json"],
        ["rois.json"],
        ["list.json", "--report", "./list.json"],
        ["list.json", "--report", "rois.json"],
        ["image.dcm"],
        ["in"],
    ],
)
def test_what_would_fail_at_the_end_or_replace_a_file_is_refused_at_the_start(
    wrong, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("rois.json").write_text('{"GTV": []}')
    Path("image.dcm").write_bytes(bytes(128) + b"DICM")
    assert main(["datalist", "in", "rois.json", *wrong]) == 2
    assert capsys.readouterr().err.startswith("error: ") and len(list(tmp_path.iterdir())) == 3
    assert Path("rois.json").read_text() == '{"GTV": []}'


def test_a_list_with_an_empty_side_is_refused(tmp_path, capsys):
    export(tmp_path / "in" / "a", "A")
    code, datalist, _ = prepare(tmp_path, ALIASES)
    assert code == 2 and datalist is None
    assert "1 patients and --validation 0.2 leave one side empty" in capsys.readouterr().err


def test_the_page_about_clinic_exports_runs_as_it_stands(tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    for patient in ("A", "BB", "CCC"):
        export(tmp_path / "EXPORTS" / patient, patient, names=("Tumor", "Left lung"))
    monkeypatch.chdir(tmp_path)
    (aliases,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    Path("rois.json").write_text(aliases)
    (command,) = re.findall(r"^medseg (datalist .*)$", text, re.MULTILINE)
    assert main(shlex.split(command)) == 0
    listed = json.loads(Path("datalist.json").read_text())
    assert listed["training"][0]["rois"] == {"GTV": "Tumor", "Lung_L": "Left lung"}
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace: dict = {}
    exec(compile(code.replace("(64, 64, 32)", "(16, 16, 8)"), str(PAGE), "exec"), namespace)
    assert float(namespace["loss"]) > 0 and namespace["batch"]["label"].shape[1] == 3
