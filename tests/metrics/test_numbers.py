"""Numbers of whole images by hand and against scikit-learn, and how far a new one may be off."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error as sklearn_error
from sklearn.metrics import r2_score

from medseg.errors import InputError
from medseg.metrics.numbers import agreement, conformal_ends, determination, mean_absolute_error

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


def test_the_ends_are_the_errors_that_all_but_a_fortieth_at_each_side_keep_to():
    off = np.arange(1, 80) / 10  # of 79, the 78th counts: (79 + 1) * 0.975, and the second
    assert conformal_ends(np.random.default_rng(0).permutation(off)) == (0.2, 7.8)
    assert conformal_ends(off[:38]) == (-math.inf, math.inf) and conformal_ends(off[:39]) == (0.1, 3.9)


def test_intervals_of_these_ends_hold_the_share_that_was_asked_for():
    draw = np.random.default_rng(1)
    held = []
    for _ in range(400):
        least, most = conformal_ends(draw.standard_t(3, 60) + 2, 0.9)  # a network that says 2 too much
        held.append(least <= draw.standard_t(3) + 2 <= most)
    assert 0.86 < np.mean(held) < 0.95  # 0.9 is promised; 400 draws have an error of 0.015
