"""From merged logits, plane after plane, to a label map on the image's own voxels.

nnU-Net resamples the logits of every label to the whole image and takes the largest. Here a plane of the
result is made from the two planes of logits around it, tile by tile; and in a tile only of the labels that
can be the largest there: between voxels logits are mixed, never exceeded, so a label whose highest logit in a
tile is below another one's lowest wins nowhere in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from medseg.inference.nnunet_stage import Prepared, Stage
from medseg.inference.resampling import Resampling, Taps

TILE = 32
"""Side of a tile in voxels of the result."""


@dataclass(frozen=True, eq=False)
class _Tile:
    """A part of a plane of the result, and what of a plane of logits it is made from."""

    place: tuple[slice, slice]
    source: tuple[slice, slice]
    taps: tuple[Taps, Taps]

    def mixed(self, logits: torch.Tensor) -> torch.Tensor:
        """float32 (labels, *source) at the tile's own voxels."""
        for axis, taps in zip((1, 2), self.taps, strict=True):
            low, high = (torch.from_numpy(index) for index in (taps.low, taps.high))
            if len(low) == logits.shape[axis] and not taps.share.any() and bool((low[1:] > low[:-1]).all()):
                continue
            share = torch.from_numpy(taps.share).reshape((-1, 1) if axis == 1 else (1, -1))
            logits = torch.lerp(logits.index_select(axis, low), logits.index_select(axis, high), share)
        return logits


def labels_of(
    planes: Iterator[torch.Tensor], shape: Sequence[int], prepared: Prepared, stage: Stage
) -> np.ndarray:
    """uint8 or uint16 of ``prepared.cropped``: the label of every voxel. ``planes``: float16 (heads, rows,
    columns), ``shape[0]`` of them, of an answer on ``shape`` voxels. 0 is "nothing"."""
    how = Resampling(**stage.logits)
    order = [how.order_across if axis == prepared.apart else how.order for axis in range(3)]
    taps = [Taps.of(n, m, o) for n, m, o in zip(shape, prepared.cropped, order, strict=True)]
    tiles = _tiles(taps[1], taps[2])
    half = how.half or tuple(shape) == prepared.cropped
    most = max(stage.classes - 1, *stage.regions, 0)
    result = np.zeros(prepared.cropped, dtype=np.uint8 if most < 255 else np.uint16)
    held: dict[int, tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]] = {}
    target = 0
    for number, plane in enumerate(planes):
        plane = plane.cpu()
        held[number] = (plane, _limits(plane, tiles) if stage.classes else (plane, plane))
        while target < len(taps[0].high) and taps[0].high[target] <= number:
            low, high = int(taps[0].low[target]), int(taps[0].high[target])
            pair, share = (held[low], held[high]), float(taps[0].share[target])
            _write_plane(result[target], pair, share, (tiles, stage, half))
            target += 1
        for old in [key for key in held if target < len(taps[0].low) and key < taps[0].low[target]]:
            del held[old]
    return result


def _tiles(rows: Taps, columns: Taps) -> list[_Tile]:
    parts = []
    for taps in (rows, columns):
        cut = []
        for first in range(0, len(taps.low), TILE):
            part = slice(first, min(first + TILE, len(taps.low)))
            start, stop = int(taps.low[part].min()), int(taps.high[part].max()) + 1
            own = Taps(taps.low[part] - start, taps.high[part] - start, taps.share[part])
            cut.append((part, slice(start, stop), own))
        parts.append(cut)
    return [_Tile((r[0], c[0]), (r[1], c[1]), (r[2], c[2])) for r in parts[0] for c in parts[1]]


def _limits(plane: torch.Tensor, tiles: list[_Tile]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (tiles, heads) each: the lowest and the highest logit of every label in every tile's source."""
    low, high = [], []
    for tile in tiles:
        part = plane[(slice(None), *tile.source)].flatten(1)
        low.append(part.amin(dim=1))
        high.append(part.amax(dim=1))
    return torch.stack(low).float(), torch.stack(high).float()


def _write_plane(result: np.ndarray, pair: tuple, share: float, how: tuple[list[_Tile], Stage, bool]) -> None:
    tiles, stage, half = how
    (one, limits), (two, others) = pair
    if stage.classes:
        lowest = torch.minimum(limits[0], others[0]).amax(dim=1, keepdim=True)
        possible = torch.maximum(limits[1], others[1]) >= lowest
    for number, tile in enumerate(tiles):
        heads = possible[number].nonzero()[:, 0] if stage.classes else torch.arange(stage.heads)
        if stage.classes and len(heads) == 1:
            result[tile.place] = int(heads[0])
            continue
        part = (slice(None), *tile.source)
        logits = one[part][heads].float()
        if share:
            logits = torch.lerp(logits, two[part][heads].float(), share)
        logits = tile.mixed(logits)
        if half:
            logits = logits.half().float()
        if stage.classes:
            # Of equal logits the first, as argmax does; on a processor in a tenth of its time.
            result[tile.place] = heads[logits.max(dim=0).indices].numpy()
        else:
            for label, values in zip(stage.regions, torch.sigmoid(logits), strict=True):
                result[tile.place][(values > 0.5).numpy()] = label


def keep_largest(labels: np.ndarray, sets: Sequence[Sequence[int]]) -> np.ndarray:
    """For each set of labels in turn: what of them is not in their largest piece (neighbours also across
    corners) becomes 0; of several largest all stay. As nnU-Net's postprocessing does."""
    for chosen in sets:
        mask = np.isin(labels, list(chosen))
        if not mask.any():
            continue
        pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        labels = np.where(mask & (sizes != sizes.max())[pieces], 0, labels).astype(labels.dtype)
    return labels
