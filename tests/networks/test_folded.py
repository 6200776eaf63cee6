"""A network on voxels folded into channels."""

import pytest
import torch
from torch import nn

from medseg.errors import InputError
from medseg.networks import FoldedNet, ResUNetSE


def test_folding_and_unfolding_changes_nothing_by_itself():
    x = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(FoldedNet(nn.Identity(), 3)(x), x)
    assert torch.equal(FoldedNet(nn.Identity(), 2)(x[..., 0]), x[..., 0])


def test_the_network_sees_eight_voxels_as_channels_of_one():
    seen = []
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    net = FoldedNet(nn.Identity(), 3)
    net.network.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    net(x)
    assert seen[0].shape == (1, 8, 1, 1, 1)
    assert sorted(seen[0].flatten().tolist()) == list(range(8))


def test_the_position_is_the_squared_distance_from_the_middle():
    net = FoldedNet(nn.Identity(), 2, fold=1, position=True)
    position = net(torch.zeros(2, 1, 4, 2))[:, 1]
    # Centres at -3/4, -1/4, 1/4, 3/4 and at -1/2, 1/2: 9/16 + 1/4 at the ends, 1/16 + 1/4 inside.
    expected = torch.tensor([[0.8125, 0.8125], [0.3125, 0.3125], [0.3125, 0.3125], [0.8125, 0.8125]])
    assert torch.equal(position, expected.expand(2, 4, 2))


def test_a_u_net_inside_gives_logits_of_the_whole_size_and_learns():
    inner = ResUNetSE(3, in_channels=16, out_channels=8, channels=(8, 16), strides=(2,))
    net = FoldedNet(inner, 3, position=True)
    logits = net(torch.randn(1, 1, 8, 12, 16))
    assert logits.shape == (1, 1, 8, 12, 16)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_size_that_does_not_fold_is_refused():
    with pytest.raises(InputError, match=r"\(4, 5, 6\); expected multiples of 2"):
        FoldedNet(nn.Identity(), 3)(torch.zeros(1, 1, 4, 5, 6))
