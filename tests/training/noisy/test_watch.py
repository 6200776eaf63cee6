"""What is watched: uneven weights, scores that follow areas, and when scores are not believed."""

import math

import numpy as np
import pytest
import torch

from medseg.training.noisy.watch import (
    PoolRecord,
    collapse_warning,
    diagnose,
    direction_of_losses,
    distrust,
    distrust_by_anchors,
    rank_correlation,
)
from medseg.training.noisy.weights import HELD_BACK, NO_ANCHOR, TAUGHT, pool_weights


def test_diagnostics_by_hand():
    record = PoolRecord(
        weights=torch.tensor([0.5, 0.25, 0.25, 0.0]),
        losses=torch.tensor([0.1, 0.2, 0.3, 0.4]),
        scores=torch.tensor([4.0, 2.0, 1.0, -5.0]),
        areas=torch.tensor([5.0, 6.0, 7.0, 8.0]),
        known_noisy=torch.tensor([0, 0, 1, 1]),
    )
    seen = diagnose([record], 2.0)
    assert seen.effective_share == pytest.approx(1 / (0.25 + 0.0625 + 0.0625) / 4)
    assert seen.saturated_share == 0.5
    assert seen.rank_correlation == pytest.approx(-1.0)
    assert seen.area_correlation == pytest.approx(-1.0)
    assert seen.largest_ratio == pytest.approx(2.0)
    assert seen.at_bound_share == 0.0
    assert (seen.weight_known_clean, seen.weight_known_noisy) == (1.5, 0.5)


def test_rank_correlation_agrees_with_scipy_on_ties():
    from scipy.stats import spearmanr

    a, b = torch.tensor([1.0, 2, 2, 3, 5, 5]), torch.tensor([2.0, 1, 4, 4, 4, 0])
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(rank_correlation(a, torch.zeros(6)))


def test_collapsed_and_saturated_weights_are_reported_and_equal_ones_are_not():
    equal = PoolRecord(torch.full((8,), 1 / 8), torch.rand(8), torch.zeros(8))
    collapsed = PoolRecord(torch.tensor([0.93] + [0.01] * 7), torch.rand(8), torch.randn(8))
    halves = PoolRecord(
        pool_weights(torch.tensor([[9.0]] * 4 + [[-9.0]] * 4))[:, 0], torch.rand(8), torch.randn(8)
    )
    assert collapse_warning(diagnose([equal])) is None
    assert "rest on 14% of the samples" in collapse_warning(diagnose([collapsed]))
    assert "57% of the pairs" in collapse_warning(diagnose([halves]))


def test_a_quarter_of_the_samples_at_the_bound_as_at_75_percent_noise_is_no_collapse():
    scores = torch.tensor([[9.0]] * 10 + [[-9.0]] * 30)
    quarter = diagnose([PoolRecord(pool_weights(scores)[:, 0], torch.rand(40), torch.randn(40))])
    assert quarter.effective_share == pytest.approx((math.e**4 + 3) ** 2 / (math.e**8 + 3) / 4, rel=1e-3)
    assert collapse_warning(quarter) is None


def test_weights_that_follow_the_area_are_reported():
    rng = np.random.default_rng(0)
    areas = torch.arange(40.0)
    losses = torch.from_numpy(rng.permutation(40)).float()
    weights = pool_weights(-(areas[:, None] - 20) / 10)[:, 0]
    followed = diagnose([PoolRecord(weights, losses, -areas, areas)])
    assert "follow the area of the label (rank correlation -1.00)" in collapse_warning(followed)
    equal = diagnose([PoolRecord(torch.full((40,), 1 / 40), losses, -areas, areas)])
    assert collapse_warning(equal) is None, "scores that weigh nothing do no harm"
    loosely = torch.arange(40.0).reshape(8, 5).flip(1).flatten() + losses / 2
    assert abs(rank_correlation(loosely, losses)) < 0.7
    with_losses = diagnose([PoolRecord(weights, losses, -losses, loosely)])
    assert collapse_warning(with_losses) is None


def test_scores_are_believed_where_they_follow_the_losses_and_not_the_areas():
    rng = np.random.default_rng(1)
    losses, areas = torch.arange(100.0), torch.from_numpy(rng.permutation(100)).float()
    assert distrust(-losses, losses, areas) is None
    assert "rank correlation with the losses is 1.00" in distrust(losses, losses, areas)
    unrelated = torch.from_numpy(rng.permutation(100)).float()
    assert "expected -0.3 or lower" in distrust(unrelated, losses, areas)
    assert "rank correlation with the losses is nan" in distrust(torch.zeros(100), losses, areas)
    assert "follow the area of the label (rank correlation -1.00)" in distrust(-losses, losses, losses)
    loosely = losses + 60 * torch.from_numpy(rng.normal(size=100)).float()
    assert 0.3 < rank_correlation(losses, loosely) < 0.7
    assert distrust(-losses, losses, loosely) is None


def test_anchors_that_were_held_back_decide_by_how_many_labels_lie_below_them():
    scores = torch.tensor([5.0, 1.0, 2.0, 3.0, 9.0])
    anchor = torch.tensor([HELD_BACK, NO_ANCHOR, NO_ANCHOR, NO_ANCHOR, TAUGHT])
    assert distrust_by_anchors(scores, anchor) is None
    scores[0] = 2.0  # above one, level with one, below one: a half
    assert "lie above 50% of the other labels, expected 70%" in distrust_by_anchors(scores, anchor)
    assert "no anchor that was held back" in distrust_by_anchors(scores[1:], anchor[1:])


def test_the_taught_anchors_say_which_losses_speak_for_a_label():
    others = [1.0, 2.0, 3.0, 4.0, 5.0]
    anchor = torch.tensor([TAUGHT, *[NO_ANCHOR] * 5])
    small, middle, large = (torch.tensor([own, *others]) for own in (1.5, 3.0, 4.5))
    assert [direction_of_losses(losses, anchor) for losses in (small, middle, large)] == [1.0, 0.0, -1.0]
    assert direction_of_losses(small, torch.zeros(6, dtype=torch.int64)) == 0.0
