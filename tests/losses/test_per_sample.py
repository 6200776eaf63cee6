"""Losses per sample, against numbers worked out by hand."""

import math

import pytest
import torch

from medseg.errors import InputError
from medseg.losses.per_sample import BCEPerSample, DiceBCEPerSample, DicePerSample

LN2 = math.log(2)
LOGIT_90 = math.log(9)  # sigmoid = 0.9


def column(*values: float) -> torch.Tensor:
    """One sample, one channel, a 2D image of one column."""
    return torch.tensor(values).view(1, 1, -1, 1)


def test_bce_of_an_undecided_network_is_ln_2():
    loss = BCEPerSample()(torch.zeros(3, 2, 4, 4), torch.ones(3, 2, 4, 4))
    assert loss.shape == (3,)
    assert loss.tolist() == pytest.approx([LN2] * 3)


def test_bce_of_two_voxels_by_hand():
    loss = BCEPerSample()(column(LOGIT_90, LOGIT_90), column(1, 0))
    assert loss.item() == pytest.approx((-math.log(0.9) - math.log(0.1)) / 2)


def test_dice_of_four_voxels_by_hand():
    # p = .9 .9 .1 .1, t = 1 0 0 0: overlap 2 * .9 + 1 = 2.8; total 2 + 1 + 1 = 4; loss 1 - 2.8 / 4 = 0.3.
    loss = DicePerSample(smooth=1.0)(column(LOGIT_90, LOGIT_90, -LOGIT_90, -LOGIT_90), column(1, 0, 0, 0))
    assert loss.item() == pytest.approx(0.3)


def test_smooth_changes_dice():
    # As above with s = 3: 1 - (1.8 + 3) / (3 + 3) = 0.2.
    loss = DicePerSample(smooth=3.0)(column(LOGIT_90, LOGIT_90, -LOGIT_90, -LOGIT_90), column(1, 0, 0, 0))
    assert loss.item() == pytest.approx(0.2)


def test_sum_loss_weighs_the_cross_entropy():
    logits, label = column(LOGIT_90, -LOGIT_90), column(1, 1)
    dice, bce = DicePerSample()(logits, label), BCEPerSample()(logits, label)
    assert DiceBCEPerSample()(logits, label).item() == pytest.approx((dice + bce).item())
    assert DiceBCEPerSample(bce_weight=0.5)(logits, label).item() == pytest.approx((dice + 0.5 * bce).item())
    smoother = DicePerSample(smooth=9)(logits, label) + bce
    assert DiceBCEPerSample(smooth=9)(logits, label).item() == pytest.approx(smoother.item())


def test_dice_of_an_empty_truth_is_zero_for_an_empty_prediction_and_rises_with_every_false_voxel():
    nothing, one, two = column(-50, -50), column(50, -50), column(50, 50)
    empty = column(0, 0)
    dice = DicePerSample(smooth=1.0)
    assert dice(nothing, empty).item() == pytest.approx(0.0)
    assert dice(one, empty).item() == pytest.approx(1 / 2)
    assert dice(two, empty).item() == pytest.approx(2 / 3)


def test_missed_structure_costs_almost_one():
    # p = 0 on 99 voxels of truth: 1 - 1 / (99 + 1).
    loss = DicePerSample()(torch.full((1, 1, 99), -50.0), torch.ones(1, 1, 99))
    assert loss.item() == pytest.approx(0.99)


def test_channels_are_independent_so_structures_may_overlap():
    both = torch.full((1, 2, 2, 2), 50.0)
    assert DiceBCEPerSample()(both, torch.ones(1, 2, 2, 2)).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", [BCEPerSample(), DicePerSample(), DiceBCEPerSample()])
class TestEveryLoss:
    def test_each_sample_has_its_own_value_whatever_stands_beside_it(self, loss):
        torch.manual_seed(0)
        logits, label = torch.randn(3, 2, 4, 4), (torch.rand(3, 2, 4, 4) > 0.5).float()
        together = loss(logits, label)
        alone = torch.cat([loss(logits[i : i + 1], label[i : i + 1]) for i in range(3)])
        assert together.shape == (3,)
        assert together.tolist() == pytest.approx(alone.tolist())

    def test_structure_that_was_not_contoured_gives_no_loss_and_no_gradient(self, loss):
        torch.manual_seed(0)
        logits = torch.randn(1, 2, 4, 4, requires_grad=True)
        label = torch.ones(1, 2, 4, 4)
        label[:, 1] = math.nan
        value = loss(logits, label)
        value.sum().backward()
        assert value.item() == pytest.approx(loss(logits[:, :1], label[:, :1]).item())
        assert logits.grad[:, 1].abs().max() == 0
        assert logits.grad[:, 0].abs().max() > 0

    def test_not_contoured_differs_from_empty(self, loss):
        logits, empty = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
        assert loss(logits, empty).item() > 0.3
        assert loss(logits, empty * math.nan).item() == 0

    def test_half_precision_logits_are_summed_in_float32(self, loss):
        logits, label = torch.zeros(1, 1, 64, 64, 64, dtype=torch.bfloat16), torch.ones(1, 1, 64, 64, 64)
        assert loss(logits, label).dtype == torch.float32
        assert loss(logits, label).item() == pytest.approx(loss(logits.float(), label).item(), rel=1e-6)

    def test_label_of_another_shape_is_refused(self, loss):
        with pytest.raises(InputError, match=r"\(1, 2, 4, 4\).*\(1, 1, 4, 4\)"):
            loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))


def test_smooth_of_zero_is_refused():
    with pytest.raises(InputError, match="smooth=0"):
        DicePerSample(smooth=0)
