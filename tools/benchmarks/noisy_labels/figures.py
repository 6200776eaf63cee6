"""Figures of the label-noise benchmark."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from medseg.files import atomic_path

SHOWN = (
    "ce",
    "dice_ce",
    "trimming",
    "loss_history",
    "qam_ocm_published",
    "qam_ocm",
    "qam_ocm_10_anchors",
)


def _figure(panels: int, height: float):
    """A figure and its axes, at most four in a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(panels, 4)
    rows = -(-panels // columns)
    size = (3.4 * columns + 1.2, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axis in axes.flat[panels:]:
        axis.axis("off")
    return figure, axes.flat[:panels]


def _save(figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")


def draw_dice(grouped: dict[tuple, dict[tuple, list[dict]]], path: Path) -> None:
    """Mean test Dice of every seed, a row per method, a panel per condition; grouped by condition, then by
    (method, subset)."""
    conditions = sorted(grouped, key=lambda c: (c[0], c[1:3] != ("fixed", "both"), c))
    figure, axes = _figure(len(conditions), 2.4)
    for axis, condition in zip(axes, conditions, strict=True):
        data, generator, direction, share, sizes = condition
        for number, method in enumerate(SHOWN):
            runs = grouped[condition].get((method, "all"), [])
            values = [np.mean(run["test"]["dice"]) for run in runs]
            axis.plot(values, [number] * len(values), "o", alpha=0.5, markersize=4)
            if values:
                axis.plot([np.mean(values)], [number], "k|", markersize=12)
        kind = "fresh" if generator == "paper" else generator if direction == "both" else f"{direction} only"
        axis.set(title=f"{share:.0%}, {sizes} px, {kind}" if share else "no noise", xlabel="Dice")
        axis.set_yticks(range(len(SHOWN)), SHOWN)
        axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    _save(figure, path)


def draw_review(results: list[dict], path: Path) -> None:
    """Mean test Dice after the worst share of labels was put right, by ranking, against as many at random."""
    start = [
        np.mean(result["test"]["dice"])
        for result in results
        if not result["cell"]["fixed_share"]
        and (result["cell"]["method"], result["cell"]["share"]) == ("dice_ce", 0.5)
        and (result["cell"]["sizes"], result["cell"]["generator"]) == ("5-13", "fixed")
    ]
    curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        cell = result["cell"]
        if cell["fixed_share"]:
            curves[cell["fixed_by"]][cell["fixed_share"]].append(float(np.mean(result["test"]["dice"])))
    figure, axes = _figure(1, 3.4)
    for ranking, points in sorted(curves.items()):
        values = ([start] if start else []) + [points[share] for share in sorted(points)]
        x = ([0.0] if start else []) + [100 * share for share in sorted(points)]
        axes[0].errorbar(
            x, [np.mean(v) for v in values], [np.std(v) for v in values], label=ranking, marker="o", capsize=2
        )
    axes[0].set(title="50% of labels, 5-13 px", xlabel="labels put right, %", ylabel="Dice")
    axes[0].legend()
    figure.tight_layout()
    _save(figure, path)
