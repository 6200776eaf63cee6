"""Cases unlike the others of their cohort are found, and alike ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.metrics.outliers import outliers


def cohort(count=20):
    """Cases with a cord of 40 cc, and parotids of 25 cc 50 mm to either side of it, somewhere in a room."""
    rng = np.random.default_rng(0)
    cases = {}
    for number in range(count):
        place = rng.normal(0, 300, 3)
        parts = {"Cord": (40.0, 0.0), "Parotid_L": (25.0, 50.0), "Parotid_R": (25.0, -50.0)}
        cases[f"c{number:02d}"] = [
            {
                "name": name,
                "empty": False,
                "volume_cc": cc * rng.uniform(0.8, 1.25),
                "centre_lps_mm": (place + [x, 0, 0] + rng.normal(0, 3, 3)).tolist(),
            }
            for name, (cc, x) in parts.items()
        ]
    return cases


def found(cases):
    return [(one.case, one.structure, one.what) for one in outliers(cases)]


def test_alike_cases_have_none():
    assert found(cohort()) == []


def test_a_parotid_of_200_cc_and_a_missing_cord_are_found_with_their_reasons():
    cases = cohort()
    cases["c03"][1]["volume_cc"] = 200.0
    del cases["c07"][0]
    cases["c08"][0] = {"name": "Cord", "empty": True, "volume_cc": 0.0, "centre_lps_mm": None}
    assert found(cases) == [
        ("c07", "Cord", "missing"),
        ("c08", "Cord", "missing"),
        ("c03", "Parotid_L", "volume"),
    ]
    assert outliers(cases)[2].words.startswith("Parotid_L 200.0 cc; the median of the cohort is 2")


def test_swapped_sides_are_found_by_place_though_the_patients_lie_anywhere():
    cases = cohort()
    left, right = cases["c05"][1], cases["c05"][2]
    left["centre_lps_mm"], right["centre_lps_mm"] = right["centre_lps_mm"], left["centre_lps_mm"]
    assert {(case, name) for case, name, what in found(cases) if what == "place"} >= {
        ("c05", "Parotid_L"),
        ("c05", "Parotid_R"),
    }
    words = next(one.words for one in outliers(cases) if one.structure == "Parotid_L")
    assert words.startswith("Parotid_L lies 1") and words.endswith(
        "mm right of where it lies in the other cases"
    )


@pytest.mark.parametrize("factor, seen", [(1.4, False), (1.8, True), (0.5, True)])
def test_a_volume_within_a_factor_of_one_and_a_half_is_never_remarkable(factor, seen):
    cases = {f"c{n}": [{"name": "A", "empty": False, "volume_cc": 10.0}] for n in range(9)}
    cases["c0"][0]["volume_cc"] *= factor
    assert bool(outliers(cases)) is seen


def test_of_four_cases_nothing_is_said():
    cases = cohort(4)
    cases["c03"][1]["volume_cc"] = 2000.0
    assert outliers(cases) == []
