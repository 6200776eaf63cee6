"""From scores of label quality to weights of losses: overfit control, softmax over a pool, and what to watch.

Source of the weights: Zhu, Shi and Wu, MICCAI 2019, arXiv 1907.11835, equations 1 and 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

SATURATED = 3.0
"""Beyond |t| = 3 the gradient of tanh is below 1 %: a score there hardly changes any more."""


@dataclass(frozen=True)
class PoolTable:
    """What a pool knows of its N samples, one row each; S = 1 score per sample, or one per structure.

    scores (N, S): raw scores t. losses (N, S): what the segmenter minimises. score_losses (N, S): what the
    scores are judged by (a size-normalised loss, or `losses` itself). labelled (N, S) bool: False leaves the
    entry out of the pool (a structure that was not contoured). evidence (N, S) bool: False for a sample
    without foreground; it keeps the weight of its score, but teaches the scores nothing. case (N,) int64:
    patches of one case share one score.
    """

    scores: torch.Tensor
    losses: torch.Tensor
    score_losses: torch.Tensor
    labelled: torch.Tensor
    evidence: torch.Tensor
    case: torch.Tensor

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


def weighted_objective(table: PoolTable, strength: float | None = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of w L over the pool, averaged over its S columns, and each sample's weight (N, S), detached.

    With score_losses = losses its gradient is that of sum_i w_i L_i, in particular for a score w_i (L_i -
    sum_j w_j L_j) lambda (1 - tanh^2 t_i). Otherwise the segmenter's gradient is w_i dL_i and the scores' is
    the same formula with score_losses in the place of L. A case's loss is the mean over its patches, its
    score_loss the mean over its patches with foreground. Columns without a labelled entry count for nothing.
    """
    cases, case = torch.unique(table.case, return_inverse=True)
    size = len(cases)
    labelled = _sum_by_case(table.labelled.float(), case, size)
    scores = _mean_by_case(table.scores.float(), table.labelled, case, size)
    losses = _mean_by_case(table.losses.float(), table.labelled, case, size)
    weights = pool_weights(scores, strength, labelled > 0)
    seen = table.evidence & table.labelled
    judged = _mean_by_case(table.score_losses.float(), seen, case, size).detach()
    evidence = (_sum_by_case(seen.float(), case, size) > 0).float()
    # Without evidence a case is put at the pool's own mean: its score gets no gradient and changes nobody
    # else's.
    fixed = weights.detach()
    mean = (fixed * evidence * judged).sum(0) / (fixed * evidence).sum(0).clamp(min=1e-12)
    judged = torch.where(evidence > 0, judged, mean)
    teaching = (weights * judged).sum(0)
    columns = (fixed * losses).sum(0) + teaching - teaching.detach()
    objective = columns.sum() / (labelled.sum(0) > 0).sum().clamp(min=1)
    share = torch.where(
        table.labelled, fixed[case] / labelled[case].clamp(min=1), torch.zeros_like(fixed[case])
    )
    return objective, share


def _sum_by_case(values: torch.Tensor, case: torch.Tensor, size: int) -> torch.Tensor:
    return values.new_zeros(size, values.shape[1]).index_add(0, case, values)


def _mean_by_case(values: torch.Tensor, used: torch.Tensor, case: torch.Tensor, size: int) -> torch.Tensor:
    """Mean of the used entries (N, S) of each case, (size, S); 0 where a case has none."""
    count = _sum_by_case(used.float(), case, size)
    return _sum_by_case(torch.where(used, values, torch.zeros_like(values)), case, size) / count.clamp(min=1)


# ---- what to watch -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightDiagnostics:
    """One epoch of weights. Shares and means are over all samples seen; nan where there is nothing to
    measure."""

    effective_share: float
    """1 / (N sum w^2) of each pool, averaged: 1 for equal weights, 1/N when one sample has all."""
    saturated_share: float
    """Share of raw scores beyond |t| = 3."""
    rank_correlation: float
    """Spearman's between raw score and loss; -1 when the largest loss always has the lowest score."""
    largest_ratio: float
    """Largest weight over smallest within one pool."""
    at_bound_share: float
    """Share of pairs of one pool whose ratio is within 5 % of the bound e^(2 lambda); nan without overfit
    control."""
    weight_known_clean: float
    """Mean of weight times pool size over samples known to be clean: 1 for equal weights."""
    weight_known_noisy: float


@dataclass(frozen=True)
class PoolRecord:
    """One step of one pool: its cases' weights (N,), raw scores (N,) or None, losses (N,), known noise (N,)
    or None."""

    weights: torch.Tensor
    losses: torch.Tensor
    scores: torch.Tensor | None = None
    known_noisy: torch.Tensor | None = None


def diagnose(pools: list[PoolRecord], strength: float | None = 2.0) -> WeightDiagnostics:
    """Summarise the pools of an epoch."""
    relative = torch.cat([pool.weights / pool.weights.mean().clamp(min=1e-12) for pool in pools])
    scored = [pool for pool in pools if pool.scores is not None]
    scores = torch.cat([pool.scores for pool in scored]) if scored else None
    losses = torch.cat([pool.losses for pool in scored]) if scored else None
    known = all(pool.known_noisy is not None for pool in pools)
    noisy = torch.cat([pool.known_noisy for pool in pools]).bool() if known else None
    bound = math.exp(2 * strength) if strength is not None else math.nan
    ratios = [_pair_ratios(pool.weights) for pool in pools]
    at_bound = [(ratio > 0.95 * bound).float().mean() for ratio in ratios if ratio.numel()]
    return WeightDiagnostics(
        effective_share=_mean([_effective_share(pool.weights) for pool in pools]),
        saturated_share=float((scores.abs() > SATURATED).float().mean()) if scored else math.nan,
        rank_correlation=rank_correlation(scores, losses) if scored else math.nan,
        largest_ratio=max((float(ratio.max()) for ratio in ratios if ratio.numel()), default=math.nan),
        at_bound_share=_mean(at_bound) if strength is not None else math.nan,
        weight_known_clean=_mean(relative[~noisy]) if noisy is not None else math.nan,
        weight_known_noisy=_mean(relative[noisy]) if noisy is not None else math.nan,
    )


def collapse_warning(diagnostics: WeightDiagnostics) -> str | None:
    """One line when the weights rest on too few samples, None otherwise.

    Right behaviour at 75 % noise already brings the effective share down to about 0.28 (a quarter of the
    samples at e^4 times the weight of the others), so a warning asks for a look rather than says that
    something is wrong.
    """
    if diagnostics.effective_share < 0.3:
        return (
            f"the weights rest on {diagnostics.effective_share:.0%} of the samples; expected at 75 % noise "
            f"or more, "
            "otherwise lower the strength of the overfit control or lengthen the warm-up."
        )
    if diagnostics.at_bound_share > 0.5:
        return (
            f"{diagnostics.at_bound_share:.0%} of the pairs of weights are at the bound of the overfit "
            f"control; the "
            "scores have stopped learning. Lower the learning rate of the quality module or lengthen the "
            "warm-up."
        )
    return None


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's rank correlation of two vectors (N,), ties at their mean rank; nan when either is
    constant."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    ranks_a, ranks_b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    scale = (ranks_a.square().sum() * ranks_b.square().sum()).sqrt()
    return float((ranks_a * ranks_b).sum() / scale) if scale > 0 else math.nan


def _ranks(values: torch.Tensor) -> torch.Tensor:
    _, group, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = torch.cumsum(count, 0).double()
    return (last - (count.double() - 1) / 2)[group]


def _effective_share(weights: torch.Tensor) -> float:
    weights = weights.double()
    return float(weights.sum().square() / (weights.square().sum().clamp(min=1e-24) * len(weights)))


def _pair_ratios(weights: torch.Tensor) -> torch.Tensor:
    """Larger over smaller weight of every pair with both above 0."""
    positive = weights[weights > 0].double()
    first, second = torch.triu_indices(len(positive), len(positive), offset=1)
    return torch.maximum(positive[first], positive[second]) / torch.minimum(positive[first], positive[second])


def _mean(values: list[float] | torch.Tensor) -> float:
    return float(torch.as_tensor(values, dtype=torch.float64).mean()) if len(values) else math.nan
