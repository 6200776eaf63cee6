"""tools/benchmarks/audit/evaluate.py: what it plants, what it calls right, and what its reviewer puts back,
by hand."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.audit.pairs import Reason
from medseg.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
STRUCTURES = {"Brainstem": [0], "SpinalCord": [1]}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "benchmarks" / "audit"))
    import evaluate

    yield evaluate
    for name in ("evaluate", "label_blunders"):
        sys.modules.pop(name, None)


@pytest.fixture
def blunders(tool):
    import label_blunders

    return label_blunders


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Ten cases of two blocks as bit fields, voxels of 3 mm, axes towards left, posterior and superior."""
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text("{}")
    (configs / "train.json").write_text(json.dumps({"bits": STRUCTURES}))
    cases = [
        {"case_id": f"c{n}", "image": f"c{n}/ct.nii.gz", "label": f"c{n}/label.nii.gz"} for n in range(10)
    ]
    cases = [{**case, "present": list(STRUCTURES)} for case in cases]
    (configs / "datalist.json").write_text(json.dumps({"training": cases, "validation": []}))
    for case in cases:
        path = tmp_path / "data" / case["label"]
        path.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(truth(), np.diag([-3.0, -3.0, 3.0, 1.0])), path)
    return tmp_path / "bundle"


def truth() -> np.ndarray:
    field = np.zeros((30, 30, 30), np.uint16)
    field[4:12, 10:20, 8:22] |= 1
    field[18:26, 10:20, 8:22] |= 2
    return field


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def corrupted(tool, bundle: Path, work: Path) -> list[dict]:
    assert tool.main(["corrupt", str(bundle.parent / "data"), str(bundle), str(work), "--share", "0.3"]) == 0
    return tool.read_key(work / "key.jsonl")


def test_a_share_of_the_labels_is_corrupted_as_the_key_says_and_no_other(tool, bundle, tmp_path):
    key = corrupted(tool, bundle, tmp_path / "work")
    assert len(key) == 6  # 0.3 of 10 cases of 2 structures
    datalist = json.loads((tmp_path / "work/datalist.json").read_text())["training"]
    touched = {line["case"] for line in key}
    assert {case["case_id"] for case in datalist if Path(case["label"]).is_absolute()} == touched
    for line in key:
        field = voxels(tmp_path / f"work/labels/{line['case']}.nii.gz")
        bit = 1 << STRUCTURES[line["structure"]][0]
        before, after = (truth() & bit) > 0, (field & bit) > 0
        dice = 2 * (before & after).sum() / (before.sum() + after.sum())
        assert dice < 0.85 and dice == pytest.approx(line["dice"])
        if sum(one["case"] == line["case"] for one in key) == 1:
            assert np.array_equal(field & (3 - bit), truth() & (3 - bit)), (
                "the other structure of the case is as it was"
            )


def test_the_reviewer_puts_back_what_stands_among_the_worst_and_nothing_else(tool, bundle, tmp_path):
    work = tmp_path / "work"
    key = corrupted(tool, bundle, work)
    innocent = next(f"c{n}" for n in range(10) if f"c{n}" not in {line["case"] for line in key})
    order = [key[0], {"case": innocent, "structure": "Brainstem"}, *key[1:]]
    (work / "audit").mkdir()
    findings = [{"case": one["case"], "structure": one["structure"]} for one in order]
    (work / "audit/audit.json").write_text(json.dumps({"findings": findings}))
    assert tool.correct(bundle.parent / "data", str(bundle), work, worst=2) == (1, 6)
    assert [path.name for path in (work / "corrected").iterdir()] == [f"{key[0]['case']}.nii.gz"]
    assert tool.correct(bundle.parent / "data", str(bundle), work, worst=len(order)) == (6, 6)
    for case in {line["case"] for line in key}:
        assert np.array_equal(voxels(work / f"corrected/{case}.nii.gz"), truth())


@pytest.mark.parametrize(
    ("planted", "said", "right"),
    [
        ({"kind": "shift", "vector": [9, 0, 0]}, Reason("shifted", "", 9.0, (9.0, 0.0, 0.0)), True),
        (
            {"kind": "shift", "vector": [9, 0, 0]},
            Reason("shifted", "", 15.0, (15.0, 0.0, 0.0)),
            True,
        ),  # 6 mm off
        ({"kind": "shift", "vector": [9, 0, 0]}, Reason("shifted", "", 15.1, (15.1, 0.0, 0.0)), False),
        (
            {"kind": "shift", "vector": [9, 0, 0]},
            Reason("shifted", "", 9.0, (-9.0, 0.0, 0.0)),
            False,
        ),  # the other way
        ({"kind": "shift", "vector": [9, 0, 0]}, Reason("expanded", "", 9.0), False),
        (
            {"kind": "cropped", "end": "caudal"},
            Reason("cropped", "cropped at its caudal end: ends 9 mm early"),
            True,
        ),
        (
            {"kind": "cropped", "end": "caudal"},
            Reason("cropped", "cropped at its cranial end: ends 9 mm early"),
            False,
        ),
        (
            {"kind": "wrong_organ", "other": "SpinalCord"},
            Reason("wrong structure", "looks like SpinalCord"),
            True,
        ),
        (
            {"kind": "wrong_organ", "other": "SpinalCord"},
            Reason("wrong structure", "looks like Larynx"),
            False,
        ),
        ({"kind": "dilate"}, Reason("expanded", ""), True),
        ({"kind": "dilate"}, Reason("contracted", ""), False),
        (
            {"kind": "erode"},
            Reason("empty label", ""),
            True,
        ),  # the grid of the network lost what was left of it
        ({"kind": "gap"}, Reason("slices dropped", ""), True),
    ],
)
def test_what_counts_as_the_right_reason(tool, planted, said, right):
    assert bool(tool.is_right(planted, said)) == right


def test_a_shift_is_kept_in_the_directions_of_the_patient(blunders):
    """Arrays of the data run to the left, to posterior and to superior here, reasons to cranial, posterior
    and left."""
    record = {"record": {"corruption": {"parameters": {"offset": [1.0, 2.0, 3.0]}}}}
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])  # RAS: the first axis runs to the left, the second to posterior
    assert blunders.truth_of(record, [], affine)["vector"] == pytest.approx([3.0, 2.0, 1.0])


def test_the_ranking_by_hand(tool):
    wrong, suspicion = np.array([True, False, True, False, False]), np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    # Of 2 x 3 pairs one is the wrong way round; the wrong labels stand 1st and 3rd: (1 / 1 + 2 / 3) / 2.
    assert tool.measure_ranking(wrong, suspicion) == {
        "auroc": round(5 / 6, 3),
        "ap": round(5 / 6, 3),
        "precision_at_half": 1.0,
        "precision_at_all": 0.5,
    }
    assert math.isclose(tool.measure_ranking(wrong, -suspicion)["auroc"], round(1 / 6, 3))


def test_a_structure_that_no_blunder_changes_is_named(blunders):
    with pytest.raises(
        InputError, match=r"case 7: no corruption leaves structure 0 neither empty nor nearly as it was"
    ):
        blunders.first_that_works(
            "case 7", [], np.ones((1, 4, 4, 4), bool), 0, np.random.default_rng(0), ((1, 1, 1), 2)
        )


def test_a_missing_audit_ends_in_one_line(tool, tmp_path, capsys):
    assert (
        tool.main(["score", str(tmp_path), str(tmp_path / "key.jsonl"), "-o", str(tmp_path / "scores.json")])
        == 2
    )
    assert capsys.readouterr().err.startswith("error:") and not (tmp_path / "scores.json").exists()
