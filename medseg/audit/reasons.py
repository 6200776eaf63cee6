"""Why a label disagrees with its prediction: of the corrections one could make, the one that explains most.

What brings the label closest to the prediction, and to what labels of its structure are usually like, is the
reason; corrections with more freedom (a shift has three numbers) pay for it by COST. A correction that closes
less than LEAST_EXPLAINED of the gap in Dice is no reason. Where none does, a size that is unusual is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medseg.audit.corrections import (
    PLACES,
    find_ends,
    find_gaps,
    find_growth,
    find_other_structures,
    find_pieces,
    find_shift,
)
from medseg.audit.disagreement import dice_of
from medseg.audit.pairs import Pair, Reason
from medseg.audit.usual import Usual, level, measures
from medseg.shapes.boxes import box_of

COST = {
    "shifted": 0.05,
    "expanded": 0.01,
    "contracted": 0.01,
    "slices dropped": 0.0,
    "wrong structure": -0.05,
    "sides swapped": -0.05,
}
"""What a correction pays, in Dice. To lie where another structure is predicted is no coincidence, so that
earns some."""

OTHER_COST = 0.02
LEAST_EXPLAINED, LEAST_GAIN = 0.25, 0.03

UNUSUAL_COST = 0.12
"""What a label pays, in Dice, for each robust standard deviation that it is unusual among its own kind."""

LEAST_BETTER = 0.05
"""A label is another structure's if it fits that prediction better by so much Dice at least."""

TELLING_Z = 1.5
"""Beyond so many robust standard deviations the size of a label alone is a reason, if nothing else is."""


@dataclass(frozen=True, eq=False)
class Case:
    """What is known of a case beside the label in question: predictions and labels of all its structures,
    bool on one grid, and what is usual of labels."""

    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    usual: Usual = field(default_factory=Usual)


def find_reason(
    pair: Pair, structure: str = "", case: Case | None = None
) -> tuple[Reason, tuple[Reason, ...]]:
    """(the reason, all candidates best first) of the disagreement of a label of ``structure``."""
    if not pair.label.any() or not pair.prediction.any():
        return _one_empty(pair), ()
    case = case or Case()
    inner = pair.within(box_of(pair.label | pair.prediction, margin=2))
    own, before = measures(inner.label, inner.image, pair.spacing), dice_of(pair.label, pair.prediction)

    def merit(reason: Reason, named: str, values: np.ndarray) -> float:
        paid = COST.get(reason.kind, OTHER_COST) + UNUSUAL_COST * case.usual.unusual(named, values)
        return reason.dice_after - paid

    found = [
        (merit(reason, name, own), reason)
        for reason, name in find_other_structures(pair, structure, case.predictions, case.labels)
        if reason.dice_after >= before + LEAST_BETTER
    ]
    for make in (find_shift, find_growth, find_pieces, find_gaps, find_ends):
        for reason, label in make(inner):
            if label.any():  # one that takes everything away corrects nothing
                values = measures(label, inner.image, pair.spacing)
                found.append((merit(reason, structure, values), reason))
    found.sort(key=lambda one: -one[0])
    reasons = tuple(reason for _, reason in found)
    as_it_is = before - UNUSUAL_COST * case.usual.unusual(structure, own)
    if found and found[0][0] - as_it_is >= max(LEAST_GAIN, LEAST_EXPLAINED * (1 - before)):
        return reasons[0], reasons
    return _by_size(pair, structure, case, own) or _none(before), reasons


def _none(dice: float) -> Reason:
    return Reason("no single cause", "differs without one simple cause", dice_after=dice)


def _by_size(pair: Pair, structure: str, case: Case, values: np.ndarray) -> Reason | None:
    """What the label's own size says where no correction brings it closer to the prediction, which may be
    poor or thinner than the grid."""
    z = case.usual.z(structure, values)
    if z is None:
        return None
    volume, thickness, height = z[:3]
    telling = {"expanded": min(volume, thickness), "contracted": -max(volume, thickness), "cropped": -height}
    kind = max(telling, key=telling.get)
    if telling[kind] < TELLING_Z:
        return None
    usual = np.exp(case.usual.known[structure][0])
    if kind == "cropped":
        size, than = math.exp(values[2]), usual[2]
        place = PLACES[pair.label.ndim][0][_higher_than_usual(pair, structure, case) <= 0]
        words = f"cropped at its {place}: {pair.says(size)} high, usually {pair.says(than)}"
        return Reason(kind, words, abs(than - size), dice_after=dice_of(pair.label, pair.prediction))
    word = "larger and thicker" if kind == "expanded" else "smaller and thinner"
    words = f"{kind}: {word} than usual ({math.exp(values[0]) / usual[0]:.1f} times the volume)"
    return Reason(kind, words, dice_after=dice_of(pair.label, pair.prediction))


def _higher_than_usual(pair: Pair, structure: str, case: Case) -> float:
    """Above 0 where the label lies higher along axis 0 than usual among the other labels of its case, or,
    with none, than its prediction."""
    levels = {name: level(label, pair.spacing) for name, label in case.labels.items()}
    levels[structure] = level(pair.label, pair.spacing)
    found = case.usual.level_z(structure, levels)
    return found if found == found else levels[structure] - level(pair.prediction, pair.spacing)


def _one_empty(pair: Pair) -> Reason:
    if pair.prediction.any():
        return Reason(
            "empty label",
            f"empty, though {pair.size(int(pair.prediction.sum()))} are predicted",
            dice_after=1.0,
        )
    if pair.label.any():
        return Reason(
            "nothing predicted", f"{pair.size(int(pair.label.sum()))} contoured where nothing is predicted"
        )
    return Reason("no single cause", "empty in label and prediction")
