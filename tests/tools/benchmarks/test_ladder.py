"""The ladder: every network answers on its grid, scores and gains are right, one cell runs."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

LADDER = Path(__file__).resolve().parents[3] / "tools" / "benchmarks" / "ladder"
GTV = LADDER.parent / "multimodal_gtv"
NAMES = ("cell", "data", "steps", "tables", "packed")


@pytest.fixture(scope="module")
def tools():
    before, path = {name: sys.modules.pop(name, None) for name in NAMES}, list(sys.path)
    sys.path[:0] = [str(LADDER), str(GTV)]
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path[:] = path
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def items() -> list[dict]:
    """Six patients with a bright ball of 6 to 8 voxels' radius as the tumour."""
    found, places = [], np.indices((28, 28, 20))
    for number in range(6):
        ball = sum((axis - middle) ** 2 for axis, middle in zip(places, (14, 14, 10), strict=True))
        label = (ball < (6 + number % 3) ** 2)[None].astype(np.float32)
        image = np.concatenate([0.5 * label, 0.3 * label, label * 0, np.ones_like(label), label * 0])
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        tensors = {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine)}
        found.append({**tensors, "case_id": f"patient_{number}"})
    return found


def test_every_network_answers_where_it_was_asked(tools):
    for name, step in tools["steps"].STEPS.items():
        network = step.network(5, 1, (8, 16, 32), 2).eval()
        with torch.no_grad():
            assert network(torch.rand(1, 5, 32, 32, 32)).shape == (1, 1, 32, 32, 32), name
        assert set(step.before) <= set(tools["steps"].STEPS)


def test_scores_are_those_of_the_two_masks_and_nobodys_contour_has_none(tools):
    truth, answer = np.zeros((3, 10, 10, 10), np.float32), np.zeros((3, 10, 10, 10), bool)
    truth[0, 2:6, 2:6, 2:6], answer[0, 2:6, 2:6, 4:8] = 1, True  # half of 64 voxels: DSC 0.5
    truth[1] = np.nan
    truth[2, 2:6, 2:6, 2:6] = 1  # and nothing answered
    one, other, empty = tools["data"].score(answer, truth, (1.0, 1.0, 1.0))
    assert one[0] == pytest.approx(0.5) and other is None
    assert one[1] == pytest.approx(1.0) and 1.5 < one[2] <= 2.5, "all surfaces are within 3 mm"
    assert empty[0] == 0.0 and empty[2] == np.inf


def test_a_gain_pairs_patients_and_keeps_their_seeds_together(tools):
    one = {(1, "a"): 0.9, (2, "a"): 0.7, (1, "b"): 0.5, (1, "c"): 0.4}
    other = {(1, "a"): 0.8, (2, "a"): 0.6, (1, "b"): 0.5}
    found = tools["tables"].gain(one, other)
    assert found.value == pytest.approx(0.2 / 3) and found.low == pytest.approx(0.0)
    assert found.high == pytest.approx(0.1)


def test_a_step_is_compared_with_the_first_of_its_steps_that_was_trained(tools):
    compared = tools["steps"].compared_with
    both, dice_before = "Res-U-Net + SE, BCE + Dice", "Res-U-Net, BCE + Dice"
    assert compared(both, {"Res-U-Net + SE", dice_before}) == "Res-U-Net + SE"
    assert compared(both, {dice_before, both}) == dice_before
    assert compared(both, {both}) is None and compared("U-Net", set(tools["steps"].STEPS)) is None


def test_a_report_keeps_earlier_rows_but_those_of_cells_trained_anew(tools, tmp_path, monkeypatch):
    tables = tools["tables"]
    monkeypatch.setattr(tables, "PAGE", tmp_path / "page.md")
    tables.PAGE.write_text("<!-- ladder -->\n<!-- end of ladder -->\n")
    cell = {"task": "sarcoma", "network": "+ Cycle, K = 2", "fold": 0, "seed": 1}
    of = {"cell": cell, "device": "cpu", "structures": ["GTV"], "minutes": 2.0}
    cells = tmp_path / "cells"
    cells.mkdir()
    for seed, dsc in ((1, 0.5), (2, 0.7)):
        result = {**of, "cell": {**cell, "seed": seed}, "scores": {"a": [[dsc, 0.4, 9.0]]}}
        (cells / "cell.json").write_text(json.dumps(result))
        tables.write(cells, tmp_path)
    assert "| + Cycle, K = 2 | 2 | 0.600 (" in tables.PAGE.read_text()
    (cells / "cell.json").write_text(json.dumps({**of, "scores": {"a": [[0.9, 0.4, 9.0]]}}))
    tables.write(cells, tmp_path)
    assert "| + Cycle, K = 2 | 2 | 0.800 (" in tables.PAGE.read_text()


def test_head_and_neck_becomes_cubes_of_6_mm_and_nobodys_contour_stays_unknown(tools):
    label = np.zeros((2, 12, 12, 16), np.float32)
    label[0, 3:9, 3:9, 4:12] = 1  # 24 x 24 x 24 mm
    label[1] = np.nan
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    image = MetaTensor(np.nan_to_num(label[:1]), affine=affine)
    coarse = tools["data"]._on_cubes({"image": image, "label": MetaTensor(label, affine=affine)})
    assert coarse["image"].shape[1:] == (8, 8, 8)
    np.testing.assert_allclose(np.diag(coarse["image"].affine), (6, 6, 6, 1))
    assert float(coarse["label"][0].sum()) == 64 and torch.isnan(coarse["label"][1]).all()


def test_a_cell_trains_on_two_folds_and_scores_the_third_from_the_small_file(tools, tmp_path, monkeypatch):
    patients = items()
    tools["packed"].write(patients, {item["case_id"]: 0 for item in patients}, tmp_path / "patients.npz")
    monkeypatch.setattr(tools["data"], "BOX", (32, 32, 32))
    device = torch.device("cpu")
    task = tools["data"].sarcoma(tmp_path / "patients.npz", device)
    folds = task.fold_of()
    assert sorted(folds.values()) == [0, 0, 1, 1, 2, 2]
    kept = next(item for item in task.items if item["case_id"] == "patient_0")
    np.testing.assert_allclose(kept["image"][0].max(), 0.5, atol=0.01)
    budget = tools["cell"].Budget(steps=20)
    result = tools["cell"].run(task, "Res-U-Net + SE, BCE + Dice", 1, 7, budget, device)
    assert set(result["scores"]) == {name for name, fold in folds.items() if fold == 1}
    assert result["loss"][-1] < result["loss"][0]
    rows = tools["tables"].tidy(json.loads(json.dumps(result)))
    assert {row["structure"] for row in rows} == {"GTV"} and all(0 <= row["dsc"] <= 1 for row in rows)
