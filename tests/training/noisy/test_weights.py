"""Weights from scores: they sum to one, stay within the bound, have the published gradient, and rest on
evidence."""

import math

import pytest
import torch

from medseg.training.noisy.weights import (
    HELD_BACK,
    NO_ANCHOR,
    TAUGHT,
    Objective,
    PoolTable,
    anchor_lesson,
    overfit_control,
    pool_weights,
    regression_lesson,
)


def objective_of(table: PoolTable, strength: float | None = 2.0, **settings):
    """The objective and the weights where a feature is the score."""
    judged = Objective(lambda features: features, strength=strength, **settings)(table)
    return judged.loss, judged.weights


def table(scores, losses, **columns) -> PoolTable:
    """A pool whose features are its scores."""
    shape = scores.shape
    defaults = {
        "score_losses": losses,
        "labelled": torch.ones(shape, dtype=torch.bool),
        "evidence": torch.ones(shape, dtype=torch.bool),
        "case": torch.arange(shape[0]),
        "anchor": torch.zeros(shape[0], dtype=torch.int64),
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
    objective, weights = objective_of(table(scores, losses), 2.0)
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
    objective, weights = objective_of(table(torch.zeros(3, 2), losses, labelled=labelled))
    assert weights.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]
    assert float(objective) == pytest.approx(2.0)


def test_patches_of_one_case_share_its_weight_equally():
    scores = torch.tensor([[1.0], [1.0], [1.0], [0.0]])  # three patches of case 5, one of case 7
    case = torch.tensor([5, 5, 5, 7])
    _, weights = objective_of(table(scores, torch.rand(4, 1), case=case))
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
        objective_of(table(scores, losses[:rows], evidence=evidence[:rows]))[0].backward()
        gradients.append(scores.grad[:, 0].tolist())
    assert gradients[0][2] == pytest.approx(0.0, abs=1e-6)
    assert gradients[0][0] == pytest.approx(
        -gradients[0][1]
    )  # both pulled about their own mean of 0.6, not 0.4
    assert gradients[0][0] < 0 and gradients[1][0] == pytest.approx(1.5 * gradients[0][0])
    scores = torch.zeros(3, 1, requires_grad=True)
    objective_of(table(scores, losses))[0].backward()
    assert scores.grad[2] < 0 < scores.grad[1], "without the rule the background patch would have won"


def test_scores_can_be_judged_by_another_loss_than_the_segmenter_learns_from():
    scores, losses = torch.zeros(2, 1, requires_grad=True), torch.tensor([[1.0], [3.0]], requires_grad=True)
    judged = torch.tensor([[0.9], [0.1]])
    objective_of(table(scores, losses, score_losses=judged))[0].backward()
    assert losses.grad[:, 0].tolist() == [0.5, 0.5]
    assert scores.grad[0] > 0 > scores.grad[1]


def test_while_labels_count_alike_the_scores_learn_all_the_same():
    scores = torch.tensor([[2.0], [-2.0]], requires_grad=True)
    losses = torch.tensor([[1.0], [3.0]], requires_grad=True)
    loss, weights = objective_of(table(scores, losses), weigh=False)
    loss.backward()
    assert weights[:, 0].tolist() == [0.5, 0.5] and losses.grad[:, 0].tolist() == [0.5, 0.5]
    assert loss.item() == 2.0 and scores.grad[0] < 0 < scores.grad[1]


def test_scores_that_are_not_taught_get_no_gradient():
    scores = torch.zeros(2, 1, requires_grad=True)
    losses = torch.tensor([[1.0], [3.0]], requires_grad=True)
    objective_of(table(scores, losses), weigh=False, teach=False)[0].backward()
    assert scores.grad is None or not scores.grad.any()


def test_structures_are_weighted_one_by_one():
    scores = torch.tensor([[9.0, 9.0], [-9.0, -9.0]])
    _, weights = objective_of(table(scores, torch.ones(2, 2)), weigh=torch.tensor([True, False]))
    assert weights[0].tolist() == [pytest.approx(math.e**4 / (math.e**4 + 1)), 0.5]


def test_the_regression_by_hand():
    # Logarithms 0, 1 and 2: mean 1, deviation sqrt(2/3), z = -1.2247, 0, 1.2247. Scores of -z miss nothing.
    judged = torch.tensor([[1.0], [math.e], [math.e**2]])
    right = torch.tensor([[1.5**0.5], [0.0], [-(1.5**0.5)]])
    everywhere = torch.ones(3, 1, dtype=torch.bool)
    assert float(regression_lesson(right, judged, everywhere)) == pytest.approx(0, abs=1e-10)
    assert float(regression_lesson(torch.zeros(3, 1), judged, everywhere)) == pytest.approx(1)
    assert float(regression_lesson(right, torch.ones(3, 1), everywhere)) == 0, "equal losses teach nothing"
    without = torch.tensor([[True], [True], [False]])
    # Of 0 and 1 alone: z = -1 and 1.
    assert float(regression_lesson(torch.tensor([[1.0], [-1.0], [7.0]]), judged, without)) == pytest.approx(0)


def test_the_anchors_lesson_by_hand():
    anchor = torch.tensor([TAUGHT, NO_ANCHOR, NO_ANCHOR, HELD_BACK])
    scores = torch.tensor([[1.0], [0.0], [3.0], [99.0]])
    labelled = torch.tensor([[True], [True], [True], [True]])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert float(anchor_lesson(scores, anchor, labelled)) == pytest.approx(expected)
    assert float(anchor_lesson(scores, torch.zeros(4, dtype=torch.int64), labelled)) == 0
    labelled[2] = False
    assert float(anchor_lesson(scores, anchor, labelled)) == pytest.approx(math.log(1 + math.exp(-1)))


def test_anchors_pull_a_score_up_that_its_loss_pulls_down():
    scores = torch.zeros(3, 1, requires_grad=True)
    losses = torch.tensor([[9.0], [1.0], [1.0]])
    anchor = torch.tensor([TAUGHT, NO_ANCHOR, NO_ANCHOR])
    objective_of(table(scores, losses, anchor=anchor), kind="regress")[0].backward()
    assert scores.grad[0] < 0 < scores.grad[1]
    scores.grad = None
    objective_of(table(scores, losses), kind="regress")[0].backward()
    assert scores.grad[1] < 0 < scores.grad[0], "without the anchor"


def test_the_lesson_of_the_losses_can_be_turned_round_or_left_out():
    losses = torch.tensor([[9.0], [1.0], [2.0]])
    for kind in ("weighted", "regress"):
        pulls = {}
        for direction in (1.0, 0.0, -1.0):
            scores = torch.zeros(3, 1, requires_grad=True)
            objective_of(table(scores, losses), kind=kind, direction=direction)[0].backward()
            pulls[direction] = scores.grad[:, 0]
        torch.testing.assert_close(pulls[-1.0], -pulls[1.0])
        assert pulls[1.0][0] > 0 and not pulls[0.0].any()
