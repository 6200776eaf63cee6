"""Scores of whole-image labels, by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medseg.errors import InputError
from medseg.metrics.classification import (
    brier_score,
    class_scores,
    fit_platt,
    fit_temperature,
    grouped_auc,
    net_benefit,
)
from medseg.metrics.pixels import average_precision, calibration_error, count_levels, roc_auc, sensitivity_at

TRUTH = np.array([1, 1, 1, 0, 0, 0, 0, 1])
CHANCE = np.array([0.9, 0.8, 0.4, 0.6, 0.2, 0.1, 0.3, 0.7])


def test_the_rows_of_a_confusion_matrix_by_hand():
    # From 0.5 on: 5 called, of which 0.6 is wrong; 0.4 is missed... 4 called right of class 0 but one.
    rows = class_scores(TRUTH, (CHANCE >= 0.5).astype(int), 2)
    assert rows[1] == (3 / 4, 3 / 4, 3 / 4, 4)
    assert rows[0] == (3 / 4, 3 / 4, 3 / 4, 4)
    nothing_called = class_scores(TRUTH, np.zeros(8, int), 2)[1]
    assert math.isnan(nothing_called.precision) and nothing_called[1:] == (0.0, 0.0, 4)
    nobody = class_scores(np.zeros(3, int), np.zeros(3, int), 3)[2]
    assert all(map(math.isnan, nobody[:3])) and nobody.support == 0


def test_scikit_learn_finds_the_same():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 2, 500)
    chance = np.round(np.clip(0.35 * truth + draw.random(500) * 0.6, 0, 1), 3)  # with ties
    called = (chance >= 0.5).astype(int)
    expected = metrics.precision_recall_fscore_support(truth, called)
    assert np.allclose(np.array(class_scores(truth, called, 2)).T, np.array(expected))
    assert brier_score(chance, truth) == pytest.approx(metrics.brier_score_loss(truth, chance))
    counts = count_levels(chance, truth == 1)
    assert roc_auc(counts) == pytest.approx(metrics.roc_auc_score(truth, chance))
    assert average_precision(counts) == pytest.approx(metrics.average_precision_score(truth, chance))
    false_alarms, found, _ = metrics.roc_curve(truth, chance, drop_intermediate=False)
    assert sensitivity_at(counts, 0.9) == pytest.approx(found[false_alarms <= 0.1].max())


def test_brier_and_calibration_of_a_constant():
    truth = np.array([True, False, False, False])
    assert brier_score(np.full(4, 0.5), truth) == 0.25
    assert brier_score(np.full(4, 0.25), truth) == pytest.approx(0.1875)  # p (1 - p)
    assert calibration_error(count_levels(np.full(4, 0.5), truth)) == pytest.approx(0.25, abs=1e-5)
    assert math.isnan(brier_score(np.zeros(0), np.zeros(0, bool)))


def test_net_benefit_by_hand():
    truth = TRUTH == 1
    # At 0.5: 3 right, 1 wrong of 8, odds 1. At 0.25: called are 0.9 0.8 0.4 0.6 0.3 0.7: 4 right, 2 wrong.
    found = net_benefit(CHANCE, truth, np.array([0.5, 0.25]))
    assert found == pytest.approx([(3 - 1) / 8, (4 - 2 / 3) / 8])
    everybody = net_benefit(np.ones(8), truth, np.array([0.0, 0.5]))
    assert everybody == pytest.approx([0.5, 0.0])
    with pytest.raises(InputError, match="from 0 to below 1"):
        net_benefit(CHANCE, truth, np.array([1.0]))
    assert np.isnan(net_benefit(np.zeros(0), np.zeros(0, bool), np.array([0.5]))).all()


def test_the_temperature_that_was_put_in_is_found_again():
    draw = np.random.default_rng(1)
    logits = draw.normal(0, 2, (20000, 2))
    chance = np.exp(logits[:, 1]) / np.exp(logits).sum(1)
    truth = (draw.random(20000) < chance).astype(int)
    assert fit_temperature(logits, truth) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(3 * logits, truth) == pytest.approx(3.0, abs=0.15)  # three times too sure


@pytest.mark.parametrize(
    "call, said",
    [
        (
            lambda: class_scores(np.array([0, 2]), np.array([0, 1]), 2),
            "class numbers 0 to 2: expected 0 to 1",
        ),
        (lambda: class_scores(np.array([0]), np.array([0, 1]), 2), "expected one of each"),
        (lambda: fit_temperature(np.zeros((0, 2)), np.zeros(0, int)), "N at least 1"),
        (lambda: fit_temperature(np.array([[0.0, np.inf]]), np.array([0])), "not finite"),
        (lambda: fit_temperature(np.zeros((2, 2)), np.array([0, 2])), "class numbers"),
    ],
)
def test_what_does_not_fit_together_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_pairs_within_groups_by_hand():
    # Group a: 0.9 beats 0.4 and ties with 0.9: 1.5 of 2; group b: 0.2 loses to 0.3. 1.5 of 3.
    scores = [0.9, 0.4, 0.9, 0.2, 0.3, 0.7]
    truth = [True, False, False, True, False, True]
    groups = ["a", "a", "a", "b", "b", "c"]
    assert grouped_auc(scores, truth, groups) == 0.5
    assert math.isnan(grouped_auc([0.1, 0.2], [True, True], [0, 0]))
    with pytest.raises(InputError, match=r"expected \(N,\) each"):
        grouped_auc([0.1], [True, False], [0, 0])


def test_one_group_gives_the_plain_auc_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(4)
    truth, score = draw.integers(0, 2, 300), np.round(draw.random(300), 2)
    assert grouped_auc(score, truth, np.zeros(300)) == pytest.approx(metrics.roc_auc_score(truth, score))


def test_temperature_and_offset_are_those_of_logistic_regression():
    draw = np.random.default_rng(5)
    scores = draw.normal(0, 3, 400)
    truth = draw.random(400) < 1 / (1 + np.exp(-(scores / 2 + 1.5)))
    temperature, offset = fit_platt(scores, truth)
    found = LogisticRegression(C=1e9).fit(scores[:, None], truth)
    assert temperature == pytest.approx(1 / found.coef_[0, 0], rel=1e-3)
    assert offset == pytest.approx(found.intercept_[0], abs=1e-2)
    assert abs(temperature - 2) < 0.4 and abs(offset - 1.5) < 0.4


def test_scores_without_an_error_give_numbers_and_one_class_none():
    temperature, offset = fit_platt(np.array([-1.0, 1.0]), np.array([False, True]))
    assert 0.05 <= temperature < 0.2 and abs(offset) < 0.1
    with pytest.raises(InputError, match="2 images of one class"):
        fit_platt(np.array([-1.0, 1.0]), np.array([True, True]))
    with pytest.raises(InputError, match="expected finite numbers"):
        fit_platt(np.array([np.nan, 1.0]), np.array([False, True]))
