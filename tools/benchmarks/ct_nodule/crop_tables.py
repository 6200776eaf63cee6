"""What the folds of the nodule crops scored, beside baselines that learn next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from crop_data import LEVELS, WINDOW_HU, Crops
from scipy import ndimage

from medseg.metrics.intervals import Interval, interval, mean_interval
from medseg.metrics.pixels import count_levels, roc_auc
from medseg.shapes.boxes import box_of
from medseg.shapes.pieces import label_pieces

SIZES_MM = ((0.0, 6.0), (6.0, 10.0), (10.0, np.inf))
"""Of LUNA16's diameter."""

THRESHOLDS_HU = tuple(range(-700, -100, 50))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def ellipsoid(mask: np.ndarray) -> np.ndarray:
    """The ellipsoid that fills the smallest box around the truth: what a user's box alone says."""
    sides = box_of(mask)
    grid = np.ogrid[tuple(slice(n) for n in mask.shape)]
    away = sum(
        ((g - (side.start + side.stop - 1) / 2) / ((side.stop - side.start) / 2)) ** 2
        for g, side in zip(grid, sides, strict=True)
    )
    return away <= 1


def above(image: np.ndarray, threshold_hu: float) -> np.ndarray:
    """The piece above a threshold that lies nearest to the middle of the crop, without what hangs on it by
    less than 3 mm."""
    low, high = WINDOW_HU
    bright = image >= (threshold_hu - low) / (high - low) * LEVELS
    opened = ndimage.binary_opening(np.pad(bright, 1, mode="edge"), np.ones((3, 3, 1)))[1:-1, 1:-1, 1:-1]
    kept = opened if opened.any() else bright
    pieces, count = label_pieces(kept, diagonal=False)
    if not count:
        return kept
    middle = [(n - 1) / 2 for n in image.shape]
    grid = np.ogrid[tuple(slice(n) for n in image.shape)]
    away = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True))
    return pieces == pieces.flat[np.where(kept, away, np.inf).argmin()]


def threshold_dice(crops: Crops, folds: np.ndarray) -> np.ndarray:
    """float (N,): DSC of :func:`above` at the threshold that is best on the other folds."""
    table = np.array(
        [
            [dice(above(image, hu), mask) for hu in THRESHOLDS_HU]
            for image, mask in zip(crops.images, crops.masks, strict=True)
        ]
    )
    best = [table[folds != fold].mean(axis=0).argmax() for fold in range(folds.max() + 1)]
    return np.array([row[best[fold]] for row, fold in zip(table, folds, strict=True)])


def read_masks(path: Path, crops: Crops) -> dict[int, np.ndarray]:
    """{row: mask} of one fold."""
    with np.load(path, allow_pickle=False) as stored:
        rows, bits = stored["rows"].tolist(), np.unpackbits(stored["masks"]).astype(bool)
    found, start = {}, 0
    for row in rows:
        shape = crops.masks[row].shape
        found[row] = bits[start : start + np.prod(shape)].reshape(shape)
        start += np.prod(shape)
    return found


def network_masks(crops: Crops, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """(DSC, volume mm³) float (N,) of the network, the mean over its seeds; nan where no fold told."""
    dsc, volumes = ([[] for _ in crops.names] for _ in range(2))
    for path in sorted(out.glob("mask_*.npz")):
        for row, mask in read_masks(path, crops).items():
            dsc[row].append(dice(mask, crops.masks[row]))
            volumes[row].append(mask.sum())
    return tuple(np.array([np.mean(own) if own else np.nan for own in table]) for table in (dsc, volumes))


def network_chances(crops: Crops, out: Path) -> np.ndarray:
    """float (N,): the mean over the seeds of the network's chance; nan where no fold told."""
    said: list[list[float]] = [[] for _ in crops.names]
    for path in sorted(out.glob("malignancy_*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            for row, chance in zip(stored["rows"], stored["chances"], strict=True):
                said[row].append(float(chance))
    return np.array([np.mean(own) if own else np.nan for own in said])


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    ranks = np.unique(scores, return_inverse=True)[1] / len(scores)
    return roc_auc(count_levels(ranks, truth))


def auroc_interval(scores: np.ndarray, truth: np.ndarray, patients: Sequence[str], less=None) -> Interval:
    """AUROC, or with ``less`` how much more it is than that of these other scores, over patients."""

    def figure(rows: np.ndarray) -> float:
        other = 0.0 if less is None else auroc(less[rows], truth[rows])
        return auroc(scores[rows], truth[rows]) - other

    return interval(figure, patients, draws=1000)


def words(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


def mask_table(crops: Crops, folds: np.ndarray, dsc: np.ndarray) -> list[str]:
    """Mean DSC with intervals, by size; of the baselines alone where no fold told (all nan)."""
    methods = {
        "threshold": threshold_dice(crops, folds),
        "ellipsoid in the true box": np.array([dice(ellipsoid(mask), mask) for mask in crops.masks]),
    }
    known, gains = np.ones(len(dsc), dtype=bool), {}
    if not np.isnan(dsc).all():
        known = ~np.isnan(dsc)
        gains = {f"network less {name}": dsc - values for name, values in methods.items()}
        methods = {"network": dsc, **methods}
    groups = {"all": known}
    for low, high in SIZES_MM:
        name = f"{low:g} to {high:g} mm" if np.isfinite(high) else f"{low:g} mm and more"
        groups[name] = known & (crops.diameters_mm >= low) & (crops.diameters_mm < high)
    patients = np.array(crops.patients)
    heads = [f"{name} (n = {rows.sum()})" for name, rows in groups.items()]
    lines = [f"| DSC | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for name, values in {**methods, **gains}.items():
        sign = "+" if name in gains else ""
        cells = [words(mean_interval(values[rows], patients[rows]), sign) for rows in groups.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def malignancy_table(crops: Crops, chances: np.ndarray, volumes: np.ndarray) -> list[str]:
    """AUROC of the readers' vote, ties left out, and with ties as benign; of the baselines alone where no
    fold told (all nan)."""
    votes, patients = crops.votes(), np.array(crops.patients)
    scores = {"LUNA16's diameter": crops.diameters_mm, "true volume": crops.volumes_mm3}
    told, trained = np.ones(len(votes), dtype=bool), not np.isnan(chances).all()
    if trained:
        told = ~np.isnan(chances) & ~np.isnan(volumes)
        scores = {"network": chances, **scores, "volume of the network's mask": volumes}
    groups = {"ties left out": told & (votes != 0), "ties as benign": told}
    heads = [
        f"{name} ({(votes[rows] > 0).sum()} malignant, {(votes[rows] <= 0).sum()} benign)"
        for name, rows in groups.items()
    ]
    lines = [f"| AUROC | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]

    def row(name: str, values: np.ndarray, less: np.ndarray | None = None) -> None:
        cells = []
        for rows in groups.values():
            other = None if less is None else less[rows]
            found = auroc_interval(values[rows], votes[rows] > 0, patients[rows], other)
            cells.append(words(found, "" if less is None else "+"))
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for name, values in scores.items():
        row(name, values)
    if trained:
        row("network less diameter", chances, crops.diameters_mm)
    return lines


def tables(crops: Crops, out: Path, folds: int) -> list[str]:
    """Everything that is printed; only the baselines where ``out`` holds no fold."""
    dsc, volumes = network_masks(crops, out)
    told = np.flatnonzero(~np.isnan(dsc))
    people = len({crops.patients[row] for row in told})
    lines = [f"{len(told)} of {len(crops.names)} nodules, {people} patients, {folds} folds by patient", ""]
    lines += mask_table(crops, crops.folds(folds, 0), dsc)
    return [*lines, "", *malignancy_table(crops, network_chances(crops, out), volumes)]
