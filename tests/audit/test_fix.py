"""Corrected labels come back: the new list, the lock of the gold set, and Dice before and after, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from audit.drawing import BUNDLE, TINY, nifti, noise_with_box

from medseg.audit.fix import FixRequest, compare_gold, corrected_list, fix
from medseg.cli.main import main
from medseg.errors import InputError


@pytest.fixture
def volumes(tmp_path) -> FixRequest:
    """Six volumes with a box as label; 0 to 3 train, 4 and 5 are gold, and a corrected label of case 1 comes
    back."""
    rng, entries = np.random.default_rng(0), []
    for folder in ("data/labels", "corrected/labels", "out"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(6):
        image, label = noise_with_box(rng)
        nifti(image, tmp_path / f"data/{number}.nii.gz")
        nifti(label, tmp_path / f"data/labels/{number}.nii.gz")
        entries.append(
            {"image": f"{number}.nii.gz", "label": f"labels/{number}.nii.gz", "case_id": f"c{number}"}
        )
    nifti(np.roll(label, 1, 0), tmp_path / "corrected/labels/1.nii.gz")
    (tmp_path / "list.json").write_text(json.dumps({"training": entries[:4]}))
    (tmp_path / "gold.json").write_text(json.dumps({"gold": entries[4:]}))
    return FixRequest(
        str(BUNDLE),
        tmp_path / "data",
        tmp_path / "out",
        tmp_path / "corrected",
        tmp_path / "gold.json",
        tmp_path / "list.json",
        TINY,
    )


def test_a_corrected_label_replaces_its_case_and_a_rejected_case_is_left_out(volumes):
    items = json.loads(volumes.datalist.read_text())["training"]
    (volumes.output_dir / "worklist.csv").write_text(
        "case,structure,status\nc3,GTV,rejected\nc1,GTV,edited\n"
    )
    new, corrected, rejected = corrected_list(volumes, items)
    assert (corrected, rejected) == (["c1"], ["c3"]) and [case["case_id"] for case in new] == [
        "c0",
        "c1",
        "c2",
    ]
    assert new[1]["label"] == str(volumes.corrected / "labels/1.nii.gz") and new[0] == items[0]


def test_before_and_after_are_trained_alike_and_scored_on_cases_that_neither_saw(volumes):
    content = fix(volumes, lambda line: None)
    assert content["corrected"] == ["c1"] and content["gold_cases"] == 2
    assert {row["structure"]: row["cases"] for row in content["dice"]} == {"GTV": 2, "mean": 2}
    for name, label in (("before", "labels/1.nii.gz"), ("after", str(volumes.corrected / "labels/1.nii.gz"))):
        listed = json.loads((volumes.output_dir / "fix" / name / "datalist.json").read_text())
        assert listed["training"][1]["label"] == label and [
            case["case_id"] for case in listed["validation"]
        ] == ["c4", "c5"]
    gold = json.loads(volumes.gold.read_text())["gold"]
    volumes.gold.write_text(json.dumps({"gold": gold[:1]}))
    with pytest.raises(InputError, match="not the gold set that was locked"):
        fix(volumes, lambda line: None)


def test_what_cannot_be_compared_is_refused(volumes):
    items = json.loads(volumes.datalist.read_text())["training"]
    volumes.gold.write_text(json.dumps({"gold": items[:1]}))
    with pytest.raises(InputError, match="c0 in gold and training"):
        fix(volumes)
    (volumes.corrected / "labels/1.nii.gz").unlink()
    with pytest.raises(
        InputError, match="no label has the name of one in the datalist, such as labels/0.nii.gz"
    ):
        corrected_list(volumes, items)


def test_names_that_belong_to_no_case_are_refused_instead_of_passed_over(volumes):
    items = json.loads(volumes.datalist.read_text())["training"]
    (volumes.output_dir / "worklist.csv").write_text("case,structure,status\nC3,GTV,rejected\n")
    with pytest.raises(InputError, match="worklist.csv: no case C3 in the datalist"):
        corrected_list(volumes, items)
    (volumes.output_dir / "worklist.csv").unlink()
    (volumes.corrected / "labels/case1.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="case1.nii.gz: not the label of any case"):
        corrected_list(volumes, items)


def test_changes_are_paired_by_case():
    before = {
        "a": {"Cord": 0.5, "Larynx": 0.8},
        "b": {"Cord": 0.7},
        "c": {"Cord": float("nan"), "Larynx": 0.5},
    }
    after = {"a": {"Cord": 0.6, "Larynx": 0.8}, "b": {"Cord": 0.8}, "c": {"Cord": 0.9, "Larynx": 0.6}}
    rows = {row["structure"]: row for row in compare_gold(before, after, {case: case for case in before})}
    cord = rows["Cord"]
    assert (cord["cases"], cord["before"], cord["after"]) == (2, pytest.approx(0.6), pytest.approx(0.7))
    assert [cord[name] for name in ("change", "low", "high")] == pytest.approx([0.1, 0.1, 0.1])
    assert rows["mean"]["before"] == pytest.approx((0.65 + 0.7 + 0.5) / 3)


def test_two_gold_cases_of_one_patient_are_drawn_together_and_one_patient_has_no_interval():
    before = {name: {"Cord": 0.5} for name in "abcd"}
    after = {"a": {"Cord": 0.7}, "b": {"Cord": 0.3}, "c": {"Cord": 0.7}, "d": {"Cord": 0.3}}
    (cord, _) = compare_gold(before, after, {"a": "p", "b": "p", "c": "q", "d": "q"})
    assert [cord[name] for name in ("change", "low", "high")] == pytest.approx([0, 0, 0])
    (cord, _) = compare_gold(before, after, {name: name for name in "abcd"})
    assert cord["low"] == pytest.approx(-0.2) and cord["high"] == pytest.approx(0.2)
    (cord, _) = compare_gold(before, after, dict.fromkeys("abcd", "p"))
    assert np.isnan(cord["low"]) and np.isnan(cord["high"])


def test_the_command_needs_both_folder_and_gold(capsys, tmp_path):
    assert (
        main(
            ["audit", "mm_gtv", "--data", str(tmp_path), "-o", str(tmp_path / "out"), "--fix", str(tmp_path)]
        )
        == 2
    )
    assert capsys.readouterr().err.startswith("error: --fix DIR needs BUNDLE and --gold FILE")
