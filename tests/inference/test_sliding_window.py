"""Windows merged in cells give what MONAI's sliding window gives, in less memory, as logits or as bits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference

from medseg.errors import InputError
from medseg.inference.sliding_window import PACKED_SIZE, SlidingWindow, unpack


def network(channels=3):
    """Answers that depend on where a voxel lies in its window, so that a wrong weight or place shows."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 5, padding=2),
        torch.nn.InstanceNorm3d(4),
        torch.nn.Tanh(),
        torch.nn.Conv3d(4, channels, 1),
    ).eval()


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, (0.5, 0.0, 0.25)])
@pytest.mark.parametrize("size", [(16, 16, 16), (7, 40, 21), (33, 18, 50)])
def test_the_result_is_that_of_monais_sliding_window(mode, overlap, size):
    torch.manual_seed(1)
    image, net, roi = torch.randn(1, 1, *size), network(), (16, 16, 24)
    with torch.no_grad():
        expected = sliding_window_inference(image, roi, 1, net, overlap=overlap, mode=mode)
    ours = SlidingWindow(roi, overlap=overlap, mode=mode, engine="torch")(image, net)
    assert ours.shape == expected.shape and (ours - expected).abs().max() < 1e-5


def test_images_of_a_batch_and_windows_in_batches_are_kept_apart():
    torch.manual_seed(1)
    image, net = torch.randn(2, 1, 20, 30, 25), network()
    with torch.no_grad():
        expected = sliding_window_inference(image, (16, 16, 16), 3, net, overlap=0.5, mode="gaussian")
    ours = SlidingWindow((16, 16, 16), sw_batch_size=3, overlap=0.5, mode="gaussian", engine="torch")(
        image, net
    )
    assert (ours - expected).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(7, 40, 21), (33, 18, 50)])
def test_masks_are_the_logits_cut_at_zero_a_bit_each(size):
    torch.manual_seed(1)
    image, net = MetaTensor(torch.randn(1, 1, *size)), network()
    window = {"roi_size": (16, 16, 24), "overlap": 0.25, "mode": "gaussian", "engine": "torch"}
    logits, bits = (SlidingWindow(**window, keep=keep)(image, net) for keep in ("logits", "masks"))
    assert bits.dtype == torch.uint8 and bits.shape == (1, 3, *size[:2], -(-size[2] // 8))
    assert bits.meta[PACKED_SIZE] == size[2]
    masks = np.stack([unpack(channel, size[2]) for channel in bits[0]])
    assert np.array_equal(masks, logits[0].numpy() >= 0) and 0.1 < masks.mean() < 0.9


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("keep", ["logits", "masks"])
def test_an_answer_of_nan_is_refused_and_not_taken_for_nothing_there(keep, value):
    def overflow(batch):
        answer = batch.clone()
        answer[0, 0, 3, 4, 5] = value
        return answer

    with pytest.raises(InputError, match="not finite numbers"):
        SlidingWindow((8, 8, 8), keep=keep, engine="torch")(torch.ones(1, 1, 8, 8, 8), overflow)


class Counting(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


def test_windows_of_air_are_computed_once_and_the_result_is_the_very_same():
    torch.manual_seed(1)
    image = torch.zeros(1, 1, 64, 32, 32)
    image[..., 20:40, 8:20, 8:20] = torch.rand(20, 12, 12)
    all_of_it, less = Counting(network()), Counting(network())
    window = {"roi_size": (16, 16, 16), "overlap": 0.25, "mode": "gaussian", "engine": "torch"}
    expected = SlidingWindow(**window)(image, all_of_it)
    ours = SlidingWindow(**window, air_at_most=0.0)(image, less)
    assert torch.equal(ours, expected)
    assert all_of_it.calls == 5 * 3 * 3 and less.calls < 30


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="keep is 'bits'; expected one of logits, masks"):
        SlidingWindow((16, 16, 16), keep="bits")
    with pytest.raises(InputError, match="overlap is 1.0"):
        SlidingWindow((16, 16, 16), overlap=1.0)
    for roi_size in ((16, 0, 16), (16, 16, -1), ()):
        with pytest.raises(InputError, match="roi_size is .*; expected 1 or more voxels for every axis"):
            SlidingWindow(roi_size)
    with pytest.raises(InputError, match="engine 'tensorrt': expected one of auto, torch, openvino"):
        SlidingWindow((16, 16, 16), engine="tensorrt")
    with pytest.raises(InputError, match="image of 2 dimensions"):
        SlidingWindow((16, 16, 16))(torch.zeros(1, 1, 16, 16), network())


MEMORY = """
import resource, sys, torch
from medseg.inference.sliding_window import SlidingWindow
channels, side = 40, 128
network = torch.nn.Conv3d(1, channels, 1)
image = torch.randn(1, 1, side, side, side)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
SlidingWindow((32, 32, 32), overlap=0.25, mode="gaussian", engine="torch", keep="masks")(image, network)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (channels * side**3))
"""


@pytest.mark.slow
def test_masks_take_a_fraction_of_a_byte_for_each_structure_and_voxel():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # 4 bytes for the frontier of 8 of 128 planes and one row of windows, and one bit: far below the 4 of
    # plain logits.
    assert float(run.stdout) < 1.2
