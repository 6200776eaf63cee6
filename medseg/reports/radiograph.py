"""One picture of a contoured radiograph: outlines and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.cases.results import Structures
from medseg.files import atomic_path
from medseg.reports.preview import DISCLAIMER, draw_remark, draw_scale
from medseg.structures.structure import fixed_colour_rgb

SIDE_INCHES = 9.0


def write_preview(result: Structures, out: str | Path, case_id: str = "") -> Path:
    """Draw the outlines on the radiograph and save a PNG, atomically; the patient's right is on the viewer's
    left.

    R and L stand plainly where the file states how the patient lies in it, and with a question mark where it
    does not; a scale where the size of its pixels is known. ``case_id`` stands below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = result.case.pixels.shape
    row_mm, column_mm = result.case.spacing_mm or (1.0, 1.0)
    height = SIDE_INCHES * min(max(rows * row_mm / (columns * column_mm), 0.5), 2.0)
    figure = Figure(figsize=(SIDE_INCHES, height + 0.7), facecolor="black")
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.0, 0.7 / (height + 0.7), 1.0, height / (height + 0.7)))
    ax.imshow(result.case.pixels, cmap="gray", vmin=0, vmax=1, aspect=row_mm / column_mm)
    ax.set_axis_off()
    stated = result.case.stored is not None and bool(result.case.stored.header.get("PatientOrientation"))
    for x, letter in ((0.02, "R"), (0.98, "L")):
        words = letter if stated else f"{letter}?"
        ax.text(x, 0.5, words, color="gold", transform=ax.transAxes, ha="center", va="center", fontsize=12)
    if result.case.spacing_mm:
        draw_scale(ax, column_mm)
    left = 0.02
    for structure, mask in result.masks.items():
        colour = [part / 255 for part in structure.colour_rgb or fixed_colour_rgb(structure.name)]
        if mask.any():
            at_rows, at_columns = np.arange(-1, rows + 1), np.arange(-1, columns + 1)
            ax.contour(
                at_columns,
                at_rows,
                np.pad(mask, 1).astype(float),
                levels=[0.5],
                colors=[colour],
                linewidths=1.4,
            )
        label = structure.name if mask.any() else f"{structure.name}  empty"
        text = figure.text(left, 0.45 / (height + 0.7), label, color=colour, fontsize=11, va="center")
        left += text.get_window_extent().width / figure.bbox.width + 0.025
    words = f"{case_id}.  {DISCLAIMER}" if case_id else DISCLAIMER
    figure.text(0.02, 0.18 / (height + 0.7), words, color="silver", fontsize=9, va="center")
    draw_remark(figure, result.remark)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black")
    return Path(out)
