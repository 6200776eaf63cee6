"""Several annotators' labels become one, by majority or by STAPLE."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import InputError
from medseg.serve.monai_label.fuse import fuse, majority


def box(low, high):
    mask = np.zeros((3, 20, 20), dtype=bool)
    mask[1, low:high, low:high] = True
    return mask


def test_majority_keeps_what_two_of_three_drew_and_no_tie():
    assert majority([box(2, 10), box(4, 12), box(4, 10)]).sum() == 36  # 6 x 6: rows 4 to 9
    assert not majority([box(2, 4), box(6, 8)]).any()


def test_staple_follows_two_careful_annotators_and_not_the_careless_third():
    careful, careless = box(4, 14), box(0, 20)
    fused = fuse([{"GTV": careful}, {"GTV": careful}, {"GTV": careless}], "staple")["GTV"]
    assert np.array_equal(fused, careful)


def test_staple_of_equal_and_of_empty_masks_is_that_mask():
    assert np.array_equal(fuse([{"A": box(2, 5)}] * 2, "staple")["A"], box(2, 5))
    assert not fuse([{"A": box(0, 0)}] * 3, "staple")["A"].any()


def test_a_structure_counts_by_those_who_named_it():
    fused = fuse([{"A": box(2, 5), "B": box(0, 3)}, {"A": box(2, 5)}], "majority")
    assert np.array_equal(fused["B"], box(0, 3))


def test_an_unknown_method_and_no_label_are_refused():
    with pytest.raises(InputError, match="majority, staple"):
        fuse([{"A": box(0, 1)}], "mean")
    with pytest.raises(InputError, match="no label"):
        fuse([], "majority")
