"""Models and images of the benchmark: folders as nnU-Net writes them, with random weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import zoom

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "tests"))  # the tiny models of the tests

from nnunet_models import configuration, dataset_of, plans_of, write_model  # noqa: E402


def noise(shape: Sequence[int], seed: int = 0, hu: float = 900.0) -> np.ndarray:
    """float32 [slice, row, column] of smooth noise between -hu and hu, with fine noise over it."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=[max(n // 8, 2) for n in shape]).astype(np.float32)
    smooth = zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
    return (hu * np.tanh(smooth) + rng.normal(0, 20, shape)).astype(np.float32)


def write_image(volume: np.ndarray, mm: Sequence[float], path: Path, turn: np.ndarray | None = None) -> Path:
    """A NIfTI file of [slice, row, column] with voxels of ``mm``; ``turn``: 3 x 3 directions of x, y, z."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(tuple(mm)[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine), path)
    return path


def write_volume(folder: Path, shape: Sequence[int], features: int, labels: int) -> tuple[Path, Path]:
    """(model folder, image) of the speed table: a network of four stages whose patch is 64 x 96 x 96, at
    1.5 mm, for ``labels`` labels, Part_1 and so on beside nothing, and a CT of 0.98 x 0.98 x 2 mm."""
    own = configuration([1.5, 1.5, 1.5], [64, 96, 96], ["CTNormalization"])
    arguments = own["architecture"]["arch_kwargs"]
    arguments |= {
        "n_stages": 4,
        "features_per_stage": [features * 2**stage for stage in range(4)],
        "kernel_sizes": [[3, 3, 3]] * 4,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * 3,
        "n_conv_per_stage": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3,
    }
    numbers = {"background": 0, **{f"Part_{number}": number for number in range(1, labels)}}
    model = write_model(folder, plans_of({"3d_fullres": own}), dataset_of(numbers))
    image = write_image(noise(shape), (2.0, 0.9765625, 0.9765625), folder / "in" / "case_0000.nii.gz")
    return model, image
