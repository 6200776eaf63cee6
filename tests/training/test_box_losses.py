"""Every image's own loss: nothing is changed by asking, and wrong labels have high ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.metrics.pixels import count_levels, roc_auc
from medseg.networks import Detector
from medseg.training import image_losses

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "benchmarks" / "cxr_findings"))
import label_errors  # noqa: E402


def test_asking_for_losses_changes_nothing():
    torch.manual_seed(0)
    network = Detector(
        "faster_rcnn", "resnet18_narrow", anchor_sides=(8, 16, 32, 64, 128), proposals=50
    ).eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    images, target = torch.rand(3, 1, 64, 64), torch.full((3, 2, 5), torch.nan)
    target[0, 0] = torch.tensor([5, 5, 25, 25, 0.0])
    batches = [(images[:2], target[:2]), (images[2:], target[2:])]
    before = torch.get_rng_state()
    first, second = image_losses(network, batches, draws=2), image_losses(network, batches, draws=2)
    assert torch.equal(torch.get_rng_state(), before) and not network.training
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert first["loss"].shape == (3,) and torch.equal(first["loss"], second["loss"])
    parts = sum(value for name, value in first.items() if name != "loss")
    assert torch.allclose(parts, first["loss"], atol=1e-5)


def test_errors_put_into_labels_are_what_they_say():
    rng = np.random.default_rng(0)
    _, boxes = label_errors.film(3)
    assert boxes.shape == (2, 5) and (boxes[:, :2] < boxes[:, 2:4]).all() and boxes[:, 4].tolist() == [0, 1]
    assert np.isnan(label_errors.spoil(boxes, "missing", rng)).any(axis=1).sum() == 1
    assert sorted(label_errors.spoil(boxes, "wrong class", rng)[:, 4]) in ([0, 0], [1, 1])
    moved = label_errors.spoil(boxes, "shifted", rng) - boxes
    size = boxes[:, 2] - boxes[:, 0]
    which = np.flatnonzero(np.abs(moved).any(axis=1))
    assert len(which) == 1 and abs(moved[which[0], 0]) == pytest.approx(size[which[0]])


@pytest.mark.slow
def test_shifted_boxes_have_high_losses():
    images, target, errors = label_errors.data(120, seed=0)
    network = label_errors.learn(images, target, epochs=12, seed=0)
    losses = image_losses(network, zip(images.split(8), target.split(8), strict=True))["loss"].numpy()
    chosen = (errors == "") | (errors == "shifted")
    ranks = losses[chosen].argsort().argsort() / chosen.sum()
    assert roc_auc(count_levels(ranks, errors[chosen] == "shifted")) > 0.8
