"""How one step of training treats a batch whose labels may be wrong: equal weights, trimming, loss history,
co-teaching.

A learner runs the network, makes the gradients of every network it trains, and reports per-sample losses and
weights. The trainer clears gradients before and steps all optimizers after it.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn

from medseg.errors import InputError
from medseg.losses.per_sample import PerSampleLoss
from medseg.training.noisy.pools import of_all_processes
from medseg.training.noisy.weights import pool_weights


@dataclass(frozen=True)
class Parts:
    """What every learner works with: the segmentation network and its optimizer, inferer and loss."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    inferer: Inferer
    loss: PerSampleLoss


@dataclass(frozen=True)
class Batch:
    """images (N, C_image, *spatial), labels (N, C, *spatial) with NaN for not contoured, and what is known
    beside them.

    quality_input: what the quality module sees, (N, C_image + C, *spatial). cases (N,) int64: samples with
    one number are patches of one case. epoch counts from 1; progress is the share of all steps that this one
    completes; warming_up asks for equal weights.
    """

    images: torch.Tensor
    labels: torch.Tensor
    quality_input: torch.Tensor | None
    cases: torch.Tensor
    epoch: int
    progress: float
    warming_up: bool


@dataclass(frozen=True)
class Outcome:
    """One step: loss (), prediction (N, C, *spatial); losses, weights, raw scores, the losses that judge them
    and label areas (N,), all without gradient."""

    loss: torch.Tensor
    prediction: torch.Tensor
    losses: torch.Tensor
    weights: torch.Tensor
    scores: torch.Tensor | None = None
    judged: torch.Tensor | None = None
    areas: torch.Tensor | None = None


class EqualWeights:
    """Plain training: every sample weighs 1/N. The base of all other learners.

    `modules` and `optimizers` are trained beside the segmentation network; they and `memory` go into
    checkpoints.
    """

    strength: float | None = None

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        if any(True for _ in parts.loss.parameters()):
            self.modules["loss"] = parts.loss
            self.optimizers["loss"] = same_optimizer(parts.optimizer, parts.loss.parameters())

    def apart(self) -> str | None:
        """What each of several processes would do by itself, where only one's work is kept; None when there
        is no such thing. DistributedDataParallel keeps together what it wraps."""
        alone = [
            name
            for name, module in self.modules.items()
            if not isinstance(module, nn.parallel.DistributedDataParallel)
        ]
        return f"train {' and '.join(alone)} by itself" if alone else None

    def backward(self, batch: Batch) -> Outcome:
        prediction, losses = self.predict(batch, self.labels(batch))
        return self.learn(prediction, losses, torch.full_like(losses, 1 / len(losses)).detach())

    def labels(self, batch: Batch) -> torch.Tensor:
        """The labels to learn from: those given, here."""
        return batch.labels

    def predict(self, batch: Batch, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        prediction = self.parts.inferer(batch.images, self.parts.network)
        return prediction, self.parts.loss(prediction, labels)

    def learn(self, prediction: torch.Tensor, losses: torch.Tensor, weights: torch.Tensor) -> Outcome:
        loss = (weights * losses).sum()
        loss.backward()
        return Outcome(loss.detach(), prediction.detach(), losses.detach(), weights)

    def epoch_completed(self) -> None:
        """Called after the last step of an epoch."""

    def memory(self) -> dict[str, Any]:
        """Plain values and tensors beside modules and optimizers that a resumed run needs."""
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        del memory

    def state_dict(self) -> dict[str, Any]:
        return {
            "modules": {name: unwrapped(module).state_dict() for name, module in self.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "memory": self.memory(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # First the memory: it says which modules exist (a teacher is made only when it is needed).
        self.remember(state["memory"])
        for name, module in self.modules.items():
            unwrapped(module).load_state_dict(state["modules"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


class Trimming(EqualWeights):
    """Learn from the (1 - drop_share) of the batch with the smallest losses, equally; all during the warm-up.

    `drop_share` is the share of wrong labels, which has to be known or guessed. The non-parametric twin of
    quality weights. Source: the small-loss criterion, e.g. Shen and Sanghavi, ICML 2019, arXiv 1810.11874.
    """

    def __init__(self, parts: Parts, drop_share: float) -> None:
        super().__init__(parts)
        self.drop_share = share("drop_share", drop_share)

    def backward(self, batch: Batch) -> Outcome:
        if batch.warming_up:
            return super().backward(batch)
        prediction, losses = self.predict(batch, batch.labels)
        return self.learn(prediction, losses, small_loss_weights(losses.detach(), self.drop_share))


class LossHistory(EqualWeights):
    """Weights from each case's recent losses, through the same bounded softmax as quality scores.

    After the warm-up the logarithms of the cases' running mean losses are cut into two groups (`two_groups`).
    A case's score is how far it lies below the cut, in quarters of the distance of the groups' means; weights
    are pool_weights of the scores with lambda = `strength`. Where the means are less than `separation`
    standard deviations apart, weights stay equal, so labels of one kind are left alone: one normal
    distribution, cut at its middle, has 2.65, which is 2 sqrt(2/pi) / sqrt(1 - 2/pi). `decay`: what an older
    loss counts beside the next one, 1 for the plain mean of all. The warm-up must be long enough for the
    network to have learnt what most labels agree on. Needs a fixed label per case, but no second network and
    no share of wrong labels. Our variant of the small-loss criterion with a history; compare O2U-Net (Huang
    et al., ICCV 2019), which ranks by the mean loss of many epochs, and Arazo et al. (ICML 2019, arXiv
    1904.11238), who fit two distributions to the losses.
    """

    def __init__(
        self, parts: Parts, strength: float = 4.0, decay: float = 0.5, separation: float = 3.0
    ) -> None:
        super().__init__(parts)
        if strength <= 0:
            raise InputError(f"strength is {strength}; it must be above 0.")
        if not 0 <= decay <= 1:
            raise InputError(
                f"decay is {decay}; it must be from 0 (the last loss only) to 1 (the mean of all)."
            )
        self.strength, self.decay, self.separation = strength, decay, separation
        self.history: dict[int, tuple[float, float]] = {}

    def backward(self, batch: Batch) -> Outcome:
        prediction, losses = self.predict(batch, batch.labels)
        seen = of_all_processes([batch.cases, losses.detach()])
        for case, loss in zip(*(values.tolist() for values in seen), strict=True):
            total, count = self.history.get(case, (0.0, 0.0))
            self.history[case] = total * self.decay + loss, count * self.decay + 1
        scores = torch.zeros_like(losses)
        if not batch.warming_up:
            means = {
                case: math.log(max(total / count, 1e-12)) for case, (total, count) in self.history.items()
            }
            cut, distance, deviation = two_groups(list(means.values()))
            if distance > self.separation * deviation:
                own = torch.tensor([means[case] for case in batch.cases.tolist()])
                scores = ((cut - own) / (distance / 4)).to(losses)
        outcome = self.learn(prediction, losses, pool_weights(scores[:, None], self.strength)[:, 0])
        return outcome if batch.warming_up else replace(outcome, scores=scores)

    def memory(self) -> dict[str, Any]:
        return {"history": self.history}

    def remember(self, memory: dict[str, Any]) -> None:
        self.history = dict(memory["history"])


class CoTeaching(EqualWeights):
    """Two networks; each learns from the samples whose loss is small for the *other* one.

    The dropped share grows from 0 to `drop_share` over the first `ramp_epochs` epochs. The second network is
    a freshly initialised copy with the same kind of optimizer and the same learning rate; it is dropped after
    training. Source: Han et al., NeurIPS 2018, arXiv 1804.06872, algorithm 1, with the loss of a whole image
    as the criterion.
    """

    def __init__(self, parts: Parts, drop_share: float, ramp_epochs: int = 10) -> None:
        super().__init__(parts)
        self.drop_share = share("drop_share", drop_share)
        self.ramp_epochs = max(1, ramp_epochs)
        self.peer = self.modules["peer"] = fresh_copy(parts.network)
        self.optimizers["peer"] = same_optimizer(parts.optimizer, self.peer.parameters())

    def backward(self, batch: Batch) -> Outcome:
        drop = self.drop_share * min(1.0, batch.epoch / self.ramp_epochs)
        prediction, losses = self.predict(batch, batch.labels)
        peer_losses = self.parts.loss(self.parts.inferer(batch.images, self.peer), batch.labels)
        (small_loss_weights(losses.detach(), drop) * peer_losses).sum().backward()
        return self.learn(prediction, losses, small_loss_weights(peer_losses.detach(), drop))


def small_loss_weights(losses: torch.Tensor, drop_share: float) -> torch.Tensor:
    """Equal weights, summing to 1, on the smallest losses (N,); at least one sample is kept."""
    keep = max(1, round(len(losses) * (1 - drop_share)))
    weights = torch.zeros_like(losses)
    weights[torch.argsort(losses)[:keep]] = 1 / keep
    return weights


def two_groups(values: Sequence[float]) -> tuple[float, float, float]:
    """(cut, distance of the groups' means, standard deviation within them) of the cut that explains most of
    the variance.

    Otsu's threshold on the values themselves, without a histogram. (value, 0, 0) for equal values, and for a
    single one.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x[0] == x[-1]:
        return float(x[0]), 0.0, 0.0
    below, total = np.arange(1, len(x)), np.cumsum(x)
    low, high = total[:-1] / below, (total[-1] - total[:-1]) / (len(x) - below)
    best = int((below * (len(x) - below) * (high - low) ** 2).argmax())
    means = np.where(np.arange(len(x)) <= best, low[best], high[best])
    return (
        float(x[best] + x[best + 1]) / 2,
        float(high[best] - low[best]),
        float(np.sqrt(np.mean((x - means) ** 2))),
    )


def build(what: str, name: str, registry: dict[str, Any]) -> Any:
    """registry[name]; InputError that lists the names when there is none."""
    if name not in registry:
        raise InputError(f"unknown {what} '{name}'; choose one of {', '.join(registry)}.")
    return registry[name]


def unwrapped(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def fresh_copy(network: nn.Module) -> nn.Module:
    """A copy with newly drawn parameters; layers without `reset_parameters` keep theirs."""
    other = copy.deepcopy(unwrapped(network))
    for module in other.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return other


def same_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """An optimizer of the same kind and settings for other parameters."""
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    return type(optimizer)(parameters, **settings)


def share(name: str, value: float) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{name} is {value}; it must be at least 0 and below 1.")
    return float(value)
