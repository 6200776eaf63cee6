"""Cases drawn so that classes, or groups, count alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from medseg.errors import InputError
from medseg.training.balance import group_sampler, group_weights, undersampled

CASES = [
    {"case_id": str(n), "label": label, "device": device}
    for n, (label, device) in enumerate([(0, "a")] * 6 + [(0, "b")] + [(1, "a")] + [(1, "b")] * 4)
]


def test_undersampling_keeps_as_many_of_each_class_and_the_same_ones_again():
    kept = undersampled(CASES, True, seed=3)
    assert Counter(case["label"] for case in kept) == {0: 5, 1: 5}
    assert kept == undersampled(CASES, True, seed=3) != undersampled(CASES, True, seed=4)
    assert [int(case["case_id"]) for case in kept] == sorted(int(case["case_id"]) for case in kept)
    assert undersampled(CASES, False) == CASES and undersampled([], True) == []


def test_groups_are_drawn_alike_by_hand():
    # Four groups of 6, 1, 1 and 4 of 12: each has a quarter of the draws, so weights 12 / 4 / size.
    assert group_weights(CASES, ("label", "device")).tolist() == [0.5] * 6 + [3.0] + [3.0] + [0.75] * 4
    assert group_weights(CASES, ("label", "device")).mean() == 1.0
    torch.manual_seed(0)
    drawn = Counter()
    for _ in range(400):
        drawn.update(
            (CASES[n]["label"], CASES[n]["device"]) for n in group_sampler(CASES, ["label", "device"])
        )
    shares = np.array(list(drawn.values())) / (400 * len(CASES))
    assert len(shares) == 4 and np.abs(shares - 0.25).max() < 0.03


def test_without_fields_the_loader_draws_by_itself_and_an_unknown_field_is_named():
    assert group_sampler(CASES, []) is None
    with pytest.raises(InputError, match="0 has no 'site', by which groups are balanced"):
        group_sampler(CASES, ["site"])


def test_several_processes_share_the_draws_of_an_epoch_and_draw_as_many_each_of_all_cases():
    one, first = group_sampler(CASES, ["label"]), group_sampler(CASES, ["label"], processes=5)
    assert (len(list(one)), len(list(first))) == (12, 3), "12 / 5 rounded up"
    torch.manual_seed(0)
    assert {number for _ in range(200) for number in first} == set(range(12))
