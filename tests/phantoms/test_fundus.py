"""The fundus phantom: the same patient comes back with the same lesions under another light."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.cases.photograph import field_of_view
from medseg.errors import InputError
from medseg.metrics import dice
from medseg.phantoms.fundus import make_fundus


def test_the_same_numbers_give_the_same_picture_and_others_another():
    first, again, other = make_fundus(3, 1, 128), make_fundus(3, 1, 128), make_fundus(4, 1, 128)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.lesions, again.lesions)
    assert not np.array_equal(first.lesions, other.lesions)
    assert first.image.shape == (128, 128, 3) and 0 <= first.image.min() <= first.image.max() <= 1


def test_between_visits_the_light_changes_and_the_lesions_hardly_do():
    same, different, light = [], [], []
    for patient in range(6):
        first, second = make_fundus(patient, 0), make_fundus(patient, 1)
        same.append(dice(first.lesions, second.lesions))
        different.append(dice(first.lesions, make_fundus(patient + 1, 0).lesions))
        light.append(abs(np.log(first.image[first.field].mean() / second.image[second.field].mean())))
    assert np.mean(same) > 0.6 > 0.1 > np.mean(different)
    assert np.mean(light) > 0.1


def test_lesions_are_small_bright_and_have_look_alikes_beside_them():
    photo = make_fundus(5)
    assert 0.001 < photo.lesions.mean() < 0.02
    assert photo.look_alikes.any() and not (photo.lesions & photo.look_alikes).any()
    clean = make_fundus(5, lesions=False)
    assert not clean.lesions.any()
    brighter = photo.image[photo.lesions].mean(axis=0) - clean.image[photo.lesions].mean(axis=0)
    assert (brighter > 0.02).all()


def test_the_field_of_view_is_found_as_it_was_drawn():
    photo = make_fundus(2)
    assert dice(field_of_view(photo.image), photo.field) > 0.98


def test_a_picture_too_small_for_a_lesion_is_refused():
    with pytest.raises(InputError, match="needs at least 64"):
        make_fundus(0, side=32)
