"""How much a split by time point flatters, on phantoms: 40 patients who came five times.

    python tools/benchmarks/eye_lesion/leak.py docs/pictures/eye_leak.png

The same pixel classifier is trained and scored twice, five folds each: once validating on one time point of
every patient, as the source of this bundle did, and once on a fifth of the patients. It sees what a network
sees: colours and local contrast at several scales, the look of the wider surroundings, and where in the
picture a pixel lies. Prints a table in Markdown and draws both. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.files import atomic_path
from medseg.metrics.intervals import mean_interval
from medseg.metrics.pixels import average_precision, count_levels, pooled, roc_auc
from medseg.phantoms.fundus import PATIENTS, TIME_POINTS, make_fundus

SIDE = 96
FOLDS = 5
PIXELS_PER_IMAGE = 240
"""Of which half are lesion, where there are as many."""

FINE, COARSE = (1.0, 2.5), 12.0
"""Standard deviations in pixels: of local contrast, and of the surroundings."""

KINDS = ("by time point", "by patient")


@dataclass(frozen=True)
class Visit:
    """``features``: float32 (pixels, F) and ``truth``: bool (pixels,), of the field of view alone."""

    patient: int
    time_point: int
    features: np.ndarray
    truth: np.ndarray


def visits(patients: int, time_points: int) -> list[Visit]:
    """Every visit of every patient."""
    found = []
    for patient in range(patients):
        for time_point in range(time_points):
            photo = make_fundus(patient, time_point, SIDE)
            seen = photo.field
            features = pixel_features(photo.image)[seen]
            found.append(Visit(patient, time_point, features, photo.lesions[seen]))
    return found


def pixel_features(image: np.ndarray) -> np.ndarray:
    """float32 (row, column, F): colours over their means, local contrasts, surroundings, place."""
    means = image[image.max(axis=2) > 0].mean(axis=0)
    colours = image / means
    blurred = {sigma: gaussian_filter(colours, (sigma, sigma, 0)) for sigma in (*FINE, COARSE)}
    side = len(image)
    place = np.stack(np.mgrid[0:side, 0:side], axis=-1) / side
    contrasts = [colours - blurred[sigma] for sigma in FINE]
    return np.concatenate([colours, *contrasts, blurred[COARSE], place], axis=2).astype(np.float32)


def sampled(visit: Visit, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Some pixels to learn from: half lesion where possible."""
    lesion, rest = np.flatnonzero(visit.truth), np.flatnonzero(~visit.truth)
    half = PIXELS_PER_IMAGE // 2
    chosen = np.r_[rng.permutation(lesion)[:half], rng.permutation(rest)[:half]]
    return visit.features[chosen], visit.truth[chosen]


def scores_of(training: list[Visit], validation: list[Visit], seed: int) -> dict[str, float]:
    """Pooled AUPR, pooled ROC AUC and the mean ROC AUC of images, of a forest on the validation visits."""
    from sklearn.ensemble import ExtraTreesClassifier

    rng = np.random.default_rng(seed)
    parts = [sampled(visit, rng) for visit in training]
    forest = ExtraTreesClassifier(30, min_samples_leaf=1, max_features=0.5, random_state=seed)
    forest.fit(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
    counts = [count_levels(forest.predict_proba(v.features)[:, 1], v.truth) for v in validation]
    whole = pooled(counts)
    return {
        "AUPR": average_precision(whole),
        "ROC AUC": roc_auc(whole),
        "mean ROC AUC of images": float(np.mean([roc_auc(count) for count in counts])),
    }


def folds(kind: str, cohort: list[Visit]) -> Iterator[tuple[list[Visit], list[Visit]]]:
    """(training, validation) of every fold; all of these validate once."""
    for fold in range(FOLDS):
        key = {"by time point": lambda v: v.time_point, "by patient": lambda v: v.patient}[kind]
        training = [visit for visit in cohort if key(visit) % FOLDS != fold]
        yield training, [visit for visit in cohort if key(visit) % FOLDS == fold]


def compare(cohort: list[Visit], most_folds: int = FOLDS) -> dict[str, list[dict[str, float]]]:
    """{kind of split: scores of each fold}."""
    return {
        kind: [scores_of(*parts, seed=n) for n, parts in enumerate(folds(kind, cohort)) if n < most_folds]
        for kind in KINDS
    }


def table(found: dict[str, list[dict[str, float]]]) -> str:
    measures = list(found[KINDS[0]][0])
    lines = [f"| split | {' | '.join(measures)} |", "|---|" + "--:|" * len(measures)]
    for kind, rows in found.items():
        cells = []
        for measure in measures:
            values = np.array([row[measure] for row in rows])
            cells.append(f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    gaps = []
    for measure in measures:
        pairs = zip(*(found[kind] for kind in KINDS), strict=True)
        gap = mean_interval(np.array([a[measure] - b[measure] for a, b in pairs]))
        gaps.append(f"{gap.value:+.3f}")
    lines.append(f"| **flattered by** | {' | '.join(gaps)} |")
    return "\n".join(lines)


def draw(found: dict[str, list[dict[str, float]]], out: Path) -> None:
    """Pictures of two patients at two visits, and the scores of every fold of both splits."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(1.05, 1))
    for row, axes in enumerate(left.subplots(2, 4)):
        for time_point, ax in enumerate(axes):
            photo = make_fundus(row + 1, time_point, 192)
            ax.imshow(photo.image)
            ax.contour(photo.lesions, levels=[0.5], colors="white", linewidths=0.6)
            ax.set_axis_off()
            if row == 0:
                ax.set_title(f"visit {time_point + 1}", fontsize=8)
    for measure, ax in zip(("AUPR", "ROC AUC"), right.subplots(1, 2), strict=True):
        for place, kind in enumerate(KINDS):
            values = [row[measure] for row in found[kind]]
            ax.plot(np.full(len(values), place), values, "o", alpha=0.7)
            ax.plot([place - 0.2, place + 0.2], [np.mean(values)] * 2, "k-")
        ax.set_xticks(range(2), KINDS, fontsize=8)
        ax.set_xlim(-0.5, 1.5)
        ax.set_title(measure, fontsize=9)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    found = compare(visits(PATIENTS, TIME_POINTS))
    print(table(found))
    draw(found, options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
