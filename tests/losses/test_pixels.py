"""Losses for small lesions: values worked out by hand, one per sample, NaN channels left out."""

from __future__ import annotations

import math

import pytest
import torch

from medseg.errors import InputError
from medseg.losses import BCEPerSample, DicePerSample, loss_named
from medseg.losses.pixels import PIXEL_LOSSES, FocalPerSample, SoftmaxCEPerSample, TverskyPerSample


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_every_loss_has_one_value_per_sample_and_none_for_a_channel_of_nan(name):
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 5, 7, requires_grad=True)
    target = torch.zeros(3, 2, 5, 7)
    target[:, 0, 1:3] = 1
    target[2] = torch.nan
    losses = loss_named(name)(logits, target)
    assert losses.shape == (3,) and losses[2] == 0 and (losses[:2] > 0).all()
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all() and not logits.grad[2].any()


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_a_better_answer_costs_less_and_an_empty_truth_is_satisfied_by_nothing(name):
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0] = 1
    good, bad = 12 * target - 6, 6 - 12 * target
    loss = loss_named(name)
    assert loss(good, target) < 0.2 < loss(bad, target)
    empty = torch.zeros(1, 1, 4, 4)
    assert loss(torch.full_like(empty, -12), empty) < 1e-3 < loss(torch.full_like(empty, 2.0), empty)


def test_focal_loss_of_two_pixels_by_hand():
    # Foreground seen with 0.8: 0.25 * 0.2^2 * -ln 0.8; background seen as 0.4: 0.75 * 0.4^2 * -ln 0.6.
    logits = torch.tensor([logit(0.8), logit(0.4)]).reshape(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    by_hand = (0.25 * 0.04 * -math.log(0.8) + 0.75 * 0.16 * -math.log(0.6)) / 2
    assert float(FocalPerSample()(logits, target)) == pytest.approx(by_hand, rel=1e-5)
    plain = FocalPerSample(gamma=0.0, alpha=-1.0)(logits, target)
    assert float(plain) == pytest.approx(float(BCEPerSample()(logits, target)), rel=1e-5)


def test_tversky_loss_of_two_pixels_by_hand_and_its_twin_dice():
    # TP 0.8, FN 0.2, FP 0.4: 1 - (0.8 + 1) / (0.8 + 0.3 * 0.4 + 0.7 * 0.2 + 1).
    logits = torch.tensor([logit(0.8), logit(0.4)]).reshape(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert float(TverskyPerSample()(logits, target)) == pytest.approx(1 - 1.8 / 2.06, rel=1e-4)
    twin = TverskyPerSample(0.5, 0.5, smooth=0.5)(logits, target)
    assert float(twin) == pytest.approx(float(DicePerSample(smooth=1.0)(logits, target)), rel=1e-4)


def test_softmax_over_one_channel_is_binary_cross_entropy():
    torch.manual_seed(1)
    logits, target = torch.randn(4, 1, 6, 6), (torch.rand(4, 1, 6, 6) > 0.8).float()
    assert torch.allclose(SoftmaxCEPerSample()(logits, target), BCEPerSample()(logits, target), atol=1e-6)


def test_softmax_over_two_kinds_of_lesion_is_torchs_cross_entropy():
    torch.manual_seed(2)
    logits = torch.randn(2, 2, 3, 3)
    kinds = torch.randint(0, 3, (2, 3, 3))
    target = torch.stack([(kinds == 1).float(), (kinds == 2).float()], dim=1)
    with_background = torch.cat([torch.zeros(2, 1, 3, 3), logits], dim=1)
    theirs = torch.nn.functional.cross_entropy(with_background, kinds, reduction="none").mean((1, 2))
    assert torch.allclose(SoftmaxCEPerSample()(logits, target), theirs, atol=1e-6)
    target[:, 1] = torch.nan
    alone = BCEPerSample()(logits[:, :1], target[:, :1])
    assert torch.allclose(SoftmaxCEPerSample()(logits, target), alone, atol=1e-6)
    with pytest.raises(InputError, match="channels of the label overlap"):
        SoftmaxCEPerSample()(logits, torch.ones(2, 2, 3, 3))


def test_settings_that_make_no_sense_and_unknown_names_are_refused():
    with pytest.raises(InputError, match="choose one of bce, softmax_ce, dice"):
        loss_named("mse")
    with pytest.raises(InputError, match="expected gamma >= 0"):
        FocalPerSample(gamma=-1)
    with pytest.raises(InputError, match="an empty truth divides by 0"):
        TverskyPerSample(smooth=0)
