"""Labels scored through the door a user takes, and a network that reads the machine found out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medseg.bundles import score_label_tables as tables
from medseg.bundles.find import find_bundle
from medseg.bundles.score_labels import Answers, score_labels, scores_of
from medseg.bundles.score_request import ScoreRequest
from medseg.cli.main import main
from medseg.errors import InputError
from medseg.phantoms.hip import make_hip


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("medseg.bundles.score_labels.DRAWS", 100)


def answers(chance, truth, **fields):
    """Answers of two classes, a patient per image."""
    chance = np.asarray(chance, float)
    rows = tuple(dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True))
    patients = tuple(f"p{n}" for n in range(len(chance)))
    return Answers(("sound", "sick"), np.stack([1 - chance, chance], 1), np.asarray(truth), patients, rows)


def test_figures_by_hand():
    # Of 2 sick films one is found, of 2 sound ones none is called; 3 of 4 pairs are in order.
    scored = scores_of(answers([0.9, 0.2, 0.3, 0.1], [1, 1, 0, 0]), (), {})
    assert scored.per_class["sick"] == (1.0, 0.5, pytest.approx(2 / 3), 2)
    assert scored.per_class["sound"] == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8), 2)
    figures = scored.figures["sick"]
    assert figures["AUROC"].value == 0.75
    assert figures["sensitivity at specificity 0.9"].value == 0.5
    assert figures["Brier score"].value == pytest.approx((0.01 + 0.64 + 0.09 + 0.01) / 4)
    assert figures["net benefit at 0.3"].value == pytest.approx((1 - 1 * 3 / 7) / 4)
    assert figures["net benefit at 0.3, acting on everybody"].value == pytest.approx((2 - 2 * 3 / 7) / 4)
    assert "| sick | 1.000 | 0.500 | 0.667 | 2 |" in tables.in_words(scored)
    assert "| accuracy | | | 0.750 | 4 |" in tables.in_words(scored)


def machines(follows: bool):
    """200 films, sick ones mostly of machine A; the answer is the machine, or the bone."""
    draw = np.random.default_rng(1)
    truth = draw.integers(0, 2, 200)
    machine = np.where(draw.random(200) < 0.9, truth, 1 - truth)
    seen = machine if follows else truth
    chance = np.clip(0.3 + 0.4 * seen + draw.normal(0, 0.1, 200), 0, 1)
    return answers(chance, truth, device=np.where(machine, "A", "B"))


def test_a_network_that_reads_the_machine_is_found_out_by_the_score_per_machine():
    scored = scores_of(machines(follows=True), ("device",), {})
    found = scored.strata["device"]
    assert scored.figures["sick"]["AUROC"].value > 0.85  # all together it looks good
    assert abs(found["within"].value - 0.5) < 0.15  # and on films of one machine it knows nothing
    assert found["reads"].value > 0.95 and found["reads"].low > 0.5
    assert "**it follows device" in tables.in_words(scored)


def test_a_network_that_reads_the_bone_is_not_accused():
    scored = scores_of(machines(follows=False), ("device",), {})
    found = scored.strata["device"]
    assert found["within"].value > 0.95 and found["reads"].low < 0.5 < found["reads"].high
    assert "no sign that it follows it" in tables.in_words(scored)
    assert sum(found["n"].values()) == 200


def test_of_three_classes_each_is_ranked_against_the_others():
    chances = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    some = Answers(
        ("normal", "low", "sick"), chances, np.array([0, 1, 2, 1]), ("a", "b", "c", "d"), ({},) * 4
    )
    scored = scores_of(some, (), {})
    assert set(scored.figures) == {"normal", "low", "sick"}
    assert scored.per_class["low"] == (1.0, 0.5, pytest.approx(2 / 3), 2)
    assert json.loads(tables.as_json(scored))["figures"]["sick"]["AUROC"]["value"] == 1.0


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """(folder, datalist) of both hips of three patients as PNG, which do not say their side."""
    folder = tmp_path_factory.mktemp("films")
    cases = []
    for number, t_score in ((7001, -4.0), (7002, 0.0), (7003, -3.8)):
        for side in "LR":
            pixels = np.rint(make_hip(number, t_score, side, pixels=160).image * 65535).astype(np.uint16)
            Image.fromarray(pixels).save(folder / f"{number}{side}.png")
            case = {"image": f"{number}{side}.png", "case_id": f"films/{number}{side}"}
            case |= {"patient_id": str(number), "side": side, "label": int(t_score <= -2.5), "sex": "F"}
            cases.append(case)
    (folder / "list.json").write_text(json.dumps({"test": cases}))
    return folder


def test_films_go_through_the_door_with_the_side_that_the_datalist_says(films, tmp_path, capsys):
    arguments = ["score", "hip_osteoporosis", "--data", str(films), "--datalist", str(films / "list.json")]
    assert main([*arguments, "-o", str(tmp_path / "out"), "--by", "side", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["images"] == 6 and said["patients"] == 3
    assert said["figures"]["osteoporosis"]["AUROC"]["value"] == 1.0
    assert said["strata"]["side"]["n"] == {"L": 3, "R": 3}
    for name in ("osteoporosis_reliability.png", "osteoporosis_decision.png"):
        assert np.asarray(Image.open(tmp_path / "out" / name).convert("L")).std() > 10
    assert (tmp_path / "out" / "scores.md").read_text().startswith("6 images of 3 patients.")
    answered = (tmp_path / "out" / "films_7001L" / "labels.json").stat().st_mtime_ns
    assert main([*arguments, "-o", str(tmp_path / "out"), "--by", "side", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said  # the same folder again: nothing is answered twice
    assert (tmp_path / "out" / "films_7001L" / "labels.json").stat().st_mtime_ns == answered
    assert not (tmp_path / "out" / ".images").exists()


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"strata": ("device",)}, "has no 'device', which `strata` names"),
        ({}, {"truth": {"GTV": "x"}}, "`truth` names ROIs"),
        ({"case_id": "films_7001R"}, {}, "would both name the folder 'films_7001R'"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_answered(
    films, tmp_path, change, options, words
):
    cases = json.loads((films / "list.json").read_text())["test"]
    cases[0] |= change
    (tmp_path / "list.json").write_text(json.dumps({"test": cases}))
    request = ScoreRequest(
        "hip_osteoporosis", films, tmp_path / "out", datalist=tmp_path / "list.json", **options
    )
    with pytest.raises(InputError, match=words):
        score_labels(request)
    assert not (tmp_path / "out").exists()


def test_other_weights_are_scored_without_the_calibration_of_the_bundles_own(films, tmp_path):
    own = find_bundle("hip_osteoporosis").folder / "models" / "model.pt"
    lists = films / "list.json"
    for name, weights in (("own", None), ("other", own)):
        score_labels(
            ScoreRequest("hip_osteoporosis", films, tmp_path / name, datalist=lists, weights=weights)
        )
    said = {
        name: json.loads((tmp_path / name / "films_7001L" / "labels.json").read_text())["labels"]
        for name in ("own", "other")
    }
    assert said["own"]["intervals"] and "intervals" not in said["other"]
    assert said["own"]["probabilities"] != said["other"]["probabilities"]
