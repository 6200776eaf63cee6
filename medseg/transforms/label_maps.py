"""A label map, or masks, on the voxels of an image that was only cropped and turned, as named structures."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import find_objects

from medseg.cases.region import region_mask
from medseg.cases.results import Structures
from medseg.cases.volume import Case, resample
from medseg.errors import GeometryError, InputError, StructureError
from medseg.geometry import Geometry
from medseg.shapes.packed import Boxed, PackedMasks, pack
from medseg.structures.structure import Structure
from medseg.transforms.readers import REMARK_KEY, case_of
from medseg.transforms.structures import structure_of

WHOLE = 1e-3
"""How far, in voxels, a grid may lie beside the image's own and still count as it."""


class LabelsToStructuresd(MapTransform):
    """A prediction on the voxels of ``orig_keys`` to structures on the case's own slices.

    Prediction: MetaTensor (1, x, y, z) of whole numbers, 0 for nothing; or (C, x, y, z) of 0 and 1, where a
    structure's label is its channel, counted from 1. ``structures``: one dict each with the fields of
    :class:`medseg.structures.structure.Structure` and ``labels``, a list of the numbers that belong to it; a
    label may belong to several. ``left_out``: numbers that are predicted and not wanted. The image may have
    been cropped and turned by quarters, so that every voxel is one of the case's own: nothing is
    interpolated, except that uneven or tilted stacks sample the regular grid at their real slices.
    ``within`` limits the result to the region's voxels.

    GeometryError when the prediction lies on other voxels than the case's; InputError for a structure without
    labels; StructureError for numbers that no structure has.
    """

    def __init__(
        self,
        keys="pred",
        orig_keys: str = "image",
        structures: Sequence[Mapping[str, Any]] = (),
        left_out: Sequence[int] = (),
        within: str | Sequence[float] | None = None,
    ):
        super().__init__(keys)
        self.orig_keys, self.within, self.left_out = orig_keys, within, frozenset(left_out)
        self.structures: dict[Structure, tuple[int, ...]] = {}
        for fields in structures:
            own = {name: value for name, value in fields.items() if name != "labels"}
            labels = tuple(fields.get("labels", ()))
            if not labels or not all(isinstance(label, int) and label > 0 for label in labels):
                raise InputError(f"structure {own.get('name')}: labels {labels}; expected numbers from 1.")
            self.structures[structure_of(own)] = labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d["structures"] = self._structures(d[key], d[self.orig_keys])
        return d

    def _structures(self, pred: MetaTensor, image: MetaTensor) -> Structures:
        case = case_of(image.meta)
        grid = case.geometry.regular_grid()
        affine = np.asarray(pred.affine if isinstance(pred, MetaTensor) else image.affine)
        array, corner = on_grid(pred.detach().cpu().numpy(), affine, grid)
        region = region_mask(self.within, case) if self.within else None
        masks = {
            structure: _placed(mask, low, (grid, case, region))
            for structure, (mask, low) in zip(self.structures, self._masks(array, corner), strict=True)
        }
        return Structures(case, PackedMasks(case.geometry.shape, masks), image.meta.get(REMARK_KEY, ""))

    def _masks(
        self, array: np.ndarray, corner: tuple[int, ...]
    ) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
        """(bool array, where it begins) of each structure, in the box of its labels."""
        known = {label for labels in self.structures.values() for label in labels} | self.left_out
        if len(array) > 1:
            if known != set(range(1, len(array) + 1)):
                raise StructureError(
                    f"{len(array)} predicted channels for structures of the channels {sorted(known)}."
                )
            for labels in self.structures.values():
                yield (array[[label - 1 for label in labels]] > 0.5).any(axis=0), corner
            return
        numbers = np.rint(array[0]).astype(np.int32)
        boxes = find_objects(numbers)
        unnamed = [label for label, box in enumerate(boxes, 1) if box is not None and label not in known]
        if unnamed:
            raise StructureError(f"label {unnamed[0]} was predicted and belongs to no structure.")
        for labels in self.structures.values():
            found = [boxes[label - 1] for label in labels if label <= len(boxes) and boxes[label - 1]]
            box = tuple(
                slice(min(b[axis].start for b in found), max(b[axis].stop for b in found))
                if found
                else slice(0)
                for axis in range(3)
            )
            low = tuple(at + side.start if found else at for at, side in zip(corner, box, strict=True))
            yield np.isin(numbers[box], labels), low


def _placed(mask: np.ndarray, corner: tuple[int, ...], where: tuple[Geometry, Case, Any]) -> Boxed:
    """A mask of the regular grid on the case's own slices, packed."""
    grid, case, region = where
    if grid is not case.geometry:
        whole = pack(mask, corner).expand(grid.shape)
        mask, corner = resample(whole.astype(np.float32), grid, case.geometry) >= 0.5, (0, 0, 0)
    if region is not None:
        mask = mask & region[tuple(slice(a, a + n) for a, n in zip(corner, mask.shape, strict=True))]
    return pack(mask, corner)


def on_grid(array: np.ndarray, affine_ras: np.ndarray, grid: Geometry) -> tuple[np.ndarray, tuple[int, ...]]:
    """(C, x, y, z) with a RAS affine as ((C, slice, row, column) in the directions of ``grid``, where it
    begins there). GeometryError when its voxels are not the grid's."""
    matrix = np.linalg.inv(affine_ras) @ grid.affine_ras
    turn = np.rint(matrix[:3, :3]).astype(int)
    drift = np.abs(matrix[:3, :3] - turn).sum(axis=1) * max(grid.shape)
    offset = np.rint(matrix[:3, 3])
    steps = np.abs(turn)
    whole = (steps.sum(axis=0) == 1).all() and (steps.sum(axis=1) == 1).all()
    if not whole or drift.max() > 10 * WHOLE or np.abs(matrix[:3, 3] - offset).max() > 10 * WHOLE:
        raise GeometryError("the prediction does not lie on the image's own voxels.")
    order = steps.argmax(axis=0)  # for each axis of the grid, the prediction's that runs along it
    signs = turn[order, range(3)]
    turned = array.transpose(0, *(order + 1))
    turned = np.flip(turned, [axis + 1 for axis in range(3) if signs[axis] < 0])
    sizes = turned.shape[1:]
    first = [
        int(-offset[order[axis]] if signs[axis] > 0 else offset[order[axis]] - sizes[axis] + 1)
        for axis in range(3)
    ]
    ends = [low + n for low, n in zip(first, sizes, strict=True)]
    if min(first) < 0 or any(end > n for end, n in zip(ends, reversed(grid.shape), strict=True)):
        raise GeometryError("the prediction reaches beyond the image.")
    return turned.transpose(0, 3, 2, 1), tuple(reversed(first))
