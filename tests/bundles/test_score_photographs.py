"""Scores of photographs from the files that were written: by hand on a small picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medseg.bundles.score_photographs import (
    in_words,
    pooled_scores,
    row_of,
    score_photograph,
    tile_words,
)
from medseg.metrics.intervals import Interval

BITS = (1, {"drusen": 2})


def scored(patient: str, lesion: bool = True):
    """20 x 20 pixels: a lesion of 4 seen with 0.9, of which one only with 0.2; drusen of 2, one taken for a
    lesion; light outside the field of view."""
    bit_field = np.zeros((20, 20), np.uint8)
    bit_field[5:7, 5:7] = int(lesion)
    bit_field[15, 15:17] = 2
    chances = np.zeros((20, 20))
    chances[5:7, 5:7], chances[6, 6], chances[15, 15] = 0.9 * lesion, 0.2 * lesion, 0.6
    chances[0, 0] = 1.0
    field = np.ones((20, 20), dtype=bool)
    field[0, 0] = False
    levels = np.rint(chances * 65535).astype(np.uint16)
    return score_photograph(levels, bit_field, field, BITS, patient)


def test_one_photograph_by_hand():
    row = row_of(scored("a"))
    assert row["DSC"] == 2 * 3 / (4 + 4) and row["true"] == 4 and row["contoured"] == 4
    assert tile_words(row) == "AUPR 0.95  AUC 0.999"
    # Recall 3/4 at precision 1, then 1/4 more at precision 4/5: 0.75 + 0.25 * 0.8.
    assert row["AUPR"] == pytest.approx(0.95)
    assert row["ROC AUC"] == pytest.approx((3 * 395 + 394) / (4 * 395))


def test_a_photograph_without_a_lesion_has_no_score_but_counts_what_was_outlined():
    row = row_of(scored("b", lesion=False))
    assert np.isnan([row["DSC"], row["AUPR"], row["ROC AUC"]]).all()
    assert row["true"] == 0 and row["contoured"] == 1
    assert tile_words(row) == "no lesion, 1 pixels outlined"


def test_pooled_figures_of_a_sick_and_a_healthy_eye():
    found = pooled_scores([scored("a"), scored("b", lesion=False)])
    assert found["images"] == 2 and found["with lesions"] == 1 and found["lesions"] == 1
    assert found["specificity at 0.5, images without lesions"] == 1 - 1 / 399
    assert found["taken for the lesion at 0.5, share of pixels"] == {"drusen": 0.5}
    assert isinstance(found["AUPR"], Interval) and 0.75 < found["AUPR"].value < 0.95
    assert found["AUPR, look-alikes left out"].value == 1.0, "only drusen rank above a part of the lesion"
    finds = found["lesions found at false finds per image"]
    assert finds["1"] == 1.0 and finds["0.5"] == 1.0, "the lesion ranks above the drusen"
    words = in_words("Exudate", found)
    assert "| images | 2 |" in words and "drusen | 0.500 |" in words


def test_scores_that_kept_no_counts_apart_say_nothing_of_look_alikes_left_out():
    found = pooled_scores([scored("a"), replace(scored("b"), apart=None)])
    assert "AUPR, look-alikes left out" not in found and "AUPR" in found
