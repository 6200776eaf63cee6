"""A point inside the tumour instead of a box: which box medseg finds from it, and what is contoured in that.

Every patient gets a random point from the deeper half of the GTV, with three seeds. With all three series two
more points follow, each in the middle of the largest part of the GTV that was missed, as a user corrects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cases import BUNDLE, SETS, Patient
from network import network
from scipy import ndimage

from medseg.bundles.clicks import clicks_of, search
from medseg.bundles.find import find_bundle
from medseg.cases.multimodal import sampled_on
from medseg.geometry import Geometry
from medseg.inference import FlipAverage
from medseg.inference.engines import engine_for
from medseg.metrics import dice
from medseg.metrics.intervals import mean_interval
from medseg.transforms import only_series

SEEDS = (0, 1, 2)
FIELDS = ("patient", "series", "seed", "clicks", "dsc", "looks")
SHOWN = ("CT", "CT+PET+MR")
MOST_CLICKS = {"CT": 1, "CT+PET+MR": 3}


def rows(patients: Sequence[Patient], weights: Path) -> Iterator[dict]:
    """A row for each patient, set of series, seed and number of clicks."""
    net, size = network(weights)
    engine = engine_for("auto", net, torch.device("cpu"))
    clicks = clicks_of(find_bundle(BUNDLE))
    for patient in patients:
        for seed in SEEDS:
            for name in SHOWN:
                look = _Look(patient, SETS[name], engine, size)
                points = [_inside(patient, seed)]
                for count in range(1, (MOST_CLICKS[name] if seed == 0 else 1) + 1):
                    found = search(look, points, clicks)
                    mask = look.contoured(found.box_mm)
                    yield {
                        "patient": patient.name,
                        "series": name,
                        "seed": seed,
                        "clicks": count,
                        "dsc": round(float(dice(patient.truth, mask)), 4),
                        "looks": found.looks,
                    }
                    missed = patient.truth & ~mask
                    if missed.any():
                        points.append(_deepest(missed, patient.grid))


class _Look:
    """The network on a box of a patient, as :func:`medseg.bundles.clicks.search` asks for it."""

    def __init__(self, patient: Patient, kept: Sequence[str], engine, size: tuple[int, ...]) -> None:
        self.patient, self.kept, self.engine, self.size = patient, kept, engine, size

    def __call__(self, box_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, small = self._logits(self._boxed(box_mm))
        return logits, small.affine_lps[:, [2, 1, 0, 3]]

    def _boxed(self, box_mm: np.ndarray) -> Patient:
        return replace(self.patient, box=_slices(box_mm, self.patient.grid))

    def _logits(self, boxed: Patient) -> tuple[np.ndarray, Geometry]:
        image, small = boxed.sampled(self.size)
        with torch.no_grad():
            logits = FlipAverage()(only_series(image, self.kept)[None], self.engine)[0, 0]
        return logits.numpy(), small

    def contoured(self, box_mm: np.ndarray) -> np.ndarray:
        """bool, on the CT's grid."""
        boxed = self._boxed(box_mm)
        logits, small = self._logits(boxed)
        probability = 1 / (1 + np.exp(-logits.transpose(2, 1, 0)))
        mask = np.zeros(self.patient.truth.shape, bool)
        mask[boxed.box] = sampled_on(np.ascontiguousarray(probability), small, boxed.box_grid)[0] >= 0.5
        return mask


def _slices(box_mm: np.ndarray, grid: Geometry) -> tuple[slice, slice, slice]:
    """The voxels whose centres lie in a box of LPS mm; the axes of these images are those of the patient."""
    inverse = np.linalg.inv(grid.affine_lps)
    ends = np.sort(inverse[:3, :3] @ box_mm + inverse[:3, 3:], axis=1)
    low = np.clip(np.ceil(ends[:, 0]), 0, None).astype(int)
    high = np.minimum(np.floor(ends[:, 1]) + 1, grid.shape).astype(int)
    return tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))


def _inside(patient: Patient, seed: int) -> np.ndarray:
    """A random point (LPS mm) of the GTV at least half as deep in it as its deepest."""
    depth = ndimage.distance_transform_edt(patient.truth, patient.grid.spacing_mm)
    deep = np.argwhere(depth >= depth.max() / 2)
    drawn = np.random.default_rng([seed, *patient.name.encode()]).integers(len(deep))
    return _point(deep[drawn], patient.grid)


def _deepest(missed: np.ndarray, grid: Geometry) -> np.ndarray:
    depth = ndimage.distance_transform_edt(missed, grid.spacing_mm)
    return _point(np.array(np.unravel_index(depth.argmax(), depth.shape)), grid)


def _point(index: np.ndarray, grid: Geometry) -> np.ndarray:
    return grid.affine_lps[:3, :3] @ index + grid.affine_lps[:3, 3]


def table(found: Sequence[dict], boxes: Sequence[dict]) -> str:
    """In Markdown, beside the drawn boxes of ``boxes`` (rows of :mod:`contour_scores`); rows may be text."""
    lines = [
        "| series | points | n | DSC | less that of the drawn box | between points, sd | below 0.5 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in SHOWN:
        drawn = {row["patient"]: float(row["dsc"]) for row in boxes if row["method"] == name}
        for count in range(1, MOST_CLICKS[name] + 1):
            for seeds in (SEEDS, (0,)) if count == 1 and MOST_CLICKS[name] > 1 else (SEEDS,):
                by_patient: dict[str, list[float]] = {}
                for row in found:
                    same = (row["series"], int(row["clicks"])) == (name, count)
                    if same and int(row["seed"]) in seeds:
                        by_patient.setdefault(row["patient"], []).append(float(row["dsc"]))
                lines.append(_line(name, count, by_patient, drawn))
    return "\n".join(lines)


def _line(name: str, count: int, by_patient: dict[str, list[float]], drawn: dict[str, float]) -> str:
    means = np.array([np.mean(values) for values in by_patient.values()])
    less = means - np.array([drawn[patient] for patient in by_patient])
    several = [np.std(values, ddof=1) for values in by_patient.values() if len(values) > 1]
    spread = f"{np.mean(several):.3f}" if several else ""
    dsc, gain = mean_interval(means), mean_interval(less)
    each = [value for values in by_patient.values() for value in values]
    return (
        f"| {name} | {count} | {len(means)} | {dsc.value:.3f} ({dsc.low:.3f} to {dsc.high:.3f}) | "
        f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}) | {spread} | "
        f"{sum(value < 0.5 for value in each)} of {len(each)} |"
    )
