"""FROC by LUNA16's rules, drawn by hand and against MONAI's; average precision against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_fp_tp_probs, compute_froc_curve_data
from torchmetrics.detection import MeanAveragePrecision

from medseg.errors import InputError
from medseg.metrics.detection import (
    BoxPrecisions,
    Candidates,
    ImageBoxes,
    best_threshold,
    froc,
    froc_interval,
    image_auroc,
    within_radius,
)

NOWHERE = np.zeros((0, 3))


def scan(scores, places, findings=((0, 0, 0),), diameters=(10,), excluded=((100, 0, 0),)):
    """Candidates along the first axis, a finding at the origin of 10 mm and an excluded one at 100 mm."""
    centres = np.array([(place, 0, 0) for place in places]).reshape(-1, 3)
    excluded = np.array(excluded, dtype=float).reshape(-1, 3)
    there = np.array(findings).reshape(-1, 3), np.array(diameters)
    return within_radius(centres, np.array(scores), *there, excluded, np.full(len(excluded), 20.0))


def test_a_hit_is_less_than_a_radius_away():
    found = scan([0.9, 0.8, 0.7], [4.99, 5.0, -4.99])
    assert found.hits[:, 0].tolist() == [True, False, True]


def test_froc_by_hand():
    # Scan 1: hit 0.9 (and again 0.6, which counts once), false 0.8, ignored 0.7. Scan 2: false 0.5, missed.
    images = [scan([0.9, 0.8, 0.7, 0.6], [0, 50, 105, 2]), scan([0.5], [50])]
    curve = froc(images)
    assert curve.false_per_image.tolist() == [0, 0, 0.5, 1.0]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 0.5]
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.5]
    assert curve.cpm == 0.5


def test_a_curve_is_straight_between_two_points():
    # 0 false: nothing; then two false candidates in two scans; then the hit: 1 false per scan, all found.
    images = [scan([0.9, 0.5], [50, 0]), scan([0.8], [50], findings=(), diameters=())]
    curve = froc(images)
    assert curve.false_per_image.tolist() == [0, 0.5, 1, 1] and curve.sensitivity.tolist() == [0, 0, 0, 1]
    assert curve.at(0.5) == 0 and curve.at(2) == 1
    # Hit and false tie: they come in together, and half way is half.
    tied = froc([scan([0.5, 0.5], [0, 50])])
    assert tied.false_per_image.tolist() == [0, 1] and tied.at(0.5) == 0.5


def test_an_ignored_candidate_makes_no_image_suspicious():
    sick, healthy = scan([0.5], [0]), scan([0.9, 0.4], [105, 50], findings=(), diameters=())
    assert image_auroc([sick, healthy]) == 1.0  # 0.5 against 0.4


def test_without_findings_without_candidates_and_without_images():
    assert np.isnan(froc([scan([0.5], [50], findings=(), diameters=())]).cpm)
    nothing = froc([scan([], [])])
    assert nothing.sensitivity.tolist() == [0] and nothing.cpm == 0
    assert np.isnan(froc([]).cpm)


def test_findings_of_another_size_count_neither_way():
    image = scan([0.9, 0.8], [0, 200], findings=((0, 0, 0), (200, 0, 0)), diameters=(4, 30))
    small = image.of_size(0, 10)
    assert len(small.sizes) == 1 and froc([small]).cpm == 1
    assert froc([small]).false_per_image.max() == 0
    with pytest.raises(InputError, match="2 scores of 1 findings"):
        Candidates(np.zeros(2), np.zeros((1, 1), bool), np.zeros(2, bool), np.zeros(1))


def drawn_scans(count=8):
    """Scans of a line of 400 voxels with findings 40 apart, so that no candidate hits two."""
    rng = np.random.default_rng(3)
    for _ in range(count):
        at = rng.choice(np.arange(20, 400, 40), size=rng.integers(0, 5), replace=False)
        places = rng.integers(0, 400, size=rng.integers(3, 12))
        places[: len(at) // 2] = at[: len(at) // 2]
        # Eighths, since MONAI keeps some scores in single precision.
        yield rng.integers(1, 9, len(places)) / 8, places, at


def test_froc_agrees_with_monai():
    images, false, true, findings = [], [], [], 0
    for scores, places, at in drawn_scans():
        images.append(scan(scores, places, np.array([(p, 0, 0) for p in at]), [10] * len(at), ()))
        mask = np.zeros((1, 400), int)
        for number, place in enumerate(at, 1):
            mask[0, place - 4 : place + 5] = number
        wrong, right, count = compute_fp_tp_probs(scores, np.zeros_like(places), places, mask)
        false += list(wrong)
        true += list(right[right > 0])
        findings += count
    false_per_image, sensitivity = compute_froc_curve_data(
        np.array(false), np.array(true), findings, len(images)
    )
    curve = froc(images)
    for at in (0.25, 0.5, 1.0, 2.0):
        # MONAI's points are those of the thresholds above the lowest score.
        same = np.isclose(false_per_image[:, None], curve.false_per_image).any(axis=1)
        assert same.all()
        below = curve.false_per_image <= at
        assert curve.sensitivity[below].max() == pytest.approx(sensitivity[false_per_image <= at].max())


def image(number, rng):
    """Boxes of which some lie near true ones, with scores that tie now and then."""
    count, true = rng.integers(0, 8), rng.integers(0, 4)

    def boxes(size):
        low = rng.uniform(0, 60, (size, 2))
        return np.concatenate([low, low + rng.uniform(5, 30, (size, 2))], axis=1)

    truth, found, both = boxes(true), boxes(count), min(count, true)
    found[:both] = truth[:both] + rng.uniform(-3, 3, (both, 4))
    classes, truth_classes = rng.integers(0, 2, count), rng.integers(0, 2, true)
    return ImageBoxes(found, rng.random(count).round(2), classes, truth, truth_classes, str(number // 2))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [image(number, rng) for number in range(30)]


@pytest.mark.parametrize("overlap", [0.1, 0.4, 0.5, None])
def test_average_precision_and_recall_agree_with_pycocotools(images, overlap):
    found = BoxPrecisions(images, ("a", "b")).table()
    referee = MeanAveragePrecision(iou_thresholds=None if overlap is None else [overlap], class_metrics=True)
    for one in images:
        answer = {"boxes": one.boxes, "scores": one.scores, "labels": one.classes}
        truth = {"boxes": one.truth, "labels": one.truth_classes}
        referee.update(*([{k: torch.from_numpy(v) for k, v in d.items()}] for d in (answer, truth)))
    expected = referee.compute()
    words = "0.50:0.95" if overlap is None else f"{overlap:.2f}"
    assert found["all", "AP", words] == pytest.approx(float(expected["map"]), abs=1e-6)
    assert found["all", "AR", words] == pytest.approx(float(expected["mar_100"]), abs=1e-6)
    assert found["b", "AP", words] == pytest.approx(float(expected["map_per_class"][1]), abs=1e-6)


def test_average_precision_by_hand():
    # Two findings; the best box is right, the second wrong, the third right: precision 1 up to recall 1/2,
    # then 2/3. Of COCO's 101 points 51 are at 1 and 50 at 2/3.
    truth = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float)
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], float)
    one = ImageBoxes(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int), truth, np.zeros(2, int))
    assert BoxPrecisions([one], ("a",)).table()["a", "AP", "0.50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    none = ImageBoxes(boxes[:0], np.zeros(0), np.zeros(0, int), truth[:0], np.zeros(0, int))
    assert np.isnan(BoxPrecisions([none], ("a",)).table()["a", "AP", "0.50"])


def test_boxes_hit_by_overlap_or_by_their_centre():
    truth = np.array([[0, 0, 10, 10]], float)
    boxes = np.array([[0, 0, 10, 5], [4, 4, 5, 5], [0, 0, 10, 10]], float)
    one = ImageBoxes(boxes, np.array([0.3, 0.2, 0.1]), np.array([0, 0, 1]), truth, np.zeros(1, int))
    assert one.candidates(0.4).hits[:, 0].tolist() == [True, False, False]  # the last is of another class
    assert one.candidates(None).hits[:, 0].tolist() == [True, True, False]
    assert one.candidates().sizes.tolist() == [10]


def test_an_image_s_best_score_tells_normal_from_abnormal():
    sick, sound = scan([0.9, 0.1], [0, 50]), scan([0.5], [50], findings=(), diameters=())
    silent = scan([], [], findings=(), diameters=())
    assert image_auroc([sick, sound, silent]) == 1
    assert image_auroc([scan([], []), sound]) == 0
    assert np.isnan(image_auroc([sick]))


def test_intervals_draw_patients():
    images = [scan([0.9], [0]), scan([0.9], [0]), scan([], []), scan([], [])]
    value, low, high = froc_interval(images, ["a", "a", "b", "b"], draws=200)
    assert (value, low, high) == (0.5, 0.0, 1.0)
    assert np.isnan(froc_interval(images, ["a"] * 4, draws=10).low)


def test_precisions_have_intervals_over_patients(images):
    found = BoxPrecisions(images, ("a", "b")).with_interval(("all", "AP", "0.40"), draws=20)
    assert found.low < found.value < found.high


def test_the_threshold_with_the_best_f1_by_hand():
    # 0.9 hits: F1 2/(1+2) = 2/3. With 0.8 false: 2/(1+1+2) = 1/2. With 0.7 hit: 4/(2+1+2) = 4/5.
    findings = ((0, 0, 0), (200, 0, 0))
    image = scan([0.9, 0.8, 0.7], [0, 50, 200], findings=findings, diameters=(10, 10))
    assert best_threshold([image]) == (0.7, pytest.approx(0.8))
    assert best_threshold([scan([0.9], [50])]) == (1.0, 0.0)
    threshold, f1 = best_threshold([scan([0.5], [50], findings=(), diameters=())])
    assert threshold == 1.0 and np.isnan(f1)


def test_masks_are_judged_by_their_own_overlap_and_boxes_are_not_asked():
    same = np.array([[0.0, 0, 4, 4]])
    overlaps = np.array([[0.45]])
    image = ImageBoxes(same, np.array([0.9]), np.zeros(1, int), same, np.zeros(1, int), "a", overlaps)
    table = BoxPrecisions([image], ("nodule",), by_masks=True).table()
    assert table["all", "AP", "0.40"] == pytest.approx(1) and table["all", "AP", "0.50"] == 0
    assert BoxPrecisions([image], ("nodule",)).table()["all", "AP", "0.50"] == pytest.approx(1)
    empty = ImageBoxes(same[:0], np.zeros(0), np.zeros(0, int), same, np.zeros(1, int), "b", np.zeros((0, 1)))
    table = BoxPrecisions([image, empty], ("nodule",), by_masks=True).table()
    assert table["all", "AR", "0.40"] == pytest.approx(0.5)
    assert image.of_class(0).mask_overlaps.tolist() == [[0.45]]
    assert image.of_class(1).mask_overlaps.shape == (0, 0)


def test_boxes_without_masks_are_not_judged_by_masks():
    box = np.array([[0.0, 0, 4, 4]])
    image = ImageBoxes(box, np.array([0.9]), np.zeros(1, int), box, np.zeros(1, int))
    with pytest.raises(InputError, match="boxes without masks"):
        BoxPrecisions([image], ("nodule",), by_masks=True)
