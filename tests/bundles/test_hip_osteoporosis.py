"""The hip bundle: its configs agree, and a film goes through the same door as every other case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chest_files import write_dx
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.errors import InputError
from medseg.phantoms.chest_film import make_radiograph
from medseg.phantoms.hip import make_hip

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "hip_osteoporosis"


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


@pytest.mark.parametrize("name", ["image_size", "classes", "backbone", "network_def"])
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_a_film_is_prepared_alike_in_training_and_at_the_door():
    def steps(transforms):
        return [
            t
            for t in transforms
            if t["_target_"] not in ("medseg.transforms.CheckInputd", "medseg.transforms.ToClassd")
        ]

    training = steps(config("train.json")["train"]["deterministic_transforms"])
    assert training == steps(config("inference.json")["preprocessing"]["transforms"])
    assert len(training) == 5


def test_no_patient_stands_on_two_sides_and_the_last_year_is_the_test():
    content = config("datalist.json")
    sections = {name: content[name] for name in ("training", "validation", "test")}
    patients = [{case["patient_id"] for case in cases} for cases in sections.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 300
    assert all(
        (case["image_date"] >= "2022") == (name == "test") for name in sections for case in sections[name]
    )
    assert all(cases.count for cases in sections.values())


def write_hip(path, number, t_score, side):
    pixels = np.rint(make_hip(number, t_score, side, pixels=160).image * 4095).astype(np.uint16)
    return write_dx(path, pixels, ImageLaterality=side, BodyPartExamined="HIP")


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """(cohort, folder) of three hips that no training saw."""
    folder = tmp_path_factory.mktemp("hips")
    (folder / "in").mkdir()
    for name, t_score, side in (("sick_R", -4.0, "R"), ("sick_L", -4.0, "L"), ("sound_R", 0.0, "R")):
        write_hip(folder / "in" / f"{name}.dcm", 5001, t_score, side)
    request = Request(folder / "in", "hip_osteoporosis", folder / "out", formats=("json", "preview", "sr"))
    return segment(request), folder / "out"


def test_sick_and_sound_bones_are_told_apart_with_an_interval(answered):
    cohort, out = answered
    assert [case["status"] for case in cohort["cases"]] == ["done"] * 3
    labels = {
        name: json.loads((out / name / "labels.json").read_text())["labels"]
        for name in ("sick_R", "sick_L", "sound_R")
    }
    chance = {name: said["probabilities"]["osteoporosis"] for name, said in labels.items()}
    assert chance["sick_R"] > 0.9 and chance["sick_L"] > 0.9 and chance["sound_R"] < 0.1
    low, high = labels["sick_R"]["intervals"]["osteoporosis"]
    assert 0.5 < low <= high <= 1
    assert "Not for diagnosis" in labels["sound_R"]["remark"]


def test_the_structured_report_says_what_labels_json_says(answered):
    _, out = answered
    said = json.loads((out / "sick_R" / "labels.json").read_text())["labels"]
    report = pydicom.dcmread(out / "sick_R" / "SR.dcm")
    assert report.PatientID == "7" and report.VerificationFlag == "UNVERIFIED"
    group = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER").ContentSequence[0]
    numbers = {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    low, high = said["intervals"]["osteoporosis"]
    assert numbers == pytest.approx(
        {
            **{f"Probability of {name}": chance for name, chance in said["probabilities"].items()},
            "Probability of osteoporosis, lower end": low,
            "Probability of osteoporosis, upper end": high,
        },
        abs=1e-4,
    )
    assert "Learned from phantoms" in group.ContentSequence[-1].TextValue


def test_a_picture_file_has_no_image_that_a_report_could_refer_to(tmp_path):
    hip = np.rint(make_hip(5002, -1.0, pixels=160).image * 255).astype(np.uint8)
    Image.fromarray(hip).save(tmp_path / "hip.png")
    with pytest.raises(InputError, match="format sr: it refers to DICOM images"):
        segment(Request(tmp_path / "hip.png", "hip_osteoporosis", tmp_path / "out", formats=("sr",)))


def test_the_picture_shows_film_and_map_side_by_side(answered):
    _, out = answered
    picture = np.asarray(Image.open(out / "sick_R" / "preview.png").convert("RGB")).astype(int)
    width = picture.shape[1] // 2
    film, with_map = picture[100:-200, :width], picture[100:-200, width : 2 * width]
    assert np.abs(film[..., 0] - film[..., 2]).mean() < 1  # grey
    assert np.abs(with_map[..., 0] - with_map[..., 2]).mean() > 10  # coloured


def test_a_film_that_is_no_hip_or_does_not_say_its_side_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    chest = np.rint(make_radiograph(3).image * 4095).astype(np.uint16)
    write_dx(tmp_path / "in" / "chest.dcm", chest, ImageLaterality="L")
    hip = np.rint(make_hip(5002, -1.0, pixels=160).image * 255).astype(np.uint8)
    Image.fromarray(hip).save(tmp_path / "in" / "hip.png")
    cohort = segment(Request(tmp_path / "in", "hip_osteoporosis", tmp_path / "out"))
    errors = {case["case"]: case["error"] for case in cohort["cases"]}
    assert "unlike the phantoms of hip radiographs" in errors["chest"]
    assert "nobody says which side this is" in errors["hip"]
    told = segment(
        Request(tmp_path / "in" / "hip.png", "hip_osteoporosis", tmp_path / "told", settings={"side": "R"})
    )
    assert told["cases"][0]["status"] == "done"
