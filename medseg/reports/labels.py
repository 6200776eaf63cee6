"""One picture of a film with what was said about it, and where the network looked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.cases.results import Labels
from medseg.files import atomic_path
from medseg.reports.preview import draw_remark

DISCLAIMER = "medseg: an automatic answer that nobody reviewed. Research use only, not for diagnosis."
SIDE_INCHES, WORDS_INCHES = 6.0, 1.6


def write_label_picture(
    result: Labels, out: str | Path, heat: np.ndarray | None = None, case_id: str = ""
) -> Path:
    """Draw the film, beside it the same film under ``heat`` (float [row, column], 0 to 1, of the film's
    size), and the probabilities with their intervals below; save a PNG, atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pixels = result.case.pixels
    panels = 1 if heat is None else 2
    height = SIDE_INCHES * min(max(pixels.shape[0] / pixels.shape[1], 0.5), 2.0)
    figure = Figure(figsize=(panels * SIDE_INCHES, height + WORDS_INCHES), facecolor="black")
    FigureCanvasAgg(figure)
    bottom = WORDS_INCHES / (height + WORDS_INCHES)
    for number in range(panels):
        ax = figure.add_axes((number / panels, bottom, 1 / panels, 1 - bottom))
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=1)
        if number:
            ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * np.clip(heat, 0, 1))
        ax.set_axis_off()
    record = result.record()["labels"]
    lines = [f"{name}: {_chance(record, name)}" for name in record["probabilities"]]
    lines += [f"{name}: {_value(record, name)}" for name in record["values"]]
    step = 0.24 / (height + WORDS_INCHES)
    for place, line in enumerate(lines[:4]):
        figure.text(0.02, bottom - (place + 1) * step, line, color="gold", fontsize=12, va="center")
    words = f"{case_id}.  {DISCLAIMER}" if case_id else DISCLAIMER
    figure.text(0.02, 0.15 / (height + WORDS_INCHES), words, color="silver", fontsize=8, va="center")
    draw_remark(figure, result.remark)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black")
    return Path(out)


def _chance(record: dict, name: str) -> str:
    return f"{record['probabilities'][name]:.2f}{_interval(record, name, '.2f')}"


def _value(record: dict, name: str) -> str:
    """The number, its interval and its unit; that of a number without one is not said."""
    number, unit = record["values"][name]["value"], record["values"][name]["unit"]
    return f"{number:.3g}{_interval(record, name, '.3g')}" + ("" if unit == "1" else f" {unit}")


def _interval(record: dict, name: str, form: str) -> str:
    low_high = record.get("intervals", {}).get(name)
    return f"  (calibrated {low_high[0]:{form}} to {low_high[1]:{form}})" if low_high else ""
