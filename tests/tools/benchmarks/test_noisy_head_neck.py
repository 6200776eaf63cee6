"""Blunders on contours in 3D, on tiny volumes: what is drawn, what is shown, and one run of each method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.errors import InputError

TOOLS = Path(__file__).resolve().parents[3] / "tools" / "benchmarks" / "noisy_labels"
SHAPE = (32, 32, 32)


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(TOOLS))
    import head_neck
    import head_neck_cases

    yield head_neck, head_neck_cases
    sys.path.remove(str(TOOLS))


@pytest.fixture
def cases(tmp_path) -> Path:
    """Six training and two test patients of eight boxes; the larynx (5) of the first was not contoured."""
    rng, kept = np.random.default_rng(0), {"spacing_mm": np.float64(4.0)}
    for number in range(8):
        field = np.zeros(SHAPE, np.uint8)
        for channel in range(8):
            low = 2 + 3 * channel
            field[8:24, 8 + (channel > 3) * 8 : 16 + (channel > 3) * 8, low : low + 5] |= 1 << channel
        present = np.ones(8, bool)
        present[5] = number > 0
        name = f"{'training' if number < 6 else 'test'}/pt_{number}"
        kept[f"{name}/image"] = rng.integers(0, 255, SHAPE, np.uint8)
        kept[f"{name}/field"], kept[f"{name}/present"] = field, present
    np.savez(tmp_path / "cases.npz", **kept)
    return tmp_path / "cases.npz"


def test_volumes_are_cut_about_the_middle_and_at_the_feet(tools):
    volume = np.zeros((70, 60, 100), np.uint8)
    volume[3:67, :, 4:] = 7
    shape = tools[1].SHAPES[4.0]
    fitted = tools[1].fitted(volume, shape)
    assert fitted.shape == shape == (64, 64, 96)
    assert (fitted[:, 2:62] == 7).all() and not fitted[:, :2].any() and not fitted[:, 62:].any()
    assert tools[1].fitted(volume[:, :, :50], shape)[:, :, :46].sum() == 0, (
        "short volumes are padded at the feet"
    )


def test_wrong_patients_have_a_blunder_in_every_contour_and_the_share_is_exact(tools, cases):
    given = tools[1].load(cases, "training")
    labels, noisy = tools[1].corrupted(given, 0.5, seed=1)
    assert sum(noisy) == 3
    for case, label, wrong in zip(given, labels, noisy, strict=True):
        changed = [bool((before != after).any()) for before, after in zip(case.masks, label, strict=True)]
        assert any(changed) if wrong else not any(changed)
        steps = tools[1].draw(case, 1).parameters["steps"]
        touched = {step["channel"] for step in steps}
        if steps[-1]["kind"] == "swap":
            touched |= {steps[-1]["parameters"]["other"]}
        assert touched == set(np.flatnonzero(case.present))
    again, _ = tools[1].corrupted(given, 0.5, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(labels, again, strict=True))


def test_what_was_not_contoured_is_shown_as_unknown_and_mirrored_parotids_change_names(tools, cases):
    given = tools[1].load(cases, "training")
    volumes = tools[1].Volumes(given, [case.masks for case in given], [0] * 6, torch.device("cpu"))
    torch.manual_seed(0)
    sample = volumes[0]
    assert sample["label"][5].isnan().all() and not sample["label"][[0, 1, 2, 3, 4, 6, 7]].isnan().any()
    assert set(sample["label"].nan_to_num().unique().tolist()) == {0.0, 1.0}
    assert sample["image"].shape == (1, *SHAPE)


@pytest.mark.parametrize("method", ["dice_ce", "qam_ocm"])
def test_a_run_trains_scores_and_ranks(tools, cases, method):
    budget = tools[0].Budget(steps=9, channels=(4, 4, 8, 8, 8))
    result = tools[0].run(cases, 0.5, method, 11, budget, "cpu")
    assert np.array(result["test"]["dice"]).shape == (2, 8)
    assert len(result["train"]["scores"]["final_loss"]) == 6
    assert result["train"]["scores"]["final_loss"][0][5] is None
    assert ("quality" in result["train"]["scores"]) == (method == "qam_ocm")
    json.dumps(result)


def test_only_contours_that_an_audit_judged_and_did_not_suspect_count(tools):
    import head_neck_report

    found = [{"test": {"cases": ["a", "b"], "dice": [[0.5, 0.6], [0.7, None]]}}]
    rows = [("a", "x", 0.1, "shifted"), ("a", "y", 0.7, "shifted"), ("b", "x", 0.0, "not judged")]
    findings = [dict(zip(("case", "structure", "score", "reason"), row, strict=True)) for row in rows]
    said = head_neck_report.keep_unsuspected(found, findings, ("x", "y"))
    assert found[0]["test"]["dice"] == [[0.5, None], [None, None]] and said.startswith("1 of 3 test contours")
    with pytest.raises(InputError, match="judged no contour"):
        head_neck_report.keep_unsuspected(found, [], ("x", "y"))


def test_what_is_won_back_is_counted_over_the_seeds_that_all_have(tools):
    import head_neck_report

    runs = {
        (share, method, seed): {
            "run": {"share": share, "method": method, "seed": seed},
            "device": "cpu",
            "minutes": 1.0,
            "test": {"cases": ["a"], "dice": [[value] * 8]},
            "train": {"noisy": [0], "scores": {}},
        }
        for share, method, seed, value in (
            (0.0, "dice_ce", 1, 0.8),
            (0.5, "dice_ce", 1, 0.6),
            (0.5, "qam_ocm", 1, 0.7),
            (0.5, "dice_ce", 2, 0.1),
            (0.5, "qam_ocm", 2, 0.9),
        )
    }
    (row,) = [
        line for line in head_neck_report.markdown(list(runs.values())).splitlines() if "qam_ocm" in line
    ]
    assert "| 2 | 0.800 | +0.450" in row and "| 50% |" in row.split("+0.450")[1]
