"""Masks packed in their boxes come back as they were, one at a time, in a fraction of the memory."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import GeometryError, StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.shapes.loops import structure_loops
from medseg.shapes.packed import Boxed, PackedMasks, pack, part_of
from medseg.structures.structure import Structure

A, B = Structure("A"), Structure("B")


def test_a_bool_mask_comes_back_exactly_from_a_bit_for_each_voxel_of_its_box():
    mask = np.zeros((10, 20, 30), dtype=bool)
    mask[2:5, 3:9, 11:22] = np.random.default_rng(0).random((3, 6, 11)) > 0.5
    mask[2, 3, 11] = mask[4, 8, 21] = True
    packed = PackedMasks(mask.shape, {A: pack(mask)})
    assert packed[A].dtype == bool and np.array_equal(packed[A], mask)
    assert packed.nbytes == 3 * 6 * 2  # 11 columns are 2 bytes


def test_a_map_keeps_what_its_contour_depends_on_and_nothing_further_away():
    from scipy.ndimage import gaussian_filter

    phantom = chiral_phantom()
    probability = gaussian_filter(phantom.masks["Marker"].astype(np.float32), 1.0)
    packed = PackedMasks(probability.shape, {A: pack(probability)})
    back = packed[A]
    assert back.dtype == np.float32 and np.array_equal(back >= 0.5, probability >= 0.5)
    assert (back != probability).any() and packed.nbytes < probability.nbytes / 20
    loops, other = (structure_loops(array, phantom.geometry)[0] for array in (back, probability))
    part, corner = part_of(packed, A)
    assert part.size < 0.05 * back.size and np.array_equal(part_of({A: back}, A)[0], back)
    of_part, _ = structure_loops(part, phantom.geometry, corner=corner)
    assert loops.keys() == other.keys() == of_part.keys() and min(corner) > 0
    assert all(np.array_equal(a, b) for key in loops for a, b in zip(loops[key], other[key], strict=True))
    assert all(np.allclose(a, b) for key in loops for a, b in zip(loops[key], of_part[key], strict=True))
    with pytest.raises(GeometryError, match=r"mask of shape .* at .* on an image of"):
        structure_loops(part, phantom.geometry, corner=(phantom.geometry.shape[0] - 1, 0, 0))


def test_an_empty_mask_stays_empty_and_of_its_kind():
    packed = PackedMasks(
        (3, 4, 5), {A: pack(np.zeros((3, 4, 5), bool)), B: pack(np.full((3, 4, 5), 0.4, np.float32))}
    )
    assert packed[A].dtype == bool and packed[A].shape == (3, 4, 5) and not packed[A].any()
    assert packed[B].dtype == np.float32 and not packed[B].any()
    assert list(packed) == [A, B] and len(packed) == 2 and packed.nbytes == 0


def test_a_part_of_a_grid_is_put_where_it_belongs():
    part = np.zeros((4, 4, 4), dtype=bool)
    part[1:3, 1:3, 1:3] = True
    mask = PackedMasks((20, 20, 20), {A: pack(part, corner=(10, 5, 0))})[A]
    assert np.argwhere(mask).min(0).tolist() == [11, 6, 1] and mask.sum() == 8


def test_a_box_that_leaves_the_grid_is_refused():
    with pytest.raises(StructureError, match="A: box at .* leaves the grid"):
        PackedMasks((5, 5, 5), {A: Boxed((3, 0, 0), (3, 1, 1), np.ones((3, 1, 1), np.float32))})


def test_a_change_sees_each_box_and_the_slice_where_it_begins():
    low, high = np.zeros((10, 8, 8), dtype=np.float32), np.zeros((10, 8, 8), dtype=bool)
    low[2:4, 2:6, 2:6] = 0.9
    high[6:9, 1:7, 1:7] = True
    packed = PackedMasks(low.shape, {A: pack(low), B: pack(high)})
    seen = {}

    def last_slice_away(structure, part, first):
        seen[structure] = (first, part.shape)
        if structure is A:
            return part
        kept = part.copy()
        kept[8 - first] = False
        return kept

    after = packed.change(last_slice_away)
    assert seen == {A: (1, (4, 6, 6)), B: (6, (3, 6, 6))}  # a map has a voxel of halo, a mask none
    assert (
        after.boxes[A] is packed.boxes[A]
        and after[B].sum() == 2 * 36
        and np.array_equal(after[B][:8], high[:8])
    )
