"""What a batch of one or two does to the networks with batch norm, on fundus phantoms.

    python tools/benchmarks/eye_lesion/small_batches.py

The source of the bundle eye_lesion saw exploding losses at batch 2 and masks that came out all black. Here
each case is trained for a few steps with the source's optimiser, rate and loss, or with the bundle's own
recipe, and asked the same photographs twice: with the statistics of the batch, as in training, and with the
running ones, as in use. What the source does not say is tried both ways: momentum, the loss summed over
pixels and images instead of averaged (as the first implementations of FCN had it), pixels from 0 to 255, and
a rate that falls. Prints a table in Markdown: the largest gradient, the mean probability of lesion and of
other pixels in both modes, and how many pixels reach 0.5.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medseg.losses import loss_named
from medseg.networks.segmenters import ARCHITECTURES, Segmenter
from medseg.phantoms.fundus import make_fundus

SIDE = 64
PATIENTS = 8


@dataclass(frozen=True)
class Trial:
    """``guarded``: as medseg builds the network; False puts batch norm back where it has one pixel.
    ``summed``: the loss over all pixels and images, not their mean. ``raw``: pixels from 0 to 255, not less
    their mean over their spread. ``decay``: of the rate, after every step."""

    architecture: str
    batch: int
    loss: str
    optimizer: str
    learning_rate: float
    guarded: bool = True
    momentum: float = 0.0
    summed: bool = False
    raw: bool = False
    decay: float = 1.0

    @property
    def words(self) -> str:
        """The recipe of the table."""
        told = {
            f"momentum {self.momentum:g}": self.momentum,
            "loss summed": self.summed,
            "pixels 0 to 255": self.raw,
            f"rate times {self.decay:g} each step": self.decay != 1,
        }
        more = [words for words, given in told.items() if given]
        return ", ".join([self.loss, f"{self.optimizer} {self.learning_rate:g}", *more])


SOURCE = ("softmax_ce", "SGD", 0.001)
"""Of FCN, DeepLabv3 and DeepLabv3+."""

TRIALS = (
    Trial("deeplabv3_narrow", 1, *SOURCE, guarded=False),
    Trial("deeplabv3_narrow", 2, *SOURCE, guarded=False),
    Trial("deeplabv3_narrow", 2, *SOURCE),
    Trial("deeplabv3_narrow", 2, *SOURCE, guarded=False, momentum=0.99),
    Trial("fcn_resnet101_narrow", 1, *SOURCE),
    Trial("fcn_resnet101_narrow", 2, *SOURCE),
    Trial("fcn_resnet101_narrow", 1, *SOURCE, momentum=0.99),
    Trial("fcn_resnet101_narrow", 2, *SOURCE, momentum=0.99),
    Trial("fcn_resnet101_narrow", 1, *SOURCE, summed=True),
    Trial("fcn_resnet101_narrow", 2, *SOURCE, summed=True),
    Trial("fcn_resnet101_narrow", 2, *SOURCE, raw=True),
    Trial("fcn_resnet101_narrow", 2, *SOURCE, decay=0.8),
    Trial("segnet_narrow", 5, "softmax_ce", "SGD", 0.0002),
    Trial("unet_narrow", 1, "bce", "RMSprop", 0.001),
    Trial("unet_narrow", 1, "bce", "RMSprop", 0.001, raw=True),
    Trial("deeplabv3plus_xception", 2, *SOURCE),
    Trial("fcn_resnet101_narrow", 2, "dice_bce", "AdamW", 0.002),
)


def photographs(raw: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(PATIENTS, 3, SIDE, SIDE) less their mean over their spread, or ``raw`` from 0 to 255; and the
    lesions."""
    photos = [make_fundus(patient, 0, SIDE) for patient in range(PATIENTS)]
    images = np.stack([photo.image.transpose(2, 0, 1) for photo in photos])
    spread = images.std((2, 3), keepdims=True)
    images = 255 * images if raw else (images - images.mean((2, 3), keepdims=True)) / spread
    truth = np.stack([photo.lesions for photo in photos])[:, None]
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(truth.astype(np.float32))


def network_of(trial: Trial) -> nn.Module:
    if trial.guarded:
        return Segmenter(trial.architecture)
    plain = ARCHITECTURES[trial.architecture].build(1)

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = plain

        def forward(self, x):
            answer = self.network(x)
            return answer["out"] if isinstance(answer, dict) else answer

    return Plain()


def run(trial: Trial, steps: int, seed: int = 0) -> list[str]:
    """The trial's row of the table."""
    torch.manual_seed(seed)
    images, truth = photographs(trial.raw)
    network, loss = network_of(trial), loss_named(trial.loss)
    more = {"momentum": trial.momentum} if trial.momentum else {}
    optimizer = getattr(torch.optim, trial.optimizer)(network.parameters(), lr=trial.learning_rate, **more)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, trial.decay)
    largest, value = 0.0, float("nan")
    name = [trial.architecture + ("" if trial.guarded else ", norm of one pixel"), str(trial.batch)]
    name += [trial.words]
    pixels = truth[: trial.batch].numel() if trial.summed else 1
    for step in range(steps):
        chosen = torch.arange(step * trial.batch, (step + 1) * trial.batch) % PATIENTS
        optimizer.zero_grad()
        try:
            result = pixels * loss(network.train()(images[chosen]), truth[chosen]).mean()
        except ValueError as error:
            return [*name, "refused: " + str(error).split(",")[0], "", "", ""]
        result.backward()
        value = float(result.detach()) / pixels
        norm = max(float(p.grad.norm()) for p in network.parameters() if p.grad is not None)
        largest = max(largest, norm)
        if not np.isfinite([value, norm]).all():
            return [*name, f"not finite from step {step + 1} on", f"{largest:.2g}", "", ""]
        optimizer.step()
        schedule.step()
    row = [*name, f"{value:.3f}", f"{largest:.2g}"]
    with torch.no_grad():
        for mode in (True, False):
            network.train(mode)
            chances = torch.cat(
                [torch.sigmoid(network(images[n : n + trial.batch])) for n in range(0, PATIENTS, trial.batch)]
            )
            lesion, rest = float(chances[truth > 0].mean()), float(chances[truth == 0].mean())
            row.append(f"{lesion:.3f} / {rest:.3f}, {100 * float((chances >= 0.5).float().mean()):.1f} %")
    return [*row]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    heads = ("network", "batch", "recipe", "last loss", "largest gradient", "as in training", "as in use")
    print(f"| {' | '.join(heads)} |\n|---|--:|---|--:|--:|--:|--:|")
    for trial in TRIALS:
        print(f"| {' | '.join(run(trial, options.steps))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
