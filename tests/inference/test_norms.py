"""Norms of OpenVINO against the same network in float64."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from medseg.inference import engines
from medseg.inference.norms import norms_in_parts

pytest.importorskip("openvino")


def network(norm: nn.Module, dimensions: int = 3) -> nn.Module:
    conv = nn.Conv3d if dimensions == 3 else nn.Conv2d
    torch.manual_seed(0)
    return nn.Sequential(conv(1, 16, 3, padding=1), norm, nn.LeakyReLU(), conv(16, 2, 1)).eval()


def error(net: nn.Module, size: tuple[int, ...], seed: int = 0) -> float:
    """The largest difference from float64 of OpenVINO's answer for a channel of mean 3 and spread 1."""
    image = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(seed)) + 3
    with torch.no_grad():
        exact = copy.deepcopy(net).double()(image.double())
    return float((engines.OpenVINOEngine(net)(image) - exact).abs().max())


@pytest.mark.parametrize(
    ("norm", "size"),
    [
        (nn.InstanceNorm3d(16, affine=True), (64, 64, 64)),
        (nn.InstanceNorm3d(16), (29, 1, 7)),  # no side that could be cut into parts
        (nn.InstanceNorm2d(16, affine=True), (512, 384)),
        (nn.GroupNorm(4, 16), (32, 48, 64)),
        (nn.GroupNorm(1, 16, affine=False), (32, 48)),
    ],
    ids=str,
)
def test_norms_of_openvino_keep_the_digits_of_float32(norm, size):
    assert error(network(norm, len(size)), size) < 3e-6


def test_openvinos_own_sums_lose_them(monkeypatch):
    monkeypatch.setattr(engines, "norms_in_parts", lambda network: nullcontext())
    assert error(network(nn.InstanceNorm3d(16, affine=True)), (64, 64, 64)) > 3e-5


def test_a_network_is_as_it_was_afterwards_and_statistics_of_the_training_are_left_alone():
    net = nn.Sequential(
        nn.InstanceNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True), nn.BatchNorm2d(3)
    )
    image = torch.randn(1, 3, 8, 8)
    before = net.eval()(image)
    with norms_in_parts(net):
        assert ["forward" in vars(norm) for norm in net] == [True, False, False]
        assert torch.allclose(net(image), before, atol=1e-6)
    assert not any("forward" in vars(norm) for norm in net) and torch.equal(net(image), before)


def test_a_norm_of_values_without_a_place_is_its_own():
    norm, values = nn.GroupNorm(2, 4), torch.randn(3, 4)
    before = norm(values)
    with norms_in_parts(norm):
        assert torch.equal(norm(values), before)
