"""What the tests of an audit draw: ellipses as masks and pictures, volumes with a box; and a bundle that
trains in seconds."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "mm_gtv"
TINY = {
    "network_def": {
        "_target_": "medseg.networks.ResUNetSE",
        "spatial_dims": 3,
        "in_channels": 5,
        "out_channels": 1,
        "channels": [2, 4],
        "strides": [2],
    },
    "grid_size": [8, 8, 8],
    "spacing_mm": [4.0, 4.0, 4.0],
    "val_margin_mm": 8.0,
    "epochs": 1,
    "device": "cpu",
}
"""Settings of BUNDLE."""


def silent(line: str) -> None:
    """Takes the place of print."""


def ellipse(shape, centre, radii) -> np.ndarray:
    grid = np.indices(shape)
    return sum(((grid[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(len(shape))) < 1


def picture(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.asarray(array, float) * 255).astype(np.uint8)).save(path)


def noise_with_box(rng: np.random.Generator, height: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(int16 volume of noise that is brighter in a box of so many rows, uint8 label of the box)"""
    label = np.zeros((18, 20, 16), np.uint8)
    label[6 : 6 + height, 7:12, 5:11] = 1
    return (rng.normal(0, 60, label.shape) + 150 * label).astype(np.int16), label


def nifti(array: np.ndarray, path: Path) -> None:
    """Voxels of 4 mm."""
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-4.0, -4.0, 4.0, 1.0])), path)
