"""Ellipses as masks and pictures, which the tests of an audit draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def silent(line: str) -> None:
    """Takes the place of print."""


def ellipse(shape, centre, radii) -> np.ndarray:
    grid = np.indices(shape)
    return sum(((grid[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(len(shape))) < 1


def picture(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(array, float) * 255).astype(np.uint8)).save(path)
