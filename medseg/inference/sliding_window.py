"""A sliding window that holds the frontier of its windows instead of structures x volume, and computes air
once.

Windows are merged in cells: the boxes between the edges of all windows. A cell is finished when the last
window over it has been added, and is then written out, as logits or as one bit per structure. Only cells at
the frontier, which further windows will reach, are held as floats.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer
from torch.nn.functional import pad

from medseg.errors import InputError
from medseg.inference.engines import Engine, OpenVINOEngine, engine_for, engine_name

Box = tuple[slice, ...]

KEEPS = ("logits", "masks")
PACKED_SIZE = "packed_size"
"""Meta data key of packed masks: how many voxels the last axis has. Its presence says that a tensor is
packed."""


class SlidingWindow(Inferer):
    """Run a network over an image in overlapping windows, as MONAI's SlidingWindowInferer does, through an
    engine.

    ``roi_size``, ``overlap``, ``mode`` ("constant", "gaussian"), ``sw_batch_size``, ``progress``: as MONAI's,
    with the same result. ``engine``: see :func:`medseg.inference.engines.engine_name`.

    Own code for memory and time: see tools/benchmarks/inference/run.py and
    docs/reference/benchmark_inference.md.

    ``keep``: "logits" gives float32 (B, C, *spatial) like MONAI. "masks" cuts every finished cell at logit 0
    (probability 0.5) and gives uint8 (B, C, X, Y, ceil(Z/8)), a bit per voxel, see :func:`unpack`: 32 times
    less.

    ``air_at_most``: a window whose values are all at most this holds nothing but air, and all such windows
    get the answer of the first of them. With the smallest value of the normalised image the result is the
    very same.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 1,
        overlap: float | Sequence[float] = 0.25,
        mode: str = "constant",
        engine: str = "auto",
        keep: str = "logits",
        air_at_most: float | None = None,
        progress: bool = False,
    ) -> None:
        if keep not in KEEPS:
            raise InputError(f"keep is {keep!r}; expected one of {', '.join(KEEPS)}.")
        engine_name(engine, "cpu")  # a wrong name shows before the first image
        self.roi_size = tuple(roi_size)
        if not self.roi_size or min(self.roi_size) < 1:
            raise InputError(f"roi_size is {list(self.roi_size)}; expected 1 or more voxels for every axis.")
        self.overlap = (
            (overlap,) * len(self.roi_size) if isinstance(overlap, (int, float)) else tuple(overlap)
        )
        if len(self.overlap) != len(self.roi_size) or not all(0 <= part < 1 for part in self.overlap):
            raise InputError(
                f"overlap is {overlap}; expected 0 or more and less than 1, once or for every axis."
            )
        self.sw_batch_size, self.mode, self.engine = sw_batch_size, mode, engine
        self.keep, self.air_at_most, self.progress = keep, air_at_most, progress

    def begin(self, network: Callable[[torch.Tensor], torch.Tensor], channels: int, device) -> None:
        """Let the engine make itself ready in a thread, for images of so many channels that are still being
        read. Nothing where there is nothing to make ready."""
        engine = engine_for(self.engine, network, device)
        if isinstance(engine, OpenVINOEngine):
            engine.begin((self.sw_batch_size, channels, *self.roi_size))

    def __call__(self, inputs: torch.Tensor, network: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if inputs.ndim - 2 != len(self.roi_size):
            raise InputError(
                f"image of {inputs.ndim - 2} dimensions for windows of {self.roi_size}; they must agree."
            )
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        engine = engine_for(self.engine, network, image.device)
        with torch.no_grad():
            results = [self._one(image[index : index + 1], engine) for index in range(len(image))]
            result = (
                torch.cat(results) if len(results) > 1 else results[0]
            )  # cat would copy even a single one
        if not isinstance(inputs, MetaTensor):
            return result
        result = MetaTensor(result).copy_meta_from(inputs)
        if self.keep == "masks":
            result.meta[PACKED_SIZE] = image.shape[-1]
        return result

    def _one(self, image: torch.Tensor, engine: Engine) -> torch.Tensor:
        """Every window of one image (1, C, *spatial), merged."""
        size = tuple(image.shape[2:])
        missing = [max(roi - n, 0) for n, roi in zip(size, self.roi_size, strict=True)]
        padding = [(n // 2, n - n // 2) for n in missing]
        if np.any(padding):
            image = pad(image, [n for pair in reversed(padding) for n in pair])
        windows = _windows(tuple(image.shape[2:]), self.roi_size, self.overlap)
        weights = compute_importance_map(
            self.roi_size, mode=self.mode, sigma_scale=0.125, device=image.device
        )
        merge = _Merge(windows, weights)
        inside = _Inside(tuple(before for before, _ in padding), size)
        result = None
        for window, logits in self._answers(image, windows, engine):
            if not _is_finite(logits):  # cut at 0.5 it would pass for "nothing there"
                raise InputError(
                    "the network's answer is not finite numbers (weights, values of the image, or float16)."
                )
            for cell, merged in merge.add(window, logits):
                if result is None:
                    result = _Packed(merged.shape[0], size) if self.keep == "masks" else _Dense(merged, size)
                place, part = inside(cell)
                if place is not None:
                    result.put(place, merged[(slice(None), *part)])
            logits = merged = None  # or they would stay beside the next window's
        return result.tensor()

    def _answers(
        self, image: torch.Tensor, windows: list[Box], engine: Engine
    ) -> Iterator[tuple[Box, torch.Tensor]]:
        """(window, its logits (C, *roi)); windows of air share one answer and may come before their turn."""
        from tqdm import tqdm

        answer_to_air = None
        waiting: list[Box] = []
        for number, window in enumerate(
            tqdm(windows, "network", unit="window", disable=not self.progress, dynamic_ncols=True), start=1
        ):
            is_air = self.air_at_most is not None and bool(
                image[(0, slice(None), *window)].max() <= self.air_at_most
            )
            if is_air and answer_to_air is None:
                answer_to_air = engine(image[(slice(None), slice(None), *window)])[0].clone()
            if is_air:
                yield window, answer_to_air
            else:
                waiting.append(window)
            if waiting and (len(waiting) == self.sw_batch_size or number == len(windows)):
                batch = torch.cat([image[(slice(None), slice(None), *box)] for box in waiting])
                yield from zip(waiting, engine(batch), strict=True)
                waiting = []


def _windows(size: tuple[int, ...], roi: tuple[int, ...], overlap: tuple[float, ...]) -> list[Box]:
    """MONAI's windows, in the order that keeps the frontier small.

    Outermost runs the longest axis. The last window of an axis is moved back to end with the image, so it
    overlaps the one before by more than the others do; these two layers are done together.
    """
    steps = [
        r if r == n else max(int(r * (1 - part)), 1) for n, r, part in zip(size, roi, overlap, strict=True)
    ]
    order = sorted(range(len(size)), key=lambda axis: -size[axis])

    def layer(start: int, axis: int) -> int:
        return start // steps[axis] * steps[axis]

    boxes = [tuple(box) for box in dense_patch_slices(size, roi, steps)]
    return sorted(
        boxes,
        key=lambda box: (
            [layer(box[axis].start, axis) for axis in order],
            [box[axis].start for axis in reversed(order)],
        ),
    )


def _is_finite(logits: torch.Tensor) -> bool:
    """Whether every value is finite: then the ends are, and NaN would be both ends. Nothing of the answer's
    size is made."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(logits))).all())


@dataclass
class _Merge:
    """Weighted sums of windows, cell by cell; what is finished is handed out, and its memory is used for
    later cells.

    There are few sizes of cells and many cells: given back to the allocator, their memory would be cut up and
    grow.
    """

    windows: list[Box]
    weights: torch.Tensor
    pending: dict[tuple[int, ...], list] = field(default_factory=dict)
    spare: dict[int, list[torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self):
        axes = range(len(self.windows[0]))
        starts = [sorted({box[axis].start for box in self.windows}) for axis in axes]
        roi = [self.windows[0][axis].stop - self.windows[0][axis].start for axis in axes]
        self.cuts = [sorted({edge for s in starts[axis] for edge in (s, s + roi[axis])}) for axis in axes]
        self.covers = [
            {cut: sum(s <= cut < s + roi[axis] for s in starts[axis]) for cut in self.cuts[axis][:-1]}
            for axis in axes
        ]

    def add(self, window: Box, logits: torch.Tensor) -> Iterator[tuple[Box, torch.Tensor]]:
        """Add one window's logits (C, *roi); yields (box, merged logits) of every cell that it finishes.

        The merged logits are filled anew once the next cell is asked for.
        """
        edges = []
        for axis, side in enumerate(window):
            cuts = [cut for cut in self.cuts[axis] if side.start <= cut <= side.stop]
            edges.append(list(itertools.pairwise(cuts)))
        for cell in itertools.product(*edges):
            key = tuple(low for low, _ in cell)
            part = tuple(
                slice(low - side.start, high - side.start)
                for (low, high), side in zip(cell, window, strict=True)
            )
            here, weight = logits[(slice(None), *part)], self.weights[part]
            wanted = int(np.prod([self.covers[axis][low] for axis, low in enumerate(key)]))
            box = tuple(slice(low, high) for low, high in cell)
            if wanted == 1:
                yield box, here
                continue
            if key not in self.pending:
                spare = self.spare.get(here.numel())
                memory = spare.pop() if spare else here.new_empty(here.numel())
                self.pending[key] = [torch.mul(here, weight, out=memory.view(here.shape)), weight.clone(), 1]
                continue
            entry = self.pending[key]
            entry[0].addcmul_(here, weight)
            entry[1] += weight
            entry[2] += 1
            if entry[2] == wanted:
                del self.pending[key]
                yield box, entry[0].div_(entry[1])
                self.spare.setdefault(here.numel(), []).append(entry[0].view(-1))


@dataclass(frozen=True)
class _Inside:
    """Cells of the padded image as places in the image itself."""

    before: tuple[int, ...]
    size: tuple[int, ...]

    def __call__(self, cell: Box) -> tuple[Box | None, Box]:
        """(place in the image, the part of the cell that lies there); (None, ()) for a cell in the
        padding."""
        place, part = [], []
        for side, before, n in zip(cell, self.before, self.size, strict=True):
            low, high = max(side.start - before, 0), min(side.stop - before, n)
            if low >= high:
                return None, ()
            place.append(slice(low, high))
            part.append(slice(low + before - side.start, high + before - side.start))
        return tuple(place), tuple(part)


class _Dense:
    """Finished logits, all of them."""

    def __init__(self, like: torch.Tensor, size: tuple[int, ...]) -> None:
        self.logits = like.new_empty((like.shape[0], *size))

    def put(self, place: Box, logits: torch.Tensor) -> None:
        self.logits[(slice(None), *place)] = logits

    def tensor(self) -> torch.Tensor:
        return self.logits[None]


class _Packed:
    """Finished masks, a bit per voxel along the last axis."""

    def __init__(self, channels: int, size: tuple[int, ...]) -> None:
        self.bits = np.zeros((channels, *size[:-1], -(-size[-1] // 8)), dtype=np.uint8)

    def put(self, place: Box, logits: torch.Tensor) -> None:
        first = place[-1].start // 8
        mask = np.pad(
            (logits >= 0).cpu().numpy(), [(0, 0)] * (logits.ndim - 1) + [(place[-1].start - 8 * first, 0)]
        )
        packed = np.packbits(mask, axis=-1)
        self.bits[(slice(None), *place[:-1], slice(first, first + packed.shape[-1]))] |= packed

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.bits)[None]


def unpack(channel: torch.Tensor, size: int) -> np.ndarray:
    """The bool mask (*spatial) of one packed channel whose last axis has ``size`` voxels."""
    return np.unpackbits(channel.cpu().numpy(), axis=-1, count=size).view(bool)
