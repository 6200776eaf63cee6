"""The corrections one could make to a label, each with the Dice that it would bring.

Each undoes one blunder: moves the label back, shrinks or grows it, adds or removes a piece, fills a gap,
takes an end off or puts one on, or takes the label for another structure's. A correction is a Reason and the
label as it would be then.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.signal import fftconvolve

from medseg.audit.disagreement import dice_of, signed_distance
from medseg.audit.evidence import DIRECTIONS
from medseg.audit.pairs import Pair, Reason
from medseg.shapes.boxes import box_of
from medseg.shapes.pieces import label_pieces

LEAST_PIECE = 0.1
"""A piece that is missing or too much has at least this share of the prediction, or of the label."""

FAR_PIECE = 2.0
"""A predicted piece this many times the label's length (the diagonal of its box) away says nothing about the
label."""

Correction = tuple[Reason, np.ndarray]

LEAST_REST = 0.6
FARTHEST_STEPS, SMALL_STEPS = 40, 10
"""So many half voxels outwards or inwards an outline is moved at most; up to so few, every one is tried."""

COARSE = 48
"""The best shift is first looked for on at most so many voxels along an axis, then voxel by voxel around
it."""

PLACES = {
    3: (("caudal end", "cranial end"), ("anterior side", "posterior side"), ("right side", "left side")),
    2: (("upper side", "lower side"), ("left side of the image", "right side of the image")),
}


# ---- another structure -------------------------------------------------------------------------------------


def find_other_structures(
    pair: Pair, structure: str, predictions: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> Iterator[tuple[Reason, str]]:
    """(reason, name) for every other structure whose label this may be."""
    twin = other_side(structure, list(predictions))
    for name, mask in predictions.items():
        if name == structure:
            continue
        after = dice_of(pair.label, mask)
        if name == twin:
            theirs = labels.get(twin)
            swapped = theirs is not None and dice_of(theirs, pair.prediction) > dice_of(theirs, mask)
            words = (
                f"left and right are swapped: this and {name}"
                if swapped
                else f"on the wrong side: this is {name}"
            )
            kind = "sides swapped" if swapped else "wrong structure"
            yield Reason(kind, words, dice_after=after), name
        elif after == after:
            yield Reason("wrong structure", f"looks like {name}", dice_after=after), name


def other_side(name: str, names: Sequence[str]) -> str | None:
    """The name among ``names`` that differs from ``name`` by its side alone (_L and _R, left and right, lt
    and rt)."""
    swap = {"l": "r", "r": "l", "left": "right", "right": "left", "lt": "rt", "rt": "lt"}
    words = re.split(r"([\W_]+)", name.casefold())
    mirrored = "".join(swap.get(word, word) for word in words)
    return next((other for other in names if other.casefold() == mirrored != name.casefold()), None)


# ---- moved, grown ------------------------------------------------------------------------------------------


def find_shift(pair: Pair) -> Iterator[Correction]:
    steps = best_shift(pair.label, pair.prediction)
    vector = tuple(-step * size for step, size in zip(steps, pair.spacing, strict=True))
    length = math.hypot(*vector)
    if not any(steps):
        return
    both = int(pair.label.sum()) + int(pair.prediction.sum())
    after = 2 * _overlap(pair.label, pair.prediction, steps) / both
    reason = Reason("shifted", f"shifted {shift_words(vector, pair)}", length, vector, after)
    yield reason, moved(pair.label, steps)


def shift_words(vector: Sequence[float], pair: Pair) -> str:
    """ "6 mm cranially", or "10 mm (8 mm to the left, 6 mm cranially)"; parts below a third of the whole are
    left out."""
    length, words = math.hypot(*vector), DIRECTIONS[len(vector)]
    parts = sorted(((abs(part), words[axis][part > 0]) for axis, part in enumerate(vector)), reverse=True)
    parts = [(size, word) for size, word in parts if size > length / 3]
    if len(parts) == 1:
        return f"{pair.says(length)} {parts[0][1]}"
    return f"{pair.says(length)} ({', '.join(f'{pair.says(size)} {word}' for size, word in parts)})"


def best_shift(label: np.ndarray, prediction: np.ndarray) -> tuple[int, ...]:
    """Voxels along each axis by which the label has to move to share most voxels with the prediction."""
    factors = [max(1, math.ceil(n / COARSE)) for n in label.shape]
    a, b = (_blocks(mask, factors) for mask in (label, prediction))
    shared = fftconvolve(b, np.flip(a))
    best = np.unravel_index(int(shared.round(4).argmax()), shared.shape)
    steps = [int(place - (n - 1)) * factor for place, n, factor in zip(best, a.shape, factors, strict=True)]
    for size in (2**power for power in range(max(factors).bit_length() - 1, -1, -1) if max(factors) > 1):
        moves = [np.array(move) * size for move in np.ndindex(*(3,) * label.ndim)]
        around = [tuple(int(v) for v in np.array(steps) + move - size) for move in moves]
        steps = list(max(around, key=lambda one: _overlap(label, prediction, one)))
    return tuple(steps)


def _blocks(mask: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """float32 means of blocks of so many voxels along each axis."""
    padded = np.pad(
        mask.astype(np.float32), [(0, -n % factor) for n, factor in zip(mask.shape, factors, strict=True)]
    )
    shape = [part for n, factor in zip(padded.shape, factors, strict=True) for part in (n // factor, factor)]
    return padded.reshape(shape).mean(axis=tuple(range(1, 2 * mask.ndim, 2)))


def _overlap(label: np.ndarray, prediction: np.ndarray, steps: Sequence[int]) -> int:
    """Voxels that the label, moved by ``steps``, shares with the prediction."""
    source, target = _from_and_to(label.shape, steps)
    return int((label[source] & prediction[target]).sum())


def moved(label: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """The label moved by so many voxels along each axis; what leaves the grid is lost."""
    source, target = _from_and_to(label.shape, steps)
    result = np.zeros_like(label)
    result[target] = label[source]
    return result


def _from_and_to(shape: Sequence[int], steps: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    pairs = list(zip(steps, shape, strict=True))
    source = tuple(slice(max(0, -step), max(0, n - max(0, step))) for step, n in pairs)
    return source, tuple(slice(max(0, step), max(0, n - max(0, -step))) for step, n in pairs)


def find_growth(pair: Pair) -> Iterator[Correction]:
    """The label with its outline moved evenly: by the distance of the highest Dice, all distances at once, by
    counting voxels along the signed distance; and by the small ones, one by one."""
    step = min(pair.spacing) / 2
    margin = [(math.ceil(FARTHEST_STEPS / 4 * step / size),) * 2 for size in pair.spacing]
    label, prediction = np.pad(pair.label, margin), np.pad(pair.prediction, margin)
    depth = signed_distance(label, pair.spacing)
    edges = (np.arange(-FARTHEST_STEPS, FARTHEST_STEPS + 1) + 0.01) * step
    sizes = np.cumsum(np.histogram(depth, [-np.inf, *edges])[0])
    shared = np.cumsum(np.histogram(depth[prediction], [-np.inf, *edges])[0])
    dice = 2 * shared / np.maximum(sizes + int(prediction.sum()), 1)
    inner = tuple(slice(low, low + n) for (low, _), n in zip(margin, pair.label.shape, strict=True))
    best = int(dice.argmax())
    near = range(FARTHEST_STEPS - SMALL_STEPS, FARTHEST_STEPS + SMALL_STEPS + 1)
    tried = {int(label.sum())}
    for number in (best, *near):
        # Between two layers of voxels every distance is as good: the middle of those that are.
        alike = np.flatnonzero(dice >= dice[best] - 0.01) if number == best else sizes == sizes[number]
        excess = -float(edges[alike].mean())
        if sizes[number] == 0 or int(sizes[number]) in tried or abs(excess) < step:
            continue
        tried.add(int(sizes[number]))
        kind, size = ("expanded", "large") if excess > 0 else ("contracted", "small")
        words = f"{kind} by {pair.says(abs(excess))} (too {size} all round)"
        reason = Reason(kind, words, abs(excess), (), float(dice[number]))
        yield reason, (depth <= edges[number])[inner]


# ---- pieces, gaps, ends ------------------------------------------------------------------------------------


def find_pieces(pair: Pair) -> Iterator[Correction]:
    label, prediction = pair.label, pair.prediction
    length = math.hypot(*(part.stop - part.start for part in _box_mm(label, pair.spacing)))
    missing = [(piece, _gap_mm(piece, label, pair.spacing)) for piece in _unmet_pieces(prediction, label)]
    far = [(piece, gap) for piece, gap in missing if gap > FAR_PIECE * length]
    near = [piece for piece, gap in missing if gap <= FAR_PIECE * length]
    if far:
        piece = np.logical_or.reduce([piece for piece, _ in far])
        size, away = pair.size(int(piece.sum())), pair.says(min(gap for _, gap in far))
        words = f"a predicted piece of {size} lies {away} away: likely the prediction's error"
        after, gap = dice_of(label, prediction & ~piece), min(gap for _, gap in far)
        yield Reason("far prediction", words, gap, dice_after=after), label
    if near:
        piece = np.logical_or.reduce(near)
        corrected = label | piece
        if _rest_agrees(label, prediction & ~piece, corrected, prediction):
            words = f"missing a separate piece of {pair.size(int(piece.sum()))}"
            after = dice_of(corrected, prediction)
            yield Reason("missing component", words, dice_after=after), corrected
    extra = _unmet_pieces(label, prediction)
    if extra:
        piece = np.logical_or.reduce(extra)
        words, rest = f"an extra piece of {pair.size(int(piece.sum()))}", label & ~piece
        yield Reason("extra component", words, dice_after=dice_of(rest, prediction)), rest


def _unmet_pieces(whole: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """The pieces of `whole`, large enough to count, that `other` does not meet; none when it meets no piece
    at all."""
    pieces, count = label_pieces(whole, diagonal=True)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    met = np.bincount(pieces[other], minlength=count + 1) > 0
    if not met[1:].any():
        return []
    return [pieces == n for n in range(1, count + 1) if not met[n] and sizes[n] >= LEAST_PIECE * whole.sum()]


def _box_mm(mask: np.ndarray, spacing: Sequence[float]) -> list[slice]:
    return [slice(part.start * mm, part.stop * mm) for part, mm in zip(box_of(mask), spacing, strict=True)]


def _gap_mm(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> float:
    """Distance between the boxes of two masks that hold something."""
    sides = zip(_box_mm(a, spacing), _box_mm(b, spacing), strict=True)
    return math.hypot(*(max(0.0, one.start - other.stop, other.start - one.stop) for one, other in sides))


def _rest_agrees(label: np.ndarray, rest: np.ndarray, corrected: np.ndarray, prediction: np.ndarray) -> bool:
    """False when a label and the part of the prediction that it is not to be given agree much less than the
    two would then: whatever is copied from a prediction agrees with it, also beside a label that lies
    somewhere else."""
    return dice_of(label, rest) >= LEAST_REST * dice_of(corrected, prediction)


def _profile(mask: np.ndarray, axis: int) -> np.ndarray:
    return mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis))


def find_gaps(pair: Pair) -> Iterator[Correction]:
    for axis in range(pair.label.ndim):
        own, theirs = _profile(pair.label, axis), _profile(pair.prediction, axis)
        inside = np.flatnonzero(own)
        empty = ~own
        empty[: inside[0]] = empty[inside[-1] :] = False
        if not empty.any():
            continue
        amount = int(empty.sum()) * pair.spacing[axis]
        # How many is said in mm alone: the grid's slices need not be those of the series.
        what = "slices dropped" if axis == 0 and pair.label.ndim == 3 else "a stripe dropped"
        for corrected in _fillings(pair, axis, inside, empty, theirs):
            after = dice_of(corrected, pair.prediction)
            words = f"{what}: a gap of {pair.says(amount)}"
            yield Reason("slices dropped", words, amount, dice_after=after), corrected


def _fillings(
    pair: Pair, axis: int, inside: np.ndarray, empty: np.ndarray, theirs: np.ndarray
) -> Iterator[np.ndarray]:
    """The label with its ``empty`` slices filled: by the prediction, if it has them and agrees on the rest;
    along axis 0, where gaps are no anatomy, by the nearest slice of the label itself."""
    if (empty & theirs).any():
        corrected, rest = pair.label.copy(), pair.prediction.copy()
        gap = (slice(None),) * axis + (empty & theirs,)
        corrected[gap], rest[gap] = pair.prediction[gap], False
        if _rest_agrees(pair.label, rest, corrected, pair.prediction):
            yield corrected
    if axis == 0:
        corrected = pair.label.copy()
        for number in np.flatnonzero(empty):
            corrected[number] = pair.label[inside[np.abs(inside - number).argmin()]]
        yield corrected


def find_ends(pair: Pair) -> Iterator[Correction]:
    for axis in range(pair.label.ndim):
        own, theirs = (np.flatnonzero(_profile(mask, axis)) for mask in (pair.label, pair.prediction))
        for end in (0, 1):
            if end == 0:
                lacking, rest = int(own[0] - theirs[0]), slice(None, max(int(own[0]), int(theirs[0])))
            else:
                lacking, rest = int(theirs[-1] - own[-1]), slice(min(int(own[-1]), int(theirs[-1])) + 1, None)
            if lacking == 0:
                continue
            part = (slice(None),) * axis + (rest,)
            corrected = pair.label.copy()
            corrected[part] = pair.prediction[part] if lacking > 0 else False
            rest = pair.prediction.copy()
            rest[part] = False
            if lacking > 0 and not _rest_agrees(pair.label, rest, corrected, pair.prediction):
                continue
            amount, place = abs(lacking) * pair.spacing[axis], PLACES[pair.label.ndim][axis][end]
            kind = "cropped" if lacking > 0 else "too long"
            words = f"cropped at its {place}: ends {pair.says(amount)} early"
            words = words if lacking > 0 else f"too long at its {place}: goes on for {pair.says(amount)}"
            yield Reason(kind, words, amount, dice_after=dice_of(corrected, pair.prediction)), corrected
