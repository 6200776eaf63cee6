"""The module that scores a label: shapes, signed scores, equal weights at the start, labels that were not
contoured."""

import pytest
import torch

from medseg.errors import InputError
from medseg.networks.quality import BACKBONES, NOT_CONTOURED, QualityModule


@pytest.mark.parametrize("dims, size", [(2, (32, 48)), (3, (16, 32, 16))])
def test_one_score_per_sample_or_per_structure(dims, size):
    x = torch.rand(2, 4, *size)
    assert QualityModule(dims, 4)(x).shape == (2, 1)
    assert QualityModule(dims, 4, scores=3)(x).shape == (2, 3)


def test_a_zero_head_scores_every_label_alike_and_still_learns():
    module = QualityModule(2, 2)
    scores = module(torch.rand(3, 2, 16, 16))
    assert torch.equal(scores, torch.zeros(3, 1))
    scores[0].sum().backward()
    assert module.head.weight.grad.abs().sum() > 0


def test_scores_take_both_signs():
    torch.manual_seed(0)
    scores = torch.cat([QualityModule(2, 2, zero_init=False)(torch.rand(4, 2, 16, 16)) for _ in range(8)])
    assert scores.min() < 0 < scores.max()


def test_mean_then_linear_equals_a_1x1_convolution_then_the_mean():
    torch.manual_seed(1)
    module = QualityModule(2, 2, scores=2, zero_init=False, standardise=False)
    x = torch.rand(3, 2, 32, 32)
    convolution = torch.nn.Conv2d(module.head.in_features, 2, 1)
    convolution.weight.data, convolution.bias.data = (
        module.head.weight.data[:, :, None, None],
        module.head.bias.data,
    )
    expected = convolution(module.features(x)).mean((2, 3))
    torch.testing.assert_close(module(x), expected)


def test_features_are_standardised_over_the_pool_in_training():
    torch.manual_seed(1)
    module = QualityModule(2, 2, zero_init=False)
    x = torch.rand(5, 2, 32, 32)
    pooled = module.features(x).mean((2, 3))
    assert torch.equal(module(x, as_features=True), pooled)
    # Features that no sample wakes up are constant; they stay 0.
    deviations = pooled.std(0, unbiased=False).clamp(min=1e-4)
    expected = module.head((pooled - pooled.mean(0)) / deviations)
    torch.testing.assert_close(module(x), expected, atol=1e-3, rtol=1e-3)
    # A label larger in every sample shifts raw features, and leaves these scores where they are.
    torch.testing.assert_close(module.score(pooled + 7), module.score(pooled), atol=1e-3, rtol=1e-3)
    assert module(x).std() > 0.1


def test_one_sample_and_evaluation_meet_the_running_statistics():
    torch.manual_seed(1)
    module = QualityModule(2, 2, zero_init=False)
    features = 5 + 2 * torch.randn(400, 64)
    for _ in range(60):
        module.score(features)
    one = module.score(features[:1])
    standardised = (features[:1] - features.mean(0)) / features.std(0)
    torch.testing.assert_close(one, module.head(standardised), atol=0.05, rtol=0.05)
    module.eval()
    torch.testing.assert_close(module.score(features)[:1], one)


def test_raw_features_know_no_statistics():
    raw = QualityModule(2, 2, standardise=False)
    assert raw.statistics is None and not [name for name, _ in raw.named_buffers()]


def test_a_channel_that_was_not_contoured_is_told_from_an_empty_one():
    torch.manual_seed(2)
    module = QualityModule(2, 2, zero_init=False).eval()
    empty, unknown, coded = (torch.full((1, 1, 16, 16), value) for value in (0.0, torch.nan, NOT_CONTOURED))
    image = torch.rand(1, 1, 16, 16)
    scores = [module(torch.cat([image, label], 1)) for label in (empty, unknown, coded)]
    assert scores[1].isfinite().all() and torch.equal(scores[1], scores[2])
    assert not torch.equal(scores[0], scores[1])


def test_scores_are_float32_under_autocast():
    module = QualityModule(2, 2, zero_init=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.rand(1, 2, 16, 16)).dtype == torch.float32


def test_the_vgg_backbones_have_the_papers_number_of_convolutions():
    assert [sum(len(stage) for stage in BACKBONES[name]) for name in ("vgg11", "vgg16")] == [8, 13]
    norms = [m for m in QualityModule(2, 4, norm="batch").features if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 6


def test_unknown_backbones_and_too_small_images_are_refused_in_one_line():
    with pytest.raises(InputError, match="no backbone 'vgg12'; choose one of small, vgg11, vgg16"):
        QualityModule(2, 4, backbone="vgg12")
    with pytest.raises(InputError, match=r"size \(8, 32\).*at least 16"):
        QualityModule(2, 4)(torch.rand(1, 4, 8, 32))
