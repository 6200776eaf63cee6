"""Pictures of boxes: a film with what was found and where the network looked; the best boxes of a volume in
three planes; a set's films as they were prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medseg.cases.results import Boxes
from medseg.files import atomic_path
from medseg.reports.labels import DISCLAIMER
from medseg.reports.preview import draw_remark
from medseg.structures.structure import fixed_colour_rgb

SIDE_INCHES, WORDS_INCHES = 5.0, 0.6
MOST_IN_A_MONTAGE = 6
AROUND_MM = 25.0
WINDOW_HU = (-1200.0, 600.0)
"""Of the lung, as the detectors of nodules see it."""

AN_AID = "A map shows what a network answered to. It is an aid, not evidence."


def write_box_picture(
    result: Boxes, out: str | Path, maps: Mapping[str, np.ndarray] | None = None, case_id: str = ""
) -> Path:
    """Draw the film with its boxes, and beside it once more under each of ``maps``, {name: float [row,
    column], 0 to 1}; save a PNG, atomically."""
    pixels, maps = result.case.pixels, dict(maps or {})
    sheet = _Sheet(1 + len(maps), 1, pixels.shape[0] / pixels.shape[1])
    for number, (name, heat) in enumerate({"": None, **maps}.items()):
        ax = sheet.panel(number, name)
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, pixels.shape[1], pixels.shape[0], 0))
        if heat is not None:
            extent = (0, pixels.shape[1], pixels.shape[0], 0)
            ax.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.6 * np.clip(heat, 0, 1), extent=extent)
        for row in result.on_images():
            _draw_box(ax, row["corners"], f"{row['class']} {row['score']:.2f}", row["class"])
    words = [case_id, result.record()["summary"], AN_AID if maps else "", DISCLAIMER]
    return sheet.save(out, words, result.remark)


def write_box_montage(result: Boxes, out: str | Path, case_id: str = "") -> Path:
    """Draw the best boxes of a CT, a row for each, through their middles: along the slices, and the two
    planes across; a volume without a box shows its middle. Save a PNG, atomically."""
    case, grid = result.case, result.case.geometry
    chosen = result.ranked()[:MOST_IN_A_MONTAGE]
    middles = [result.corners[index].mean(axis=0) for index in chosen]
    whole = (np.array(grid.shape) - 1) / 2
    if not middles:
        middles = [grid.points_lps_mm(int(whole[0]), whole[None, 1:])[0]]
    sheet = _Sheet(3, len(middles), 1.0)
    mm = np.array(grid.spacing_mm)
    for line, middle in enumerate(middles):
        image, _ = grid.nearest_slice(middle[None])
        place = np.array([image, *grid.rows_columns(image, middle[None])[0]])
        index = np.clip(np.rint(place), 0, np.array(grid.shape) - 1).astype(int)
        title = "" if not len(chosen) else f"{result.classes[chosen[line]]} {result.scores[chosen[line]]:.2f}"
        for across in range(3):
            a, b = [axis for axis in range(3) if axis != across]
            ax = sheet.panel(3 * line + across, title if across == 0 else "")
            extent = (
                -0.5 * mm[b],
                (grid.shape[b] - 0.5) * mm[b],
                (grid.shape[a] - 0.5) * mm[a],
                -0.5 * mm[a],
            )
            plane = np.take(case.volume, index[across], axis=across)
            ax.imshow(plane, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=extent)
            if len(chosen):
                size = np.diff(result.corners[chosen[line]], axis=0)[0].mean() / 2
                ends = np.array([[place[a] * mm[a] - size, place[b] * mm[b] - size]])
                _draw_box(ax, np.concatenate([ends, ends + 2 * size]), "", result.classes[chosen[line]])
            ax.set_xlim(place[b] * mm[b] - AROUND_MM, place[b] * mm[b] + AROUND_MM)
            low, high = place[a] * mm[a] - AROUND_MM, place[a] * mm[a] + AROUND_MM
            ax.set_ylim(*((low, high) if across else (high, low)))  # the feet lie below
    return sheet.save(out, [case_id, result.record()["summary"], DISCLAIMER], result.remark)


def write_check_sheet(
    stages: Sequence[Mapping[str, np.ndarray]],
    boxes: Sequence[Sequence[tuple[str, np.ndarray]]],
    out: str | Path,
) -> Path:
    """Draw films as they were prepared, a row for each: ``stages`` {name: float [row, column], 0 to 1},
    such as original, logarithm and what the network sees, each with the film's ``boxes``, (class, corners
    (2, 2) in shares of rows and columns). Save a PNG, atomically."""
    first = next(iter(stages[0].values()))
    sheet = _Sheet(len(stages[0]), len(stages), first.shape[0] / first.shape[1])
    for line, (film, own) in enumerate(zip(stages, boxes, strict=True)):
        for number, (name, pixels) in enumerate(film.items()):
            ax = sheet.panel(line * len(film) + number, name)
            ax.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0), aspect="auto")
            for kind, corners in own:
                _draw_box(ax, corners, kind, kind)
    return sheet.save(out, ["How films are prepared, and the boxes that belong to them."], "")


class _Sheet:
    """Panels on black with words below."""

    def __init__(self, columns: int, lines: int, height_to_width: float):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.columns, self.lines = columns, lines
        panels = lines * SIDE_INCHES * min(max(height_to_width, 0.5), 2.0) * (1.0 if lines == 1 else 0.6)
        width = columns * SIDE_INCHES * (1.0 if lines == 1 else 0.6)
        self.height = panels + WORDS_INCHES
        self.figure = Figure(figsize=(width, self.height), facecolor="black")
        FigureCanvasAgg(self.figure)

    def panel(self, number: int, title: str):
        bottom = WORDS_INCHES / self.height
        line, column = divmod(number, self.columns)
        high = (1 - bottom) / self.lines
        ax = self.figure.add_axes((column / self.columns, 1 - (line + 1) * high, 1 / self.columns, high))
        ax.set_axis_off()
        if title:
            ax.text(0.02, 0.98, title, color="gold", fontsize=11, va="top", transform=ax.transAxes)
        return ax

    def save(self, out: str | Path, words: Sequence[str], remark: str) -> Path:
        line = "  ".join(filter(None, words))
        self.figure.text(
            0.01, 0.3 * WORDS_INCHES / self.height, line, color="silver", fontsize=8, va="center"
        )
        draw_remark(self.figure, remark)
        with atomic_path(out) as temporary:
            self.figure.savefig(temporary, dpi=100, facecolor="black", format="png")
        return Path(out)


def _draw_box(ax, corners: np.ndarray, words: str, kind: str) -> None:
    from matplotlib.patches import Rectangle

    (top, left), (bottom, right) = corners
    colour = [part / 255 for part in fixed_colour_rgb(kind)]
    ax.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.5)
    )
    if words:
        ax.text(left, top, words, color=colour, fontsize=8, va="bottom", clip_on=True)
