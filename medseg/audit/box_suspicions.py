"""Which boxes of an image are suspected to be wrong, by a detector that does not agree with them.

The loss of an image mixes all of its boxes and thousands of places where there is nothing, so a box that is
missing drowns in it. Here every labelled box, and every detection without one, is judged by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.metrics.detection import ImageBoxes, box_overlaps

SAME = 0.4
"""IoU from which a detection and a labelled box are of the same thing."""

TOUCHING = 0.1
"""IoU from which a detection belongs to a label, however badly drawn, and no label is missing there."""

NEAR = 1.5
"""A detection whose middle lies within so many diagonals of a box's middle may be what the box was drawn
for."""

KINDS = {
    "missing": "a detection where no box is labelled; its score",
    "shifted": "no detection where the box is, one of its class beside it: (1 - score there) x score beside",
    "wrong class": "a detection of another class where the box is: its score x (1 - score of the own class)",
    "not seen": "no detection where the box is, none beside it: half of (1 - score there)",
}
"""What is suspected, and how much, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Suspicion:
    """``kind`` of KINDS; ``score``; ``name`` of the class that is labelled, or for "missing" detected;
    ``box`` float (2 D,), the labelled one, or for "missing" the detected one, and its ``number`` among them;
    ``instead`` for "wrong class" the class, and for "shifted" the box, that the detector answers with."""

    kind: str
    score: float
    name: str
    box: np.ndarray
    number: int
    instead: str | np.ndarray | None = None


def suspicions_of(image: ImageBoxes, classes: Sequence[str]) -> list[Suspicion]:
    """One for every labelled box, of the kind that scores most, and one for every detection that touches no
    labelled box and is not taken for a shifted one; the highest score first. ``classes``: names by number.
    ``image.boxes`` are all detections, however low their score, ``image.truth`` the labels in question."""
    overlaps = box_overlaps(image.truth, image.boxes)
    free = ~(overlaps >= TOUCHING).any(axis=0) if len(image.truth) else np.ones(len(image.boxes), bool)
    found, taken = [], set()
    for number, (box, own) in enumerate(zip(image.truth, image.truth_classes, strict=True)):
        same = overlaps[number] >= SAME
        alike = image.classes == own
        here = _best(image.scores, same & alike)
        other = _best(image.scores, same & ~alike)
        beside = _best(image.scores, alike & ~same & _near(box, image.boxes) & _unclaimed(overlaps, number))
        by_kind = {
            "wrong class": _score(image, other) * (1 - _score(image, here)),
            "shifted": (1 - max(_score(image, here), _score(image, other))) * _score(image, beside),
            "not seen": (1 - max(_score(image, here), _score(image, other))) / 2,
        }
        kind = max(by_kind, key=by_kind.get)
        instead = None
        if kind == "shifted":
            taken.add(beside)
            instead = image.boxes[beside]
        if kind == "wrong class":
            instead = classes[int(image.classes[other])]
        found.append(Suspicion(kind, float(by_kind[kind]), classes[int(own)], box, number, instead))
    for number in np.flatnonzero(free):
        if number not in taken:
            name = classes[int(image.classes[number])]
            score, box = float(image.scores[number]), image.boxes[number]
            found.append(Suspicion("missing", score, name, box, int(number)))
    return sorted(found, key=lambda one: -one.score)


def _best(scores: np.ndarray, among: np.ndarray) -> int | None:
    return int(np.where(among, scores, -1.0).argmax()) if among.any() else None


def _score(image: ImageBoxes, number: int | None) -> float:
    return 0.0 if number is None else float(image.scores[number])


def _near(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool (N,): whether the middle of each other box lies within NEAR diagonals of the box's."""
    low, high = np.split(box, 2)
    middles = (others[:, : len(low)] + others[:, len(low) :]) / 2
    away = np.linalg.norm(middles - (low + high) / 2, axis=1)
    return away <= NEAR * np.linalg.norm(high - low)


def _unclaimed(overlaps: np.ndarray, number: int) -> np.ndarray:
    """bool (N,): detections that are not where another labelled box is."""
    others = np.delete(overlaps, number, axis=0)
    return ~(others >= SAME).any(axis=0)
