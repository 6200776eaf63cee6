"""The benchmark of eye lesions: a split by time point flatters, a cell is done once, its scores survive the
file."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eye_files import write_photo

from medseg.errors import InputError

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark's folder, forgotten again afterwards: other benchmarks have a cell.py
    too."""
    monkeypatch.syspath_prepend(str(TOOLS / "benchmarks" / "eye_lesion"))
    for name in ("cell", "report", "run", "leak"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import cell
    import leak
    import report
    import run

    yield {"cell": cell, "leak": leak, "report": report, "run": run}
    for name in ("cell", "report", "run", "leak"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Fifteen phantoms in the layout of HEI-MED, ten of them with lesions."""
    folder = tmp_path_factory.mktemp("hei_med")
    rows = []
    for number in range(15):
        write_photo(folder, f"p{number}", number, lesions=number < 10)
        (folder / "images" / f"p{number}.png").rename(folder / "images" / f"p{number}.jpg")
        rows.append({"id": f"p{number}", "exudate_lesions": int(number < 10), "other_bright_lesions": 1})
    with open(folder / "cases.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder


def test_a_split_by_time_point_flatters_on_patients_who_come_back(bench):
    cohort = bench["leak"].visits(12, 5)
    by_time, by_patient = (rows[0] for rows in bench["leak"].compare(cohort, most_folds=1).values())
    assert by_time["AUPR"] > by_patient["AUPR"] + 0.05
    assert by_patient["ROC AUC"] > 0.9, "which hides the difference"
    training, validation = next(bench["leak"].folds("by time point", cohort))
    assert {v.patient for v in training} == {v.patient for v in validation}
    training, validation = next(bench["leak"].folds("by patient", cohort))
    assert not {v.patient for v in training} & {v.patient for v in validation}


def test_a_baseline_cell_is_done_once_and_its_scores_survive_the_file(bench, photos, tmp_path):
    cell = bench["cell"]
    first = cell.run_cell(cell.Cell(cell.BASELINE, 0), cell.Budget(), photos, tmp_path)
    path = tmp_path / "cells" / "tophat_fold0.json"
    stamp = path.stat().st_mtime_ns
    assert cell.run_cell(cell.Cell(cell.BASELINE, 0), cell.Budget(), photos, tmp_path) == json.loads(
        path.read_text()
    )
    assert path.stat().st_mtime_ns == stamp
    scores = cell.load_scores(path.with_suffix(".npz"), first["cases"])
    assert [score.patient for score in scores] == first["cases"]
    assert all("other bright lesion" in score.look_alikes for score in scores)
    assert sum(score.pixels.positives for score in scores) > 0
    with pytest.raises(InputError, match="had another budget"):
        cell.run_cell(cell.Cell(cell.BASELINE, 0), replace(cell.Budget(), epochs=9), photos, tmp_path)


def test_a_network_cell_trains_scores_and_goes_into_the_table(bench, photos, tmp_path):
    cell = bench["cell"]
    budget = cell.Budget(epochs=1, patch_pixels=64, longest_side=96)
    for name in (cell.BASELINE, "segnet_narrow"):
        cell.run_cell(cell.Cell(name, 0), budget, photos, tmp_path)
    cost = json.loads((tmp_path / "cells" / "segnet_narrow_fold0.json").read_text())["cost"]
    assert cost["parameters"] > 1_000_000 and cost["training_minutes"] > 0 and cost["ms_per_image"] > 0
    page = tmp_path / "page.md"
    assert bench["run"].main(["report", str(tmp_path), "-o", str(page)]) == 0
    text = page.read_text()
    assert "| segnet_narrow |" in text and "| tophat |" in text and "Budget of every cell: 1 epochs" in text


def test_a_network_that_does_not_beat_the_baseline_is_named(bench):
    verdict = bench["report"].verdict
    assert verdict({"tophat": 0.3, "unet": 0.4}).startswith("Every network has a higher")
    assert verdict({"tophat": 0.3, "unet": 0.4, "segnet": 0.1}).endswith("in pooled AUPR: segnet.")


def test_the_grid_has_five_architectures_and_a_baseline_for_every_fold(bench):
    cells = bench["run"].cells("narrow", [0, 1, 2])
    assert len(cells) == 18 and len({cell.key for cell in cells}) == 18


def test_the_top_hat_sees_small_bright_spots_and_not_the_slope_they_lie_on(bench):
    import tophat

    pixels = np.repeat(np.linspace(0.3, 0.6, 200)[None, :, None], 200, axis=0) * np.ones(3)
    pixels[100:103, 50:53] += 0.2
    rises = tophat.tophat(pixels, np.ones((200, 200), dtype=bool))
    assert rises[101, 51] > 0.2 and rises[150, 150] < 0.05
    assert tophat.as_probability(np.array([0.1]), 0.1) == 0.5
