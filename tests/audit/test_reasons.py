"""The reason of a disagreement, on corruptions whose answer is known by hand. The organ is an ellipsoid of 3
mm slices."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.audit.corrections import best_shift, other_side
from medseg.audit.disagreement import signed_distance
from medseg.audit.pairs import KINDS, Pair
from medseg.audit.reasons import Case, find_reason
from medseg.training.noisy.noise import CORRUPTIONS, Corruption, apply

SPACING = (3.0, 2.0, 2.0)  # cranial, posterior, left


def ellipsoid(centre=(15, 20, 18), radii=(8, 10, 6), shape=(30, 40, 40)) -> np.ndarray:
    grid = np.indices(shape)
    return sum(((grid[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(3)) < 1


ORGAN = ellipsoid()


def reason_of(label: np.ndarray, prediction: np.ndarray = ORGAN):
    return find_reason(Pair(label, prediction, SPACING, "mm"))[0]


def corrupted(kind: str, **parameters) -> np.ndarray:
    return apply(Corruption(kind, parameters), ORGAN[None], SPACING)[0]


@pytest.mark.parametrize(
    ("offset", "words", "length"),
    [
        ((6, 0, 0), "shifted 6 mm cranially", 6.0),
        ((-9, 0, 0), "shifted 9 mm caudally", 9.0),
        ((0, 8, 0), "shifted 8 mm posteriorly", 8.0),
        ((0, -8, 0), "shifted 8 mm anteriorly", 8.0),
        ((0, 0, -8), "shifted 8 mm to the right", 8.0),
        ((-6, 0, 8), "shifted 10 mm (8 mm to the left, 6 mm caudally)", 10.0),
    ],
)
def test_a_shift_is_told_in_the_directions_of_the_patient(offset, words, length):
    found = reason_of(corrupted("shift", offset=offset))
    assert (found.kind, found.words, found.vector) == ("shifted", words, offset)
    assert found.amount == pytest.approx(length) and found.dice_after == 1.0


def test_a_large_shift_is_found_on_a_grid_that_is_searched_coarsely_first():
    prediction = ellipsoid((60, 70, 60), (20, 30, 25), (130, 150, 140))
    label = apply(Corruption("shift", {"offset": (21, -13, 8)}), prediction[None], (1, 1, 1))[0]
    assert best_shift(label, prediction) == (-21, 13, -8)


@pytest.mark.parametrize(("excess_mm", "kind"), [(4, "expanded"), (-4, "contracted"), (8, "expanded")])
def test_an_outline_that_is_moved_all_round_is_told_in_mm(excess_mm, kind):
    grid = np.indices((60, 60, 60))
    depth_mm = np.sqrt(sum((grid[axis] - 30.0) ** 2 for axis in range(3))) - 16  # a ball in voxels of 1 mm
    label, prediction = depth_mm < excess_mm, depth_mm < 0
    found = find_reason(Pair(label, prediction, (1.0, 1.0, 1.0), "mm"))[0]
    assert found.kind == kind and abs(found.amount - abs(excess_mm)) <= 0.5
    assert found.words.startswith(f"{kind} by {abs(excess_mm)} mm")


def test_dropped_slices_are_a_gap_of_so_many_mm():
    found = reason_of(
        corrupted("drop_slices", channel=0, axis=0, first=0.4, last=0.6)
    )  # slices 14, 15 and 16 of 8 to 22
    assert (found.kind, found.words, found.amount) == (
        "slices dropped",
        "slices dropped: a gap of 9 mm",
        9.0,
    )


@pytest.mark.parametrize(
    ("axis", "first", "last", "words"),
    [
        (0, 0.0, 0.4, "cropped at its caudal end: ends 18 mm early"),  # 6 of 15 slices
        (0, 0.7, 1.0, "cropped at its cranial end: ends 15 mm early"),
        (2, 0.7, 1.0, "cropped at its left side: ends 8 mm early"),
    ],
)
def test_a_lost_end_is_named(axis, first, last, words):
    found = reason_of(corrupted("drop_slices", channel=0, axis=axis, first=first, last=last))
    assert (found.kind, found.words, found.dice_after) == ("cropped", words, 1.0)


def test_a_label_that_goes_on_too_far_is_too_long():
    tube = np.zeros((30, 20, 20), bool)
    tube[5:25, 8:12, 8:12] = True
    prediction = tube.copy()
    prediction[20:] = False
    assert reason_of(tube, prediction).words == "too long at its cranial end: goes on for 15 mm"


def test_pieces_are_missing_or_extra():
    two = ellipsoid((7, 10, 10), (4, 5, 5)) | ellipsoid((22, 30, 30), (4, 5, 5))
    one = ellipsoid((7, 10, 10), (4, 5, 5))
    piece_cc = (two & ~one).sum() * 12 / 1000
    assert reason_of(one, two).words == f"missing a separate piece of {piece_cc:.1f} cc"
    assert reason_of(two, one).words == f"an extra piece of {piece_cc:.1f} cc"


def test_a_predicted_piece_far_away_is_held_against_the_prediction_not_the_label():
    gland = ellipsoid((8, 20, 18), (6, 6, 6), (120, 40, 40))
    false_piece = ellipsoid((100, 20, 18), (4, 4, 4), (120, 40, 40))
    found = reason_of(gland, gland | false_piece)
    # The gland fills slices 3 to 13, the piece 97 to 103: 83 slices of 3 mm lie between them.
    assert found.kind == "far prediction" and found.words.endswith(
        "cc lies 249 mm away: likely the prediction's error"
    )
    near = ellipsoid((30, 20, 18), (4, 4, 4), (120, 40, 40))
    assert reason_of(gland, gland | near).kind == "missing component"
    assert (
        reason_of(gland | false_piece, gland).kind == "extra component"
    )  # a stray contour is the label's error


def test_another_structure_and_swapped_sides_are_recognised():
    left, right, heart = ellipsoid((15, 20, 30)), ellipsoid((15, 20, 8)), ellipsoid((8, 30, 20), (5, 7, 9))
    predictions = {"Lung_L": left, "Lung_R": right, "Heart": heart}

    def named(structure, label, labels):
        pair = Pair(label, predictions[structure], SPACING, "mm")
        return find_reason(pair, structure, Case(predictions, labels))[0]

    swapped = named("Lung_L", right, {"Lung_L": right, "Lung_R": left})
    assert (swapped.kind, swapped.words) == ("sides swapped", "left and right are swapped: this and Lung_R")
    one_side = named("Lung_L", right, {"Lung_L": right, "Lung_R": right})
    assert (one_side.kind, one_side.words) == ("wrong structure", "on the wrong side: this is Lung_R")
    assert named("Heart", left, {"Heart": left}).words == "looks like Lung_L"
    assert named("Heart", heart, {"Heart": heart}).kind == "no single cause"


def test_names_of_the_other_side():
    names = ["Lung_L", "Lung_R", "left kidney", "Right kidney", "Larynx"]
    assert other_side("Lung_L", names) == "Lung_R" and other_side("left kidney", names) == "Right kidney"
    assert other_side("Larynx", names) is None


def test_empty_sides_are_told_apart():
    empty = np.zeros_like(ORGAN)
    cc = ORGAN.sum() * 12 / 1000
    assert reason_of(empty).words == f"empty, though {cc:.1f} cc are predicted"
    assert reason_of(ORGAN, empty).kind == "nothing predicted"
    assert reason_of(empty, empty).kind == "no single cause"


def test_noise_without_a_pattern_has_no_single_cause():
    near = np.abs(signed_distance(ORGAN, SPACING)) < 4
    label = ORGAN ^ (near & (np.random.default_rng(0).random(ORGAN.shape) < 0.4))
    assert reason_of(label).kind == "no single cause"
    assert reason_of(ORGAN).kind == "no single cause", "a label that is right has no reason either"


def test_in_a_picture_directions_are_those_of_the_image_and_sizes_are_pixels():
    flat = ORGAN[:, :, 18]
    label = np.roll(flat, (5, -3), (0, 1))
    found = find_reason(Pair(label, flat, (1.0, 1.0), "px"))[0]
    assert found.words == "shifted 6 px (5 px down, 3 px left in the image)" and found.vector == (5.0, -3.0)


def test_signed_distances_meet_at_the_outline_half_a_voxel_from_the_centres():
    mask = np.zeros((1, 9), bool)
    mask[0, 3:6] = True
    assert signed_distance(mask, (2.0, 2.0))[0].tolist() == [5, 3, 1, -1, -3, -1, 1, 3, 5]


def test_every_kind_of_reason_is_explained_and_every_gross_corruption_has_a_test():
    assert {"shifted", "wrong structure", "slices dropped", "cropped", "sides swapped"} <= KINDS.keys()
    assert {"shift", "wrong_organ", "drop_slices", "drop_component"} <= CORRUPTIONS.keys()
