"""AP and AR of volumes after an epoch, on cases counted by hand and beside the tables of an evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.errors import InputError
from medseg.metrics.detection import BoxPrecisions, ImageBoxes
from medseg.training import VolumePrecision


def rows(*boxes, columns):
    found = torch.full((4, columns), torch.nan)
    for number, box in enumerate(boxes):
        found[number] = torch.tensor(box, dtype=torch.float32)
    return found


def value(measure, *images, **options):
    metric = VolumePrecision(lambda output: output, measure, **options)
    for image in images:
        metric.update([[part] for part in image])
    return metric.compute()


RIGHT = ([0, 0, 0, 4, 4, 4, 0.9, 0], [0, 0, 0, 4, 4, 4, 0])
HALF = ([0, 0, 0, 4, 4, 2, 0.8, 0], [0, 0, 0, 4, 4, 4, 0])  # IoU 1/2


def image(*pairs, missed=()):
    answers, truth = [pair[0] for pair in pairs if pair[0]], [pair[1] for pair in pairs if pair[1]]
    return rows(*answers, columns=8), rows(*truth, *missed, columns=7)


def test_all_found_is_1_and_nothing_found_0():
    assert value("AP", image(RIGHT), image(RIGHT)) == pytest.approx(1)
    assert value("AP", image((None, RIGHT[1]))) == 0 and value("AR", image((None, RIGHT[1]))) == 0


def test_half_of_the_findings_found_is_a_recall_of_a_half():
    assert value("AR", image(RIGHT), image((None, RIGHT[1]))) == pytest.approx(0.5)


def test_a_false_box_with_a_higher_score_halves_the_precision():
    false = ([8, 8, 8, 9, 9, 9, 0.95, 0], None)
    assert value("AP", image(RIGHT, false)) == pytest.approx(0.5)
    assert value("AR", image(RIGHT, false)) == 1


def test_the_overlap_decides_what_counts_as_found():
    assert value("AP", image(HALF), overlap=0.5) == pytest.approx(1)
    assert value("AP", image(HALF), overlap=0.6) == 0


def test_no_finding_anywhere_has_no_precision():
    assert np.isnan(value("AP", image())) and np.isnan(value("AP", image((RIGHT[0], None))))


def test_boxes_of_one_class_do_not_find_those_of_another():
    other = [*RIGHT[1][:6], 1]
    assert value("AP", image((RIGHT[0], other))) == 0


def test_it_agrees_with_the_table_of_an_evaluation():
    generator, images, others = np.random.default_rng(0), [], []
    for _ in range(6):
        low = generator.uniform(0, 8, (4, 3))
        truth = np.hstack([low, low + generator.uniform(2, 6, (4, 3))])
        boxes, scores = truth[:3] + generator.normal(0, 0.6, (3, 6)), generator.random(3)
        images.append(
            (
                rows(*np.c_[boxes, scores, np.zeros(3)].tolist(), columns=8),
                rows(*np.c_[truth, np.zeros(4)].tolist(), columns=7),
            )
        )
        others.append(ImageBoxes(boxes, scores, np.zeros(3, int), truth, np.zeros(4, int)))
    table = BoxPrecisions(others, ("nodule",)).table()
    for measure in ("AP", "AR"):
        assert value(measure, *images, overlap=0.5) == pytest.approx(table["all", measure, "0.50"], abs=1e-5)


def masks(found_to, true_to):
    """Maps of 8 voxels in a row: the answer's row 0 holds those up to ``found_to``, finding 3 ``true_to``."""
    found, truth = torch.zeros(1, 8, 1, 1), torch.zeros(1, 8, 1, 1)
    found[0, :found_to], truth[0, :true_to] = 1, 3
    return found, truth


def test_by_masks_their_voxels_count_and_boxes_do_not():
    far = ([7, 7, 7, 8, 8, 8, 0.9, 0], RIGHT[1])
    assert value("AP", (*image(far), *masks(4, 5)), by_masks=True, overlap=0.8) == pytest.approx(1)
    assert value("AP", (*image(far), *masks(4, 6)), by_masks=True, overlap=0.8) == 0
    assert value("AR", (*image(RIGHT), *masks(0, 6)), by_masks=True) == 0
    assert np.isnan(value("AP", (*image(RIGHT), *masks(4, 0)), by_masks=True))


def test_an_unknown_measure_is_refused():
    with pytest.raises(InputError, match="expected one of AP, AR"):
        VolumePrecision(None, "F1")
