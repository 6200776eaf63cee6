"""What a batch of one or two does to the networks with batch norm, on fundus phantoms.

    python tools/benchmarks/eye_lesion/small_batches.py

The source of the bundle eye_lesion saw exploding losses at batch 2 and masks that came out all black. Here
each case is trained for a few steps with the source's SGD at 0.001 on its per-pixel softmax loss, or with the
bundle's own recipe, and asked the same photographs twice: with the statistics of the batch, as in training,
and with the running ones, as in use. Prints a table in Markdown: the largest gradient, the mean probability
of lesion and of other pixels in both modes, and how many pixels reach 0.5.
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
    """``guarded``: as medseg builds the network; False puts batch norm back where it has one pixel."""

    architecture: str
    batch: int
    loss: str
    optimizer: str
    learning_rate: float
    guarded: bool = True


TRIALS = (
    Trial("deeplabv3_narrow", 1, "softmax_ce", "SGD", 0.001, guarded=False),
    Trial("deeplabv3_narrow", 2, "softmax_ce", "SGD", 0.001, guarded=False),
    Trial("deeplabv3_narrow", 2, "softmax_ce", "SGD", 0.001),
    Trial("fcn_resnet101_narrow", 1, "softmax_ce", "SGD", 0.001),
    Trial("fcn_resnet101_narrow", 2, "softmax_ce", "SGD", 0.001),
    Trial("fcn_resnet101_narrow", 2, "dice_bce", "AdamW", 0.002),
)


def photographs() -> tuple[torch.Tensor, torch.Tensor]:
    """(PATIENTS, 3, SIDE, SIDE) less their mean over their spread, and the lesions."""
    photos = [make_fundus(patient, 0, SIDE) for patient in range(PATIENTS)]
    images = np.stack([photo.image.transpose(2, 0, 1) for photo in photos])
    images = (images - images.mean((2, 3), keepdims=True)) / images.std((2, 3), keepdims=True)
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
    images, truth = photographs()
    network, loss = network_of(trial), loss_named(trial.loss)
    optimizer = getattr(torch.optim, trial.optimizer)(network.parameters(), lr=trial.learning_rate)
    largest, value = 0.0, float("nan")
    name = [trial.architecture + ("" if trial.guarded else ", norm of one pixel"), str(trial.batch)]
    name += [f"{trial.loss}, {trial.optimizer} {trial.learning_rate:g}"]
    for step in range(steps):
        chosen = torch.arange(step * trial.batch, (step + 1) * trial.batch) % PATIENTS
        optimizer.zero_grad()
        try:
            result = loss(network.train()(images[chosen]), truth[chosen]).mean()
        except ValueError as error:
            return [*name, "refused: " + str(error).split(",")[0], "", "", ""]
        result.backward()
        optimizer.step()
        value = float(result.detach())
        norm = max(float(p.grad.norm()) for p in network.parameters() if p.grad is not None)
        largest = max(largest, norm)
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
