"""What labels are usually like, on boxes of voxels whose measures are worked out by hand, and the reasons
that follow from it where the prediction is too poor to give one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.audit.pairs import Pair
from medseg.audit.reasons import Case, find_reason
from medseg.audit.usual import LEAST_SPREAD, Usual, level, measures, usual_of

SHAPE, SPACING = (24, 16, 16), (3.0, 2.0, 2.0)


def box(low: int, high: int, half: int = 3, centre: int = 8) -> np.ndarray:
    """Slices low to high - 1 of a square column, 2 x half voxels wide."""
    mask = np.zeros(SHAPE, bool)
    mask[low:high, centre - half : centre + half, centre - half : centre + half] = True
    return mask


def test_measures_of_a_column_of_voxels():
    image = np.zeros(SHAPE, np.uint8)
    image[:, :8] = 20
    found = dict(zip(LEAST_SPREAD, measures(box(4, 10), image, SPACING), strict=True))
    assert found["log volume"] == pytest.approx(math.log(6 * 6 * 6 * 12))
    assert found["log height"] == pytest.approx(math.log(18))
    assert found["gap"] == 0 and found["grey spread"] == pytest.approx(10)  # half 0, half 20
    gapped = box(4, 10)
    gapped[6:8] = False
    assert measures(gapped, image, SPACING)[3] == pytest.approx(2 / 6)
    # One voxel is as deep as the way to the next centre outside: 2 mm. A slab of 3 x 3 x 1: its 9 voxels lie
    # 3 mm below the slices beside them, but the 8 outer ones 2 mm from the side.
    assert math.exp(measures(box(4, 5, 1)[:, :, :] & box(4, 5, 1), None, SPACING)[1]) == pytest.approx(2)
    slab = np.zeros(SHAPE, bool)
    slab[4, 5:8, 5:8] = True
    assert math.exp(measures(slab, None, SPACING)[1]) == pytest.approx((8 * 2 + 3) / 9)
    assert (
        math.isnan(measures(slab, None, SPACING)[4]) and np.isnan(measures(slab & False, None, SPACING)).all()
    )


def columns(count: int = 9) -> list[np.ndarray]:
    """Labels of 10, 12 and 14 slices in turn."""
    return [box(4, 14 + 2 * (number % 3)) for number in range(count)]


def usual() -> Usual:
    return usual_of([("Cord", measures(label, None, SPACING)) for label in columns()])


def test_z_is_told_in_robust_deviations_and_one_is_expected_of_what_is_not_known():
    known = usual()
    # Heights of 30, 36 and 42 mm: the median absolute deviation of their logarithms is ln(42/36).
    deviation = 1.4826 * math.log(42 / 36)
    z = known.z("Cord", measures(box(4, 8), None, SPACING))
    assert z[2] == pytest.approx(math.log(12 / 36) / deviation)
    assert known.unusual("Cord", measures(box(4, 16), None, SPACING)) == pytest.approx(0, abs=1e-6)
    assert known.unusual("Cord", measures(box(4, 8), None, SPACING)) > 3
    assert known.unusual("Heart", measures(box(4, 8), None, SPACING)) == 1
    assert known.unusual("Cord", measures(box(4, 4), None, SPACING)) == 1
    few = usual_of([("Cord", measures(label, None, SPACING)) for label in columns(4)])
    assert few.unusual("Cord", measures(box(4, 8), None, SPACING)) == 1


def test_a_centre_is_compared_with_those_of_the_other_structures():
    assert level(box(4, 10), SPACING) == pytest.approx(6.5 * 3) and math.isnan(level(box(4, 4), SPACING))
    cases = [{"Cord": 30.0 + shift, "Brain": 90.0} for shift in (-6, -6, 0, 6, 6)]
    known = usual_of([], cases)
    # 60 mm below the brain, median absolute deviation 6 mm
    assert known.level_z("Cord", {"Cord": 48.0, "Brain": 90.0}) == pytest.approx(18 / (1.4826 * 6))
    assert math.isnan(known.level_z("Cord", {"Cord": 48.0})), "there is nothing to compare it with"
    assert math.isnan(known.level_z("Cord", {"Cord": 48.0, "Brain": math.nan}))


def reason_of(label: np.ndarray, prediction: np.ndarray, known: Usual, **labels):
    pair = Pair(label, prediction, SPACING, "mm")
    return find_reason(pair, "Cord", Case({"Cord": prediction}, {"Cord": label, **labels}, known))[0]


SPECK = box(12, 13, 1, centre=13)
"""A prediction of four voxels, which no correction of a column brings closer by 0.03 of Dice."""


def test_a_gap_is_filled_from_the_label_itself_where_the_prediction_is_poor():
    gapped = box(4, 16)
    gapped[8:11] = False
    assert reason_of(gapped, SPECK, Usual()).kind == "no single cause"
    found = reason_of(gapped, SPECK, usual())
    assert (found.kind, found.amount) == ("slices dropped", 9.0)


def test_a_short_label_is_cropped_at_the_end_that_its_place_among_the_others_tells():
    levels = [{"Cord": level(label, SPACING), "Brain": 60.0} for label in columns()]
    known = usual_of([("Cord", measures(label, None, SPACING)) for label in columns()], levels)
    brain = box(18, 23)  # its centre is slice 20, at 60 mm
    upper = reason_of(box(11, 16), SPECK, known, Brain=brain)
    assert upper.words == "cropped at its caudal end: 15 mm high, usually 36 mm" and upper.amount == 21
    assert "cranial end" in reason_of(box(4, 9), SPECK, known, Brain=brain).words
    assert reason_of(box(4, 16), SPECK, known, Brain=brain).kind == "no single cause"
    # Without another structure the prediction's place has to do, which lies at slice 12.
    assert "cranial end" in reason_of(box(4, 9), SPECK, known).words


def test_a_label_larger_or_smaller_than_its_kind_is_told_without_any_help_of_the_prediction():
    assert reason_of(box(4, 16, 5), SPECK, usual()).kind == "expanded"
    assert reason_of(box(4, 16, 1), SPECK, usual()).kind == "contracted"
    assert reason_of(box(4, 16, 5), SPECK, Usual()).kind == "no single cause"
