"""Labels of whole images: networks that never saw a label say how likely it is."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from audit.drawing import silent
from PIL import Image

from medseg.audit.classes import rank_classes
from medseg.audit.evidence import file_stem
from medseg.audit.fix import FixRequest, fix
from medseg.audit.run import AuditRequest, audit
from medseg.bundles.find import find_bundle
from medseg.cli.audit import lines
from medseg.errors import InputError
from medseg.phantoms.hip import make_hip

TINY = {"image_size": [64, 64], "batch_size": 4, "epochs": 1, "balance_by": [], "device": "cpu"}


@pytest.fixture(scope="module")
def hips(tmp_path_factory):
    """Eight films of four patients, two of each, with a datalist."""
    folder = tmp_path_factory.mktemp("hips")
    cases = []
    for number in range(8):
        sick = number // 2 % 2
        film = make_hip(number // 2, -4.0 if sick else 0.5, "LR"[number % 2], pixels=64).image
        Image.fromarray(np.rint(film * 65535).astype(np.uint16)).save(folder / f"{number}.png")
        case = {"image": f"{number}.png", "case_id": f"f/{number}", "patient_id": f"p{number // 2}"}
        cases.append({**case, "side": "LR"[number % 2], "label": sick, "site": "AB"[number % 2]})
    (folder / "datalist.json").write_text(json.dumps({"training": cases}))
    return folder


def test_score_and_loss_are_of_the_class_that_the_label_names(tmp_path):
    items = [
        {"case_id": "sound", "label": 0, "image": "a.png"},
        {"case_id": "wrong", "label": 1, "image": "b.png"},
    ]
    for item in items:
        content = {"fold": 1, "chances": [0.75, 0.25]}
        (tmp_path / f"{file_stem(item['case_id'])}.json").write_text(json.dumps(content))
    first, second = rank_classes(find_bundle("hip_osteoporosis"), items, tmp_path)["findings"]
    assert (first["case"], first["rank"], first["fold"], first["score"]) == ("wrong", 1, 2, 0.75)
    assert first["loss"] == pytest.approx(math.log(4)) and second["score"] == 0.25
    assert first["words"] == (
        "labelled osteoporosis, which networks that never saw it hold 25 % likely; they call it no "
        "osteoporosis"
    )
    assert "they call" not in second["words"]


def test_a_bundle_of_labels_is_audited_out_of_fold_with_both_hips_on_one_side(hips, tmp_path):
    out = tmp_path / "out"
    request = AuditRequest(
        hips, out, "hip_osteoporosis", None, hips / "datalist.json", 2, group="site", settings=TINY
    )
    content = audit(request, silent)
    assert content["labels"] == 8
    scores = [row["score"] for row in content["findings"]]
    assert scores == sorted(scores, reverse=True) and all(0 < score < 1 for score in scores)
    folds: dict[str, set] = {}
    for row in content["findings"]:
        folds.setdefault(str(int(row["case"][2:]) // 2), set()).add(row["fold"])
    assert [len(found) for found in folds.values()] == [1] * 4
    with open(out / "audit.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["group"] for row in table} == {"A", "B"} and len(table) == 8
    with open(out / "worklist.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == sum(score >= 0.5 for score in scores)
    assert str(out / "audit.csv") in lines(content, out)
    said = []
    assert audit(request, said.append)["findings"] == content["findings"]
    assert said == ["fold_1: done before", "fold_2: done before"]


def test_the_bundles_own_weights_find_the_label_that_was_changed(hips, tmp_path):
    content = json.loads((hips / "datalist.json").read_text())
    content["training"][2]["label"] = 0  # one of the sick
    (tmp_path / "list.json").write_text(json.dumps(content))
    settings = {"device": "cpu"}
    request = AuditRequest(
        hips, tmp_path / "out", "hip_osteoporosis", None, tmp_path / "list.json", 0, settings=settings
    )
    first, *others = audit(request, silent)["findings"]
    assert (first["case"], first["fold"], first["likeliest"]) == ("f/2", "", "osteoporosis")
    assert first["score"] > 0.5 > others[0]["score"]


def test_corrected_class_labels_need_no_folder_of_files(hips, tmp_path):
    request = FixRequest("hip_osteoporosis", hips, tmp_path / "out", hips, hips / "datalist.json")
    with pytest.raises(InputError, match="answers with labels, which a datalist holds; correct it there"):
        fix(request, silent)


def test_a_label_that_is_a_file_is_no_class(hips, tmp_path):
    content = json.loads((hips / "datalist.json").read_text())
    content["training"][3]["label"] = "mask.png"
    (tmp_path / "list.json").write_text(json.dumps(content))
    request = AuditRequest(hips, tmp_path / "out", "hip_osteoporosis", datalist=tmp_path / "list.json")
    with pytest.raises(InputError, match="case 3 of training has no class's number under label"):
        audit(request, silent)
