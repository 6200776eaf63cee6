"""Dice and volume, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_masks import SHIFTED, A, box_mask, stack

from medseg import metrics
from medseg.errors import GeometryError, StructureError
from medseg.geometry import Geometry


def test_dice_of_two_boxes_that_share_two_thirds():
    assert metrics.dice(A, SHIFTED) == pytest.approx(2 * (4 * 36) / (2 * 216))
    assert metrics.dice(A, A) == 1.0


def test_volume_counts_each_slice_with_its_own_height():
    # Gaps of 2, 2 and 6 mm: heights 2, 2, 4 and 6 mm. 10 voxels of 1 x 2 mm on each slice.
    origins = [[0, 0, z] for z in (0.0, 2.0, 4.0, 10.0)]
    geometry = Geometry((4, 4, 5), origins, [0, 1.0, 0], [2.0, 0, 0])
    mask = box_mask((4, 4, 5), (0, 4), (1, 3), (0, 5))
    assert metrics.volume_cc(mask, geometry) == pytest.approx(10 * 2 * (2 + 2 + 4 + 6) / 1000)
    assert metrics.volume_cc(np.zeros_like(mask), geometry) == 0.0
    with pytest.raises(GeometryError, match="shape"):
        metrics.volume_cc(mask[1:], geometry)
    single = Geometry((1, 4, 5), origins[:1], [0, 1.0, 0], [2.0, 0, 0])
    assert math.isnan(metrics.volume_cc(mask[:1], single))


def test_dice_on_uneven_slices_counts_each_slice_by_its_height():
    # Heights 2, 2, 4 and 6 mm. Common: the first two slices; the second mask has the last one too.
    geometry = stack([0.0, 2.0, 4.0, 10.0], 4, 4)
    a, b = box_mask((4, 4, 4), (0, 2), (0, 4), (0, 4)), box_mask((4, 4, 4), (0, 2), (0, 4), (0, 4))
    b[3] = True
    assert metrics.dice(a, b, geometry) == pytest.approx(2 * 4 / (4 + 10))
    assert metrics.dice(a, b) == pytest.approx(2 * 2 / (2 + 3))
    with pytest.raises(GeometryError, match="shape"):
        metrics.dice(a, b, stack([0.0, 2.0], 4, 4))


def test_a_map_of_zeros_and_ones_has_the_volume_of_its_mask():
    mask = np.zeros((3, 6, 6), dtype=bool)
    mask[1, 2:4, 2:4] = mask[2, 1, 1] = True
    geometry = stack([0.0, 3.0, 6.0], 6, 6)
    assert metrics.volume_cc(mask.astype(np.float32), geometry) == metrics.volume_cc(mask, geometry) > 0


@pytest.mark.parametrize("array", [np.full((4, 4, 4), 0.7), np.ones((4, 4, 4), dtype=int)])
def test_what_is_no_mask_is_refused_by_every_metric_in_one_line(array):
    mask, geometry = np.ones((4, 4, 4), dtype=bool), stack([0.0, 2.0, 4.0, 6.0], 4, 4)
    for metric in (metrics.dice, metrics.surface_distances, metrics.added_path_length_mm):
        for pair in ((array, mask), (mask, array)):
            with pytest.raises(StructureError, match=f"array of type {array.dtype}: expected bool masks"):
                metric(*pair, geometry)
