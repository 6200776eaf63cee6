"""Weights from scores: they sum to one, stay within the bound, have the published gradient, and rest on
evidence."""

import math

import pytest
import torch

from medseg.training.noisy.weights import (
    PoolRecord,
    PoolTable,
    collapse_warning,
    diagnose,
    overfit_control,
    pool_weights,
    rank_correlation,
    weighted_objective,
)


def table(scores, losses, **columns) -> PoolTable:
    shape = scores.shape
    defaults = {
        "score_losses": losses,
        "labelled": torch.ones(shape, dtype=torch.bool),
        "evidence": torch.ones(shape, dtype=torch.bool),
        "case": torch.arange(shape[0]),
    }
    return PoolTable(scores, losses, **{**defaults, **columns})


def test_weights_sum_to_one_for_any_scores_and_strength():
    torch.manual_seed(0)
    for strength in (None, 1.0, 2.0, 3.0):
        weights = pool_weights(torch.randn(7, 2) * 50, strength)
        torch.testing.assert_close(weights.sum(0), torch.ones(2))


@pytest.mark.parametrize("strength, bound", [(1.0, 7.389), (2.0, 54.598), (3.0, 403.43)])
def test_no_weight_exceeds_another_by_more_than_e_to_twice_the_strength(strength, bound):
    weights = pool_weights(torch.tensor([[1e4], [-1e4], [0.3]]), strength)[:, 0]
    assert float(weights.max() / weights.min()) == pytest.approx(bound, rel=1e-3)
    assert float(overfit_control(torch.tensor(1e4), strength)) == strength


def test_without_overfit_control_one_sample_takes_all():
    assert pool_weights(torch.tensor([[30.0], [0.0]]), None)[0] == pytest.approx(1.0)


def test_weights_by_hand():
    # tanh(atanh(0.5)) = 0.5, so with strength 2 the controlled scores are 1 and 0: e / (e + 1)
    weights = pool_weights(torch.tensor([[math.atanh(0.5)], [0.0]]), 2.0)
    assert weights[:, 0].tolist() == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1)])


def test_softmax_is_float32_even_for_half_precision_scores():
    assert pool_weights(torch.zeros(2, 1, dtype=torch.bfloat16)).dtype == torch.float32


def test_gradient_of_a_score_is_the_published_identity():
    torch.manual_seed(1)
    scores, losses = torch.randn(6, 1, requires_grad=True), torch.rand(6, 1, requires_grad=True)
    objective, weights = weighted_objective(table(scores, losses), 2.0)
    objective.backward()
    with torch.no_grad():
        w = pool_weights(scores, 2.0)
        mean = (w * losses).sum()
        expected = w * (losses - mean) * 2.0 * (1 - torch.tanh(scores) ** 2)
        assert float(objective) == pytest.approx(float(mean))
    torch.testing.assert_close(scores.grad, expected)
    torch.testing.assert_close(losses.grad, w)
    torch.testing.assert_close(weights, w)


def test_a_structure_that_was_not_contoured_takes_no_weight_and_an_unknown_column_counts_for_nothing():
    labelled = torch.tensor([[True, False], [True, False], [False, False]])
    losses = torch.tensor([[1.0, 9.0], [3.0, 9.0], [100.0, 9.0]])
    objective, weights = weighted_objective(table(torch.zeros(3, 2), losses, labelled=labelled))
    assert weights.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]
    assert float(objective) == pytest.approx(2.0)


def test_patches_of_one_case_share_its_weight_equally():
    scores = torch.tensor([[1.0], [1.0], [1.0], [0.0]])  # three patches of case 5, one of case 7
    case = torch.tensor([5, 5, 5, 7])
    _, weights = weighted_objective(table(scores, torch.rand(4, 1), case=case))
    expected = pool_weights(torch.tensor([[1.0], [0.0]]))[:, 0]
    assert weights[:3, 0].tolist() == pytest.approx([float(expected[0]) / 3] * 3)
    assert float(weights[3]) == pytest.approx(float(expected[1]))


def test_background_patches_win_no_weight():
    """A case seen only through an easy background patch teaches its score nothing, and changes nobody else's
    lesson."""
    losses = torch.tensor([[0.5], [0.7], [0.0001]])
    evidence = torch.tensor([[True], [True], [False]])
    gradients = []
    for rows in (3, 2):
        scores = torch.zeros(rows, 1, requires_grad=True)
        weighted_objective(table(scores, losses[:rows], evidence=evidence[:rows]))[0].backward()
        gradients.append(scores.grad[:, 0].tolist())
    assert gradients[0][2] == pytest.approx(0.0, abs=1e-6)
    assert gradients[0][0] == pytest.approx(
        -gradients[0][1]
    )  # both pulled about their own mean of 0.6, not 0.4
    assert gradients[0][0] < 0 and gradients[1][0] == pytest.approx(1.5 * gradients[0][0])
    scores = torch.zeros(3, 1, requires_grad=True)
    weighted_objective(table(scores, losses))[0].backward()
    assert scores.grad[2] < 0 < scores.grad[1], "without the rule the background patch would have won"


def test_scores_can_be_judged_by_another_loss_than_the_segmenter_learns_from():
    scores, losses = torch.zeros(2, 1, requires_grad=True), torch.tensor([[1.0], [3.0]], requires_grad=True)
    judged = torch.tensor([[0.9], [0.1]])
    weighted_objective(table(scores, losses, score_losses=judged))[0].backward()
    assert losses.grad[:, 0].tolist() == [0.5, 0.5]
    assert scores.grad[0] > 0 > scores.grad[1]


def test_diagnostics_by_hand():
    record = PoolRecord(
        weights=torch.tensor([0.5, 0.25, 0.25, 0.0]),
        losses=torch.tensor([0.1, 0.2, 0.3, 0.4]),
        scores=torch.tensor([4.0, 2.0, 1.0, -5.0]),
        known_noisy=torch.tensor([0, 0, 1, 1]),
    )
    seen = diagnose([record], 2.0)
    assert seen.effective_share == pytest.approx(1 / (0.25 + 0.0625 + 0.0625) / 4)
    assert seen.saturated_share == 0.5
    assert seen.rank_correlation == pytest.approx(-1.0)
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
