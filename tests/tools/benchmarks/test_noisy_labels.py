"""The label-noise benchmark on a tiny budget: cells, resuming, rankings, tables; and the rules that keep it
fair."""

import csv
import dataclasses
import importlib.util
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.errors import InputError

TOOLS = Path(__file__).resolve().parents[3] / "tools" / "benchmarks" / "noisy_labels"
sys.path.insert(0, str(TOOLS))
import report  # noqa: E402
from cell import Budget, Cell, Place, noise_of, run_cell  # noqa: E402
from grids import GRIDS, LATER_SEEDS, SEEDS  # noqa: E402
from images import (  # noqa: E402
    CXR_STRUCTURES,
    DEVELOPMENT_PATIENTS,
    FIRST_TEST_PATIENT,
    JSRT_STRUCTURES,
    augmented,
    cxr_images,
    phantom_images,
)
from methods import COMPARED  # noqa: E402
from scores import detection, dice_of, side_of  # noqa: E402

# Other benchmarks have a run.py too; this one is loaded under a name of its own.
_file = importlib.util.spec_from_file_location("run_noisy_labels", TOOLS / "run.py")
run = importlib.util.module_from_spec(_file)
_file.loader.exec_module(run)
sys.path.remove(str(TOOLS))

TINY = Budget(side=32, train=8, test=4, steps=6, batch=4, channels=(4, 8), quality_channels=((4,), (8,)))
CELL = Cell("phantom", "fixed", 0.5, "5-13", "ce", 1)


@pytest.mark.parametrize(
    "method", ["ce", "qam_ocm", "qam_ocm_published", "co_teaching", "confident_learning"]
)
def test_a_cell_trains_scores_and_ranks(method):
    result = run_cell(dataclasses.replace(CELL, method=method), TINY)
    assert np.array(result["test"]["dice"]).shape == (4, 3) and len(result["train"]["noisy"]) == 8
    assert sum(result["train"]["noisy"]) == 4
    scores = result["train"]["scores"]
    assert set(scores) == {"final_loss", "disagreement"} | (
        {"quality"} if method.startswith("qam_ocm") else set()
    )
    sides = np.array(result["train"]["side"])
    assert not sides[np.array(result["train"]["noisy"]) == 0].any() and sides.any()
    assert all(len(values) == 8 and np.isfinite(values).all() for values in scores.values())
    json.dumps(result)


def test_a_cell_repeats_itself_exactly():
    assert run_cell(CELL, TINY)["test"] == run_cell(CELL, TINY)["test"]


def test_noise_is_scaled_to_the_grid_and_drawn_alike_for_every_method():
    assert noise_of(CELL, Budget(side=128), 3).sizes == (2.5, 6.5)
    labels = {
        m: run_cell(dataclasses.replace(CELL, method=m), TINY)["train"]["label_dice"]
        for m in ("ce", "qam_ocm")
    }
    assert labels["ce"] == labels["qam_ocm"] and min(labels["ce"]) < 0.9 and max(labels["ce"]) == 1.0


def test_the_test_patients_are_never_trained_on_and_the_same_for_all_seeds():
    splits = [phantom_images(32, (8, 4), seed) for seed in (1, 2)]
    assert splits[0][1].names == splits[1][1].names == [f"p{FIRST_TEST_PATIENT + n}" for n in range(4)]
    trained = [set(train.names) for train, _ in splits]
    assert not trained[0] & trained[1] and not (trained[0] | trained[1]) & set(splits[0][1].names)
    chosen_on = phantom_images(32, (8, 4), 0)[1].names
    assert chosen_on == [f"p{n}" for n in DEVELOPMENT_PATIENTS[:4]] and chosen_on != splits[0][1].names


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
    worst = np.argsort(base["train"]["scores"]["final_loss"])[::-1][:4]
    noisy = np.array(base["train"]["noisy"])
    fixed = run_cell(dataclasses.replace(CELL, fixed_share=0.5, fixed_by="final_loss"), TINY, base=base)
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

    cpu = torch.device("cpu")
    assert np.all(np.array(dice_of(Answer(torch.from_numpy(test.masks).float() - 0.5), test, cpu)) == 1)
    assert np.all(np.array(dice_of(Answer(-torch.ones(4, 3, 32, 32)), test, cpu)) == 0)


def test_detection_by_hand():
    result = {
        "train": {"noisy": [1, 0, 0, 1], "side": [1, 0, 0, -1], "scores": {"loss": [0.9, 0.5, 0.1, 0.4]}}
    }
    # Pairs (noisy above clean): 0.9 above both, 0.4 above one of two: 3 of 4. The worst 10 % is one case, a
    # noisy one.
    assert detection(result)["loss"] == {
        "auroc": 0.75,
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "precision_at_10_percent": 1.0,
        "auroc_dilated": 1.0,
        "auroc_eroded": 0.5,
    }


def test_the_side_of_a_label_is_by_its_area():
    masks = np.zeros((3, 1, 4, 4), bool)
    masks[:, :, 1:3, 1:3] = True
    labels = masks.copy()
    labels[0, 0, 0, 0], labels[1, 0, 1, 1] = True, False
    assert side_of(masks, labels) == [1, -1, 0]


def test_anchors_are_drawn_among_the_right_labels_and_can_be_all_there_is():
    result = run_cell(dataclasses.replace(CELL, method="qam_ocm_5_anchors", share=0.25), TINY)
    right = {
        name
        for name, wrong in zip(result["train"]["cases"], result["train"]["noisy"], strict=True)
        if not wrong
    }
    assert len(result["train"]["anchors"]) == 5 and set(result["train"]["anchors"]) <= right
    with pytest.raises(InputError, match="10 labels should be known right; only 4 are"):
        run_cell(dataclasses.replace(CELL, method="dice_ce_10_anchors_only"), TINY)


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
    monkeypatch.syspath_prepend(str(TOOLS.parents[1] / "datasets"))
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
    result = run_cell(
        dataclasses.replace(CELL, data="cxr"), dataclasses.replace(TINY, steps=2), Place(radiographs=folder)
    )
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


def test_the_grids_have_the_promised_cells_once_each_and_known_methods_on_seeds_of_their_own():
    for name, least in (("decisive", 500), ("review", 45), ("long", 25), ("radiographs", 60)):
        cells = GRIDS[name]()
        assert len({cell.key for cell in cells}) == len(cells) >= least
        assert {cell.method for cell in cells} <= set(COMPARED)
        assert {cell.seed for cell in cells} == set(SEEDS), "settings were chosen with seed 0"
    assert not set(LATER_SEEDS) & {*SEEDS, 0, 1, 2, 3, 4, 5}


SMALL_GRID = [
    dataclasses.replace(CELL, method=method, share=share)
    for method in ("dice_ce", "qam_ocm")
    for share in (0.0, 0.5)
]
SMALL_GRID.append(dataclasses.replace(CELL, method="dice_ce", fixed_share=0.5, fixed_by="final_loss"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Cells of a small grid trained in this process, as the program's own processes would."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "cells").mkdir()
    for cell in SMALL_GRID:
        run.finish_cell(cell, TINY, folder, Place())
    return folder


@pytest.fixture
def finished(trained, tmp_path, monkeypatch) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setitem(run.GRIDS, "decisive", lambda: SMALL_GRID)
    monkeypatch.setattr(run, "Budget", lambda **changes: dataclasses.replace(TINY, **changes))
    monkeypatch.syspath_prepend(str(TOOLS))
    return tmp_path


def test_finished_cells_are_not_trained_again_and_another_budget_is_refused(finished, capsys):
    assert run.main(["train", str(finished)]) == 0
    assert "5 cells, 5 finished before" in capsys.readouterr().out
    assert run.main(["train", str(finished), "--steps", "9"]) == 2
    assert "trained with another budget" in capsys.readouterr().err


def test_no_cell_is_begun_once_the_time_is_up(finished, capsys, monkeypatch):
    # A module loaded by its file has no name that another process could import.
    monkeypatch.setattr(run, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(jobs))
    (finished / "cells" / f"{SMALL_GRID[0].key}.json").unlink()
    assert run.main(["train", str(finished), "--seconds", "0"]) == 0
    assert "time is up: 1 cells were not begun" in capsys.readouterr().out


def test_a_cell_that_follows_a_missing_ranking_says_so(finished):
    (finished / "cells" / f"{dataclasses.replace(CELL, method='dice_ce').key}.json").unlink()
    with pytest.raises(InputError, match="run the whole grid first"):
        run.finish_cell(SMALL_GRID[-1], TINY, finished, Place())


def test_the_report_writes_tables_and_figures(finished):
    page = finished / "page.md"
    written = finished / "report"
    assert run.main(["report", str(finished), "-o", str(written), "--markdown", str(page)]) == 0
    with open(written / "noisy_labels.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 4
    assert {row["structure"] for row in rows} == {"Lungs", "Heart", "Clavicles", "mean"}
    with open(written / "noisy_labels_comparison.csv") as file:
        plain = next(
            row for row in csv.DictReader(file) if row["method"] == "dice_ce" and row["share"] == "0.5"
        )
    assert float(plain["minus_plain"]) == 0 and plain["seeds"] == "1"
    names = {path.name for path in written.iterdir()}
    assert {"noisy_labels_detection.csv", "noisy_labels.png", "noisy_labels_review.png"} <= names
    # Five cells of one seed: Dice + cross-entropy and QAM + OCM, without noise and with half of the labels
    # wrong by 5 to 13 pixels.
    line = next(text for text in page.read_text().splitlines() if text.startswith("| 50%, 5-13 px | 0.652"))
    filled = [bool(cell.strip()) for cell in line.split("|")[3:-1]]
    assert filled == [False, True, False, True, *[False] * 5]
    assert "**phantom: 50% of labels, 5-13 px, fixed**" in page.read_text()


def test_the_page_rounds_a_figure_once():
    """0.94948 is 0.949, though 0.9495, which the CSV file keeps, would become 0.950."""
    known, cell = {"noisy": [0, 0], "side": [0, 0], "scores": {}}, dataclasses.asdict(CELL)
    result = {"cell": cell, "test": {"cases": ["a"], "dice": [[0.94948]]}, "train": known}
    assert "| ce | 1 | 0.949 ±" in report.markdown([result])


def test_cells_of_two_devices_are_not_put_into_one_table(finished, capsys):
    path = finished / "cells" / f"{SMALL_GRID[0].key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "cuda"}))
    assert run.main(["report", str(finished), "-o", str(finished)]) == 2
    assert "cells of 2 budgets and devices, which must not be compared" in capsys.readouterr().err


def test_a_report_of_nothing_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    assert run.main(["report", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert "holds no finished cell" in capsys.readouterr().err


def test_the_difference_of_two_methods_by_hand():
    def made(seed: int, dice: dict[str, float]) -> dict:
        rows = [[value] for value in dice.values()]
        return {"cell": {"seed": seed}, "test": {"cases": list(dice), "dice": rows}}

    same = report.difference([made(1, {"a": 0.9, "b": 0.8})], [made(1, {"a": 0.7, "b": 0.6})])
    assert tuple(same) == pytest.approx((0.2, 0.2, 0.2))
    runs = [made(1, {"a": 1.0, "b": 1.0}), made(2, {"a": 0.0, "b": 0.0})]
    others = [made(seed, {"a": 0.0, "b": 0.0}) for seed in (1, 2)]
    # One of two seeds: drawing patients alone would say 0.5 to 0.5.
    assert tuple(report.difference(runs, others)) == (0.5, 0.0, 1.0)
    assert report.difference(runs, [made(3, {"a": 1.0, "b": 1.0})]) is None
