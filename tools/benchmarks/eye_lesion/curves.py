"""The curves behind the tables of the eye-lesion benchmark: precision, lesions found, reliability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cell import BASELINE

from medseg.bundles.score_photographs import PhotographScore, reliability_points
from medseg.files import atomic_path
from medseg.metrics.lesions import froc
from medseg.metrics.pixels import pooled, precision_recall

FEWEST_PIXELS = 1000
"""A probability that fewer pixels were given says little of reliability."""


def draw(scores: dict[str, list[PhotographScore]], out: Path) -> None:
    """A PNG of three plots with a line for each architecture; the baseline is black and says no
    probabilities."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    ranks, lesions, said = figure.subplots(1, 3)
    said.plot([0, 1], [0, 1], ":", color="grey")
    for number, (name, found) in enumerate(scores.items()):
        style = {"color": "black", "linestyle": "--"} if name == BASELINE else {"color": f"C{number}"}
        precision, recall = precision_recall(pooled([score.pixels for score in found]))
        ranks.plot(recall, precision, label=name, **style)
        finds, share = froc([score.lesions for score in found])
        order = np.argsort(finds)  # of several thresholds with as many false finds the best one counts
        best = np.maximum.accumulate(share[order])
        lesions.plot(finds[order], best, drawstyle="steps-post", **style)
        if name != BASELINE:
            points = reliability_points(found)
            enough = points[2] >= FEWEST_PIXELS
            said.plot(points[0][enough], points[1][enough], "o-", markersize=3, **style)
    for ax, across, up in (
        (ranks, "recall, share of exudate pixels", "precision"),
        (lesions, "false finds per photograph", "share of exudates found"),
        (said, "probability said", "share of pixels that are exudate"),
    ):
        ax.set_xlabel(across)
        ax.set_ylabel(up)
        ax.set_ylim(0, 1)
    ranks.set_xlim(0, 1)
    lesions.set_xlim(0, 16)
    said.set_xlim(0, 1)
    ranks.legend(fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
