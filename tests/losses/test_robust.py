"""The peers' losses on numbers worked out by hand: (B,) values, empty and not contoured channels, finite
gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from medseg.errors import InputError
from medseg.losses.per_sample import BCEPerSample, DiceBCEPerSample
from medseg.losses.robust import GeneralisedCE, InverseFrequencyBCE, NoiseRobustDice, TLoss

ALL = [BCEPerSample, DiceBCEPerSample, InverseFrequencyBCE, GeneralisedCE, NoiseRobustDice, TLoss]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize("loss", ALL)
def test_one_value_per_sample_and_one_per_channel(loss):
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 4, 4, 4, requires_grad=True), (torch.rand(3, 2, 4, 4, 4) > 0.5).float()
    values = loss()(logits, target)
    per_channel, labelled = loss().per_channel(logits, target)
    assert values.shape == (3,) and per_channel.shape == (3, 2) and bool(labelled.all())
    torch.testing.assert_close(values, per_channel.mean(1))
    values.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", ALL)
def test_a_structure_that_was_not_contoured_gives_no_loss_and_no_gradient(loss):
    logits, target = torch.randn(1, 2, 4, 4, requires_grad=True), torch.ones(1, 2, 4, 4)
    target[:, 1] = torch.nan
    value = loss()(logits, target)
    value.sum().backward()
    torch.testing.assert_close(value, loss()(logits[:, :1], target[:, :1]))
    assert logits.grad[:, 1].abs().sum() == 0


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_an_empty_and_a_full_label_have_finite_losses_and_gradients_that_pull_the_right_way(loss, truth):
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss()(logits, torch.full((1, 1, 4, 4), truth)).sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad < 0).all() if truth else (logits.grad > 0).all()


def test_inverse_frequency_gives_foreground_and_background_equal_say():
    # 1 foreground voxel of 4 (weight 3 / 1), probability 0.5 there and 0.2 on the background: equal halves.
    logits = torch.tensor([[[[0.0, logit(0.2), logit(0.2), logit(0.2)]]]])
    target = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    expected = (-math.log(0.5) - math.log(0.8)) / 2
    assert float(InverseFrequencyBCE()(logits, target)) == pytest.approx(expected)


def test_inverse_frequency_is_bounded_by_its_floor_and_plain_where_the_label_is_empty():
    target = torch.zeros(1, 1, 1, 5000)
    logits = torch.randn(1, 1, 1, 5000)
    torch.testing.assert_close(InverseFrequencyBCE()(logits, target), BCEPerSample()(logits, target))
    target[..., 0] = 1
    voxels = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten()
    expected = (1000 * voxels[0] + voxels[1:].sum()) / (1000 + 4999)
    assert float(InverseFrequencyBCE()(logits, target)) == pytest.approx(float(expected), rel=1e-5)


def test_generalised_ce_by_hand_and_at_its_two_ends():
    logits, target = torch.tensor([[[logit(0.6)]]]), torch.tensor([[[1.0]]])
    assert float(GeneralisedCE(0.7)(logits, target)) == pytest.approx((1 - 0.6**0.7) / 0.7)
    assert float(GeneralisedCE(1.0)(logits, target)) == pytest.approx(0.4)
    assert float(GeneralisedCE(1e-4)(logits, target)) == pytest.approx(-math.log(0.6), rel=1e-3)


def test_noise_robust_dice_by_hand():
    logits, target = torch.tensor([[[logit(0.75), logit(0.25)]]]), torch.tensor([[[1.0, 0.0]]])
    assert float(NoiseRobustDice()(logits, target)) == pytest.approx(2 * 0.25**1.5 / 2, rel=1e-4)
    assert float(NoiseRobustDice(2.0)(logits, target)) == pytest.approx(2 * 0.25**2 / 2, rel=1e-4)


def test_t_loss_is_the_density_of_scipys_multivariate_t():
    from scipy.stats import multivariate_t

    torch.manual_seed(0)
    logits, target = torch.randn(1, 1, 6), torch.tensor([[[1.0, 0, 1, 0, 1, 1]]])
    error = (torch.sigmoid(logits) - target).flatten().numpy()
    expected = -multivariate_t(loc=[0.0] * 6, df=math.exp(0.5)).logpdf(error) / 6
    assert float(TLoss(log_nu=0.5)(logits, target)) == pytest.approx(expected, rel=1e-5)


def test_t_loss_learns_its_degrees_of_freedom_and_bears_outliers_better_than_squares():
    loss = TLoss()
    target = torch.zeros(1, 1, 100)
    one, many = torch.full((1, 1, 100), -8.0), torch.full((1, 1, 100), -8.0)
    one[..., :10], many[..., :50] = 8.0, 8.0
    near, far = loss(one, target), loss(many, target)
    assert float(far - near) < 0.5 * math.log(5) * 1.02  # |d|^2 grew 5 times, the loss by its logarithm only
    far.sum().backward()
    assert loss.log_nu.grad.abs() > 0


def test_settings_outside_the_papers_range_are_refused():
    with pytest.raises(InputError, match="q=0; it must be above 0"):
        GeneralisedCE(0)
    with pytest.raises(InputError, match="gamma=3; the paper's range"):
        NoiseRobustDice(3)
