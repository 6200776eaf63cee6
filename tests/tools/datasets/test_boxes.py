"""Datalists of boxes: the published leak is found to the patient, and ours have none."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools" / "datasets"))
import chestx_det  # noqa: E402
import mass_nodule  # noqa: E402

from medseg.cases.box_sources import read_chestx_det  # noqa: E402
from medseg.errors import InputError  # noqa: E402


def test_the_published_split_of_chestx_det_leaks_271_of_429_patients(shared_data):
    path = shared_data / "cxr" / "nih_annotations" / "chestx_det.json.gz"
    findings, sections = read_chestx_det(path)
    assert len(sections) == 3578 and len({finding.name for finding in findings} - {""}) == 13
    leak = "271 of 429 test patients are also in training (1519 patients)"
    assert chestx_det.say_leak(sections) == leak


def test_a_split_by_patient_has_no_leak(tmp_path):
    rows = []
    for number in range(40):
        name = f"{number // 2:08d}_{number:03d}.png"
        (tmp_path / name).write_bytes(b"")
        known = {"image": name, "chestx_det_file": f"{number}.png", "split": "train"}
        rows.append({**known, "labels": ["Mass"], "boxes": [[1, 2, 30, 40]]})
    with gzip.open(tmp_path / "d.json.gz", "wt") as file:
        json.dump(rows, file)
    sections = chestx_det.split(tmp_path / "d.json.gz", tmp_path, seed=1)
    patients = [{case["patient_id"] for case in cases} for cases in sections.values()]
    assert [len(ids) for ids in patients] == [14, 2, 4] and len(set.union(*patients)) == 20
    assert sections["test"][0]["label"] == [{"class": "mass", "low": [2, 1], "high": [40, 30]}]
    with pytest.raises(InputError, match="0 patients of ChestX-Det"):
        chestx_det.split(tmp_path / "d.json.gz", tmp_path / "none", seed=1)


def test_folds_hold_every_patient_once():
    patients = {str(number) for number in range(17)}
    folds = mass_nodule.folds_of(patients, 5, seed=1)
    assert sorted(map(len, folds)) == [3, 3, 3, 4, 4] and set.union(*folds) == patients
    with pytest.raises(InputError, match="2 folds of 17 patients"):
        mass_nodule.folds_of(patients, 2, seed=1)


def test_a_box_of_no_film_and_a_film_that_is_there_twice_are_refused(tmp_path, monkeypatch, capsys):
    films = "".join(f"{n}.png,{n}\n" for n in range(4))
    (tmp_path / "cases.csv").write_text("image,patient\n" + films)
    (tmp_path / "boxes.csv").write_text("image,label,xmin,ymin,xmax,ymax\n0.jpg,mass,1,2,3,4\n")
    with pytest.raises(InputError, match="1 images that cases.csv does not have, such as 0.jpg"):
        mass_nodule.cases_of(tmp_path)
    (tmp_path / "boxes.csv").write_text("image,label,xmin,ymin,xmax,ymax\n0.png,mass,1,2,3,4\n")
    (tmp_path / "cases.csv").write_text("image,patient\n" + films + "0.png,0\n")
    words = ["mass_nodule.py", str(tmp_path), str(tmp_path / "lists"), "--folds", "3"]
    monkeypatch.setattr(sys, "argv", words)
    assert mass_nodule.main() == 2 and not (tmp_path / "lists").exists()
    assert capsys.readouterr().err == "error: 0 stands there twice; give each image once.\n"


def test_films_of_masses_and_nodules_have_boxes_of_one_class(shared_data):
    cases = mass_nodule.cases_of(shared_data / "cxr" / "nih_mass_nodule")
    assert len(cases) == 39 and len({case["patient_id"] for case in cases}) == 32
    assert sum(len(case["label"]) for case in cases) == 195
    assert {box["class"] for case in cases for box in case["label"]} == {"mass or nodule"}
