"""Intervals over patients. Referee: scipy's bootstrap, with the same random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from medseg.metrics import interval, mean_interval

RNG = np.random.default_rng(5)
VALUES = RNG.normal(0.8, 0.1, 60)
PATIENTS = [f"p{number:02d}" for number in RNG.integers(0, 12, 60)]


def test_one_image_per_patient_gives_scipys_percentile_interval():
    found = mean_interval(VALUES)
    rng = np.random.default_rng(0)
    referee = stats.bootstrap((VALUES,), np.mean, n_resamples=10_000, method="percentile", random_state=rng)
    assert found.value == pytest.approx(VALUES.mean())
    assert (found.low, found.high) == pytest.approx(tuple(referee.confidence_interval), abs=1e-12)


def test_images_of_a_patient_are_drawn_together_as_scipy_does_with_sums_and_counts():
    members = [VALUES[np.array(PATIENTS) == name] for name in sorted({*PATIENTS})]
    pairs = np.array([sum(rows) for rows in members]), np.array([len(rows) for rows in members])
    referee = stats.bootstrap(
        pairs,
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    found = mean_interval(VALUES, PATIENTS)
    assert (found.low, found.high) == pytest.approx(tuple(referee.confidence_interval), abs=1e-12)


def test_ten_copies_of_every_image_do_not_make_the_interval_narrower():
    once = mean_interval(VALUES, PATIENTS)
    copies = mean_interval(np.repeat(VALUES, 10), np.repeat(PATIENTS, 10).tolist())
    assert copies == pytest.approx(once)
    assert mean_interval(np.repeat(VALUES, 10)).high - copies.value < 0.6 * (copies.high - copies.value)


def test_any_statistic_is_drawn_like_the_mean():
    by_rows = interval(lambda rows: float(VALUES[rows].mean()), PATIENTS)
    assert by_rows == pytest.approx(mean_interval(VALUES, PATIENTS))
    median = interval(lambda rows: float(np.median(VALUES[rows])), PATIENTS, draws=500)
    assert median.value == np.median(VALUES) and median.low < median.value < median.high


def test_what_is_not_known_is_left_out_and_a_patient_without_any_value_does_no_harm():
    values = np.array([0.2, np.nan, 0.4, np.nan])
    found = mean_interval(values, ["a", "a", "b", "c"])
    assert found.value == pytest.approx(0.3)
    assert (found.low, found.high) == pytest.approx((0.2, 0.4))


def test_one_patient_tells_nothing_about_others_and_no_value_tells_nothing():
    alone = mean_interval(np.array([0.2, 0.4]), ["a", "a"])
    assert alone.value == pytest.approx(0.3) and math.isnan(alone.low) and math.isnan(alone.high)
    assert all(math.isnan(number) for number in mean_interval(np.array([np.nan, np.nan]), ["a", "b"]))
    assert all(math.isnan(number) for number in mean_interval(np.array([])))
    with pytest.raises(ValueError, match="2 values of 1 patients"):
        mean_interval(np.array([1.0, 2.0]), ["a"])


def test_another_seed_gives_another_interval_and_the_same_seed_the_same():
    assert mean_interval(VALUES, PATIENTS) == mean_interval(VALUES, PATIENTS)
    assert mean_interval(VALUES, PATIENTS, seed=1).low != mean_interval(VALUES, PATIENTS).low
