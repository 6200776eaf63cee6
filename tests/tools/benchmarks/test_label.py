"""The simulated annotators: how labels and looks are counted, by hand, and that a small run is one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[3] / "tools" / "benchmarks" / "label"


@pytest.fixture
def tools(monkeypatch):
    """(annotators, annotators_report)."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import annotators
    import annotators_report

    yield annotators, annotators_report
    for name in ("annotators", "annotators_report", "films"):
        sys.modules.pop(name, None)


def test_labels_needed_lie_on_the_line_between_two_rounds(tools):
    points = [{"count": 8, "dsc": 0.80}, {"count": 16, "dsc": 0.88}, {"count": 24, "dsc": 0.86}]
    reached = tools[1].reached
    assert reached(points, 0.84) == pytest.approx(12)
    assert reached(points, 0.80) == 8 and reached(points, 0.7) == 8
    assert np.isnan(reached(points, 0.9))


def test_looks_are_counted_to_the_one_that_found_the_last_error_wanted(tools):
    cell = {"found": [True, False, True, False, False, True, False, True], "errors": 4}
    looks_for = tools[1].looks_for
    assert [looks_for(cell, share) for share in (0.25, 0.5, 0.75, 1.0)] == [1, 3, 6, 8]
    assert np.isnan(looks_for({**cell, "errors": 5}, 1.0))
    spread = tools[1].spread
    assert spread([8.0, 12.0, 10.0]) == "10 (8 to 12)"
    assert spread([8.0, float("nan")]) == "8, 1 of 2 seeds" and spread([float("nan")]) == "not reached"


def test_blunders_are_of_a_quarter_of_the_films_and_a_reviewer_in_any_order_sees_each_label_once(tools):
    annotators = tools[0]
    pool = annotators.films(10_000, 40, 32)
    budget = replace(annotators.Budget(), side=32)
    labels, wrong = annotators.blundered(pool, 1, budget)
    changed = (labels != pool.masks).any((2, 3))
    assert 6 <= wrong.any(1).sum() <= 10, "ten films are blundered; some blunders change next to nothing"
    assert changed[wrong].all() and not wrong[~changed].any()
    looks = annotators._looks("random", pool, labels, 1, budget, Path())
    assert sorted(looks) == [(film, structure) for film in range(40) for structure in range(3)]
    assert pool.bedside.sum() == 10 and pool.bedside[-10:].all()
