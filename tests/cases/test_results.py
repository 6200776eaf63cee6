"""The three kinds of result: what they refuse, and what they say of themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.cases.radiograph import Radiograph
from medseg.cases.results import Boxes, Labels, Structures, binary
from medseg.cases.volume import Case
from medseg.errors import InputError, StructureError
from medseg.phantoms.series import stack_geometry
from medseg.structures.structure import Structure


def volume_case(shape=(4, 10, 10)):
    geometry = stack_geometry(shape, gaps_mm=5.0, pixel_spacing_mm=(2.0, 1.0))
    return Case("made by hand", np.zeros(shape, np.float32), geometry, None)


def radiograph_case():
    return Radiograph("film.png", np.zeros((4, 6), np.float32), "as stored")


def test_structures_of_a_volume_are_recorded_with_cc_and_those_of_a_picture_with_pixels():
    mask = np.zeros((4, 10, 10), bool)
    mask[1:3, :5, :4] = True  # 40 voxels of 5 x 2 x 1 mm: 0.4 cc
    record = Structures(volume_case(), {Structure("GTV"): mask, Structure("CTV"): ~mask & mask}).record()
    assert [(row["name"], row["volume_cc"], row["empty"]) for row in record["structures"]] == [
        ("GTV", 0.4, False),
        ("CTV", 0.0, True),
    ]
    assert record["summary"] == "GTV 0.4 cc, CTV empty"
    assert record["geometry"]["pixel_spacing_mm"] == [2.0, 1.0] and record["input"]["kind"] == "NIfTI"
    flat = Structures(radiograph_case(), {Structure("Lung_R"): np.ones((4, 6), bool)}).record()
    assert flat["structures"][0]["area_pixels"] == 24 and flat["structures"][0]["area_cm2"] is None
    assert flat["summary"] == "Lung_R 24 pixels"


def test_a_probability_counts_from_one_half_on():
    assert binary(np.array([0.49, 0.5, 0.51])).tolist() == [False, True, True]
    assert binary(np.array([True, False])).tolist() == [True, False]


def test_a_mask_of_another_shape_is_refused_with_both_shapes():
    with pytest.raises(StructureError, match=r"GTV: array \(3, 10, 10\) for an image of \(4, 10, 10\)"):
        Structures(volume_case(), {Structure("GTV"): np.zeros((3, 10, 10), bool)})


def test_boxes_are_recorded_best_first_with_their_unit():
    corners = [[[0, 0, 0], [5, 6, 7]], [[-3, -2, -1], [1, 1, 1]]]
    record = Boxes(volume_case(), np.array(corners), np.array([0.25, 0.75]), ("nodule", "nodule")).record()
    assert record["boxes"]["unit"] == "LPS mm" and record["summary"] == "2 boxes, the best nodule 0.75"
    assert record["boxes"]["found"][0] == {
        "class": "nodule",
        "score": 0.75,
        "low": [-3.0, -2.0, -1.0],
        "high": [1.0, 1.0, 1.0],
    }
    flat = Boxes(radiograph_case(), np.array([[[0, 1], [2, 5]]]), np.array([1.0]), ("mass",)).record()
    assert flat["boxes"]["unit"] == "pixels (row, column)" and flat["summary"] == "1 box, the best mass 1.00"


def test_no_box_is_an_answer():
    record = Boxes(volume_case(), np.zeros((0, 2, 3)), np.zeros(0), ()).record()
    assert record["boxes"]["found"] == [] and record["summary"] == "0 boxes"
    json.dumps(record, allow_nan=False)


@pytest.mark.parametrize(
    ("corners", "scores", "classes", "words"),
    [
        ([[[0, 0, 0], [1, 1, 1]]], [0.5, 0.5], ("a",), "1 boxes, 2 scores and 1 classes"),
        ([[[0, 0, 2], [1, 1, 1]]], [0.5], ("a",), "low corner comes first"),
        ([[[0, 0, 0], [0, 1, 1]]], [0.5], ("a",), "no extent"),
        ([[[0, 0, np.nan], [1, 1, 1]]], [0.5], ("a",), "not finite"),
        ([[[0, 0, 0], [1, 1, 1]]], [1.5], ("a",), "scores from 1.5 to 1.5; expected 0 to 1"),
    ],
)
def test_boxes_that_cannot_be_are_refused(corners, scores, classes, words):
    with pytest.raises(InputError, match=words):
        Boxes(volume_case(), np.array(corners, dtype=float), np.array(scores), classes)


def test_a_box_may_carry_a_mask_of_the_image_s_size_and_no_other():
    box, score = np.array([[[0.0, 0, 0], [1, 1, 1]]]), np.array([0.5])
    assert Boxes(volume_case(), box, score, ("a",), (np.ones((4, 10, 10), bool),)).mask(0).all()
    with pytest.raises(InputError, match="masks of boxes"):
        Boxes(volume_case(), box, score, ("a",), (np.ones((4, 10, 9), bool),))


def test_labels_say_probabilities_and_numbers_with_units():
    labels = Labels(radiograph_case(), {"osteoporosis": 0.62}, {"T-score": (-2.1, "SD")})
    record = labels.record()
    assert record["labels"] == {
        "probabilities": {"osteoporosis": 0.62},
        "values": {"T-score": {"value": -2.1, "unit": "SD"}},
    }
    assert record["summary"] == "osteoporosis 0.62, T-score -2.1 SD"


def test_a_number_without_a_unit_is_said_without_one_and_both_kinds_have_intervals():
    intervals = {"osteoporosis": (0.5, 0.7), "T-score": (-2.6, -1.6)}
    labels = Labels(radiograph_case(), {"osteoporosis": 0.62}, {"T-score": (-2.1, "1")}, intervals)
    assert labels.record()["labels"]["intervals"] == {"osteoporosis": [0.5, 0.7], "T-score": [-2.6, -1.6]}
    assert labels.record()["summary"] == "osteoporosis 0.62, T-score -2.1"
    for wrong in ({"osteoporosis": (0.5, 1.2)}, {"T-score": (-1.0, -2.0)}, {"BMD": (0.1, 0.2)}):
        with pytest.raises(InputError, match="interval of"):
            Labels(radiograph_case(), {"osteoporosis": 0.62}, {"T-score": (-2.1, "1")}, wrong)


@pytest.mark.parametrize(
    ("probabilities", "values", "words"),
    [
        ({}, {}, "say nothing"),
        ({"a": 1.2}, {}, "probability of a is 1.2"),
        ({"a": float("nan")}, {}, "probability of a is nan"),
        ({}, {"b": (float("inf"), "mm")}, "b is inf; expected a finite number"),
    ],
)
def test_labels_that_cannot_be_are_refused(probabilities, values, words):
    with pytest.raises(InputError, match=words):
        Labels(radiograph_case(), probabilities, values)
