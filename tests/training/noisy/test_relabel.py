"""Parts of the peers that correct labels, against hand counts and cleanlab."""

import numpy as np
import pytest
import torch

from medseg.networks.quality import QualityModule
from medseg.training.noisy.relabel import confidence_sums, confident_flags, memorising

CHANNELS = 2
QUALITY = QualityModule(2, 1 + CHANNELS, backbone=((4,),))


def test_memorising_is_seen_when_the_training_iou_flattens():
    epochs = np.arange(1, 30)
    curve = 0.9 * (1 - np.exp(-0.3 * epochs**1.0))
    # slope ratio exp(-0.3 (t - 1)) falls below 0.1 at t - 1 = 7.68: from epoch 9 on
    assert not memorising(list(curve[:8]), 0.9) and memorising(list(curve[:9]), 0.9)
    assert not memorising([0.1, 0.2, 0.3], 0.9)


def test_confident_flags_agree_with_cleanlab():
    filters = pytest.importorskip("cleanlab.filter")
    torch.manual_seed(0)
    truth = torch.rand(6, 1, 20, 20) > 0.6
    probability = (torch.where(truth, 0.8, 0.2) + 0.25 * torch.randn(truth.shape)).clamp(0.01, 0.99)
    labels = (truth ^ (torch.rand(truth.shape) < 0.15)).float()
    sums = confidence_sums(labels, probability)
    flags = confident_flags(labels, probability, sums[0] / sums[1])
    p = probability.flatten().numpy()
    issues = filters.find_label_issues(
        labels.flatten().int().numpy(), np.stack([1 - p, p], 1), filter_by="confident_learning", n_jobs=1
    )
    # cleanlab also clears flags whose given label is the likeliest one; both thresholds are near 0.5 here.
    assert np.mean(issues == flags.flatten().numpy()) > 0.99
    assert 0.05 < flags.float().mean() < 0.25
