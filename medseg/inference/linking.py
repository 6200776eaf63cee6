"""Findings of single slices to findings of a volume: what overlaps from slice to slice is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.errors import InputError


@dataclass(frozen=True, eq=False)
class SliceFindings:
    """Of one slice: ``scores`` float (N,), 0 to 1, and ``masks`` bool (N, H, W)."""

    scores: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class Linked:
    """One finding of a volume: ``parts``, {slice: number of its finding there}, and its ``score``."""

    parts: dict[int, int]
    score: float


def link_slices(
    slices: Sequence[SliceFindings], overlap: float = 0.1, gap: int = 1, whole_from: int = 2
) -> list[Linked]:
    """Findings of slices in their order to those of the volume, the highest score first.

    Going up, the best pairs come first: a finding continues the one with which its mask overlaps most, if the
    intersection over union is ``overlap`` or more, and each continues one and is continued by one. It is low,
    since a nodule of 4 mm on slices 2 mm apart shrinks to its cap from one to the next. ``gap``: slices in a
    row that a finding may be missed in. Its score is the mean of its ``whole_from`` best
    slices' scores; one that is seen in fewer counts as 0 in those that it lacks, since noise comes alone. A
    slice's finding without a voxel belongs to nothing. InputError for an overlap that is not above 0 and at
    most 1, and for a gap or ``whole_from`` below 0 and 1.
    """
    if not 0 < overlap <= 1 or gap < 0 or whole_from < 1:
        raise InputError(
            f"overlap {overlap}, gap {gap}, whole_from {whole_from}; expected above 0 to 1, 0 or more, 1 or "
            "more."
        )
    done: list[dict[int, int]] = []
    open_chains: list[dict[int, int]] = []
    for level, here in enumerate(slices):
        free = [number for number in range(len(here.scores)) if here.masks[number].any()]
        taken: set[int] = set()
        for _, chain, number in _pairs(slices, open_chains, level, free, overlap):
            if level not in chain and number not in taken:
                chain[level] = number
                taken.add(number)
        open_chains += [{level: number} for number in free if number not in taken]
        done += [chain for chain in open_chains if max(chain) < level - gap]
        open_chains = [chain for chain in open_chains if max(chain) >= level - gap]
    found = [Linked(chain, _score(slices, chain, whole_from)) for chain in done + open_chains]
    return sorted(found, key=lambda finding: -finding.score)


def _pairs(slices, chains: list[dict[int, int]], level: int, free: list[int], overlap: float) -> list[tuple]:
    """(IoU, chain, number here) of what overlaps enough, the nearest slices and the greatest overlaps
    first."""
    pairs = []
    for chain in chains:
        last = max(chain)
        before = slices[last].masks[chain[last]]
        for number in free:
            mask = slices[level].masks[number]
            shared = np.count_nonzero(before & mask)
            iou = shared / (np.count_nonzero(before) + np.count_nonzero(mask) - shared)
            if iou >= overlap:
                pairs.append((last, iou, chain, number))
    pairs.sort(key=lambda pair: (-pair[0], -pair[1]))
    return [pair[1:] for pair in pairs]


def _score(slices: Sequence[SliceFindings], chain: dict[int, int], whole_from: int) -> float:
    scores = sorted(float(slices[level].scores[number]) for level, number in chain.items())
    return sum(scores[-whole_from:]) / whole_from


def draw(
    slices: Sequence[SliceFindings], findings: Sequence[Linked], shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """float64 (N, 6), the boxes of findings in a volume whose last axis goes through the slices, corners low
    then high counted from the outer corner of the first voxel; and int16 of ``shape``, N + 1 in the voxels of
    finding N, the first of two that overlap, 0 elsewhere. Missed slices stay empty."""
    labels = np.zeros(shape, dtype=np.int16)
    boxes = np.zeros((len(findings), 6))
    for number, finding in enumerate(findings):
        corners = []
        for level, part in finding.parts.items():
            mask = slices[level].masks[part]
            layer = labels[..., level]
            layer[mask & (layer == 0)] = number + 1
            places = np.argwhere(mask)
            corners.append([*places.min(axis=0), level, *(places.max(axis=0) + 1), level + 1])
        ends = np.array(corners)
        boxes[number] = [*ends[:, :3].min(axis=0), *ends[:, 3:].max(axis=0)]
    return boxes, labels
