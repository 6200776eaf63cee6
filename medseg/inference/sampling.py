"""From the network's grid back to the image's: linear interpolation along one axis after the other, in a
structure's box.

Both grids have the same three directions (crops, turns by quarters and new spacings keep them), so that the
trilinear weights are products and each axis is done alone: a few passes of torch instead of eight neighbours
for every voxel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medseg.errors import GeometryError
from medseg.geometry import Geometry

NARROW = 256
"""Up to this many voxels of the network a row is interpolated by a matrix product, whose cost grows with
their number."""

STRAIGHT = 0.01
"""How far, in voxels of the network, one axis may drift along another over the whole image."""


@dataclass(frozen=True)
class Sampling:
    """Where the voxels of a target grid [slice, row, column] lie among those of the network (x, y, z).

    ``order``: for each target axis the network's axis that runs along it. ``positions``: for each target
    axis, float64 (n,), the position in network voxels. ``known``: likewise, bool: not more than one voxel
    outside what the network saw.
    """

    order: tuple[int, int, int]
    positions: tuple[np.ndarray, np.ndarray, np.ndarray]
    known: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def between(cls, affine_ras: np.ndarray, shape: tuple[int, ...], target: Geometry) -> Sampling:
        """For a network grid of ``shape`` (x, y, z) with a RAS affine. GeometryError unless it lies within
        the target."""
        matrix = (np.linalg.inv(affine_ras) @ target.affine_ras)[:, [2, 1, 0, 3]]
        drift = np.abs(matrix[:3, :3]) * (np.array(target.shape) - 1)
        order = tuple(int(axis) for axis in np.abs(matrix[:3, :3]).argmax(axis=0))
        drift[order, range(3)] = 0
        if sorted(order) != [0, 1, 2] or drift.max() > STRAIGHT:
            raise GeometryError(
                "the prediction does not lie on the image's grid: their axes point in other directions."
            )
        positions, known = [], []
        for axis, n in enumerate(target.shape):
            size = shape[order[axis]]
            positions.append(matrix[order[axis], axis] * np.arange(n) + matrix[order[axis], 3])
            known.append((positions[-1] >= -1.0) & (positions[-1] <= size))
            ends = np.array([positions[-1].min(), positions[-1].max()])
            if ends[0] > 1.0 or ends[1] < size - 2.0:
                raise GeometryError(
                    f"the prediction does not lie on the image's grid: along axis {axis} it reaches beyond "
                    f"the image by {max(ends[0], size - 1 - ends[1]):.1f} voxels of the network."
                )
        return cls(order, tuple(positions), tuple(known))

    def restored(self, values: torch.Tensor, whole: bool = False) -> tuple[np.ndarray, tuple[int, int, int]]:
        """``values`` (x, y, z) on the target grid, and the (slice, row, column) where the result begins
        there.

        The result covers every target voxel that reaches 0.5 and its neighbours, or with ``whole`` the whole
        grid. When nothing reaches 0.5 its shape is (0, 0, 0).
        """
        values = values.permute(self.order)
        boxes = [np.array([0, len(p)]) for p in self.positions] if whole else self._box(values)
        if boxes is None:
            return np.zeros((0, 0, 0), dtype=np.float32), (0, 0, 0)
        for axis, (first, stop) in enumerate(boxes):
            values = self._along(values, axis, slice(first, stop))
        return values.contiguous().numpy(), tuple(int(first) for first, _ in boxes)

    def _box(self, values: torch.Tensor) -> list[np.ndarray] | None:
        inside = values >= 0.5
        boxes = []
        for axis in range(3):
            other = tuple(a for a in range(3) if a != axis)
            used = np.flatnonzero(inside.any(dim=other[1]).any(dim=other[0]).numpy())
            if not used.size:
                return None
            at = np.clip(self.positions[axis], 0, values.shape[axis] - 1)
            reached = np.flatnonzero((at > used[0] - 1) & (at < used[-1] + 1) & self.known[axis])
            if not reached.size:
                return None
            boxes.append(np.array([max(reached[0] - 1, 0), min(reached[-1] + 2, len(at))]))
        return boxes

    def _along(self, values: torch.Tensor, axis: int, part: slice) -> torch.Tensor:
        """Interpolated along one axis; beyond the first and last voxel their values hold, further out it is
        0."""
        at = np.clip(self.positions[axis][part], 0, values.shape[axis] - 1)
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, values.shape[axis] - 1)
        share, known = (at - below).astype(np.float32), self.known[axis][part]
        if axis == 2 and values.shape[2] <= NARROW:
            return _mixed(values, (below, above), share, known)
        sides = [-1 if a == axis else 1 for a in range(3)]
        low, high = (values.index_select(axis, torch.from_numpy(index)) for index in (below, above))
        result = torch.lerp(low, high, torch.from_numpy(share).reshape(sides))
        return result if known.all() else result * torch.from_numpy(known).reshape(sides)


def _mixed(
    values: torch.Tensor, at: tuple[np.ndarray, np.ndarray], share: np.ndarray, known: np.ndarray
) -> torch.Tensor:
    """Interpolated along the last axis by a matrix of two weights a column: single voxels of a row are slow
    to pick out."""
    weights = np.zeros((values.shape[2], len(share)), dtype=np.float32)
    columns = np.arange(len(share))
    weights[at[0], columns] = known * (1 - share)
    weights[at[1], columns] += known * share
    mixed = values.reshape(-1, values.shape[2]).numpy() @ weights
    return torch.from_numpy(mixed).reshape(*values.shape[:2], len(share))
