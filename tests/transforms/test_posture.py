"""How a film of a hip lies and of which side it is: turned and mirrored ones are told by the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.errors import InputError
from medseg.phantoms.hip import make_hip
from medseg.transforms import CheckInputd, LoadRadiographd
from medseg.transforms.gate import read_gate
from medseg.transforms.likeness import small_film
from medseg.transforms.posture import WAYS, posture_fault, posture_likenesses, posture_margin

GATE = Path(__file__).resolve().parents[2] / "monai_bundles" / "hip_osteoporosis" / "configs" / "gate.json"


@pytest.fixture(scope="module")
def gate():
    return read_gate(GATE)


def film(number=9100, side="L"):
    return small_film(torch.from_numpy(make_hip(number, -2.0, side, pixels=128).image))


def fault(shown, gate, side):
    return " ".join(posture_fault(shown, gate.left_template, gate.least_posture_margin, side))


def test_every_way_a_film_can_lie_is_put_right_by_one_of_the_eight():
    letter = np.zeros((32, 32))
    letter[4:28, 8:12] = letter[4:8, 12:24] = letter[14:18, 12:20] = 1  # an F is like none of its turned ones
    for number, (turns, mirrored) in enumerate(WAYS):
        lies = np.rot90(letter, -turns)
        lies = lies[:, ::-1] if mirrored else lies
        likenesses = posture_likenesses(np.ascontiguousarray(lies), letter)
        assert likenesses.argmax() == number and likenesses.max() == pytest.approx(0.999)


def test_the_margin_is_that_of_the_stated_way_over_the_best_of_the_others():
    likenesses = np.array([0.9, 0.1, 0.5, 0.2, 0.7, 0.1, 0.3, 0.4])
    assert posture_margin(likenesses, "L") == pytest.approx(0.9 - 0.7)
    assert posture_margin(likenesses, "R") == pytest.approx(0.7 - 0.9)
    assert posture_margin(likenesses, None) == pytest.approx(0.9 - 0.5)


def test_upright_films_of_the_stated_side_pass_and_turned_ones_are_told(gate):
    for number in range(9100, 9106):
        left, right = film(number), film(number, "R")
        assert not fault(left, gate, "L") and not fault(right, gate, "R")
        assert not fault(left, gate, None) and not fault(right, gate, None), (
            "no side stated, both are upright"
        )
        for turns in (1, 2, 3):
            assert "it looks turned by" in fault(np.rot90(left, turns), gate, "L")
    assert "it looks turned by 90 degrees" in fault(np.rot90(film(), -1), gate, None)


def test_a_hip_that_is_said_to_be_the_other_one_is_told(gate):
    assert fault(film(), gate, "R").startswith("it looks like a left one, and R is stated")
    assert fault(film(side="R"), gate, "L").startswith("it looks like a right one, and L is stated")


def test_the_gate_takes_the_side_from_its_setting_or_the_item(tmp_path):
    pixels = np.rint(make_hip(9101, -2.0, "R", pixels=160).image * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "hip.png")
    item = {"image": str(tmp_path / "hip.png")}
    load = LoadRadiographd("image")
    CheckInputd("image", GATE)(load(item))
    CheckInputd("image", GATE, side="R")(load({**item, "side": "L"}))
    for check, told in ((CheckInputd("image", GATE), "L"), (CheckInputd("image", GATE, side="L"), "R")):
        with pytest.raises(InputError, match="it looks like a right one, and L is stated"):
            check(load({**item, "side": told}))
