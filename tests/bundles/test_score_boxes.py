"""medseg score of a bundle of boxes: what was written, beside a datalist's boxes, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medseg.bundles import score_boxes as module
from medseg.bundles.copies import with_weights
from medseg.bundles.find import find_bundle
from medseg.bundles.kinds import scorer_of
from medseg.bundles.score_box_tables import as_json, in_words
from medseg.bundles.score_boxes import read_answer, score_boxes, scores_of, thresholds_by
from medseg.bundles.score_request import ScoreRequest
from medseg.errors import InputError
from medseg.metrics.detection import rounded_down

NODULE = ("nodule",)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(module, "DRAWS", 20)


def cube(x: float, side: float = 10.0, **more) -> dict:
    """A box around (x, 0, 0)."""
    half = side / 2
    return {"class": "nodule", "low": [x - half, -half, -half], "high": [x + half, half, half], **more}


def answer(tmp_path: Path, found: list[dict], case: dict, dimensions: int = 3, classes=NODULE, merged=None):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    path.write_text(json.dumps({"boxes": {"found": found}}))
    return read_answer(path, {"case_id": path.stem, **case}, classes, merged or {}, dimensions)


def volumes(tmp_path) -> list:
    """Three CTs: one nodule found beside a false candidate, one missed, one with an ignored finding."""
    return [
        answer(
            tmp_path, [cube(4.0, score=0.9), cube(90.0, score=0.5)], {"label": [cube(0.0)], "patient_id": "a"}
        ),
        answer(tmp_path, [cube(5.5, score=0.8)], {"label": [cube(0.0)], "patient_id": "b"}),
        answer(tmp_path, [cube(31.0, score=0.7)], {"label": [], "ignored": [cube(30.0)], "patient_id": "c"}),
    ]


def test_a_middle_within_the_radius_hits_and_the_ignored_counts_neither_way(tmp_path):
    first, second, third = (one.candidates() for one in volumes(tmp_path))
    assert first.hits.tolist() == [[True], [False]] and not first.ignored.any()
    assert second.hits.tolist() == [[False]]  # 5.5 mm away, radius 5 mm
    assert third.ignored.tolist() == [True] and len(volumes(tmp_path)[2].without_ignored().boxes) == 0


def test_what_is_ignored_on_a_ct_is_a_ball_as_luna16_has_it(tmp_path):
    corner = {"class": "nodule", "low": [33.0, 3.0, 3.0], "high": [35.0, 5.0, 5.0], "score": 0.7}
    one = answer(tmp_path, [corner], {"label": [], "ignored": [cube(30.0)]})
    # In the cube of 10 mm around (30, 0, 0), but sqrt(48) = 6.9 mm from its middle.
    assert not one.candidates().ignored.any() and len(one.without_ignored().boxes) == 1


def test_figures_of_three_cts_by_hand(tmp_path):
    scored = scores_of(volumes(tmp_path), NODULE, {})
    assert (scored.images, scored.patients, scored.findings, scored.unit) == (3, 3, 2, "mm")
    # One of two found; false candidates at 0.8 and 0.5 in three images: none before the hit at 0.9.
    assert scored.figures["CPM"].value == pytest.approx(0.5)
    assert scored.figures["sensitivity at 0.125 false per image"].value == pytest.approx(0.5)
    # The found box lies 4 of 10 mm beside: IoU 6 / 14 = 0.43; the missed one 4.5 / 15.5 = 0.29.
    assert scored.figures["AP at IoU 0.40"].value == pytest.approx(0.5, abs=0.01)
    assert scored.figures["AP at IoU 0.10"].value == pytest.approx(1.0, abs=0.01)
    assert scored.figures["AP at IoU 0.50"].value == pytest.approx(0.0, abs=0.01)
    assert scored.figures["CPM, 2 findings of 10 mm and more"].value == pytest.approx(0.5)
    assert scored.cases["1"] == {"findings": 1, "found": 0, "candidates": 1, "best score": 0.8}


def test_thresholds_are_of_the_greatest_f1_and_no_rounding_loses_the_last_finding(tmp_path):
    # Scores in files are rounded to four digits: 0.70008 became 0.7001.
    hit = [cube(0.0, score=0.7001), cube(90.0, score=0.5)]
    answers = [answer(tmp_path, hit, {"label": [cube(0.0)]}), answer(tmp_path, [], {"label": []})]
    content = thresholds_by(answers, ("nodule", "mass"))
    assert content["thresholds"] == {"nodule": 0.7, "mass": 0.5}
    words = "nodule: the greatest F1 (1.000), mass: no finding on 2 validation images"
    assert content["chosen"] == words
    assert rounded_down(0.7) == 0.699 and rounded_down(0.0) == 0.0  # 0.7 may have been 0.69996


def test_words_and_numbers_say_the_same(tmp_path):
    scored = scores_of(volumes(tmp_path), NODULE, {})
    text, content = in_words(scored), json.loads(as_json(scored))
    assert "3 images of 3 patients, 2 findings. A candidate hits where its middle lies" in text
    assert "| CPM | 0.500 (" in text and "| missed in 1 of 3 images |" in text and "| 1 | 1 | 0 |" in text
    assert content["figures"]["CPM"]["value"] == 0.5
    assert content["figures"]["CPM, 0 findings of 0 to 6 mm"]["value"] is None
    assert "| CPM, 0 findings of 0 to 6 mm | none |" in text


def test_on_a_film_boxes_of_one_class_hit_by_their_overlap(tmp_path):
    def square(name, low, side, **more):
        return {"class": name, "low": [low, low], "high": [low + side, low + side], **more}

    case = {"label": [square("mass", 0, 10), square("nodule", 50, 10)]}
    found = [square("mass or nodule", 1, 10, score=0.9), square("effusion", 50, 10, score=0.8)]
    merged = {"mass": "mass or nodule", "nodule": "mass or nodule"}
    one = answer(tmp_path, found, case, 2, ("mass or nodule", "effusion"), merged)
    # 81 of 119 pixels; the second box lies exactly there but is of another class.
    assert one.candidates().hits.tolist() == [[True, False], [False, False]]
    scored = scores_of([one], ("mass or nodule", "effusion"), {})
    assert "| mass or nodule | 2 |" in in_words(scored) and "| effusion | 0 | none | none |" in in_words(
        scored
    )


@pytest.mark.parametrize(
    ("label", "words"),
    (
        ("mask.nii.gz", "no list of boxes"),
        ([{"class": "nodule", "low": [0, 0], "high": [1, 1]}], "of 3 numbers each"),
        (
            [{"class": "mass", **{k: v for k, v in cube(0.0).items() if k != "class"}}],
            "class 'mass' is unknown",
        ),
        ([{**cube(0.0), "low": [9, 9, 9]}], "low corner is not below its high one"),
        ([{**cube(0.0), "low": [float("nan"), 0, 0]}], "low corner is not below its high one"),
    ),
)
def test_a_label_that_is_no_box_is_refused_in_one_line(tmp_path, label, words):
    with pytest.raises(InputError, match=words) as caught:
        answer(tmp_path, [], {"label": label})
    assert "\n" not in str(caught.value)


def test_a_bundle_of_boxes_is_scored_from_what_it_wrote(tmp_path, monkeypatch):
    bundle = find_bundle("cxr_findings")
    assert scorer_of(bundle)[0] is score_boxes
    films = [{"image": f"{n}.png", "case_id": str(n), "patient_id": "p", "label": []} for n in range(3)]
    films[0]["label"] = [{"class": "mass", "low": [10, 10], "high": [20, 20]}]
    for film in films:
        (tmp_path / film["image"]).write_bytes(b"film")
    (tmp_path / "list.json").write_text(json.dumps({"test": films}))
    asked = {}

    def answered(used, request, cases, suffix, formats, more):
        asked.update(more, formats=formats)
        records = {}
        for case in cases[:2]:
            folder = request.output_dir / case["case_id"]
            folder.mkdir(parents=True)
            box = {"class": "mass or nodule", "score": 0.5, "low": [10, 10], "high": [20, 21]}
            (folder / "boxes.json").write_text(json.dumps({"boxes": {"found": [box]}}))
            records[case["case_id"]] = {"status": "done", "folder": str(folder)}
        return records | {"2": {"status": "failed", "error": "no film"}}

    monkeypatch.setattr(module, "answer_cases", answered)
    said = []
    request = ScoreRequest(bundle, tmp_path, tmp_path / "out", datalist=tmp_path / "list.json")
    scored = score_boxes(request, said.append)
    assert asked == {"settings": {"thresholds": 0.0}, "formats": ("json",)}
    assert said == ["2: no film"] and scored.failed == {"2": "no film"} and scored.images == 2
    assert (tmp_path / "out" / "froc.png").stat().st_size > 1000
    assert np.isnan(scored.figures["CPM"].low)  # one patient says nothing about others
    assert not (tmp_path / "out" / "thresholds.json").exists()  # the test section chooses nothing
    with pytest.raises(InputError, match="`truth` and `strata` are of other results"):
        score_boxes(ScoreRequest(bundle, tmp_path, tmp_path / "out", strata=("sex",)))


def test_weights_of_a_training_stand_in_for_those_that_a_bundle_comes_without(tmp_path):
    bundle, weights = find_bundle("cxr_findings"), tmp_path / "trained.pt"
    weights.write_bytes(b"weights")
    used = with_weights(bundle, weights, tmp_path / "copy")
    assert (used.folder / "models" / "model.pt").read_bytes() == b"weights"
