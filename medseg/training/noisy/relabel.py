"""Learners that change labels they do not believe, while training runs: ADELE and confident learning.

Both predict on the very images the network is shown, so augmentation needs no bookkeeping.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from scipy.optimize import curve_fit

from medseg.training.noisy.learners import (
    Batch,
    EqualWeights,
    Outcome,
    Parts,
    fresh_copy,
    same_optimizer,
    share,
    unwrapped,
)
from medseg.training.noisy.pools import of_all_processes


class Adele(EqualWeights):
    """Correct a structure's labels by the network's own confident predictions once it starts to memorise
    them.

    Memorising shows in the training IoU of the structure, f(t) = a (1 - exp(-b t^c)), fitted to the epochs so
    far: when its slope has fallen by `slope_drop` from the first epoch's, the network of that moment becomes
    the structure's teacher, and from then on voxels the teacher is more than `confidence` sure of get its
    answer as label. Source: Liu et al., CVPR 2022, arXiv 2110.03740. Left out: its consistency loss over
    scales, which is independent of the correction; correction uses one scale.
    """

    def __init__(self, parts: Parts, slope_drop: float = 0.9, confidence: float = 0.7) -> None:
        super().__init__(parts)
        self.slope_drop, self.confidence = share("slope_drop", slope_drop), share("confidence", confidence)
        self.curve: list[list[float]] = []
        self.teacher_of: dict[int, str] = {}
        self._overlap: torch.Tensor | None = None

    def backward(self, batch: Batch) -> Outcome:
        outcome = super().backward(batch)
        predicted = outcome.prediction > 0
        labelled = batch.labels.nan_to_num() > 0.5
        both, either = ((predicted & labelled), (predicted | labelled))
        counts = torch.stack([m.sum(dim=[0, *range(2, m.ndim)]).double() for m in (both, either)]).cpu()
        self._overlap = counts if self._overlap is None else self._overlap + counts
        return outcome

    @torch.no_grad()
    def labels(self, batch: Batch) -> torch.Tensor:
        if not self.teacher_of:
            return batch.labels
        labels = batch.labels.clone()
        for name in dict.fromkeys(self.teacher_of.values()):
            teacher = self.modules[name].eval()
            probability = torch.sigmoid(self.parts.inferer(batch.images, teacher))
            for channel in (c for c, owner in self.teacher_of.items() if owner == name):
                given, p = labels[:, channel], probability[:, channel]
                given[(p > self.confidence) & ~torch.isnan(given)] = 1.0
                given[(1 - p > self.confidence) & ~torch.isnan(given)] = 0.0
        return labels

    def epoch_completed(self) -> None:
        both, either = of_all_processes([self._overlap[None]])[0].sum(0)
        self.curve.append((both / either.clamp(min=1)).tolist())
        self._overlap = None
        for channel in range(len(self.curve[0])):
            history = [epoch[channel] for epoch in self.curve]
            if channel not in self.teacher_of and memorising(history, self.slope_drop):
                name = f"teacher{len(self.curve)}"
                self.teacher_of[channel] = name
                if name not in self.modules:
                    self.modules[name] = copy.deepcopy(unwrapped(self.parts.network)).requires_grad_(False)

    def memory(self) -> dict[str, Any]:
        return {"curve": self.curve, "teacher_of": self.teacher_of}

    def remember(self, memory: dict[str, Any]) -> None:
        self.curve, self.teacher_of = list(memory["curve"]), dict(memory["teacher_of"])
        for name in dict.fromkeys(self.teacher_of.values()):
            self.modules[name] = copy.deepcopy(unwrapped(self.parts.network)).requires_grad_(False)


def memorising(iou_by_epoch: list[float], slope_drop: float) -> bool:
    """Whether the fitted curve's slope at the last epoch is below (1 - slope_drop) of that at the first.

    False for fewer than 4 epochs and for a curve that cannot be fitted. The criterion of ADELE.
    """
    if len(iou_by_epoch) < 4:
        return False
    epochs = np.arange(1, len(iou_by_epoch) + 1, dtype=float)
    try:
        (a, b, c), _ = curve_fit(
            _rise, epochs, iou_by_epoch, p0=(1, 1, 1), bounds=([0, 0, 0], [1, np.inf, np.inf])
        )
    except RuntimeError:  # curve_fit's only way to say that it did not converge
        return False
    # (1 - exp(-b t^c))' = b c t^(c-1) exp(-b t^c)
    first, last = (a * b * c * t ** (c - 1) * np.exp(-b * t**c) for t in (1.0, epochs[-1]))
    return bool(first > 0 and abs(first - last) / first > slope_drop)


def _rise(t: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    return a * (1 - np.exp(-b * t**c))


class ConfidentLearning(EqualWeights):
    """Two teachers, each trained on half of the cases, flag the other half's voxels; flagged labels are
    softened.

    During the first `teacher_epochs` epochs both teachers learn (the network too, from the given labels).
    After them a voxel is flagged when the other half's teacher is confident of the opposite, see
    `confident_flags`, and its label y becomes |y - softening|. Source: Northcutt et al., JAIR 2021, arXiv
    1911.00068 (confident joint), Zhang et al., MICCAI 2020 (two folds, soft correction with 0.8). A case's
    half is the parity of its number.
    """

    def __init__(self, parts: Parts, teacher_epochs: int, softening: float = 0.8) -> None:
        super().__init__(parts)
        self.teacher_epochs, self.softening = teacher_epochs, share("softening", softening)
        for name in ("teacher0", "teacher1"):
            self.modules[name] = fresh_copy(parts.network)
            self.optimizers[name] = same_optimizer(parts.optimizer, self.modules[name].parameters())
        self._epoch = 0
        self.sums: torch.Tensor | None = None
        self.thresholds: torch.Tensor | None = None

    def backward(self, batch: Batch) -> Outcome:
        self._epoch = batch.epoch
        half = batch.cases % 2
        if batch.epoch <= self.teacher_epochs:
            for number in (0, 1):
                if bool((half == number).any()):
                    images, labels = batch.images[half == number], batch.labels[half == number]
                    prediction = self.parts.inferer(images, self.modules[f"teacher{number}"])
                    self.parts.loss(prediction, labels).mean().backward()
        return super().backward(batch)

    @torch.no_grad()
    def labels(self, batch: Batch) -> torch.Tensor:
        if batch.epoch < self.teacher_epochs:
            return batch.labels
        probability = torch.empty_like(batch.labels, dtype=torch.float32)
        half = batch.cases % 2
        for number in (0, 1):
            if bool((half == number).any()):
                other = self.modules[f"teacher{1 - number}"]
                probability[half == number] = torch.sigmoid(
                    self.parts.inferer(batch.images[half == number], other)
                )
        sums = confidence_sums(batch.labels, probability)
        self.sums = sums if self.sums is None else self.sums + sums
        if self.thresholds is None:
            return batch.labels
        flags = confident_flags(batch.labels, probability, self.thresholds.to(probability.device))
        return torch.where(flags, (batch.labels - self.softening).abs(), batch.labels)

    def epoch_completed(self) -> None:
        if self.sums is not None:
            self.thresholds = self.sums[0] / self.sums[1].clamp(min=1)
            self.sums = None

    def memory(self) -> dict[str, Any]:
        return {} if self.thresholds is None else {"thresholds": self.thresholds}

    def remember(self, memory: dict[str, Any]) -> None:
        self.thresholds = memory.get("thresholds")


def confidence_sums(labels: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """(2, 2, C): for label 0 and 1 of each channel, the sum of the probability given to it, and the number of
    voxels."""
    axes = [0, *range(2, labels.ndim)]
    sums = []
    for value, p in ((0, 1 - probability), (1, probability)):
        given = labels == value
        sums.append(torch.stack([(p * given).double().sum(axes), given.double().sum(axes)]))
    return torch.stack(sums, dim=1).cpu()


def confident_flags(
    labels: torch.Tensor, probability: torch.Tensor, thresholds: torch.Tensor
) -> torch.Tensor:
    """bool (N, C, *spatial): voxels counted off the diagonal of the confident joint.

    thresholds (2, C): the mean probability that label 0, and 1, got where it was given. A voxel counts for a
    label whose threshold its probability reaches; for the likelier one when it reaches both (the confident
    joint of Northcutt et al.).
    """
    shape = (1, -1, *[1] * (labels.ndim - 2))
    reaches = 1 - probability >= thresholds[0].reshape(shape), probability >= thresholds[1].reshape(shape)
    says_1 = reaches[1] & (~reaches[0] | (probability > 0.5))
    says_0 = reaches[0] & ~says_1
    return ((labels == 0) & says_1) | ((labels == 1) & says_0)
