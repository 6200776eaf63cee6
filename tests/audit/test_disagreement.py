"""Numbers between a label and its prediction, and the score made of them, against values worked out by
hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medseg.audit.disagreement import (
    HIGHEST_Z,
    Disagreement,
    dice_of,
    disagreement,
    level_of,
    outline_distances,
    predicted_mask,
    robust_z,
    scores,
    threshold_of,
)


def box(shape, *sides) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def test_a_square_inside_another_lies_one_pixel_inside_all_round():
    # Corners of the large square are sqrt(2) away from the small one; edges are 1 away: 4 corners of 20 edge
    # pixels.
    large, small = box((12, 12), (3, 9), (3, 9)), box((12, 12), (4, 8), (4, 8))
    outward = (16 + 4 * math.sqrt(2)) / 20
    distance, bias = outline_distances(large, small, (1.0, 1.0))
    assert distance == pytest.approx((outward + 1.0) / 2) and bias == pytest.approx((outward + 1.0) / 2)
    assert outline_distances(small, large, (1.0, 1.0))[1] == pytest.approx(-bias)
    assert outline_distances(large, small, (3.0, 3.0))[0] == pytest.approx(3 * distance)
    assert outline_distances(large, large, (3.0, 1.0)) == (0.0, 0.0)


def test_a_shifted_square_has_no_bias():
    a, b = box((12, 12), (3, 9), (3, 9)), box((12, 12), (3, 9), (5, 11))
    distance, bias = outline_distances(a, b, (1.0, 1.0))
    assert distance > 0.3 and bias == pytest.approx(0, abs=1e-9)


def test_empty_masks_have_their_answers():
    empty, full = np.zeros((4, 4), bool), box((4, 4), (1, 3), (1, 3))
    assert outline_distances(empty, empty, (1.0, 1.0)) == (0.0, 0.0)
    distance, bias = outline_distances(full, empty, (1.0, 1.0))
    assert distance == math.inf and math.isnan(bias)
    assert dice_of(full, empty) == 0 and math.isnan(dice_of(empty, empty))


def test_sizes_are_cc_in_3d_mm_and_pixels_in_a_picture():
    mask = box((4, 6, 6), (1, 3), (1, 5), (1, 6))  # 40 voxels
    found = disagreement(mask, mask.astype(np.float32), mask, (5.0, 2.0, 2.0), "mm")
    assert found.label_size == pytest.approx(0.8) and found.dice == found.soft_dice == 1.0
    assert disagreement(mask[1], mask[1] / 1.0, mask[1], (1.0, 1.0), "px").label_size == 20


def test_predictions_are_cut_where_the_median_one_is_as_large_as_its_label():
    probability = np.array([0.9, 0.7, 0.4, 0.3, 0.1])
    label = np.array([True, True, True, False, False])
    assert level_of(label, probability) == 0.4  # three values reach it
    assert math.isnan(level_of(label & False, probability))
    assert threshold_of([0.4, 0.2, math.nan, 0.3]) == pytest.approx(0.3)
    assert threshold_of([1.0, 1.0]) == 0.95 and threshold_of([math.nan]) == 0.5


def test_specks_of_a_prediction_do_not_count():
    probability = np.zeros((1, 30))
    probability[0, 2:22], probability[0, 25] = 0.8, 0.9
    assert predicted_mask(probability, 0.5).sum() == 20


def row(
    dice: float, distance: float, name: str = "Cord", gain: float = 0.0, unusual: float = 1.0
) -> tuple[str, Disagreement, float, float]:
    return name, Disagreement(dice, dice, distance, 0.0, 1.0, 1.0), gain, unusual


def test_a_label_as_usual_scores_little_and_one_three_deviations_off_scores_one_half():
    # Dice .9 +- .05: median absolute deviation .05, so one robust deviation is .07413; all distances alike.
    usual = [row(0.9 + offset, 2.0) for offset in (-0.05, -0.05, 0.0, 0.05, 0.05)]
    assert scores(usual)[2] == pytest.approx((1 / (1 + math.exp(3)), 0.0))
    three = scores([*usual, *usual, row(0.9 - 3 * 0.07413, 2.0)])[-1]
    assert three == pytest.approx((0.5, 3.0), abs=0.01)


def test_a_label_that_is_itself_unusual_is_more_suspicious():
    plain, unusual = scores([row(0.9, 2.0)] * 6 + [row(0.8, 2.0), row(0.8, 2.0, unusual=2.5)])[-2:]
    assert unusual[1] - plain[1] == pytest.approx(3.0)  # twice the 1.5 deviations beyond the expected 1


def test_what_one_correction_explains_is_more_suspicious():
    rows = [row(0.9, 2.0)] * 6 + [row(0.8, 2.0, gain=0.0), row(0.8, 2.0, gain=0.1)]
    plain, explained = scores(rows)[-2:]
    assert explained[1] - plain[1] == pytest.approx(0.25)  # 2.5 times the Dice that is gained


def test_a_hard_structure_does_not_count_against_its_labels():
    rng = np.random.default_rng(0)
    easy = [row(0.9 + 0.01 * part, 1.0, "Easy") for part in rng.normal(size=20)]
    hard = [row(0.5 + 0.1 * part, 4.0, "Hard") for part in rng.normal(size=20)]
    found = scores([*easy, row(0.7, 3.0, "Easy"), *hard])
    assert found[20][0] > 0.9 and max(score for score, _ in found[21:]) < 0.5


def test_one_empty_side_is_as_unusual_as_can_be_and_two_are_as_usual():
    rows = [row(0.9, 1.0)] * 6 + [row(0.0, math.inf), row(math.nan, 0.0)]
    found = scores(rows)
    assert found[6] == (pytest.approx(1 / (1 + math.exp(3 - HIGHEST_Z))), HIGHEST_Z)
    assert found[7][0] == 0.0 and math.isnan(found[7][1])


def test_a_structure_with_few_labels_borrows_what_is_usual():
    rows = [row(0.9 + 0.02 * n, 1.0, "Cord") for n in (-2, -1, 0, 1, 2)] + [row(0.3, 9.0, "Rare")]
    assert scores(rows)[-1][0] > 0.9
    assert np.isnan(robust_z(np.array([1.0]), np.array([np.nan]), 0.1)).all()
