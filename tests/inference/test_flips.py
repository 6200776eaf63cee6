"""The mean over mirror images."""

import pytest
import torch
from torch import nn

from medseg.errors import InputError
from medseg.inference import FlipAverage


class Ramp(nn.Module):
    """Adds to every voxel its place along the first spatial axis: no mirror image gets the same answer."""

    def forward(self, x):
        return x + torch.arange(x.shape[2], dtype=x.dtype).reshape(-1, 1, 1)


def test_the_mirror_images_come_back_turned_and_are_averaged():
    x = torch.randn(1, 1, 3, 4, 5)
    # 0, 1, 2 and, from the mirror image, 2, 1, 0: the mean adds 1 to every voxel.
    torch.testing.assert_close(FlipAverage()(x, Ramp()), x + 1)


def test_only_the_axes_named_are_mirrored():
    x, calls = torch.randn(1, 1, 3, 4, 5), []
    network = Ramp()
    network.register_forward_hook(lambda _, given, __: calls.append(given[0]))
    torch.testing.assert_close(FlipAverage(axes=(1, 2))(x, network), network(x))
    assert len(calls) == 4 + 1
    assert any(torch.equal(call, x.flip(3)) for call in calls)
    assert not any(torch.equal(call, x.flip(2)) for call in calls)


def test_axes_that_repeat_or_count_from_the_end_are_refused():
    for axes in ((0, 0), (-1,)):
        with pytest.raises(InputError, match="different spatial axes"):
            FlipAverage(axes=axes)
