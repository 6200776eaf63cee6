"""Findings of slices become findings of a volume: cases drawn by hand."""

import numpy as np
import pytest

from medseg.errors import InputError
from medseg.inference.linking import SliceFindings, draw, link_slices


def found(*findings):
    """A slice of 6 x 8 pixels: (score, first row, first column, last row, last column) of each finding."""
    masks = np.zeros((len(findings), 6, 8), dtype=bool)
    for mask, (_, top, left, bottom, right) in zip(masks, findings, strict=True):
        mask[top : bottom + 1, left : right + 1] = True
    return SliceFindings(np.array([finding[0] for finding in findings], dtype=float), masks)


def parts(*slices, **options):
    return [finding.parts for finding in link_slices(slices, **options)]


def test_a_ball_seen_in_three_slices_is_one_finding_with_the_mean_score_of_the_two_best():
    small, large = (0.6, 1, 1, 2, 2), (0.9, 1, 1, 3, 3)  # 4 of 9 pixels are shared: IoU 0.44
    (ball,) = link_slices([found(), found(small), found(large), found(small), found()])
    assert ball.parts == {1: 0, 2: 0, 3: 0} and ball.score == pytest.approx((0.9 + 0.6) / 2)


def test_what_overlaps_too_little_is_another_finding():
    low, high = (0.8, 0, 0, 1, 2), (0.7, 1, 2, 2, 4)  # 1 of 11 pixels
    assert parts(found(low), found(high)) == [{0: 0}, {1: 0}]
    assert parts(found(low), found(high), overlap=1 / 11) == [{0: 0, 1: 0}]


def test_a_small_nodule_s_cap_of_one_pixel_belongs_to_it():
    cap, middle = (0.5, 2, 2, 2, 2), (0.9, 1, 1, 3, 3)  # 1 of 9 pixels, as where slices are thick
    (nodule,) = link_slices([found(cap), found(middle), found(cap)])
    assert nodule.parts == {0: 0, 1: 0, 2: 0}


def test_the_greatest_overlap_wins_whatever_the_order():
    whole, half, same = (0.5, 0, 0, 3, 3), (0.9, 0, 0, 3, 1), (0.4, 0, 0, 3, 3)
    for slices in ([found(whole), found(half, same)], [found(whole), found(same, half)]):
        same_number = 1 if slices[1].scores[1] == 0.4 else 0
        assert {0: 0, 1: same_number} in parts(*slices) and len(parts(*slices)) == 2


def test_two_that_meet_in_one_slice_do_not_become_one():
    left, right, both = (0.9, 0, 0, 3, 2), (0.8, 0, 3, 3, 5), (0.7, 0, 0, 3, 5)
    slices = [found(left, right), found(both), found(left, right)]
    assert sorted(map(len, parts(*slices, overlap=0.4, gap=0))) == [1, 1, 3]
    assert sorted(map(len, parts(*slices, overlap=0.4))) == [2, 3], "the other one was missed in the middle"


def test_a_slice_may_be_missed_but_not_two():
    one = (0.8, 1, 1, 3, 3)
    assert parts(found(one), found(), found(one)) == [{0: 0, 2: 0}]
    assert parts(found(one), found(), found(one), gap=0) == [{0: 0}, {2: 0}]
    assert parts(found(one), found(), found(), found(one)) == [{0: 0}, {3: 0}]
    assert parts(found(one), found(), found(), found(one), gap=2) == [{0: 0, 3: 0}]


def test_one_slice_alone_counts_half_and_the_best_comes_first():
    alone, pair = (0.9, 0, 0, 1, 1), (0.5, 3, 3, 5, 5)
    assert [f.score for f in link_slices([found(alone, pair), found(pair)])] == pytest.approx([0.5, 0.45])
    first = link_slices([found(alone, pair), found(pair)], whole_from=1)[0]
    assert first.parts == {0: 0} and first.score == pytest.approx(0.9)


def test_a_chain_of_findings_that_barely_drift_stays_one():
    vessel = [found((0.5, 1, column, 3, column + 2)) for column in range(4)]  # IoU 6 of 12 pixels
    assert parts(*vessel) == [{0: 0, 1: 0, 2: 0, 3: 0}]


def test_nothing_links_to_nothing_and_a_finding_without_a_pixel_is_none():
    empty = SliceFindings(np.array([0.9]), np.zeros((1, 6, 8), dtype=bool))
    assert parts() == [] and parts(found(), found()) == [] and parts(empty, empty) == []


def test_boxes_and_labels_are_those_of_the_slices():
    slices = [found(), found((0.9, 1, 1, 2, 2), (0.3, 2, 2, 4, 4)), found((0.9, 1, 1, 3, 3))]
    findings = link_slices(slices)
    boxes, labels = draw(slices, findings, (6, 8, 3))
    assert boxes.tolist() == [[1, 1, 1, 4, 4, 3], [2, 2, 1, 5, 5, 2]]
    assert labels[1, 1, 1] == 1 and labels[3, 3, 2] == 1 and labels[4, 4, 1] == 2 and labels[0, 0, 0] == 0
    assert labels[2, 2, 1] == 1, "where two overlap the better one has the voxel"
    assert np.bincount(labels.ravel()).tolist() == [6 * 8 * 3 - 21, 4 + 9, 8]


@pytest.mark.parametrize("options", [{"overlap": 0}, {"overlap": 1.5}, {"gap": -1}, {"whole_from": 0}])
def test_rules_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match="expected above 0 to 1"):
        link_slices([], **options)
