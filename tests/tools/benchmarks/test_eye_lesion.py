"""The benchmark of eye lesions: a split by time point flatters, a cell is done once, its scores survive the
file."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from eye_files import write_photo
from PIL import Image

from medseg.errors import InputError
from medseg.networks.segmenters import Segmenter
from medseg.training.checkpoints import load_checkpoint

TOOLS = Path(__file__).resolve().parents[3] / "tools"
BUNDLE = TOOLS.parent / "monai_bundles" / "eye_lesion"


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark's folder, forgotten again afterwards: other benchmarks have a cell.py
    too."""
    monkeypatch.syspath_prepend(str(TOOLS / "benchmarks" / "eye_lesion"))
    names = ("cell", "curves", "report", "run", "leak", "ship")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
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


@pytest.fixture
def grid(bench, photos, tmp_path) -> Path:
    """A finished grid of one fold, one architecture and the baseline."""
    cell = bench["cell"]
    budget = cell.Budget(epochs=1, patch_pixels=64, longest_side=96)
    for name in (cell.BASELINE, "segnet_narrow"):
        cell.run_cell(cell.Cell(name, 0), budget, photos, tmp_path / "grid")
    return tmp_path / "grid"


def test_a_finished_grid_goes_into_the_table_and_its_best_network_into_the_bundle(
    bench, photos, grid, tmp_path, capsys
):
    cost = json.loads((grid / "cells" / "segnet_narrow_fold0.json").read_text())["cost"]
    assert cost["parameters"] > 1_000_000 and cost["training_minutes"] > 0 and cost["ms_per_image"] > 0
    page = tmp_path / "docs" / "reference" / "page.md"
    page.parent.mkdir(parents=True)
    assert bench["run"].main(["report", str(grid), "-o", str(page)]) == 0
    text = page.read_text()
    assert "| segnet_narrow |" in text and "| tophat |" in text and "Budget of every cell: 1 epochs" in text
    (picture,) = re.findall(r"\(\.\./(pictures/\w+\.png)\)", text)
    assert Image.open(tmp_path / "docs" / picture).size == (960, 336)

    bundle = tmp_path / "eye_lesion"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("*.pt"))
    words = ["ship", str(grid), str(photos), "--bundle", str(bundle)]
    assert bench["run"].main(words) == 0
    model = bundle / "models" / "model.pt"
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["weights_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert metadata["description"].endswith("; segnet_narrow by default")
    weights, trained = (load_checkpoint(path) for path in (model, grid / "runs/segnet_narrow_fold0/last.pt"))
    Segmenter("segnet_narrow").load_state_dict(weights)
    name = "network.head.weight"
    assert weights[name].element_size() == 2 and model.stat().st_size < 5e6
    assert np.allclose(weights[name].float(), trained["network"][name], atol=1e-3)
    for config in ("train", "inference"):
        content = json.loads((bundle / "configs" / f"{config}.json").read_text())
        assert [content[key] for key in ("architecture", "longest_side", "patch_size")] == [
            "segnet_narrow",
            96,
            [64, 64],
        ]
    datalist = json.loads((bundle / "configs" / "datalist.json").read_text())
    own = json.loads((grid / "runs" / "segnet_narrow_fold0" / "datalist.json").read_text())
    assert {section: datalist[section] for section in own} == own
    card = (bundle / "docs" / "README.md").read_text()
    assert "no weights yet" not in card and re.search(r"`segnet_narrow`, [\d,]+ parameters", card)

    begun = json.loads((grid / "cells" / "tophat_fold0.json").read_text()) | {"fold": 1}
    (grid / "cells" / "tophat_fold1.json").write_text(json.dumps(begun))
    shutil.copyfile(grid / "cells" / "tophat_fold0.npz", grid / "cells" / "tophat_fold1.npz")
    assert bench["run"].main(words) == 2
    assert "folds segnet_narrow [0]; tophat [0, 1]; finish the grid first" in capsys.readouterr().err
    assert bench["run"].main([*words, "--folds", "0"]) == 0


def test_what_medseg_score_wrote_goes_into_the_card_and_into_the_row_of_readme(bench, tmp_path, capsys):
    bundle, readme = tmp_path / "eye_lesion", tmp_path / "README.md"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("*.pt"))
    readme.write_text("| `eye` | a | b | keep | c |\n| `eye_lesion` | exudates | data | untrained | card |\n")
    words = ["card", str(tmp_path), "--bundle", str(bundle), "--readme", str(readme)]
    assert bench["run"].main(words) == 2 and "no scores.json" in capsys.readouterr().err
    figure = {"value": 0.25, "low": 0.125, "high": 0.5}
    pooled = {"AUPR": figure, "ROC AUC": {**figure, "value": 0.875}, "images": 25, "with lesions": 8}
    (tmp_path / "scores.json").write_text(json.dumps({"pooled": {"Exudate": pooled}}))
    (tmp_path / "scores.md").write_text("| the table |\n")
    assert bench["run"].main(words) == 0
    assert readme.read_text().splitlines() == [
        "| `eye` | a | b | keep | c |",
        "| `eye_lesion` | exudates | data | pooled AUPR 0.250 (95 % 0.125 to 0.500), ROC AUC 0.875 (95 % "
        "0.125 to 0.500) on 25 patients, 8 with exudates | card |",
    ]
    card = (bundle / "docs" / "README.md").read_text()
    assert "| the table |" in card and "have not been looked at" not in card


def test_a_network_that_does_not_beat_the_baseline_is_named(bench):
    verdict = bench["report"].verdict
    assert verdict({"tophat": 0.3, "unet": 0.4}).startswith("Every network has a higher")
    assert verdict({"tophat": 0.3, "unet": 0.4, "segnet": 0.1}).endswith("in pooled AUPR: segnet.")


def test_the_grid_has_five_architectures_and_a_baseline_for_every_fold(bench):
    cells = bench["run"].cells("narrow", [0, 1, 2])
    assert len(cells) == 18 and len({cell.key for cell in cells}) == 18


@pytest.mark.slow
def test_the_top_hat_answers_on_the_test_patients_only_when_it_is_asked(bench, photos, monkeypatch, capsys):
    import hei_med
    import tophat

    opened, read = [], tophat.read
    monkeypatch.setattr(tophat, "read", lambda case, data: opened.append(case["case_id"]) or read(case, data))
    parts = hei_med.split(hei_med.read_rows(photos / "cases.csv"), 123, 5, 0)
    locked = {case["case_id"] for case in parts["test"]}
    monkeypatch.setattr(sys, "argv", ["tophat.py", str(photos)])
    assert tophat.main() == 0 and set(opened) == {f"p{n}" for n in range(15)} - locked
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["tophat.py", str(photos), "--test"])
    assert tophat.main() == 0 and set(opened[-len(locked) :]) == locked
    assert f"| images | {len(locked)} |" in capsys.readouterr().out


def test_the_top_hat_sees_small_bright_spots_and_not_the_slope_they_lie_on(bench):
    import tophat

    pixels = np.repeat(np.linspace(0.3, 0.6, 200)[None, :, None], 200, axis=0) * np.ones(3)
    pixels[100:103, 50:53] += 0.2
    rises = tophat.tophat(pixels, np.ones((200, 200), dtype=bool))
    assert rises[101, 51] > 0.2 and rises[150, 150] < 0.05
    assert tophat.as_probability(np.array([0.1]), 0.1) == 0.5
