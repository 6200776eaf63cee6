"""nnU-Net's sliding window, a plane of merged logits at a time.

nnU-Net holds the logits of the whole image in float16 and adds every window to them in turn. Here windows run
in the same order and are added in the same float16, so that the sums are the very same numbers; but only as
many planes are held as a patch is deep, in a ring: a plane is finished when the next window begins below it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import pad

from medseg.errors import InputError
from medseg.inference.engines import Engine
from medseg.inference.nnunet_stage import Stage

STEP = 0.5
"""Windows begin at most this share of a patch apart."""

CENTRE = 10.0
"""Weight of a window's centre; float16 then resolves the far smaller weights of its corners."""

CONSTANT = 1e-6
"""A window whose channels vary by no more than this is air, say; all such windows of one value share one
answer."""


def window_starts(size: int, patch: int) -> list[int]:
    """Where the windows along an axis begin: evenly spread, the last one ends with the axis."""
    count = int(np.ceil((size - patch) / (patch * STEP))) + 1
    step = (size - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(step * number)) for number in range(count)]


def importance(patch: Sequence[int]) -> torch.Tensor:
    """float16 of a patch's shape: a Gaussian with an eighth of the patch as its spread, nowhere 0."""
    centre = np.zeros(tuple(patch))
    centre[tuple(n // 2 for n in patch)] = 1.0
    weights = gaussian_filter(centre, [n / 8 for n in patch], mode="constant")
    weights = torch.from_numpy(weights / (weights.max() / CENTRE)).to(torch.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return weights


@dataclass(eq=False)
class Folds:
    """The networks of one stage, asked for the mean logits of a window and its mirror images."""

    engines: Sequence[Engine]
    stage: Stage
    known: dict[tuple, list[torch.Tensor]] = field(default_factory=dict)

    def answers(self, window: torch.Tensor) -> list[torch.Tensor]:
        """Per fold: float32 (heads, *patch) logits of a window (1, channels, *patch)."""
        flat = window.flatten(2)
        low, high = flat.amin(dim=2), flat.amax(dim=2)
        if float((high - low).max()) > CONSTANT:
            return [self._mirrored(engine, window) for engine in self.engines]
        key = tuple(round(float(value), 5) for value in low[0])
        if key not in self.known:
            self.known[key] = [self._mirrored(engine, window).clone() for engine in self.engines]
        return self.known[key]

    def _mirrored(self, engine: Engine, window: torch.Tensor) -> torch.Tensor:
        """The mean answer; without mirror images it lies in the engine's own memory until its next call."""
        axes = [axis + 2 for axis in self.stage.mirror_axes]
        if not axes:
            return engine(window)[0]
        total = engine(window)[0].clone()
        for length in range(1, len(axes) + 1):
            for turned in itertools.combinations(axes, length):
                answer = engine(torch.flip(window, turned))[0]
                total += torch.flip(answer, [axis - 1 for axis in turned])
        return total.div_(2 ** len(axes))


class _Ring:
    """Sums of weighted logits of the planes that windows still reach, one set per fold; plane n lies at n
    modulo the depth."""

    def __init__(self, folds: int, heads: int, depth: int, size: tuple[int, int], device: torch.device):
        self.depth = depth
        self.sums = [
            torch.zeros((heads, depth, *size), dtype=torch.half, device=device) for _ in range(folds)
        ]
        self.weights = torch.zeros((depth, *size), dtype=torch.half, device=device)

    def add(self, start: int, box: tuple[slice, slice], answers: list[torch.Tensor], weights: torch.Tensor):
        """Add each fold's logits (heads, depth, *box) of the window that begins at plane ``start``."""
        turn = start % self.depth
        parts = [(slice(turn, None), slice(0, self.depth - turn)), (slice(0, turn), slice(-turn, None))]
        for ring, part in parts[: 2 if turn else 1]:
            for sums, logits in zip(self.sums, answers, strict=True):
                for head in range(len(sums)):  # one by one: all weighted logits at once would be 1 GB
                    sums[(head, ring, *box)] += logits[head, part] * weights[part]
            self.weights[(ring, *box)] += weights[part]

    def take(self, plane: int) -> torch.Tensor:
        """float16 (heads, *size): the mean logits of a finished plane, whose place is free afterwards."""
        at = plane % self.depth
        merged = self.sums[0][:, at] / self.weights[at]
        for sums in self.sums[1:]:
            merged += sums[:, at] / self.weights[at]
        if len(self.sums) > 1:
            merged /= len(self.sums)
        for held in (*(sums[:, at] for sums in self.sums), self.weights[at]):
            held.zero_()
        if not bool(torch.isfinite(merged.sum(dtype=torch.float32))):  # one such value makes the sum so
            raise InputError(
                "the network's answer is not finite numbers (weights, values of the image, or float16)."
            )
        return merged


def merged_planes(
    image: torch.Tensor, folds: Folds, progress: Callable[[int], object] = lambda total: None
) -> Iterator[torch.Tensor]:
    """The merged logits of an image (channels, *shape), plane after plane along its first axis: float16
    (heads, rows, columns).

    An image smaller than the patch is framed by zeros, which the answer does not have. ``progress`` is called
    with the number of windows first and with 0 after each. InputError for logits that are not finite.
    """
    patch = (1, *folds.stage.patch_size) if folds.stage.of_slices else tuple(folds.stage.patch_size)
    missing = [max(want - n, 0) for want, n in zip(patch, image.shape[1:], strict=True)]
    frame = [(n // 2, n - n // 2) for n in missing]
    framed = pad(image, [n for pair in reversed(frame) for n in pair]) if any(missing) else image
    starts = [window_starts(n, side) for n, side in zip(framed.shape[1:], patch, strict=True)]
    progress(int(np.prod([len(row) for row in starts])))
    weights = importance(folds.stage.patch_size).reshape(patch).to(image.device)
    size = tuple(framed.shape[2:])
    ring = _Ring(len(folds.engines), folds.stage.heads, patch[0], size, image.device)
    first, last = frame[0][0], frame[0][0] + image.shape[1]
    inside = tuple(slice(low, low + n) for (low, _), n in zip(frame[1:], image.shape[2:], strict=True))
    for number, start in enumerate(starts[0]):
        for row, column in itertools.product(*starts[1:]):
            box = (slice(row, row + patch[1]), slice(column, column + patch[2]))
            window = framed[(slice(None), slice(start, start + patch[0]), *box)][None]
            ring.add(start, box, _of_window(window, folds), weights)
            progress(0)
        following = starts[0][number + 1] if number + 1 < len(starts[0]) else start + patch[0]
        for plane in range(start, following):
            merged = ring.take(plane)
            if first <= plane < last:
                yield merged[(slice(None), *inside)]


def _of_window(window: torch.Tensor, folds: Folds) -> list[torch.Tensor]:
    if not folds.stage.of_slices:
        return folds.answers(window.contiguous())
    return [answer[:, None] for answer in folds.answers(window[:, :, 0].contiguous())]
