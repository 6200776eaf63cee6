"""Boxes that detectors do not agree with: each kind of error by hand, and a bundle from its datalist to the
worklist."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from audit.drawing import silent
from PIL import Image

from medseg.audit.box_suspicions import suspicions_of
from medseg.audit.boxes import in_case, rank_boxes
from medseg.audit.evidence import file_stem
from medseg.audit.run import AuditRequest, audit
from medseg.bundles.find import find_bundle
from medseg.cli.audit import lines
from medseg.errors import InputError
from medseg.metrics.detection import ImageBoxes
from medseg.transforms.detections import to_grid

CLASSES = ("nodule", "mass")
BOX = (10.0, 10.0, 20.0, 20.0)


def image(found=(), label=((*BOX, 0),)) -> ImageBoxes:
    """``found``: rows of corners, score and class; ``label``: rows of corners and class."""
    found, label = np.array(found, float).reshape(-1, 6), np.array(label, float).reshape(-1, 5)
    return ImageBoxes(
        found[:, :4], found[:, 4], found[:, 5].astype(int), label[:, :4], label[:, 4].astype(int)
    )


def first(found, **label):
    one = suspicions_of(image(found, **label), CLASSES)[0]
    return one.kind, round(one.score, 3)


def test_a_box_that_the_detector_sees_is_hardly_suspected():
    assert first([(*BOX, 0.9, 0)]) == ("not seen", 0.05)


def test_a_box_beside_a_detection_is_shifted_and_the_detection_is_not_missing_too():
    beside = (10.0, 22.0, 20.0, 32.0)
    (one,) = suspicions_of(image([(*beside, 0.8, 0)]), CLASSES)
    assert (one.kind, one.score, one.number) == ("shifted", 0.8, 0)
    assert one.instead.tolist() == list(beside)


def test_a_detection_far_from_every_box_is_a_missing_one():
    far = (80.0, 80.0, 90.0, 90.0)
    found = suspicions_of(image([(*far, 0.7, 1), (*BOX, 0.9, 0)]), CLASSES)
    assert [(one.kind, one.name, round(one.score, 2)) for one in found] == [
        ("missing", "mass", 0.7),
        ("not seen", "nodule", 0.05),
    ]
    assert first([(*far, 0.7, 1)], label=()) == ("missing", 0.7)


def test_a_box_of_another_class_is_told_by_the_scores_of_both_classes():
    one = suspicions_of(image([(*BOX, 0.8, 1), (*BOX, 0.3, 0)]), CLASSES)[0]
    assert (one.kind, one.instead) == ("wrong class", "mass") and one.score == pytest.approx(0.8 * 0.7)


def test_a_box_where_nothing_is_found_is_not_seen_and_no_box_at_all_is_no_suspicion():
    assert first([]) == ("not seen", 0.5)
    assert suspicions_of(image([], label=()), CLASSES) == []


def test_a_detection_of_the_next_label_is_not_taken_for_a_shift():
    other = (10.0, 24.0, 20.0, 34.0)
    found = suspicions_of(image([(*other, 0.9, 0)], label=((*BOX, 0), (*other, 0))), CLASSES)
    assert [(one.kind, one.number) for one in found] == [("not seen", 0), ("not seen", 1)]


def test_a_volume_s_boxes_are_judged_alike():
    cube, away = (0.0,) * 3 + (10.0,) * 3, (0.0, 0.0, 12.0, 10.0, 10.0, 22.0)
    seen = ImageBoxes(np.array([away]), np.array([0.8]), np.zeros(1, int), np.array([cube]), np.zeros(1, int))
    assert suspicions_of(seen, CLASSES)[0].kind == "shifted"


def test_a_box_of_the_grid_lies_in_the_case_as_the_transforms_say():
    affine = np.eye(4)
    affine[0, 0], affine[1, 1], affine[:2, 3] = 2.0, 4.0, (0.5, 1.5)
    flat = affine[np.ix_([0, 1, 3], [0, 1, 3])]
    expected = to_grid(np.array([BOX]), flat, np.eye(3))[0]
    low, high = in_case(np.array(BOX), affine)
    assert [*low, *high] == expected.tolist() == [20.0, 40.0, 40.0, 80.0]
    # RAS mm of a volume: voxels of 2 mm from the middle of the first at 0; LPS turns x and y round.
    low, high = in_case(np.array([0.0, 1.0, 2.0, 1.0, 2.0, 3.0]), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert (low, high) == ([-1.0, -3.0, 3.0], [1.0, -1.0, 5.0])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four films with a bright square each, labelled, and one without."""
    folder = tmp_path_factory.mktemp("films")
    cases = []
    for number in range(5):
        pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
        pixels[20:36, 10 + 8 * number : 22 + 8 * number] = 220
        Image.fromarray(pixels).save(folder / f"{number}.png")
        box = {"class": "mass", "low": [20, 10 + 8 * number], "high": [36, 22 + 8 * number]}
        case = {"image": f"{number}.png", "case_id": f"f/{number}", "patient_id": f"p{number}"}
        cases.append({**case, "label": [box] if number < 4 else []})
    (folder / "datalist.json").write_text(json.dumps({"training": cases}))
    return folder


def test_boxes_are_ranked_with_the_datalist_s_own_corners(tmp_path):
    label = [{"class": "mass", "low": [40, 40], "high": [80, 80]}]
    items = [
        {"case_id": "a", "label": label, "image": "a.png"},
        {"case_id": "b", "label": [], "image": "b.png"},
    ]
    affine = np.diag([4.0, 4.0, 1.0, 1.0]).tolist()
    near = [10.0, 22.0, 20.0, 32.0, 0.9, 0.0]
    said = {"fold": 0, "found": [near], "label": [[*BOX, 0.0]], "affine": affine}
    (tmp_path / f"{file_stem('a')}.json").write_text(json.dumps(said))
    said = {"fold": 1, "found": [[*BOX, 0.6, 0.0]], "label": [], "affine": affine}
    (tmp_path / f"{file_stem('b')}.json").write_text(json.dumps(said))
    content = rank_boxes(find_bundle("cxr_findings"), items, tmp_path)
    first, second = content["findings"]
    assert (content["cases"], content["labels"]) == (2, 1)
    assert (first["rank"], first["case"], first["structure"]) == (1, "a", "mass or nodule 1")
    assert (first["low"], first["high"], first["fold"]) == ([40, 40], [80, 80], 1)
    # 15 and 27 of the grid: 4 x (15 - 0.5) + 0.5 and 4 x (27 - 0.5) + 0.5.
    assert "they find one at 58, 106 (90 %)" in first["words"]
    assert second["structure"] == "mass or nodule, unlabelled 1" and second["reason"] == "missing"
    assert (second["low"], second["high"]) == ([38.5, 38.5], [78.5, 78.5])


TINY = {
    "image_size": [64, 64],
    "anchor_sides": [8, 16, 32, 64, 128],
    "proposals": 20,
    "epochs": 1,
    "cache_rate": 0.0,
    "device": "$torch.device('cpu')",
}


def test_a_bundle_of_boxes_is_audited_out_of_fold(films, tmp_path):
    out = tmp_path / "out"
    request = AuditRequest(films, out, "cxr_findings", None, films / "datalist.json", 2, settings=TINY)
    content = audit(request, silent)
    assert (content["cases"], content["labels"]) == (5, 4)
    labelled = [row for row in content["findings"] if row["reason"] != "missing"]
    assert sorted(row["case"] for row in labelled) == [f"f/{n}" for n in range(4)]
    assert {row["fold"] for row in labelled} == {1, 2}
    scores = [row["score"] for row in content["findings"]]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    with open(out / "audit.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(scores)
    assert (out / "worklist.csv").exists() and str(out / "audit.csv") in lines(content, out)
    said = []
    assert audit(request, said.append)["findings"] == content["findings"]
    assert said == ["fold_1: done before", "fold_2: done before"]


def test_a_label_that_is_no_list_of_boxes_is_refused(films, tmp_path):
    content = json.loads((films / "datalist.json").read_text())
    content["training"][1]["label"] = "mask.png"
    (tmp_path / "list.json").write_text(json.dumps(content))
    request = AuditRequest(films, tmp_path / "out", "cxr_findings", datalist=tmp_path / "list.json")
    with pytest.raises(InputError, match="case 1 of training has no list of boxes under label"):
        audit(request, silent)
