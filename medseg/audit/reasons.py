"""Why a label disagrees with its prediction: of the corrections one could make, the one that explains most.

What brings the label closest to the prediction is the reason; corrections with more freedom (a shift has
three numbers) pay for it by COST. A correction that closes less than LEAST_EXPLAINED of the gap in Dice is no
reason.
"""

from __future__ import annotations

import numpy as np

from medseg.audit.corrections import (
    find_ends,
    find_gaps,
    find_growth,
    find_other_structures,
    find_pieces,
    find_shift,
)
from medseg.audit.disagreement import dice_of
from medseg.audit.pairs import Pair, Reason
from medseg.shapes.boxes import box_of

COST = {"shifted": 0.05, "expanded": 0.01, "contracted": 0.01, "wrong structure": -0.1, "sides swapped": -0.1}
"""What a correction pays, in Dice. To lie where another structure is predicted is no coincidence, so that
earns some."""

OTHER_COST = 0.02
LEAST_EXPLAINED, LEAST_GAIN = 0.25, 0.03


def find_reason(
    pair: Pair,
    structure: str = "",
    predictions: dict[str, np.ndarray] | None = None,
    labels: dict[str, np.ndarray] | None = None,
) -> tuple[Reason, tuple[Reason, ...]]:
    """(the reason, all candidates best first). ``predictions`` and ``labels``: of all structures of the case,
    for swaps."""
    if not pair.label.any() or not pair.prediction.any():
        return _one_empty(pair), ()
    before = dice_of(pair.label, pair.prediction)
    candidates = [*find_other_structures(pair, structure, predictions or {}, labels or {})]
    box = box_of(pair.label | pair.prediction, margin=2)
    inner = Pair(pair.label[box], pair.prediction[box], pair.spacing, pair.unit)
    for make in (find_shift, find_growth, find_pieces, find_gaps, find_ends):
        candidates += make(inner)
    candidates.sort(key=lambda one: COST.get(one.kind, OTHER_COST) - one.dice_after)
    best = candidates[0] if candidates else None
    if best is None or best.dice_after - before < max(LEAST_GAIN, LEAST_EXPLAINED * (1 - before)):
        return Reason("no single cause", "differs without one simple cause", dice_after=before), tuple(
            candidates
        )
    return best, tuple(candidates)


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
