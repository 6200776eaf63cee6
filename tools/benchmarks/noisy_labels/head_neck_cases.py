"""Head-and-neck CTs of the bundle ct_head_neck as whole volumes on one grid, with blunders in contours."""

from __future__ import annotations

import json
import multiprocessing
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.training.noisy.noise import Corruption, corrupt

SHAPES = {4.0: (64, 64, 96), 6.0: (48, 48, 64)}
"""By the voxel's side in mm: left to right, back to front, feet to head, cut or padded about the middle; a
network of five resolutions can halve each."""

SIDES = (2, 3)
"""Channels of the right and the left parotid gland."""

MOVED_MM, LEVEL_MM, STRAY_MM, STRAY_AWAY_MM = (4.1, 9.0), (12.0, 28.0), (8.0, 14.0), (30.0, 60.0)
MISSING_SHARE, SWAPPED = (0.3, 0.5), 0.25


@dataclass(frozen=True)
class Case:
    """image uint8 (x, y, z), masks bool (C, x, y, z), present bool (C,): which structures were contoured."""

    name: str
    section: str
    image: np.ndarray
    masks: np.ndarray
    present: np.ndarray
    spacing_mm: float


def prepare(dataset: Path, bundle: Path, out: Path, spacing_mm: float = 4.0, jobs: int = 1) -> None:
    """Read the training and test cases of the bundle's datalist with its own transforms, on cubes of
    ``spacing_mm``, one of SHAPES; keep them in one file."""
    datalist = json.loads((bundle / "configs" / "datalist.json").read_text())
    wanted = [(section, entry) for section in ("training", "test") for entry in datalist[section]]
    kept: dict[str, np.ndarray] = {"spacing_mm": np.array(spacing_mm)}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        made = pool.map(
            _read, [entry for _, entry in wanted], repeat(dataset), repeat(bundle), repeat(spacing_mm)
        )
        for (section, entry), arrays in zip(wanted, made, strict=True):
            for name, array in arrays.items():
                kept[f"{section}/{entry['case_id']}/{name}"] = array
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **kept)


def _read(entry: dict[str, Any], dataset: Path, bundle: Path, spacing_mm: float) -> dict[str, np.ndarray]:
    from monai.bundle import ConfigParser
    from monai.transforms import Compose

    torch.set_num_threads(1)
    config = ConfigParser(json.loads((bundle / "configs" / "train.json").read_text()))
    config["bundle_root"], config["spacing_mm"] = str(bundle), [spacing_mm] * 3
    read = Compose(config.get_parsed_content("train#deterministic_transforms"))
    sample = read({**entry, **{key: str(dataset / entry[key]) for key in ("image", "label")}})
    label = sample["label"].as_tensor()
    field = sum((label[c].nan_to_num() > 0.5).to(torch.uint8) << c for c in range(len(label)))
    image = (sample["image"].as_tensor()[0] * 255).round().to(torch.uint8)
    present = ~torch.isnan(label).flatten(1).any(1)
    image, field = (fitted(volume.numpy(), SHAPES[spacing_mm]) for volume in (image, field))
    return {"image": image, "field": field, "present": present.numpy()}


def fitted(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Cut, or padded with 0, to ``shape`` about the middle; along the third axis from the head end."""
    for axis, size in enumerate(shape):
        spare = volume.shape[axis] - size
        first = spare if axis == 2 else spare // 2
        low = max(0, first)
        volume = volume.take(range(low, min(low + size, volume.shape[axis])), axis)
        missing = size - volume.shape[axis]
        before = missing if axis == 2 else missing // 2
        widths = [(0, 0)] * 3
        widths[axis] = (before, missing - before)
        volume = np.pad(volume, widths)
    return volume


def load(path: Path, section: str) -> list[Case]:
    """The prepared cases of "training" or "test"."""
    if not path.is_file():
        raise InputError(f"{path} is not there; write it with: head_neck.py prepare DATASET_DIR {path}")
    found = []
    with np.load(path) as kept:
        spacing_mm = float(kept["spacing_mm"])
        for key in sorted(
            name for name in kept.files if name.startswith(section) and name.endswith("/image")
        ):
            base = key.removesuffix("/image")
            field, present = kept[f"{base}/field"], kept[f"{base}/present"]
            masks = np.stack([(field >> channel & 1).astype(bool) for channel in range(len(present))])
            found.append(Case(base.split("/")[1], section, kept[key], masks, present, spacing_mm))
    return found


# ---- blunders ----------------------------------------------------------------------------------------------


def draw(case: Case, seed: int) -> Corruption:
    """A blunder in every contour of a case: moved outline, wrong level, missing or stray piece; and a quarter
    of the cases with both parotids have their sides swapped instead."""
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode()), 3])
    steps: list[dict[str, Any]] = []
    swapped = bool(case.present[list(SIDES)].all()) and rng.random() < SWAPPED
    for channel in np.flatnonzero(case.present).tolist():
        drawn = _blunder(rng)
        if not (swapped and channel in SIDES):
            steps.append({"channel": channel, **drawn})
    if swapped:
        steps.append({"channel": SIDES[0], "kind": "swap", "parameters": {"other": SIDES[1]}})
    return Corruption("each", {"steps": steps})


def _blunder(rng: np.random.Generator) -> dict[str, Any]:
    kind = ("dilate", "erode", "shift", "drop_slices", "stray_piece")[rng.integers(5)]
    if kind in ("dilate", "erode"):
        return {"kind": kind, "parameters": {"size": float(rng.uniform(*MOVED_MM))}}
    if kind == "shift":
        level = float(rng.uniform(*LEVEL_MM)) * (1 if rng.random() < 0.5 else -1)
        return {"kind": kind, "parameters": {"offset": [0.0, 0.0, level]}}
    if kind == "drop_slices":
        part = float(rng.uniform(*MISSING_SHARE))
        first = 0.0 if rng.random() < 0.5 else 1 - part
        return {"kind": kind, "parameters": {"channel": 0, "axis": 2, "first": first, "last": first + part}}
    direction = rng.normal(size=3)
    away = direction / np.linalg.norm(direction) * rng.uniform(*STRAY_AWAY_MM)
    radius = float(rng.uniform(*STRAY_MM))
    return {"kind": kind, "parameters": {"offset": [float(v) for v in away], "radius": radius}}


def corrupted(cases: list[Case], share: float, seed: int) -> tuple[list[np.ndarray], list[int]]:
    """Labels of all cases, and which are wrong: exactly round(share x n) of them."""
    order = np.random.default_rng([seed, 104729]).permutation(len(cases))
    wrong = set(order[: round(share * len(cases))].tolist())
    labels = [
        corrupt(case.name, draw(case, seed), case.masks, (case.spacing_mm,) * 3)[0]
        if number in wrong
        else case.masks
        for number, case in enumerate(cases)
    ]
    return labels, [int(number in wrong) for number in range(len(cases))]


# ---- what the network is shown -----------------------------------------------------------------------------

ROTATION_RAD, SCALE, SHIFT, CONTRAST, BRIGHTNESS = 0.15, 0.1, 0.08, 0.2, 0.1


class Volumes(torch.utils.data.Dataset):
    """Augmented whole volumes on `device`; structures that were not contoured are NaN."""

    def __init__(self, cases: list[Case], labels: list[np.ndarray], noisy: list[int], device: torch.device):
        self.names, self.noisy, self.device = [case.name for case in cases], noisy, device
        self.images = [torch.from_numpy(case.image).to(device) for case in cases]
        self.labels = [torch.from_numpy(label).to(device) for label in labels]
        self.absent = [torch.from_numpy(~case.present).to(device) for case in cases]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.images[index][None].float() / 255, self.labels[index].float()
        absent = self.absent[index]
        if torch.rand(()) < 0.5:
            sides = [channel for channel in range(len(label))]
            sides[SIDES[0]], sides[SIDES[1]] = SIDES[1], SIDES[0]
            image, label, absent = image.flip(1), label[sides].flip(1), absent[sides]
        grid = functional.affine_grid(self._drawn_map(), [1, 1, *image.shape[1:]], align_corners=False).to(
            self.device
        )
        image = functional.grid_sample(image[None], grid, align_corners=False)[0]
        label = functional.grid_sample(label[None], grid, mode="nearest", align_corners=False)[0]
        contrast, brightness = (2 * torch.rand(2) - 1).tolist()
        image = image * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness
        label[absent] = torch.nan
        return {"image": image, "label": label, "case_id": self.names[index], "noisy": self.noisy[index]}

    def _drawn_map(self) -> torch.Tensor:
        """Rotation about the patient's long axis, scale and shift, (1, 3, 4); coordinates are in the order of
        grid_sample, which is the reverse of the axes'."""
        angle = (2 * torch.rand(()) - 1) * ROTATION_RAD
        scale = 1 + (2 * torch.rand(3) - 1) * SCALE
        shift = (2 * torch.rand(3) - 1) * SHIFT
        cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros(())
        rows = [
            torch.stack([scale[0], zero, zero, shift[0]]),
            torch.stack([zero, cos * scale[1], -sin * scale[1], shift[1]]),
            torch.stack([zero, sin * scale[2], cos * scale[2], shift[2]]),
        ]
        return torch.stack(rows)[None]
