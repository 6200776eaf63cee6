"""Numbers of whole images by hand and against scikit-learn, and how far a new one may be off."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error as sklearn_error
from sklearn.metrics import r2_score

from medseg.errors import InputError
from medseg.metrics.numbers import agreement, conformal_reach, determination, mean_absolute_error

SAID, TRUE = np.array([0.7, 0.9, 0.6, 0.8]), np.array([0.6, 0.9, 0.7, 0.6])


def test_bias_and_limits_of_agreement_by_hand():
    # Differences 0.1, 0, -0.1, 0.2: mean 0.05, squares about it 0.0025 + 0.0025 + 0.0225 + 0.0225 = 0.05.
    reach = 1.96 * math.sqrt(0.05 / 3)
    assert agreement(SAID, TRUE) == pytest.approx((0.05, 0.05 - reach, 0.05 + reach))
    assert all(math.isnan(number) for number in agreement(SAID[:1], TRUE[:1]))


def test_error_and_determination_are_those_of_scikit_learn():
    assert mean_absolute_error(SAID, TRUE) == pytest.approx(0.1) == pytest.approx(sklearn_error(TRUE, SAID))
    assert determination(SAID, TRUE) == pytest.approx(r2_score(TRUE, SAID))
    assert determination(np.full(4, TRUE.mean()), TRUE) == pytest.approx(0)
    assert math.isnan(determination(SAID, np.ones(4))) and math.isnan(mean_absolute_error([], []))
    with pytest.raises(InputError, match=r"\(4,\) numbers said and \(3,\) true"):
        mean_absolute_error(SAID, TRUE[:3])


def test_the_reach_is_the_error_that_all_but_a_twentieth_of_known_ones_keep_to():
    off = np.arange(1, 40) / 10  # of 39, the 38th counts: (39 + 1) * 0.95
    assert conformal_reach(np.random.default_rng(0).permutation(off)) == 3.8
    assert conformal_reach(off[:18]) == math.inf and conformal_reach(off[:19]) == 1.9


def test_intervals_of_that_reach_hold_the_share_that_was_asked_for():
    draw = np.random.default_rng(1)
    held = []
    for _ in range(400):
        off = np.abs(draw.standard_t(3, 60))
        held.append(abs(draw.standard_t(3)) <= conformal_reach(off, 0.9))
    assert 0.86 < np.mean(held) < 0.95  # 0.9 is promised; 400 draws have an error of 0.015
