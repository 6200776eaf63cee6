"""Masks of many structures in little memory: each is kept in its own box, and expanded to the whole grid one
at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.errors import StructureError
from medseg.shapes.boxes import box_of
from medseg.structures.structure import Structure


@dataclass(frozen=True, eq=False)
class Boxed:
    """A mask within the box that holds its set voxels. ``values``: float32, or a bool mask's bits along the
    last axis."""

    corner: tuple[int, ...]
    shape: tuple[int, ...]
    values: np.ndarray

    @property
    def array(self) -> np.ndarray:
        """bool or float32, of the box's own shape."""
        if self.values.dtype != np.uint8:
            return self.values
        return np.unpackbits(self.values, axis=-1, count=self.shape[-1]).view(bool)

    def expand(self, shape: tuple[int, ...]) -> np.ndarray:
        """The array of ``shape``: False or 0 outside the box."""
        inside = self.array
        result = np.zeros(shape, dtype=inside.dtype)
        result[tuple(slice(low, low + n) for low, n in zip(self.corner, self.shape, strict=True))] = inside
        return result


def pack(array: np.ndarray, corner: tuple[int, ...] | None = None) -> Boxed:
    """A bool mask, or a map of probabilities, in the box of what it holds; ``corner``: where the array itself
    begins.

    A map keeps one voxel around its values of 0.5 and more, which is all that its iso-contour at 0.5 depends
    on. Values further away become 0. An array without a set voxel gives an empty box.
    """
    corner = corner or (0,) * array.ndim
    is_mask = array.dtype == bool
    inside = array if is_mask else array >= 0.5
    box = box_of(inside, 0 if is_mask else 1)
    values = array[box]
    if not values.size:
        return Boxed(corner, values.shape, values.astype(np.uint8 if is_mask else np.float32))
    first = tuple(low + side.start for low, side in zip(corner, box, strict=True))
    return Boxed(first, values.shape, np.packbits(values, axis=-1) if is_mask else values.astype(np.float32))


class PackedMasks(Mapping[Structure, np.ndarray]):
    """{Structure: bool mask or float32 probabilities of ``shape``}, expanded anew whenever one is asked for.

    Going through ``items()`` holds one array at a time. Raises StructureError for a box that leaves the grid.
    """

    def __init__(self, shape: tuple[int, ...], boxes: Mapping[Structure, Boxed]) -> None:
        self.shape = tuple(shape)
        self.boxes = dict(boxes)
        for structure, box in self.boxes.items():
            ends = [low + n for low, n in zip(box.corner, box.shape, strict=True)]
            if min(box.corner) < 0 or any(end > n for end, n in zip(ends, self.shape, strict=True)):
                raise StructureError(
                    f"{structure.name}: box at {box.corner} of {box.shape} leaves the grid {self.shape}."
                )

    def __getitem__(self, structure: Structure) -> np.ndarray:
        return self.boxes[structure].expand(self.shape)

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    def change(self, edit: Callable[[Structure, np.ndarray, int], np.ndarray]) -> PackedMasks:
        """Every mask as ``edit(structure, part, first)`` gives it back; no box is expanded to the grid.

        ``part``: the mask within its box, which begins at slice ``first``; outside nothing is set, nor can be
        by ``edit``. ``part`` itself given back means "as it was".
        """
        boxes = {}
        for structure, box in self.boxes.items():
            part = box.array
            after = edit(structure, part, box.corner[0])
            boxes[structure] = box if after is part else pack(after, box.corner)
        return PackedMasks(self.shape, boxes)

    @property
    def nbytes(self) -> int:
        """Bytes that the packed values take."""
        return sum(box.values.nbytes for box in self.boxes.values())


def part_of(masks: Mapping[Any, np.ndarray], key: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """One structure's array in as little room as it is kept in, and the voxel of the grid where that begins:
    of PackedMasks its box, outside of which nothing is set; of any other mapping the whole array."""
    if isinstance(masks, PackedMasks):
        box = masks.boxes[key]
        return box.array, box.corner
    array = np.asarray(masks[key])
    return array, (0,) * array.ndim
