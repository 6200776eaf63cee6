"""Metal, blur and burnt-in text on films of bones, each by its own number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from medseg.phantoms.hip import DEVICES, make_hip
from medseg.transforms.film_faults import RULES, film_faults
from medseg.transforms.gate import read_gate

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "hip_osteoporosis"


@pytest.fixture(scope="module")
def limits():
    return read_gate(BUNDLE / "configs" / "gate.json").film_rules


def hip(number=9001, pixels=160, **options):
    return make_hip(number, -2.0, pixels=pixels, **options).image


def with_words(film, place, words, grey=255):
    """``place``: of a film of 160 pixels."""
    picture = Image.fromarray((film * 255).astype(np.uint8))
    times = film.shape[0] / 160
    place = tuple(times * value for value in place)
    ImageDraw.Draw(picture).text(place, words, fill=grey, font_size=11 * times)
    return np.asarray(picture) / 255


def with_nail(film):
    rows, columns = np.mgrid[: film.shape[0], : film.shape[1]] * 160 / film.shape[0]
    nail = (np.abs((columns - 80) - 0.8 * (rows - 60)) < 5) & (rows > 40) & (rows < 110)
    return np.where(nail, 1.0, film)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("brightness", [-0.1, 0.1])
def test_sound_films_of_either_machine_keep_every_rule(device, brightness, limits):
    for number in range(9001, 9004):
        assert film_faults(hip(number, device=device, brightness=brightness), limits) == []


@pytest.mark.parametrize("pixels", [160, 400])
def test_a_nail_of_metal_is_called_metal_at_any_size_of_film(pixels, limits):
    (said, *_) = film_faults(with_nail(hip(pixels=pixels)), limits)
    assert said.startswith("a bright flat area like a metal implant (metal 0.0")


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_a_blurred_film_is_called_blurred(sigma, limits):
    assert any("it is blurred" in said for said in film_faults(gaussian_filter(hip(), sigma), limits))


@pytest.mark.parametrize("pixels", [160, 400])
@pytest.mark.parametrize("grey", [255, 0])
def test_words_over_the_neck_are_refused_and_a_marker_in_the_corner_is_not(pixels, grey, limits):
    film = hip(pixels=pixels)
    (said,) = film_faults(with_words(film, (50, 70), "SUPINE 42", grey), limits)
    assert said.startswith("thin strokes over the bone like burnt-in text")
    assert film_faults(with_words(film, (3, 3), "L", grey), limits) == []


def test_a_film_of_one_grey_has_no_metal_no_text_and_no_detail():
    plain = np.full((64, 64), 0.5)
    assert [RULES[name].number(plain) for name in ("metal", "text")] == [1.0, 0.0]  # all one plateau
    assert RULES["blur"].number(plain) < -10


def test_without_limits_nothing_is_said():
    assert film_faults(with_nail(hip()), {}) == []
