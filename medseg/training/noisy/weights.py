"""From scores of label quality to weights of losses: overfit control, softmax over a pool, the objective.

Source of the weights: Zhu, Shi and Wu, MICCAI 2019, arXiv 1907.11835, equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch.nn import functional

OBJECTIVES = ("weighted", "regress")
"""What teaches the scores: the weighted sum of the judging losses (the paper), or a regression of them."""

NO_ANCHOR, TAUGHT, HELD_BACK = 0, 1, 2
"""A label like any other; one known to be right that the scores learn from; one that is their check."""


@dataclass(frozen=True)
class PoolTable:
    """What a pool knows of its N samples, one row each; S = 1 score per sample, or one per structure.

    features (N, F): what the quality module makes scores of. losses (N, S): what the segmenter minimises.
    score_losses (N, S): what the scores are judged by. labelled (N, S) bool: False leaves the entry out of
    the pool (a structure that was not contoured). evidence (N, S) bool: False for a sample without
    foreground; it keeps the weight of its score, but teaches the scores nothing. case (N,) int64: patches of
    one case share one score. anchor (N,) int64: NO_ANCHOR, TAUGHT or HELD_BACK.
    """

    features: torch.Tensor
    losses: torch.Tensor
    score_losses: torch.Tensor
    labelled: torch.Tensor
    evidence: torch.Tensor
    case: torch.Tensor
    anchor: torch.Tensor

    def detach(self) -> PoolTable:
        return PoolTable(**{field.name: getattr(self, field.name).detach() for field in fields(self)})

    def rows(self, index: torch.Tensor | slice) -> PoolTable:
        return PoolTable(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def stack_tables(tables: list[PoolTable]) -> PoolTable:
    """One table with the rows of all."""
    return PoolTable(
        **{f.name: torch.cat([getattr(table, f.name) for table in tables]) for f in fields(PoolTable)}
    )


def overfit_control(scores: torch.Tensor, strength: float | None = 2.0) -> torch.Tensor:
    """lambda tanh(t): scores within (-lambda, lambda), so no weight exceeds another by more than e^(2
    lambda).

    None switches it off (QAM alone); the weights may then collapse on a few samples.
    """
    return scores if strength is None else strength * torch.tanh(scores)


def pool_weights(
    scores: torch.Tensor, strength: float | None = 2.0, labelled: torch.Tensor | None = None
) -> torch.Tensor:
    """Softmax of overfit_control(scores) over the pool: float32 (N, S); each column sums to 1.

    Entries whose `labelled` (N, S) is False get weight 0; a column without any labelled entry is 0
    throughout.
    """
    controlled = overfit_control(scores.float(), strength)
    if labelled is None:
        return torch.softmax(controlled, dim=0)
    weights = torch.softmax(controlled.masked_fill(~labelled, -torch.inf), dim=0)
    return torch.where(labelled, weights, torch.zeros_like(weights))


@dataclass(frozen=True)
class Judged:
    """A pool's objective () with its gradient; each sample's weight (N, S), detached; raw scores (N, S)."""

    loss: torch.Tensor
    weights: torch.Tensor
    scores: torch.Tensor


@dataclass(frozen=True)
class Objective:
    """What both networks minimise over one pool.

    score: pooled features (N, F) of the whole pool -> raw scores (N, S); it owns the parameters `head`.
    strength: lambda of the overfit control, None = off. kind: one of OBJECTIVES. teach: the scores learn.
    direction (S,) or one for all: 1 where small losses speak for a label, -1 where large ones do, 0 where
    they say nothing.
    weigh (S,) or one for all: losses are weighted by the scores; otherwise all
    cases count alike.
    """

    score: Callable[[torch.Tensor], torch.Tensor]
    head: tuple[torch.nn.Parameter, ...] = ()
    strength: float | None = 2.0
    kind: str = "weighted"
    teach: bool = True
    direction: torch.Tensor | float = 1.0
    weigh: torch.Tensor | bool = True

    def __call__(self, table: PoolTable) -> Judged:
        """The weighted loss of the pool, averaged over its S columns, plus the scores' lesson with value 0.

        The segmenter's gradient is sum_i w_i dL_i. A case's loss is the mean over its patches, its score_loss
        the mean over its patches with foreground. Columns without a labelled entry count for nothing.
        """
        cases, case = torch.unique(table.case, return_inverse=True)
        size = len(cases)
        raw = self.score(table.features)
        patches = _sum_by_case(table.labelled.float(), case, size)
        labelled = patches > 0
        scores = _mean_by_case(raw.float(), table.labelled, case, size)
        losses = _mean_by_case(table.losses.float(), table.labelled, case, size)
        anchor = table.anchor.new_zeros(size).index_copy(0, case, table.anchor)
        weights = pool_weights(scores, self.strength, labelled)
        weigh = torch.as_tensor(self.weigh, device=weights.device)
        used = torch.where(weigh, weights.detach(), labelled / labelled.sum(0).clamp(min=1))
        columns = (used * losses).sum(0)
        if self.teach:
            seen = table.evidence & table.labelled
            judged = _mean_by_case(table.score_losses.float(), seen, case, size).detach()
            evidence = _sum_by_case(seen.float(), case, size) > 0
            direction = torch.as_tensor(self.direction, device=weights.device)
            if self.kind == "weighted":
                lesson = direction * weighted_lesson(weights, judged, evidence)
            else:
                others = evidence & (anchor == NO_ANCHOR)[:, None]
                lesson = direction.abs() * regression_lesson(direction * scores, judged, others)
            lesson = lesson + anchor_lesson(scores, anchor, labelled)
            columns = columns + lesson - lesson.detach()
        loss = columns.sum() / labelled.any(0).sum().clamp(min=1)
        share = torch.where(table.labelled, used[case] / patches[case].clamp(min=1), torch.zeros_like(raw))
        return Judged(loss, share, raw.detach())


def weighted_lesson(weights: torch.Tensor, judged: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """(S,): sum of w J over the cases, the paper's. Its gradient for a score is w (J - sum_j w_j J_j) lambda
    (1 - tanh^2 t).

    Without evidence a case is put at the pool's own mean: its score gets no gradient and changes nobody
    else's.
    """
    fixed = weights.detach() * evidence
    mean = (fixed * judged).sum(0) / fixed.sum(0).clamp(min=1e-12)
    return (weights * torch.where(evidence, judged, mean)).sum(0)


def regression_lesson(scores: torch.Tensor, judged: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
    """(S,): mean of (t + z)^2 over the cases with evidence, z their log J less its mean, over its deviation.

    0 where fewer than two cases have evidence or all J are equal.
    """
    count = evidence.sum(0).clamp(min=1)
    logs = judged.clamp(min=1e-12).log() * evidence
    centred = (logs - logs.sum(0) / count) * evidence
    deviation = (centred.square().sum(0) / count).sqrt()
    z = centred / deviation.clamp(min=1e-6)
    misses = ((scores + z).square() * evidence).sum(0) / count
    return torch.where(deviation > 1e-6, misses, torch.zeros_like(misses))


def anchor_lesson(scores: torch.Tensor, anchor: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
    """(S,): mean of log(1 + exp(t_other - t_anchor)) over the pairs of a taught anchor and a case that is
    none; 0 without a pair. anchor (cases,): NO_ANCHOR, TAUGHT or HELD_BACK."""
    taught, others = ((anchor == kind)[:, None] & labelled for kind in (TAUGHT, NO_ANCHOR))
    pairs = taught[:, None] & others[None]
    misses = functional.softplus(scores[None] - scores[:, None]) * pairs
    return misses.sum((0, 1)) / pairs.sum((0, 1)).clamp(min=1)


def _sum_by_case(values: torch.Tensor, case: torch.Tensor, size: int) -> torch.Tensor:
    return values.new_zeros(size, values.shape[1]).index_add(0, case, values)


def _mean_by_case(values: torch.Tensor, used: torch.Tensor, case: torch.Tensor, size: int) -> torch.Tensor:
    """Mean of the used entries (N, S) of each case, (size, S); 0 where a case has none."""
    count = _sum_by_case(used.float(), case, size)
    return _sum_by_case(torch.where(used, values, torch.zeros_like(values)), case, size) / count.clamp(min=1)
