"""The label-noise benchmark on a tiny budget: cells, resuming, rankings, tables; and the rules that keep it
fair."""

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.errors import InputError
from medseg.training.noisy.benchmark import METHODS, Budget, Cell, detection, noise_of, run_cell, score
from medseg.training.noisy.benchmark_data import (
    CXR_STRUCTURES,
    FIRST_TEST_PATIENT,
    JSRT_STRUCTURES,
    augmented,
    cxr_images,
    phantom_images,
)

TOOLS = Path(__file__).resolve().parents[3] / "tools"
TINY = Budget(side=32, train=8, test=4, steps=6, batch=4, channels=(4, 8), quality_channels=((4,), (8,)))
CELL = Cell("phantom", "fixed", 0.5, "5-13", "ce", 0)


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    import benchmark_noisy_labels
    import noisy_report

    yield benchmark_noisy_labels, noisy_report
    sys.path.remove(str(TOOLS))


@pytest.mark.parametrize("method", ["ce", "qam_ocm", "co_teaching", "confident_learning"])
def test_a_cell_trains_scores_and_ranks(method):
    result = run_cell(dataclasses.replace(CELL, method=method), TINY)
    assert np.array(result["test"]["dice"]).shape == (4, 3) and len(result["train"]["noisy"]) == 8
    assert sum(result["train"]["noisy"]) == 4
    scores = result["train"]["scores"]
    assert set(scores) == {"final_loss", "disagreement", "mean_loss"} | (
        {"quality"} if method == "qam_ocm" else set()
    )
    assert all(len(values) == 8 and np.isfinite(values).all() for values in scores.values())
    json.dumps(result)


def test_a_cell_repeats_itself_exactly():
    assert run_cell(CELL, TINY)["test"] == run_cell(CELL, TINY)["test"]


def test_noise_is_scaled_to_the_grid_and_drawn_alike_for_every_method():
    assert noise_of(CELL, Budget(side=128), 3).sizes == (2.5, 6.5)
    labels = {
        m: run_cell(dataclasses.replace(CELL, method=m), TINY)["train"]["label_dice"] for m in ("ce", "qam")
    }
    assert labels["ce"] == labels["qam"] and min(labels["ce"]) < 0.9 and max(labels["ce"]) == 1.0


def test_the_test_patients_are_never_trained_on_and_the_same_for_all_seeds():
    splits = [phantom_images(32, (8, 4), seed) for seed in (0, 1)]
    assert splits[0][1].names == splits[1][1].names == [f"p{FIRST_TEST_PATIENT + n}" for n in range(4)]
    trained = [set(train.names) for train, _ in splits]
    assert not trained[0] & trained[1] and not (trained[0] | trained[1]) & set(splits[0][1].names)


def test_augmentation_moves_an_image_and_its_label_together():
    torch.manual_seed(0)
    disc = ((np.mgrid[0:64, 0:64] - 31.5) ** 2).sum(0) < 15**2
    label = np.stack([disc, ~disc]).astype(np.float32)
    samples = [
        {"image": torch.from_numpy(label[:1]), "label": torch.from_numpy(label), "case_id": str(i)}
        for i in range(8)
    ]
    batch = augmented(samples)
    assert batch["case_id"] == [str(i) for i in range(8)]
    moved = batch["label"][:, 0] > 0
    assert all((one.numpy() != disc).mean() > 0.005 for one in moved)
    # Edge pixels are between 0 and 1 in the image; elsewhere contrast and brightness leave 0 below and 1
    # above a half.
    assert ((batch["image"][:, 0] > 0.5) == moved).float().mean() > 0.98
    assert set(batch["label"].unique().tolist()) == {0.0, 1.0}


def test_the_oracle_trains_on_the_clean_cases_only_and_paper_noise_has_no_fixed_list():
    oracle = run_cell(dataclasses.replace(CELL, subset="clean"), TINY)
    assert len(oracle["train"]["noisy"]) == 4 and detection(oracle) == {}
    fresh = run_cell(dataclasses.replace(CELL, generator="paper"), TINY)
    assert sum(fresh["train"]["noisy"]) == 0


def test_fixing_the_worst_labels_follows_the_ranking_of_the_base_cell():
    base = run_cell(CELL, TINY)
    worst = np.argsort(base["train"]["scores"]["mean_loss"])[::-1][:4]
    noisy = np.array(base["train"]["noisy"])
    fixed = run_cell(dataclasses.replace(CELL, fixed_share=0.5, fixed_by="mean_loss"), TINY, base=base)
    expected = noisy.copy()
    expected[worst] = 0
    assert fixed["train"]["noisy"] == expected.tolist()
    with pytest.raises(InputError, match="which is missing"):
        run_cell(dataclasses.replace(CELL, fixed_share=0.5, fixed_by="quality"), TINY, base=base)


def test_scores_of_a_perfect_and_of_an_empty_prediction():
    _, test = phantom_images(32, (8, 4), 0)

    class Answer(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return self.value[: len(x)]

    perfect = score(Answer(torch.from_numpy(test.masks).float() - 0.5), test)
    assert np.all(np.array(perfect["dice"]) == 1) and np.all(np.array(perfect["hd95_px"]) == 0)
    assert np.all(np.array(perfect["surface_dice"]) == 1)
    empty = score(Answer(-torch.ones(4, 3, 32, 32)), test)
    assert np.all(np.array(empty["dice"]) == 0) and np.all(np.array(empty["surface_dice"]) == 0)
    assert np.allclose(empty["hd95_px"], np.hypot(32, 32))


def test_detection_by_hand():
    result = {"train": {"noisy": [1, 0, 0, 1], "scores": {"loss": [0.9, 0.5, 0.1, 0.4]}}}
    # Pairs (noisy above clean): 0.9 above both, 0.4 above one of two: 3 of 4. The worst 10 % is one case, a
    # noisy one.
    assert detection(result)["loss"] == {
        "auroc": 0.75,
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "precision_at_10_percent": 1.0,
    }


# ---- real radiographs --------------------------------------------------------------------------------------


def write_cxr(folder: Path, patients: list[int]) -> Path:
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    with open(folder / "cases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["case", "patientid", *CXR_STRUCTURES])
        writer.writeheader()
        for number, patient in enumerate(patients):
            complete = "0" if number == 0 else "1"
            writer.writerow(
                {"case": f"gb{number}", "patientid": patient, **dict.fromkeys(CXR_STRUCTURES, complete)}
            )
            Image.fromarray(rng.integers(0, 255, (40, 50), np.uint8)).save(
                folder / "images" / f"gb{number}.png"
            )
            field = np.zeros((40, 50), np.uint8)
            field[:20, :12] |= 1  # the right lung: upper half of the left quarter
            field[10:30, 20:30] |= 4 + 16  # the heart, and a bit that is no structure here
            Image.fromarray(field).save(folder / "masks" / f"gb{number}.png")
    return folder


def test_radiographs_are_split_by_patient_upright_and_without_incomplete_ones(tmp_path):
    patients = [1, 1, 2, 2, 3, 4, 5, 5, 6, 6]
    train, test = cxr_images(write_cxr(tmp_path, patients), 32, seed=0)
    owners = [{patients[int(name[2:])] for name in part.names} for part in (train, test)]
    assert not owners[0] & owners[1] and len(train.names) + len(test.names) == 9 and len(owners[1]) == 2
    mask = train.masks[0]
    assert mask[0, :15, :7].all() and not mask[0, 17:].any() and not mask[0, :, 9:].any(), (
        "row, column as in the file"
    )
    assert mask[2].any() and not mask[1].any() and not mask[3].any()
    assert 0 <= train.images.min() and 0.3 < train.images.mean() < 0.7


def test_the_layout_of_prepare_jsrt_is_read_with_its_own_split_and_clavicles(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS / "datasets"))
    import jsrt

    assert jsrt.STRUCTURES == JSRT_STRUCTURES
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    with open(tmp_path / "cases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["case", "patientid", "random_165_82", "scr_fold", *JSRT_STRUCTURES])
        writer.writeheader()
        for film, part in (("JPCLN001", "train"), ("JPCLN002", "test"), ("JPCNN001", "train")):
            row = {
                "case": film,
                "patientid": film,
                "random_165_82": part,
                **dict.fromkeys(JSRT_STRUCTURES, 1),
            }
            row["scr_fold"] = "fold2" if film.endswith("2") else "fold1"
            writer.writerow(row)
            Image.fromarray(np.full((32, 32), 100, np.uint8)).save(tmp_path / "images" / f"{film}.png")
            field = np.zeros((32, 32), np.uint8)
            field[2:6, 20:28] = 16  # the left clavicle, on the viewer's right
            Image.fromarray(field).save(tmp_path / "masks" / f"{film}.png")
    for seed in (1, 2):
        train, test = cxr_images(tmp_path, 32, seed)
        assert (train.names, test.names) == (["JPCLN001", "JPCNN001"], ["JPCLN002"])
    assert train.structures == JSRT_STRUCTURES and train.masks.sum((0, 2, 3)).tolist() == [
        0,
        0,
        0,
        0,
        2 * 4 * 8,
    ]
    for fold, tested in (("fold1", ["JPCLN001", "JPCNN001"]), ("fold2", ["JPCLN002"])):
        train, test = cxr_images(tmp_path, 32, 1, fold)
        assert test.names == tested and not set(train.names) & set(tested) and len(train.names + tested) == 3
    with pytest.raises(InputError, match="does not split the images into fold3 and others"):
        cxr_images(tmp_path, 32, 1, "fold3")


def test_a_table_without_the_structures_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("case,patientid,Right Lung\na,1,1\n")
    with pytest.raises(InputError, match="neither the columns"):
        cxr_images(tmp_path, 32, 0)


def test_the_real_radiographs_train(shared_data):
    folder = shared_data / "cxr" / "chest_masks_cc"
    result = run_cell(dataclasses.replace(CELL, data="cxr"), dataclasses.replace(TINY, steps=2), folder)
    assert result["structures"] == list(CXR_STRUCTURES) and len(result["test"]["cases"]) >= 10


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data": "ct"}, "unknown data 'ct'; choose one of phantom, cxr"),
        ({"data": "cxr"}, "need their folder"),
        ({"sizes": "2-3"}, "unknown noise sizes '2-3'"),
        ({"method": "magic"}, "unknown method 'magic'"),
    ],
)
def test_cells_that_do_not_exist_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        run_cell(dataclasses.replace(CELL, **change), TINY)


def test_a_folder_without_radiographs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no cases.csv"):
        cxr_images(tmp_path, 32, 0)


# ---- the program -------------------------------------------------------------------------------------------


def test_the_grid_has_the_promised_cells_once_each_and_known_methods(tools):
    for data, least in (("phantom", 147 + 54), ("cxr", 63)):
        cells = tools[0].grid(data)
        assert len({cell.key for cell in cells}) == len(cells) >= least
        assert {cell.method for cell in cells} <= set(METHODS)
        assert {cell.seed for cell in cells} == {1, 2, 3}, "settings were chosen with seed 0"


SMALL_GRID = [
    dataclasses.replace(CELL, method=method, share=share)
    for method in ("ce", "qam_ocm")
    for share in (0.0, 0.5)
]
SMALL_GRID.append(dataclasses.replace(CELL, fixed_share=0.5, fixed_by="mean_loss"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tools) -> Path:
    """Cells of a small grid trained in this process, as the program's own processes would."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "cells").mkdir()
    for cell in SMALL_GRID:
        tools[0].finish_cell(cell, TINY, folder, None)
    return folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch, tools) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(tools[0], "grid", lambda data: SMALL_GRID)
    monkeypatch.setattr(tools[0], "Budget", lambda **changes: dataclasses.replace(TINY, **changes))
    return tmp_path


def test_finished_cells_are_not_trained_again_and_another_budget_is_refused(
    finished, tools, capsys, monkeypatch
):
    assert tools[0].main(["run", str(finished)]) == 0
    assert "5 cells, 5 finished before" in capsys.readouterr().out
    assert tools[0].main(["run", str(finished), "--steps", "9"]) == 2
    assert "trained with another budget" in capsys.readouterr().err


def test_a_cell_that_follows_a_missing_ranking_says_so(finished, tools):
    (finished / "cells" / f"{CELL.key}.json").unlink()
    with pytest.raises(InputError, match="run the whole grid first"):
        tools[0].finish_cell(
            dataclasses.replace(CELL, fixed_share=0.5, fixed_by="mean_loss"), TINY, finished, None
        )


def test_the_report_writes_tables_and_figures(finished, tools):
    page = ["--markdown", str(finished / "page.md")]
    assert tools[0].main(["report", str(finished), "-o", str(finished / "report"), *page]) == 0
    with open(finished / "report" / "noisy_labels.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 4 and {row["structure"] for row in rows} == {
        "Lungs",
        "Heart",
        "Clavicles",
        "mean",
    }
    with open(finished / "report" / "noisy_labels_comparison.csv") as file:
        plain = next(
            row for row in csv.DictReader(file) if row["method"] == "ce" and row["share"] == "0.5000"
        )
    assert float(plain["minus_ce"]) == 0 and plain["seeds"] == "1"
    names = {path.name for path in (finished / "report").iterdir()}
    assert {"noisy_labels_detection.csv", "noisy_labels_phantom.png", "noisy_labels_review.png"} <= names
    page = (finished / "page.md").read_text()
    # Five cells of one seed: cross-entropy and QAM + OCM, without noise and with half of the labels wrong by
    # 5 to 13 pixels.
    row = next(
        line for line in page.splitlines() if line.startswith("| 50%, 5-13 px | 0.652 / 0.724 / 0.912 |")
    )
    filled = [bool(cell.strip()) for cell in row.split("|")[3:-1]]
    assert filled == [True, False, False, True, False, False, False, False, False]


def test_a_report_of_nothing_is_refused(tmp_path, tools, capsys):
    assert tools[0].main(["report", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert "holds no finished cell" in capsys.readouterr().err


def test_the_paired_bootstrap_by_hand(tools):
    mean, low, high = tools[1].paired_bootstrap({"a": 0.9, "b": 0.8}, {"a": 0.7, "b": 0.6, "c": 0.1})
    assert (mean, low, high) == tuple(pytest.approx(0.2) for _ in range(3))
    mean, low, high = tools[1].paired_bootstrap({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.0})
    assert (mean, low, high) == (0.5, 0.0, 1.0)
