"""The synthetic radiograph: true proportions, overlap, variation between patients, the same patient at every
size."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as connected

from medseg.errors import InputError
from medseg.phantoms.chest_film import STRUCTURES, make_radiograph


@pytest.fixture(scope="module")
def films():
    return [make_radiograph(seed) for seed in range(12)]


def test_the_inscribed_radius_of_a_clavicle_is_about_8_pixels_at_256(films):
    radii = [distance_transform_edt(film.masks[STRUCTURES.index("Clavicles")]).max() for film in films]
    assert 7.5 < np.mean(radii) < 9


def test_areas_have_the_proportions_of_a_chest_film(films):
    lungs, heart, clavicles = np.mean([film.masks.mean((1, 2)) for film in films], axis=0)
    assert 0.2 < lungs < 0.35 and 0.07 < heart < 0.14 and 0.02 < clavicles < 0.04


def test_two_lungs_one_heart_two_clavicles_that_overlap(films):
    for film in films:
        assert [connected(mask)[1] for mask in film.masks] == [2, 1, 2]
        lungs, heart, clavicles = film.masks
        assert (lungs & heart).any() and (lungs & clavicles).any() and not (heart & clavicles).any()
    columns = np.mean([np.argwhere(film.masks[1])[:, 1].mean() for film in films])
    assert columns > 132, "the heart lies to the patient's left, the viewer's right"


def test_patients_differ_and_a_seed_repeats(films):
    assert np.array_equal(make_radiograph(3).image, films[3].image)
    assert all((a.masks != b.masks).any((1, 2)).all() for a, b in zip(films, films[1:], strict=False))


def test_one_patient_looks_alike_at_another_size(films):
    small = make_radiograph(0, side=128)
    assert small.image.dtype == np.float32 and small.image.shape == (128, 128) and small.masks.dtype == bool
    assert 0 <= small.image.min() and small.image.max() <= 1
    assert np.mean(small.masks != films[0].masks[:, ::2, ::2]) < 0.01


def test_no_single_grey_level_tells_a_clavicle_from_its_surroundings(films):
    film = films[0]
    clavicles = film.masks[2]
    best = max(
        2 * (clavicles & (film.image > level)).sum() / (clavicles.sum() + (film.image > level).sum())
        for level in np.linspace(0, 1, 50)
    )
    assert best < 0.3


def test_a_picture_too_small_to_show_a_clavicle_is_refused():
    with pytest.raises(InputError, match="at least 32"):
        make_radiograph(0, side=16)
