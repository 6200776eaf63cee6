"""Annotators' habits beside single errors: biases that are planted, and what is left when they are taken
out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.audit.style import LEAST_CASES, remove_style
from medseg.audit.style import styles as styles_of_patients


def styles(rows, reach):
    """Every case of a patient of its own."""
    return styles_of_patients([(*row, str(number)) for number, row in enumerate(rows)], reach)


def test_a_consistent_bias_is_a_style_and_scatter_is_none():
    rng = np.random.default_rng(0)
    rows = [("A", "Parotid_L", 3 + 0.5 * part) for part in rng.normal(size=12)]
    rows += [("B", "Parotid_L", 0.5 * part) for part in rng.normal(size=12)]
    found = styles(rows, reach=2.0)
    wide, none = found["A", "Parotid_L"], found["B", "Parotid_L"]
    assert wide.consistent and wide.bias == pytest.approx(3, abs=0.4) and wide.low < 3 < wide.high
    assert not none.consistent and none.low < 0 < none.high
    assert wide.words("mm").startswith("3.") or wide.words("mm").startswith("2.")


def test_one_blunder_makes_no_style():
    rows = [("A", "Cord", bias) for bias in (0.1, -0.2, 0.0, 0.2, -0.1, 0.1, 25.0)]
    assert not styles(rows, reach=2.0)["A", "Cord"].consistent


def test_few_cases_make_no_style_and_rows_without_a_group_or_bias_do_not_count():
    rows = [("A", "Cord", 5.0)] * (LEAST_CASES - 1) + [("A", "Cord", math.nan), ("", "Cord", 5.0)]
    found = styles(rows, reach=2.0)
    assert (
        list(found) == [("A", "Cord")] and found["A", "Cord"].cases == 4 and not found["A", "Cord"].consistent
    )


def test_many_cases_of_one_patient_make_no_style():
    rows = [("A", "Cord", 5.0, "p")] * 9
    assert not styles_of_patients(rows, reach=2.0)["A", "Cord"].consistent
    rows[0] = ("A", "Cord", 5.0, "q")
    assert styles_of_patients(rows, reach=2.0)["A", "Cord"].consistent


def test_a_bias_too_small_for_the_grid_is_no_style():
    assert not styles([("A", "Cord", 0.4)] * 9, reach=2.0)["A", "Cord"].consistent
    assert styles([("A", "Cord", 0.6)] * 9, reach=2.0)["A", "Cord"].consistent


def test_a_habit_taken_out_gives_the_outline_without_it():
    grid = np.indices((40, 40))
    depth = np.hypot(*(grid - 20.0)) - 10
    larger, own = depth < 3, depth < 0
    back = remove_style(larger, 3.0, (1.0, 1.0))
    assert 2 * (back & own).sum() / (back.sum() + own.sum()) > 0.97
    assert (remove_style(own, 50.0, (1.0, 1.0)) == own).all(), "an outline that would vanish stays"
