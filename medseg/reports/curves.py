"""Curves of how far probabilities can be believed and what deciding by them is worth, as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.files import atomic_path


def write_reliability(
    points: tuple[np.ndarray, np.ndarray, np.ndarray], out: Path, *, of: str = "pixels", share: str
) -> Path:
    """Draw said against seen probability (:class:`medseg.metrics.pixels.Reliability`), and how many ``of``
    each point stands for; ``share``: what is seen, in words. Saves a PNG, atomically."""
    said, seen, counts = points
    figure, (above, below) = _figure((4.2, 4.8), 2, height_ratios=(3, 1), sharex=True)
    above.plot([0, 1], [0, 1], ":", color="grey")
    above.plot(said, seen, "o-")
    above.set_ylabel(share)
    below.bar(said, counts, width=0.04)
    if of == "pixels":  # millions of background beside thousands
        below.set_yscale("log")
    below.set_ylabel(of)
    below.set_xlabel("probability said")
    return _saved(figure, out)


def write_decision_curve(
    thresholds: np.ndarray, curves: dict[str, np.ndarray], out: Path, *, positive: str
) -> Path:
    """Draw net benefit (:func:`medseg.metrics.classification.net_benefit`) against the threshold of a
    decision, a line per rule of ``curves``; ``positive``: the class that is decided for. Saves a PNG,
    atomically."""
    figure, (ax,) = _figure((4.8, 3.6), 1)
    for name, values in curves.items():
        ax.plot(thresholds, values, label=name)
    ax.axhline(0, color="grey", linestyle=":", label="nobody")
    highest = max((float(np.max(values)) for values in curves.values()), default=0.0)
    ax.set_ylim(-0.05, max(highest, 0.0) + 0.05)
    ax.set_xlabel(f"act from this probability of {positive} on")
    ax.set_ylabel("net benefit per image")
    ax.legend(fontsize=8)
    return _saved(figure, out)


def _figure(inches: tuple[float, float], rows: int, **options):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, squeeze=False, **options).ravel()


def _saved(figure, out: Path) -> Path:
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    return out
