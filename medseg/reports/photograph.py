"""One picture of a photograph with what was found on it: outlines and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.cases.results import Structures, binary
from medseg.files import atomic_path
from medseg.reports.preview import DISCLAIMER, draw_remark
from medseg.structures.structure import fixed_colour_rgb

SIDE_INCHES = 9.0


def write_preview(result: Structures, out: str | Path, case_id: str = "") -> Path:
    """Draw the outlines, at a probability of 0.5, on the photograph beside the photograph alone, and save a
    PNG, atomically. ``case_id`` stands below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = result.case.shape
    height = SIDE_INCHES * min(max(rows / columns, 0.5), 2.0)
    figure = Figure(figsize=(2 * SIDE_INCHES, height + 0.7), facecolor="black")
    FigureCanvasAgg(figure)
    bottom, part = 0.7 / (height + 0.7), height / (height + 0.7)
    for left in (0.0, 0.5):
        ax = figure.add_axes((left, bottom, 0.5, part))
        ax.imshow(result.case.pixels)
        ax.set_axis_off()
        if left:
            draw_outlines(ax, result)
    x = 0.02
    for structure, mask in result.masks.items():
        colour = [part / 255 for part in structure.colour_rgb or fixed_colour_rgb(structure.name)]
        label = structure.name if binary(mask).any() else f"{structure.name}  none found"
        text = figure.text(x, 0.45 * bottom / 0.7, label, color=colour, fontsize=11, va="center")
        x += text.get_window_extent().width / figure.bbox.width + 0.025
    words = f"{case_id}.  {DISCLAIMER}" if case_id else DISCLAIMER
    figure.text(0.02, 0.18 * bottom / 0.7, words, color="silver", fontsize=9, va="center")
    draw_remark(figure, result.remark)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=80, facecolor="black")
    return Path(out)


def draw_outlines(ax, result: Structures) -> None:
    """The outline of every structure at a probability of 0.5, in its colour."""
    rows, columns = result.case.shape
    across, down = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
    for structure, mask in result.masks.items():
        if binary(mask).any():
            colour = [part / 255 for part in structure.colour_rgb or fixed_colour_rgb(structure.name)]
            padded = np.pad(mask, 1).astype(float)
            ax.contour(across, down, padded, levels=[0.5], colors=[colour], linewidths=1.0)
