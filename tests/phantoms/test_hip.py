"""The hip phantom: its T-score is in the bone, and what must not be learnt is the caller's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medseg.errors import InputError
from medseg.phantoms.hip import bmd_of, make_hip


def neck(hip):
    (top, left), (bottom, right) = hip.neck_box
    return hip.image[top:bottom, left:right]


def test_bmd_follows_the_public_reference():
    assert bmd_of(0.0) == pytest.approx(0.858)
    assert bmd_of(-2.5) == pytest.approx(0.558)


@pytest.mark.parametrize("patient", range(4))
def test_bone_thins_and_texture_fades_with_the_t_score(patient):
    films = [make_hip(patient, t, pixels=160) for t in (0.5, -1.0, -2.5, -4.0)]
    brightness = [neck(film).mean() for film in films]
    texture = [np.diff(neck(film), axis=0).std() for film in films]
    assert brightness == sorted(brightness, reverse=True)
    assert texture == sorted(texture, reverse=True)


def test_the_same_arguments_give_the_same_film_and_others_do_not():
    first = make_hip(3, -1.5)
    assert np.array_equal(first.image, make_hip(3, -1.5).image)
    assert not np.array_equal(first.image, make_hip(4, -1.5).image)
    assert first.image.dtype == np.float32 and first.image.shape == (128, 128)
    assert 0 <= first.image.min() and first.image.max() <= 1


def test_a_right_hip_is_a_mirror_image_with_its_own_noise():
    left, right = make_hip(3, -1.5, "L"), make_hip(3, -1.5, "R")
    assert not np.array_equal(left.image, right.image[:, ::-1])

    def middle_column(image):
        """Of the brightest tenth, in the upper third of the film, where the head is."""
        upper = image[: len(image) // 3]
        return np.nonzero(upper > np.quantile(upper, 0.9))[1].mean()

    assert middle_column(left.image) < 64 < middle_column(right.image)
    assert neck(right).shape == neck(left).shape


def test_brightness_and_machine_change_the_film_and_not_the_bone():
    plain = make_hip(3, -1.5)
    brighter = make_hip(3, -1.5, brightness=0.1)
    assert np.median(brighter.image - plain.image) == pytest.approx(0.1, abs=1e-3)
    soft = make_hip(3, -1.5, device="soft")
    assert np.diff(soft.image, axis=1).std() < 0.7 * np.diff(plain.image, axis=1).std()
    assert np.array_equal(soft.neck_box, plain.neck_box)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"pixels": 63}, "at least 64"),
        ({"side": "left"}, "expected L or R"),
        ({"device": "new"}, "sharp or soft"),
        ({"t_score": 5}, "expected -6 to 4"),
    ],
)
def test_what_it_cannot_draw_is_refused(settings, said):
    with pytest.raises(InputError, match=said):
        make_hip(**{"patient": 1, "t_score": -1, **settings})


@pytest.mark.parametrize("side", "LR")
def test_the_box_of_the_neck_goes_where_the_bone_goes(side):
    """What is cut out around the middle of the box is the same part of the bone, however the patient lies."""
    films = [make_hip(patient, -4.0, side, pixels=160) for patient in range(40, 60)]
    middles = [film.neck_box.mean(axis=0).round().astype(int) for film in films]

    def likeness(places):
        cuts = [
            gaussian_filter(film.image, 2)[row - 24 : row + 24, column - 24 : column + 24].ravel()
            for film, (row, column) in zip(films, places, strict=True)
        ]
        mean = np.mean(cuts, axis=0)
        return np.mean([np.corrcoef(cut, mean)[0, 1] for cut in cuts])

    one_place = np.mean(middles, axis=0).round().astype(int)
    assert likeness(middles) > likeness([one_place] * len(films)) + 0.02
