"""From the network's probabilities to named structures on the case's own slices, and what is done to them
there."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.region import region_mask
from medseg.cases.results import Structures, binary
from medseg.cases.volume import resample
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError, sizes
from medseg.geometry import Geometry
from medseg.inference.sampling import Sampling
from medseg.inference.sliding_window import PACKED_SIZE, unpack
from medseg.shapes.boxes import box_of
from medseg.shapes.packed import PackedMasks, pack
from medseg.shapes.pieces import edge_of, gaps_to_piece_mm, label_pieces
from medseg.structures.structure import Structure
from medseg.transforms.readers import REMARK_KEY, case_of


class ToStructuresd(MapTransform):
    """Probability channels (C, x, y, z), inverted to the case's grid, to named structures on the case's own
    slices.

    ``structures``: one dict per channel with the fields of :class:`medseg.structures.structure.Structure`. On
    uneven or tilted stacks the regular grid is sampled at the real slices. ``within`` limits the result to
    the region's voxels. Raises GeometryError when the prediction does not lie on the case's grid,
    StructureError for a wrong number of channels.
    """

    def __init__(
        self,
        keys="pred",
        structures: Sequence[Mapping[str, Any]] = (),
        within: str | Sequence[float] | None = None,
    ):
        super().__init__(keys)
        self.structures = tuple(structure_of(fields) for fields in structures)
        self.within = within

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d["structures"] = self._structures(d[key])
        return d

    def _structures(self, pred: MetaTensor) -> Structures:
        if pred.shape[0] != len(self.structures):
            raise StructureError(
                f"{pred.shape[0]} predicted channels for {len(self.structures)} named structures."
            )
        case = case_of(pred.meta)
        grid = case.geometry.regular_grid()
        channels = pred.detach().cpu().numpy().astype(np.float32, copy=False)
        seen = Geometry.from_ras_affine(
            np.asarray(pred.affine), channels.shape[1:], grid.frame_of_reference_uid
        )
        grid.require_same(seen, "the prediction")
        region = region_mask(self.within, case) if self.within else None
        masks = {}
        for structure, channel in zip(self.structures, channels, strict=True):
            probability = np.ascontiguousarray(channel.transpose(2, 1, 0))
            if grid is not case.geometry:
                probability = resample(probability, grid, case.geometry)
            masks[structure] = probability if region is None else np.where(region, probability, np.float32(0))
        return Structures(case, masks, pred.meta.get(REMARK_KEY, ""))


class RestoreStructuresd(MapTransform):
    """The network's answer (C, x, y, z) on its own grid to structures on the case's slices, one after the
    other.

    It stands for ``Activationsd``, ``Invertd`` and :class:`ToStructuresd` where preprocessing crops, turns
    and changes the spacing (linear) and does nothing else to the grid: interpolation is the same, but only in
    each structure's own box. ``orig_keys``: the image that the network saw, whose affine says where its
    voxels lie. ``activation``: a key of ACTIVATIONS. Packed masks (``keep: masks`` of the SlidingWindow) are
    interpolated as 0 and 1 and cut at 0.5.

    ``structures``, ``within`` and the errors are those of ToStructuresd. Voxels more than one network voxel
    outside what the network saw are 0. GeometryError when the prediction is not on the image's grid, or that
    grid not on the case's.
    """

    ACTIVATIONS = {"sigmoid": torch.sigmoid, "none": torch.Tensor.float}

    def __init__(self, keys="pred", orig_keys="image", structures=(), activation="sigmoid", within=None):
        super().__init__(keys)
        if activation not in self.ACTIVATIONS:
            raise InputError(f"activation {activation!r}: expected one of {', '.join(self.ACTIVATIONS)}.")
        self.orig_keys = orig_keys
        self.structures = tuple(structure_of(fields) for fields in structures)
        self.activation = self.ACTIVATIONS[activation]
        self.within = within

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d["structures"] = self._structures(d[key], d[self.orig_keys])
        return d

    def _structures(self, pred: torch.Tensor, image: MetaTensor) -> Structures:
        if pred.shape[0] != len(self.structures):
            raise StructureError(
                f"{pred.shape[0]} predicted channels for {len(self.structures)} named structures."
            )
        packed_size = pred.meta.get(PACKED_SIZE) if isinstance(pred, MetaTensor) else None
        shape = tuple(pred.shape[1:]) if packed_size is None else (*pred.shape[1:-1], int(packed_size))
        _check_prediction(pred, shape, image)
        case = case_of(image.meta)
        grid = case.geometry.regular_grid()
        sampling = Sampling.between(np.asarray(image.affine), shape, grid)
        region = region_mask(self.within, case) if self.within else None
        masks = {}
        for structure, channel in zip(self.structures, pred.detach().cpu(), strict=True):
            channel = channel.as_tensor() if isinstance(channel, MetaTensor) else channel
            if packed_size is None:
                values = self.activation(channel)
            else:
                values = torch.from_numpy(unpack(channel, int(packed_size))).float()
            found, corner = sampling.restored(values, whole=grid is not case.geometry)
            if grid is not case.geometry:
                found = resample(found, grid, case.geometry)
            if region is not None:
                found = np.where(
                    region[tuple(slice(a, a + n) for a, n in zip(corner, found.shape, strict=True))], found, 0
                )
            masks[structure] = pack(found if packed_size is None else found >= 0.5, corner)
        packed = PackedMasks(case.geometry.shape, masks)
        return Structures(case, packed, image.meta.get(REMARK_KEY, ""))


def _check_prediction(pred: torch.Tensor, shape: tuple[int, ...], image: MetaTensor) -> None:
    if shape != tuple(image.shape[1:]):
        raise GeometryError(
            f"the prediction has {sizes(shape)} voxels, the image the network saw {sizes(image.shape[1:])}."
        )
    if isinstance(pred, MetaTensor):
        seen, own = (Geometry.from_ras_affine(np.asarray(t.affine), shape) for t in (image, pred))
        seen.require_same(own, "the prediction")


def structure_of(fields: Mapping[str, Any]) -> Structure:
    """A structure as a bundle's config describes it. StructureError for a field that it has not."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    try:
        return Structure(**values)
    except TypeError as error:
        raise StructureError(
            f"structure with {', '.join(map(str, fields))}: expected the fields name, number, colour_rgb, "
            "interpreted_type."
        ) from error


class KeepComponentsd(MapTransform):
    """Drop connected pieces (26-neighbourhood) smaller than ``min_volume_cc``, all but the largest, or those
    that lie alone: more than ``max_gap_mm`` between their voxels' centres and those of the largest piece.

    ``names``: the structures to look at; None: all. An organ is one piece where a target may be several. A
    structure whose every piece is too small becomes empty. On a single slice, which has no volume, nothing is
    too small and a MedsegWarning says so. What is dropped for its distance may be a second tumour, so a
    MedsegWarning says how far and how large it was. Sub-threshold probabilities around a kept piece stay,
    since the sub-pixel contour depends on them.
    """

    def __init__(
        self,
        keys="structures",
        min_volume_cc: float = 0.0,
        largest_only: bool = False,
        names: Sequence[str] | None = None,
        max_gap_mm: float | None = None,
    ):
        super().__init__(keys)
        if min_volume_cc < 0:
            raise InputError(f"min_volume_cc is {min_volume_cc}; expected 0 (keep all) or more.")
        if max_gap_mm is not None and (isinstance(max_gap_mm, str | bool) or not max_gap_mm >= 0):
            raise InputError(f"max_gap_mm is {max_gap_mm!r}; expected null (keep all) or a distance in mm.")
        self.names = None if names is None else frozenset(names)
        self.min_volume_cc = min_volume_cc
        self.largest_only = largest_only
        self.max_gap_mm = max_gap_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            result = d[key]
            voxel_cc = result.case.geometry.voxel_volumes_cc
            if np.isnan(voxel_cc).any() and self.min_volume_cc:
                warnings.warn(
                    "a single slice has no volume: pieces of every size are kept.",
                    MedsegWarning,
                    stacklevel=2,
                )
            unknown = (self.names or frozenset()) - {s.name for s in result.masks}
            if unknown:
                raise StructureError(
                    f"no structure {', '.join(sorted(unknown))} among those predicted; correct 'names'."
                )
            d[key] = result.change(partial(self._keep, geometry=result.case.geometry))
        return d

    def _keep(self, structure: Structure, mask: np.ndarray, first: int, geometry: Geometry) -> np.ndarray:
        """``mask``, which begins at slice ``first``, without its specks; the very array when there are
        none."""
        inside = binary(mask)
        if (self.names is not None and structure.name not in self.names) or not inside.any():
            return mask
        box = box_of(inside)  # labelling a whole CT for a small tumour takes seconds
        pieces, count = label_pieces(inside[box], diagonal=True)
        known = not np.isnan(geometry.voxel_volumes_cc).any()
        # Only set voxels are counted and looked up: in a box as large as the CT they are few.
        where = np.flatnonzero(inside[box])
        piece = pieces.ravel()[where]
        per_slice = geometry.voxel_volumes_cc[first:][box[0]] if known else np.ones(pieces.shape[0])
        sizes = np.bincount(
            piece, weights=per_slice[where // pieces[0].size]
        )  # cc, or voxels where no volume is known
        sizes[0] = -1.0
        drop = (sizes < self.min_volume_cc) & known
        if self.largest_only:
            drop |= np.arange(count + 1) != sizes.argmax()
        if self.max_gap_mm is not None and np.count_nonzero(~drop[1:]) > 1:
            edge = edge_of(inside[box]).ravel()[where]
            slices, *rows_columns = np.unravel_index(where[edge], pieces.shape)
            points_mm = geometry.points_lps_mm(first + box[0].start + slices, np.stack(rows_columns, axis=1))
            gaps_mm = gaps_to_piece_mm(piece[edge], points_mm, int(sizes.argmax()))
            alone = (gaps_mm > self.max_gap_mm) & ~drop
            if alone.any():
                self._tell(structure, sizes[alone].sum() if known else None, gaps_mm[alone].min())
            drop |= alone
        if not drop[1:].any():
            return mask
        rows = np.unravel_index(where[drop[piece]], pieces.shape)
        kept = mask.copy()
        kept[box][rows] = 0
        return kept

    def _tell(self, structure: Structure, volume_cc: float | None, gap_mm: float) -> None:
        size = "a part" if volume_cc is None else f"{volume_cc:.1f} cc"
        warnings.warn(
            f"{structure.name}: {size} left out, {gap_mm:.0f} mm or more from its largest piece (up to "
            f"{self.max_gap_mm:g} mm is kept). Look whether a second one lies there.",
            MedsegWarning,
            stacklevel=2,
        )
