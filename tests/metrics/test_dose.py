"""Dose-volume numbers of doses whose answer is known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.errors import InputError
from medseg.metrics.dose import dose_volume, unit_of


def test_a_ramp_from_0_to_100_gy_has_the_numbers_of_a_ramp():
    ramp = dose_volume((np.arange(1000) + 0.5) / 10, 0.01)  # 10 cc
    expected = {"Dmean": 50, "D2%": 98, "D98%": 2, "D50%": 50, "V20Gy": 80, "D1cc": 90, "Dmin": 0.05}
    assert {name: round(ramp.get(name), 6) for name in expected} == pytest.approx(expected)
    assert ramp.get("Dmax") == 99.95


def test_parts_count_by_their_volume():
    two = dose_volume(np.array([10.0, 30.0]), np.array([3.0, 1.0]))
    assert two.get("Dmean") == 15 and two.get("V20Gy") == 25 and two.get("V10Gy") == 100


def test_a_uniform_dose_is_every_number():
    even = dose_volume(np.full(7, 2.0), 1.0)
    assert {even.get(name) for name in ("Dmean", "D2%", "D98%", "D95%", "Dmax", "D0.1cc")} == {2.0}
    assert even.get("V2Gy") == 100 and even.get("V2.1Gy") == 0


def test_an_empty_structure_and_more_cc_than_there_are_have_no_number():
    assert math.isnan(dose_volume(np.empty(0), 1.0).get("Dmean"))
    assert math.isnan(dose_volume(np.ones(3), 1.0).get("D4cc"))


def test_a_structure_partly_outside_the_dose_grid_is_refused():
    with pytest.raises(InputError, match="25.0 % of the structure lies outside"):
        dose_volume(np.array([1.0, 1.0, np.nan, 1.0]), 1.0)


@pytest.mark.parametrize("name", ["D2", "Vmean", "V20", "D%", "dmean", "V20%"])
def test_a_name_that_means_nothing_is_refused(name):
    with pytest.raises(InputError, match="expected one such as"):
        unit_of(name)
    assert unit_of("V20Gy") == "%" and unit_of("D2%") == "Gy"
