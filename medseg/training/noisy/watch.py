"""What to watch while labels are weighted: how uneven the weights are, and what the scores follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from medseg.training.noisy.weights import HELD_BACK, NO_ANCHOR, TAUGHT

SATURATED = 3.0
"""Beyond |t| = 3 the gradient of tanh is below 1 %: a score there hardly changes any more."""

LEAST_AGREEMENT = 0.3
"""Rank correlation of score and loss, without its sign, from which scores are believed."""

LEAST_ABOVE = 0.7
"""Share of the other labels above which held-back anchors must lie for scores to be believed."""

UNDECIDED = 0.4
"""Anchors whose losses lie below more than this share of the others', and below less than the rest of it, say
nothing of which losses speak for a label."""

LEAST_SHARE = 0.27
"""Effective share of the samples below which weights are taken to rest on too few of them."""

MOST_AREA = 0.7
"""Rank correlation of score and label area above which scores are taken to follow the area. In the benchmark
runs that found the right labels it stayed below 0.67 once weights were on; those that collapsed, and those on
labels that were all right, where weights have nothing to do, had 0.68 to 0.95."""


@dataclass(frozen=True)
class WeightDiagnostics:
    """One epoch of weights. Shares and means are over all samples seen; nan where there is nothing to
    measure."""

    effective_share: float
    """1 / (N sum w^2) of each pool, averaged: 1 for equal weights, 1/N when one sample has all."""
    saturated_share: float
    """Share of raw scores beyond |t| = 3."""
    rank_correlation: float
    """Spearman's between raw score and judging loss; -1 when the largest loss always has the lowest score."""
    area_correlation: float
    """Spearman's between raw score and area of the label; near 1 or -1 when the score follows the area."""
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
    """One step of one pool, each (N,): weights, losses that judge, raw scores and areas of the labels or
    None, known noise or None."""

    weights: torch.Tensor
    losses: torch.Tensor
    scores: torch.Tensor | None = None
    areas: torch.Tensor | None = None
    known_noisy: torch.Tensor | None = None


def diagnose(pools: list[PoolRecord], strength: float | None = 2.0) -> WeightDiagnostics:
    """Summarise the pools of an epoch."""
    relative = torch.cat([pool.weights / pool.weights.mean().clamp(min=1e-12) for pool in pools])
    scored = [pool for pool in pools if pool.scores is not None]
    scores = torch.cat([pool.scores for pool in scored]) if scored else None
    losses = torch.cat([pool.losses for pool in scored]) if scored else None
    sized = [pool for pool in scored if pool.areas is not None]
    areas = torch.cat([pool.areas for pool in sized]) if sized else None
    known = all(pool.known_noisy is not None for pool in pools)
    noisy = torch.cat([pool.known_noisy for pool in pools]).bool() if known else None
    bound = math.exp(2 * strength) if strength is not None else math.nan
    ratios = [_pair_ratios(pool.weights) for pool in pools]
    at_bound = [(ratio > 0.95 * bound).float().mean() for ratio in ratios if ratio.numel()]
    return WeightDiagnostics(
        effective_share=_mean([_effective_share(pool.weights) for pool in pools]),
        saturated_share=float((scores.abs() > SATURATED).float().mean()) if scored else math.nan,
        rank_correlation=rank_correlation(scores, losses) if scored else math.nan,
        area_correlation=(
            rank_correlation(torch.cat([pool.scores for pool in sized]), areas) if sized else math.nan
        ),
        largest_ratio=max((float(ratio.max()) for ratio in ratios if ratio.numel()), default=math.nan),
        at_bound_share=_mean(at_bound) if strength is not None else math.nan,
        weight_known_clean=_mean(relative[~noisy]) if noisy is not None else math.nan,
        weight_known_noisy=_mean(relative[noisy]) if noisy is not None else math.nan,
    )


def distrust(scores: torch.Tensor, judged: torch.Tensor, areas: torch.Tensor) -> str | None:
    """Why an epoch's scores (N,) should not weigh losses, from the judge's losses and the labels' areas (N,);
    None if they may.

    Losses are not asked whether they agree with the area: weights that follow the area soon make them.
    """
    with_loss, with_area = rank_correlation(scores, judged), rank_correlation(scores, areas)
    if not with_loss <= -LEAST_AGREEMENT:
        return (
            f"their rank correlation with the losses is {with_loss:.2f}, expected {-LEAST_AGREEMENT} or "
            "lower. All labels count alike; train longer, or raise the learning rate of the quality module."
        )
    if abs(with_area) > MOST_AREA:
        return (
            f"they follow the area of the label (rank correlation {with_area:.2f}), as on labels that are "
            "all right. All labels count alike."
        )
    return None


def distrust_by_anchors(scores: torch.Tensor, anchor: torch.Tensor) -> str | None:
    """Why an epoch's scores (N,) should not weigh losses, by what each is (N,), see weights.PoolTable; None
    if they may.

    Scores are believed where a held-back anchor lies above LEAST_ABOVE of the other cases on average.
    """
    held, others = scores[anchor == HELD_BACK], scores[anchor == NO_ANCHOR]
    if not len(held) or not len(others):
        return "no anchor that was held back came up in this epoch. All labels count alike."
    above = share_above(held, others)
    if above < LEAST_ABOVE:
        return (
            f"the anchors that were held back lie above {above:.0%} of the other labels, expected "
            f"{LEAST_ABOVE:.0%} or more: either the others are as good, or nothing was learnt. All labels "
            "count alike."
        )
    return None


def direction_of_losses(judged: torch.Tensor, anchor: torch.Tensor) -> float:
    """What the taught anchors say of an epoch's losses (N,): 1 where theirs are small, -1 where large, 0
    where neither, or where none came up."""
    taught, others = judged[anchor == TAUGHT], judged[anchor == NO_ANCHOR]
    if not len(taught) or not len(others):
        return 0.0
    below = 1 - share_above(taught, others)
    return 1.0 if below >= 1 - UNDECIDED else -1.0 if below <= UNDECIDED else 0.0


def share_above(some: torch.Tensor, others: torch.Tensor) -> float:
    """Share of the pairs in which the first lies above the second, ties as halves: the area under the ROC
    curve."""
    above = (some[:, None] > others).double() + 0.5 * (some[:, None] == others).double()
    return float(above.mean())


def collapse_warning(diagnostics: WeightDiagnostics) -> str | None:
    """One line when the weights rest on too few samples, None otherwise.

    Right behaviour at 75 % noise brings the effective share down to about 0.28 (a quarter of the samples at
    e^4 times the weight of the others), which is still no reason for a warning.
    """
    if diagnostics.effective_share < LEAST_SHARE:
        return (
            f"the weights rest on {diagnostics.effective_share:.0%} of the samples; expected only where "
            "more than 75 % of the labels are wrong, otherwise lower the strength of the overfit control or "
            "lengthen the warm-up."
        )
    if diagnostics.effective_share < 0.9 and abs(diagnostics.area_correlation) > MOST_AREA:
        return (
            "the weights follow the area of the label (rank correlation "
            f"{diagnostics.area_correlation:.2f}), as on labels that are all right; where they are not, "
            "check that the quality module standardises its features."
        )
    if diagnostics.at_bound_share > 0.5:
        return (
            f"{diagnostics.at_bound_share:.0%} of the pairs of weights are at the bound of the overfit "
            "control; the scores have stopped learning. Lower the learning rate of the quality module or "
            "lengthen the warm-up."
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
