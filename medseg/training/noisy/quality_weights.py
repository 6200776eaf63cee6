"""Pick-and-Learn, repaired: a quality module learns to tell right labels from wrong ones and weighs them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from medseg.errors import InputError
from medseg.losses.per_sample import BCEPerSample, PerSampleLoss
from medseg.training.noisy.learners import Batch, EqualWeights, Outcome, Parts, build, share, unwrapped
from medseg.training.noisy.pools import POOLS, BatchPool, GatherPool, of_all_processes
from medseg.training.noisy.watch import direction_of_losses, distrust, distrust_by_anchors
from medseg.training.noisy.weights import HELD_BACK, OBJECTIVES, TAUGHT, Objective, PoolTable

_logger = logging.getLogger(__name__)

LEARNING_RATE = 3e-3


class QualityWeights(EqualWeights):
    """A quality module scores every (image, label) pair; the softmax of its scores over the pool weighs the
    losses.

    Up to the share `listen` of all steps labels count alike and the module rests; from then on it learns from
    the losses of `judge`, a per-sample loss of its own (cross-entropy: Dice forgives labels that are too
    large), by `objective`: "weighted", the paper's weighted sum, or "regress", minus the logarithm of the
    loss. Its weights are used once the trainer's warm-up is over. `strength` is lambda of the overfit
    control, None = off. `optimizer` belongs to `quality`, by default Adam; its rate is constant up to the
    share `decay_from` of all steps and falls linearly to 0. `pool` is one of POOLS, `pool_options` its
    settings. `per_class` weights structures separately; `quality` then answers with one score per label
    channel.

    `fallback`: after every epoch scores are compared with the judge's losses and with the labels' areas
    (`watch.distrust`). Scores that say nothing of the losses, or follow the area instead, are not used:
    labels count alike, with a warning, until an epoch is in order again. Processes decide together.

    `anchors`: names of two or more cases whose labels are known to be right. The module is also taught to
    rank every second of them above all other cases, and their losses decide after every epoch whether small
    or large ones speak for a label. The rest are the check, in the place of losses and areas:
    scores are used where these rank high too, so not where the other labels are as good. Where most labels
    share one error, nothing else can tell which group is right. InputError after the first epoch when none
    of these cases was in it.

    Source: Zhu, Shi and Wu, MICCAI 2019, arXiv 1907.11835, equations 1 to 3; listening, the judge, the
    regression, the fallback and anchors are ours.
    """

    def __init__(
        self,
        parts: Parts,
        quality: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        strength: float | None = 2.0,
        objective: str = "weighted",
        listen: float = 1 / 6,
        decay_from: float = 0.5,
        judge: PerSampleLoss | None = None,
        pool: str = "batch",
        pool_options: dict[str, Any] | None = None,
        per_class: bool = False,
        fallback: bool = True,
        anchors: Sequence[str] = (),
    ) -> None:
        super().__init__(parts)
        if quality is None:
            raise InputError(
                "quality weights need method_options 'quality', a QualityModule, which this training does "
                "not name; loss_history does without."
            )
        if not isinstance(quality, nn.Module):
            raise InputError(f"method_options 'quality' is {quality!r}; it must be a QualityModule.")
        if strength is not None and strength <= 0:
            raise InputError(f"strength is {strength}; it must be above 0, or None for no overfit control.")
        if objective not in OBJECTIVES:
            raise InputError(f"unknown objective '{objective}'; choose one of {', '.join(OBJECTIVES)}.")
        if not 0 < decay_from <= 1:
            raise InputError(f"decay_from is {decay_from}; it must be above 0 and at most 1.")
        if judge is not None and not isinstance(judge, PerSampleLoss):
            raise InputError(f"judge is {judge!r}; it must be a PerSampleLoss of medseg, (B,) values.")
        self.strength, self.objective, self.per_class = strength, objective, per_class
        self.listen, self.decay_from = share("listen", listen), decay_from
        self.judge = judge if judge is not None else BCEPerSample()
        self.quality = self.modules["quality"] = quality
        if optimizer is None:
            optimizer = torch.optim.Adam(quality.parameters(), LEARNING_RATE)
        self.optimizers["quality"] = optimizer
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.pool: BatchPool = build("pool", pool, POOLS)(**(pool_options or {}))
        self.fallback = fallback
        self.names = _names_of(anchors)
        self.anchors = torch.tensor([case_number(name) for name in self.names], dtype=torch.int64)
        self._met: torch.Tensor | None = torch.zeros(len(self.names), dtype=torch.bool)
        # Without anchors small losses speak for a label; with them nothing does until they have been heard.
        self.direction = torch.tensor([0.0 if len(self.anchors) else 1.0])
        self.trusted: torch.Tensor | None = None
        self._heard: list[tuple[torch.Tensor, ...]] = []
        self._weighing = False
        self._told: set[int] = set()

    def apart(self) -> str | None:
        one_pool = isinstance(self.pool, GatherPool)
        return super().apart() or (None if one_pool else "weigh its own batch alone, without pool=gather")

    def backward(self, batch: Batch) -> Outcome:
        listening = batch.progress > self.listen
        self._weighing = not batch.warming_up
        if self._met is not None:
            self._met |= torch.isin(self.anchors, batch.cases.cpu())
        fall = (1 - batch.progress) / (1 - self.decay_from) if self.decay_from < 1 else 1.0
        for group, rate in zip(self.optimizers["quality"].param_groups, self.rates, strict=True):
            group["lr"] = rate * min(1.0, fall)
        module = unwrapped(self.quality)
        objective = Objective(
            score=module.score,
            head=tuple(module.head.parameters()),
            strength=self.strength,
            kind=self.objective,
            teach=listening,
            direction=self.direction.to(batch.images.device),
            weigh=self._usable(batch),
        )

        def rows(piece: slice) -> tuple[PoolTable, torch.Tensor]:
            return self._table(batch, piece)

        step = self.pool.backward(rows, len(batch.images), objective, [self.parts.network, self.quality])
        if listening:
            table, areas = step.table, self._areas(batch.labels)
            heard = (step.scores, table.score_losses, areas, table.labelled, table.anchor)
            self._heard.append(tuple(values.cpu() for values in heard))
        used = step.table.labelled.float()
        count = used.sum(1).clamp(min=1)
        losses = (step.table.losses * used).sum(1) / count
        judged = (step.table.score_losses * used).sum(1) / count
        weights, scores = step.weights.mean(1), step.scores.mean(1)
        # Anchors may rightly say that the small labels, or the large ones, are wrong.
        areas = None if len(self.anchors) else self._areas(batch.labels).nanmean(1)
        return Outcome(step.loss, step.prediction, losses, weights, scores, judged, areas)

    def _usable(self, batch: Batch) -> torch.Tensor | bool:
        """Whether the scores of each column weigh losses in this step."""
        if batch.warming_up:
            return False
        if not self.fallback:
            return True
        return False if self.trusted is None else self.trusted.to(batch.images.device)

    def epoch_completed(self) -> None:
        if self._met is not None:
            _require_met(self.names, of_all_processes([self._met[None]])[0].any(0).tolist())
            self._met = None
        if not self._heard:
            return
        own = [torch.cat(values) for values in zip(*self._heard, strict=True)]
        scores, judged, areas, labelled, anchor = of_all_processes(own)
        self._heard = []
        columns = list(enumerate(labelled.T))
        if len(self.anchors):
            found = [direction_of_losses(judged[used, column], anchor[used]) for column, used in columns]
            self.direction = torch.tensor(found)
            reasons = [distrust_by_anchors(scores[used, column], anchor[used]) for column, used in columns]
        else:
            reasons = [
                distrust(scores[used, column], judged[used, column], areas[used, column])
                for column, used in columns
            ]
        self.trusted = torch.tensor([reason is None for reason in reasons])
        for column, reason in enumerate(reasons):
            if reason is None:
                self._told.discard(column)
            elif self.fallback and self._weighing and column not in self._told:
                # Once until they are used again; not before weights are due, when nothing is lost by it.
                self._told.add(column)
                where = f" of structure {column}" if self.per_class else ""
                _logger.warning("The quality scores%s are not used: %s", where, reason)

    def _areas(self, labels: torch.Tensor) -> torch.Tensor:
        """Foreground share of each label, of shape (N, S); of labelled structures only."""
        channels = labels.flatten(2).mean(-1)
        return channels if self.per_class else channels.nanmean(1, keepdim=True)

    def _table(self, batch: Batch, piece: slice) -> tuple[PoolTable, torch.Tensor]:
        labels = batch.labels[piece]
        prediction = self.parts.inferer(batch.images[piece], self.parts.network)
        losses, labelled = self._losses(self.parts.loss, prediction, labels)
        with torch.no_grad():
            judged = self._losses(self.judge, prediction.detach(), labels)[0]
        foreground = labels.nan_to_num().flatten(2).amax(-1) > 0
        evidence = foreground if self.per_class else foreground.any(1, keepdim=True)
        features = self.parts.inferer(batch.quality_input[piece], self.quality, as_features=True)
        answers, expected = unwrapped(self.quality).scores, losses.shape[1]
        if answers != expected:
            raise InputError(
                f"the quality module gives {answers} scores per sample for {expected} loss(es); set its "
                "'scores' to 1, or with per_class to the number of label channels."
            )
        cases = batch.cases[piece]
        known = self.anchors.to(cases.device)
        anchor = (
            TAUGHT * torch.isin(cases, known[::2]).long() + HELD_BACK * torch.isin(cases, known[1::2]).long()
        )
        return PoolTable(features, losses, judged, labelled, evidence, cases, anchor), prediction

    def _losses(self, loss: PerSampleLoss, prediction: torch.Tensor, labels: torch.Tensor):
        per_channel, labelled = loss.per_channel(prediction, labels)
        if self.per_class:
            return per_channel, labelled
        mean = (per_channel * labelled).sum(1, keepdim=True) / labelled.sum(1, keepdim=True).clamp(min=1)
        return mean, labelled.any(1, keepdim=True)

    def memory(self) -> dict[str, Any]:
        return {**self.pool.state_dict(), "trusted": self.trusted, "direction": self.direction}

    def remember(self, memory: dict[str, Any]) -> None:
        self.trusted, self.direction = memory["trusted"], memory["direction"]
        self.pool.load_state_dict(memory)


def _names_of(anchors: Sequence[str]) -> list[str]:
    """Each name once, sorted: every second one is held back."""
    if isinstance(anchors, str):
        raise InputError(f"anchors is '{anchors}'; give a list of case names.")
    names = sorted({str(name) for name in anchors})
    if len(names) == 1:
        raise InputError("one anchor; give at least two, since every second one is held back as a check.")
    return names


def _require_met(names: list[str], met: list[bool]) -> None:
    """Say which anchors did not come up in the first epoch; InputError when none did."""
    missing = [name for name, known in zip(names, met, strict=True) if not known]
    if names and len(missing) == len(names):
        raise InputError(
            f"no anchor came up in the first epoch; expected names of training cases (their case_id), got "
            f"{', '.join(missing)}."
        )
    if missing:
        _logger.warning(
            "Anchors that did not come up in the first epoch: %s. Look whether they are training cases; a "
            "loader with drop_last leaves out some in every epoch.",
            ", ".join(missing),
        )


def case_number(name: object) -> int:
    """The number that stands for a case's name in a Batch."""
    return zlib.crc32(str(name).encode())
