"""The experiments on hips: splits, cells that are done once, cells side by side, and the tables of them."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.cases.box_sources import read_voc
from medseg.errors import InputError
from medseg.phantoms.hip import bmd_of, make_hip

TOOLS = Path(__file__).resolve().parents[3] / "tools"
NAMES = ("hip_cells", "hip_grids", "hip_tables", "experiments", "side_by_side", "hip_phantoms")


@pytest.fixture
def bench(monkeypatch):
    """The modules of the experiments, forgotten again afterwards."""
    for folder in ("benchmarks/hip_osteoporosis", "benchmarks", "datasets"):
        monkeypatch.syspath_prepend(str(TOOLS / folder))
    yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Both hips of twelve patients, in the layout of hip_phantoms.py."""
    folder = tmp_path_factory.mktemp("work") / "plain"
    (folder / "images").mkdir(parents=True)
    cases = []
    for number in range(12):
        t_score = (-4.0, 0.5)[number % 2]
        for side in "LR":
            film = make_hip(number, t_score, side, pixels=64).image
            image = f"images/{number}{side}.png"
            Image.fromarray(np.rint(film * 65535).astype(np.uint16)).save(folder / image)
            known = {"patient_id": f"p{number}", "side": side, "device": "sharp", "bmd": bmd_of(t_score)}
            cases.append({"image": image, "case_id": image, "label": int(t_score < -2.5), **known})
    content = {"training": cases[:16], "validation": cases[16:20], "test": cases[20:]}
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def test_folds_by_patient_keep_both_hips_together_and_folds_by_film_do_not(bench, films):
    cases = [case for some in bench["hip_grids"].sections(films).values() for case in some]

    def straddle(by_patient):
        both = [
            {case["patient_id"] for case in fold["training"]}
            & {case["patient_id"] for case in fold["validation"]}
            for fold in bench["hip_grids"].folds(cases, by_patient)
        ]
        return sum(map(len, both))

    assert straddle(by_patient=True) == 0 < straddle(by_patient=False)


def test_every_question_has_cells_with_names_of_their_own(bench, films, tmp_path, monkeypatch):
    for name in ("uncertain", "confounded"):
        (films.parent / name).mkdir(exist_ok=True)
        (films.parent / name / "datalist.json").write_text((films / "datalist.json").read_text())
    rows = [f"{n}.png,p{n},{n % 2},PA,F,{('train', 'valid', 'test')[n % 3]}" for n in range(30)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,patient,label,view,sex,source_split", *rows]))
    monkeypatch.setattr(bench["hip_grids"], "LEAK_PATIENTS", 6)
    plan = bench["hip_grids"].Plan(films.parent, tmp_path, 64, 1)
    counts = {}
    for question, grid in bench["hip_grids"].GRIDS.items():
        keys = [cell.key for cell in grid(plan)]
        assert len(set(keys)) == len(keys), question
        counts[question] = len(keys)
    # Five backbones by five folds; two splits of five folds by three seeds; films alone and with more.
    assert counts == {
        **{"backbones": 25, "leak": 30, "covariates": 6, "confounder": 9},
        **{"bmd": 6, "neck": 9, "chest": 18},
    }
    assert set(counts) == set(bench["hip_tables"].QUESTIONS) == set(bench["experiments"].SCALES)


def test_a_cell_is_done_once_and_its_answers_make_the_table(bench, films, tmp_path, monkeypatch):
    plan = bench["hip_grids"].Plan(films.parent, films, 64, 1)
    cells = [cell for cell in bench["hip_grids"].bmd(plan) if cell.key.endswith("seed1")]
    records = {cell.key: bench["hip_cells"].run_cell(cell, tmp_path / "bmd") for cell in cells}
    record = records["classes_and_bmd_seed1"]
    assert record["device"] == "cpu" and len(record["answers"]["validation"]) == 4
    assert [len(row["logits"]) for row in record["answers"]["validation"]] == [3] * 4
    path = tmp_path / "bmd" / "cells" / "classes_and_bmd_seed1.json"
    stamp = path.stat().st_mtime_ns
    assert bench["hip_cells"].run_cell(cells[1], tmp_path / "bmd") == record
    assert path.stat().st_mtime_ns == stamp, "it is not done again"
    other = bench["hip_grids"].Plan(films.parent, films, 64, 2)
    with pytest.raises(InputError, match="had other settings"):
        bench["hip_cells"].run_cell(next(bench["hip_grids"].bmd(other)), tmp_path / "bmd")
    monkeypatch.setattr(bench["hip_tables"], "DRAWS", 20)
    page = tmp_path / "page.md"
    page.write_text("<!-- bmd -->\n<!-- end of bmd -->\n")
    assert bench["hip_tables"].report(tmp_path, page) == 0
    said = [0.858 + 0.12 * row["logits"][2] for row in record["answers"]["validation"]]
    off = np.abs(np.array(said) - [row["bmd"] for row in record["answers"]["validation"]]).mean()
    assert f"| 1 | {off:.3f} (" in page.read_text()


CELLS = """
from dataclasses import dataclass
from medseg.errors import InputError

@dataclass(frozen=True)
class Cell:
    key: str

def note(cell, folder):
    if cell.key == "bad":
        raise InputError("this one cannot be used.")
    (folder / cell.key).touch()
    return "done"
"""
"""What cells of these tests do: a module of its own, since other processes have to import it."""


@pytest.fixture
def small_cells(tmp_path, monkeypatch):
    (tmp_path / "small_cells.py").write_text(CELLS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("small_cells")
    sys.modules.pop("small_cells")


def options(**changed) -> argparse.Namespace:
    return argparse.Namespace(**{"only": "", "minutes": 1e9, "jobs": 2, "list": False, **changed})


def test_cells_side_by_side_go_on_when_one_fails(bench, small_cells, tmp_path, capfd):
    cells = [small_cells.Cell(key) for key in ("old", "bad", "good")]
    run = partial(small_cells.note, folder=tmp_path)
    assert bench["side_by_side"].work_off(cells, lambda cell: cell.key == "old", run, options()) == 1
    said = capfd.readouterr()
    assert "old: there already" in said.out and "good: done" in said.out
    assert "error: bad: this one cannot be used." in said.err and "Traceback" not in said.err
    assert (tmp_path / "good").exists() and not (tmp_path / "old").exists()


def test_cells_are_listed_chosen_and_not_started_late(bench, small_cells, tmp_path, capsys):
    cells = [small_cells.Cell(key) for key in ("one", "two")]
    run, work_off = partial(small_cells.note, folder=tmp_path), bench["side_by_side"].work_off
    assert work_off(cells, lambda cell: False, run, options(list=True, only="tw")) == 0
    assert capsys.readouterr().out == "two\n"
    assert work_off(cells, lambda cell: False, run, options(minutes=0)) == 0
    assert capsys.readouterr().out == "2 cells not started, 0 minutes are over\n"
    assert not (tmp_path / "one").exists()


def test_phantoms_come_with_boxes_and_bmd_and_can_be_drawn_beside_their_datalist(bench, tmp_path, capsys):
    small = ["--patients", "10", "--pixels", "64"]
    assert bench["hip_phantoms"].main([str(tmp_path), str(tmp_path / "list.json"), *small]) == 0
    content = json.loads((tmp_path / "list.json").read_text())
    case = content["test"][0]
    number = int(case["patient_id"][1:])
    stem = Path(case["image"]).stem
    (box,) = read_voc(tmp_path / "boxes" / f"{stem}.xml", None)
    hip = make_hip(number, (case["bmd"] - 0.858) / 0.12, case["side"], pixels=64)
    assert np.array_equal([box.low, box.high], hip.neck_box)
    film = (tmp_path / case["image"]).read_bytes()
    (tmp_path / case["image"]).unlink()
    stamp = (tmp_path / "list.json").stat().st_mtime_ns
    assert (
        bench["hip_phantoms"].main([str(tmp_path), str(tmp_path / "list.json"), *small, "--films-only"]) == 0
    )
    assert (tmp_path / case["image"]).read_bytes() == film
    assert (tmp_path / "list.json").stat().st_mtime_ns == stamp
