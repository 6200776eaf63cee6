"""Lesions found and false finds, counted on small pictures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.metrics.lesions import (
    count_lesions,
    froc,
    mean_sensitivity,
    sensitivity_at_false_finds,
    thresholds,
)


def picture():
    """Two lesions, of which 0.9 and 0.3 reach; a false find of 0.6; a find on a look-alike of 0.8."""
    truth = np.zeros((12, 12), dtype=bool)
    truth[1:3, 1:3] = truth[8:10, 8:10] = True
    score = np.zeros((12, 12))
    score[2, 2], score[8, 8], score[5, 10], score[10, 1] = 0.9, 0.3, 0.6, 0.8
    look_alike = np.zeros((12, 12), dtype=bool)
    look_alike[10, 0:3] = True
    return score, truth, look_alike


def at(counts, threshold):
    """(found, false finds) at the lowest of the thresholds that is not below this one."""
    place = np.flatnonzero(thresholds() >= threshold)[-1]
    return int(counts.found[place]), int(counts.false_finds[place])


def test_lesions_and_false_finds_at_every_height():
    score, truth, _ = picture()
    counts = count_lesions(score, truth)
    assert counts.lesions == 2
    assert at(counts, 0.95) == (0, 0)
    assert at(counts, 0.82) == (1, 0)
    assert at(counts, 0.65) == (1, 1), "the look-alike is a false find"
    assert at(counts, 0.4) == (1, 2)
    assert at(counts, 0.2) == (2, 2)


def test_a_find_on_what_is_to_be_ignored_is_not_false():
    score, truth, look_alike = picture()
    assert at(count_lesions(score, truth, ignore=look_alike), 0.2) == (2, 1)


def test_sensitivity_at_false_finds_per_image():
    score, truth, _ = picture()
    counts = count_lesions(score, truth)
    clean = count_lesions(np.zeros((12, 12)), np.zeros((12, 12), dtype=bool))
    assert sensitivity_at_false_finds([counts], 1) == 0.5
    assert sensitivity_at_false_finds([counts], 2) == 1.0
    assert sensitivity_at_false_finds([counts, clean], 1) == 1.0, "two false finds on two images"
    assert mean_sensitivity([counts]) == pytest.approx((4 * 0.5 + 3 * 1.0) / 7)
    assert np.isnan(mean_sensitivity([clean]))
    finds, share = froc([counts])
    assert (np.diff(finds) >= 0).all() and (np.diff(share) >= 0).all()


def test_noise_that_shatters_into_thousands_of_finds_finds_nothing():
    truth = np.zeros((100, 100), dtype=bool)
    truth[50, 50] = True
    score = np.zeros((100, 100))
    score[::2, ::2] = 0.5
    counts = count_lesions(score, truth, most_pieces=100)
    assert counts.false_finds[-1] == 100 and counts.found[-1] == 0


def test_one_find_over_the_whole_image_finds_no_lesion():
    _, truth, _ = picture()
    counts = count_lesions(np.full((12, 12), 0.7), truth)
    assert at(counts, 0.4) == (0, 1)
    # Half of the wider find is lesion.
    wide = np.zeros((12, 12))
    wide[1:3, 1:5] = 0.7
    wide[8:10, 8:10] = 0.7
    assert at(count_lesions(wide, truth), 0.4) == (2, 0)
