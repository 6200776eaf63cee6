"""Radiographs and photographs, and what lies over them, as PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np


def picture_png(source: Path, kind: str) -> bytes:
    """A radiograph or photograph as the network's user would see it, reduced where it is large."""
    return _png(_pixels(source, kind))


def _pixels(source: Path, kind: str) -> np.ndarray:
    """uint8 [row, column] or [row, column, 3]."""
    if kind == "photograph":
        from medseg.cases.photograph import open_photograph

        return (np.asarray(open_photograph(source).pixels) * 255).round().astype(np.uint8)
    from medseg.cases.radiograph import open_radiograph

    grey = np.asarray(open_radiograph(source).pixels, dtype=np.float32)
    low, high = np.percentile(grey, [0.5, 99.5])
    return (np.clip((grey - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def overlay_png(mask_path: Path, colour: tuple[int, int, int]) -> bytes:
    """A mask as coloured area, clear elsewhere."""
    from PIL import Image

    with Image.open(mask_path) as image:
        mask = np.asarray(image.convert("L")) > 127
    coloured = np.zeros((*mask.shape, 4), dtype=np.uint8)
    coloured[mask] = (*colour, 255)
    return _png(coloured)


def heat_png(map_path: Path) -> bytes:
    """A map of 0 to 255 in colours, the clearer the lower it is."""
    from matplotlib import colormaps
    from PIL import Image

    with Image.open(map_path) as image:
        heat = np.asarray(image.convert("L"), dtype=np.float32) / 255
    coloured = (colormaps["inferno"](0.25 + 0.75 * heat) * 255).round().astype(np.uint8)
    coloured[..., 3] = (heat * 255).round()
    return _png(coloured)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((1600, 1600))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
