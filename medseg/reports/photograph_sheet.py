"""All scored photographs on one sheet, worst first, and how far their probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.cases.photograph import open_photograph
from medseg.files import atomic_path

COLUMNS = 5
TILE_PIXELS = 420
TRUTH_COLOUR, FOUND_COLOUR = "white", "cyan"


@dataclass(frozen=True)
class Tile:
    """One photograph: its file, bool masks [row, column] of truth and answer, its words, and what it is
    sorted by (the smallest first, nan last)."""

    photograph: Path
    truth: np.ndarray
    found: np.ndarray
    words: str
    rank: float


def write_sheet(tiles: Sequence[Tile], out: Path) -> Path:
    """Draw every tile with the outline of the truth in white and of the answer in cyan; saves a PNG,
    atomically."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(tiles, key=lambda tile: (np.isnan(tile.rank), tile.rank))
    rows = max(1, -(-len(ordered) // COLUMNS))
    figure = Figure(figsize=(3 * COLUMNS, 2.9 * rows), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, tile in zip(axes, ordered, strict=False):
        pixels = open_photograph(tile.photograph).pixels
        step = max(1, max(pixels.shape[:2]) // TILE_PIXELS)
        ax.imshow(pixels[::step, ::step])
        for mask, colour in ((tile.truth, TRUTH_COLOUR), (tile.found, FOUND_COLOUR)):
            small = _any_of_blocks(mask, step)
            if small.any():
                ax.contour(small.astype(float), levels=[0.5], colors=[colour], linewidths=0.6)
        ax.set_title(tile.words, color="silver", fontsize=8)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black", format="png")
    return out


def _any_of_blocks(mask: np.ndarray, step: int) -> np.ndarray:
    """A lesion of one pixel stays visible on the smaller picture."""
    rows, columns = (n // step * step for n in mask.shape)
    return mask[:rows, :columns].reshape(rows // step, step, columns // step, step).any(axis=(1, 3))
