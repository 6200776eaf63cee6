"""Curves from counts are the exact ones: by hand, and with scikit-learn as referee."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from medseg.errors import InputError
from medseg.metrics.pixels import (
    average_precision,
    calibration_error,
    count_levels,
    dice_at,
    pooled,
    pooled_interval,
    precision_recall,
    reliability,
    roc_auc,
    sensitivity_at,
    specificity_at,
)


def image(seed: int, shape=(40, 50)):
    """Scores with many ties, and a truth that they have something to do with."""
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.05
    score = np.clip(rng.normal(0.2 + 0.3 * truth, 0.2), 0, 1)
    return np.where(rng.random(shape) < 0.3, 0.0, score), truth


def test_four_pixels_by_hand():
    counts = count_levels(np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False]))
    # Lesions win 3 of 4 pairs; recall rises by half at precision 1 and by half at precision 2/3.
    assert roc_auc(counts) == 0.75
    assert average_precision(counts) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert dice_at(counts) == 2 * 1 / (2 + 2)
    assert specificity_at(counts) == 0.5
    assert sensitivity_at(counts, 1.0) == 0.5 and sensitivity_at(counts, 0.5) == 1.0


def test_the_curve_of_four_pixels_by_hand_and_of_an_image_without_lesions():
    chances, truth = np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False])
    precision, recall = precision_recall(count_levels(chances, truth))
    assert precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4]) and recall == pytest.approx([0.5, 0.5, 1, 1])
    precision, recall = precision_recall(count_levels(chances, np.zeros(4, dtype=bool)))
    assert (precision == 0).all() and np.isnan(recall).all()


def test_ties_count_half_and_a_constant_answer_knows_nothing():
    counts = count_levels(np.full(8, 0.3), np.arange(8) < 2)
    assert roc_auc(counts) == 0.5 and average_precision(counts) == 0.25
    assert sensitivity_at(counts, 0.95) == 0.0


def test_one_image_and_a_pool_of_images_agree_with_scikit_learn():
    images = [image(seed) for seed in range(3)]
    counts = [count_levels(*pair) for pair in images]
    for (score, truth), own in zip(images, counts, strict=True):
        levels = np.rint(score * 65535).ravel()
        assert roc_auc(own) == pytest.approx(roc_auc_score(truth.ravel(), levels), abs=1e-12)
        assert average_precision(own) == pytest.approx(
            average_precision_score(truth.ravel(), levels), abs=1e-12
        )
        false, true, _ = roc_curve(truth.ravel(), levels, drop_intermediate=False)
        assert sensitivity_at(own, 0.9) == pytest.approx(true[false <= 0.1].max())
    score, truth = (np.concatenate([pair[n].ravel() for pair in images]) for n in (0, 1))
    levels = np.rint(score * 65535)
    assert roc_auc(pooled(counts)) == pytest.approx(roc_auc_score(truth, levels), abs=1e-12)
    assert average_precision(pooled(counts)) == pytest.approx(
        average_precision_score(truth, levels), abs=1e-12
    )
    assert average_precision(pooled([])) != average_precision(pooled([]))  # nan


def test_pixels_outside_the_field_of_view_do_not_count():
    score, truth = image(7)
    field = np.zeros(truth.shape, dtype=bool)
    field[10:30] = True
    inside = count_levels(score[10:30], truth[10:30])
    assert roc_auc(count_levels(score, truth, field)) == roc_auc(inside)


def test_an_image_without_lesions_counts_for_specificity_only():
    counts = count_levels(np.array([0.7, 0.2, 0.1, 0.0]), np.zeros(4, dtype=bool))
    assert np.isnan([roc_auc(counts), average_precision(counts), sensitivity_at(counts, 0.9)]).all()
    assert specificity_at(counts) == 0.75 and dice_at(counts) == 0.0
    assert np.isnan(dice_at(count_levels(np.zeros(4), np.zeros(4, dtype=bool))))


def test_calibration_by_hand():
    # Ten pixels said 0.2 of which 2 are lesions: right. Ten said 0.9 of which 5 are: wrong by 0.4.
    score = np.repeat([0.2, 0.9], 10)
    truth = np.r_[np.arange(10) < 2, np.arange(10) < 5]
    counts = count_levels(score, truth)
    found = reliability(counts)
    assert found.said == pytest.approx([0.2, 0.9], abs=1e-4) and found.seen.tolist() == [0.2, 0.5]
    assert found.pixels.tolist() == [10, 10]
    assert calibration_error(counts) == pytest.approx(0.2, abs=1e-4)


def test_what_is_no_probability_and_what_lies_on_other_pixels_is_refused():
    with pytest.raises(InputError, match="give the sigmoid"):
        count_levels(np.array([-1.0, 2.0]), np.array([True, False]))
    with pytest.raises(InputError, match="same pixels"):
        count_levels(np.zeros((2, 2)), np.zeros((2, 3), dtype=bool))


def test_the_interval_of_a_pooled_figure_draws_patients_with_all_their_pixels():
    images = [count_levels(*image(seed)) for seed in range(4)]
    found = pooled_interval(roc_auc, images, ["a", "a", "b", "b"], draws=200)
    assert found.value == pytest.approx(roc_auc(pooled(images)))
    ends = [roc_auc(pooled(images[:2])), roc_auc(pooled(images[2:]))]
    assert (found.low, found.high) == pytest.approx((min(ends), max(ends)))
    assert np.isnan(pooled_interval(roc_auc, images, ["a"] * 4, draws=20).low)
