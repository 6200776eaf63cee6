"""The two sets of patients of the ladder: what a training draws from them, and how answers are scored."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer
from monai.transforms import Compose, FgBgToIndicesd, SelectItemsd, Spacingd

from medseg.losses import DiceBCEPerSample, PerSampleLoss
from medseg.metrics import dice
from medseg.metrics.surfaces import surface_distances
from medseg.transforms import (
    PackChannelsd,
    RandBoxGridd,
    RandDropSeriesd,
    RandSeriesLookd,
    RandWindowd,
    ThresholdKnownd,
)

FOLDS = 3
ORGANS = (
    "Brainstem",
    "SpinalCord",
    "Parotid_R",
    "Parotid_L",
    "Esophagus",
    "Larynx",
    "Bone_Mandible",
    "PTV",
)
SIDE_PAIRS = ((2, 3),)
WINDOW = (64, 64, 96)
COARSE_MM, COARSE_WINDOW = 6.0, (40, 40, 40)
BOX, MARGIN_MM, SCORED_MARGIN_MM = (48, 48, 48), (5.0, 20.0), (10.0, 10.0)
TOLERANCE_MM = 3.0


@dataclass(frozen=True)
class Task:
    """``items``: prepared patients, "image" (C, x, y, z), "label", "case_id". ``inferer`` runs a network on
    what ``scored`` makes of one. ``both``: cross-entropy with the Dice loss. ``start``: logits at first."""

    name: str
    structures: tuple[str, ...]
    inputs: int
    window: tuple[int, int, int]
    items: list[dict[str, Any]]
    drawn: Compose
    prepared: Compose
    scored: Compose
    inferer: Inferer
    widths: tuple[int, ...]
    fold: int
    both: PerSampleLoss = field(default_factory=DiceBCEPerSample)
    start: float = 0.0

    def fold_of(self) -> dict[str, int]:
        """Patients dealt at random, the same for every network and seed."""
        names = sorted(item["case_id"] for item in self.items)
        random.Random(2026).shuffle(names)
        return {name: number % FOLDS for number, name in enumerate(names)}

    def training(self, fold: int) -> Dataset:
        """What training draws from, without the patients of ``fold``."""
        folds = self.fold_of()
        return Dataset([self.prepared(i) for i in self.items if folds[i["case_id"]] != fold], self.drawn)

    def held_out(self, fold: int) -> list[dict[str, Any]]:
        """The patients of ``fold``, as they are scored."""
        folds = self.fold_of()
        return [self.scored(item) for item in self.items if folds[item["case_id"]] == fold]


def head_neck(path: Path, device: torch.device) -> Task:
    """The 84 patients that ct_head_neck trains and validates on, on 4 x 4 x 3 mm; windows of WINDOW."""
    items = _placed(_patients(path), device)
    inferer = SlidingWindowInferer(WINDOW, sw_batch_size=1, overlap=0.25, mode="gaussian")
    drawn = _windows(WINDOW, (8.0, 8.0, 10.0))
    return Task("head_neck", ORGANS, 1, WINDOW, items, *drawn, inferer, (8, 16, 32, 64, 128), 1)


def head_neck_coarse(path: Path, device: torch.device) -> Task:
    """The same patients on cubes of COARSE_MM, for a processor; windows of COARSE_WINDOW. The loss is that of
    ct_head_neck, and logits begin at -4: without these, organs stay empty for 600 steps."""
    items = _placed([_on_cubes(item) for item in _patients(path)], device)
    inferer = SlidingWindowInferer(COARSE_WINDOW, sw_batch_size=1, overlap=0.25, mode="gaussian")
    drawn = _windows(COARSE_WINDOW, (5.0, 5.0, 5.0))
    both = DiceBCEPerSample(bce_weight=2.0, smooth=0.001)
    return Task(
        "head_neck_coarse",
        ORGANS,
        1,
        COARSE_WINDOW,
        items,
        *drawn,
        inferer,
        (8, 16, 32, 64),
        1,
        both=both,
        start=-4.0,
    )


def _patients(path: Path) -> list[dict[str, Any]]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "head_neck"))
    from volumes import samples

    return [item for section in ("training", "validation") for item in samples(path, section)]


def _placed(items: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    return [{**item, "image": item["image"].to(device), "label": item["label"].to(device)} for item in items]


def _on_cubes(item: dict[str, Any]) -> dict[str, Any]:
    """Image and masks sampled linearly on cubes of COARSE_MM; a voxel belongs to a mask from one half on."""
    on_cubes = Spacingd(("image", "label"), (COARSE_MM,) * 3, mode="bilinear", padding_mode="border")
    coarse = on_cubes(item)
    label = coarse["label"]
    known = ~torch.isnan(label)
    label[known] = (label[known] >= 0.5).to(label)
    return coarse


def _windows(
    size: tuple[int, int, int], move: tuple[float, float, float]
) -> tuple[Compose, Compose, Compose]:
    """What draws windows of ``size``, what prepares a patient for it, and for being scored."""
    window = RandWindowd(
        ("image", "label"),
        size,
        foreground_share=0.8,
        move=move,
        turn_deg=(11.5,) * 3,
        scale=0.15,
        mirror=0.5,
        side_pairs=SIDE_PAIRS,
    )
    packed = [PackChannelsd("label"), FgBgToIndicesd("label", image_key="image")]
    return Compose([window, SelectItemsd(("image", "label", "case_id"))]), Compose(packed), Compose([])


def sarcoma(path: Path, device: torch.device) -> Task:
    """The 33 patients of mm_gtv with CT, PET and MR, in a box on BOX voxels."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "multimodal_gtv"))
    import packed

    items, _ = packed.read(path, device)
    drawn = [
        RandBoxGridd(("image", "label"), BOX, MARGIN_MM, turn_deg=(10.0, 10.0, 20.0), bend_mm=2.0, flip=True),
        RandSeriesLookd("image", prob=0.25),
        RandDropSeriesd("image", shares=(0.2, 0.15, 0.1)),
    ]
    scored = [RandBoxGridd(("image", "label"), BOX, SCORED_MARGIN_MM), ThresholdKnownd("label")]
    transforms = (Compose(drawn), Compose([]), Compose(scored))
    return Task("sarcoma", ("GTV",), 5, BOX, items, *transforms, SimpleInferer(), (16, 32, 64), 2)


TASKS = {"head_neck": head_neck, "head_neck_coarse": head_neck_coarse, "sarcoma": sarcoma}


def score(answer: np.ndarray, label: np.ndarray, spacing_mm: tuple[float, ...]) -> list[list[float] | None]:
    """DSC, surface DSC at TOLERANCE_MM and HD95 in mm of each channel; None where nobody contoured.

    answer bool (C, x, y, z), label float with NaN.
    """
    rows: list[list[float] | None] = []
    for mask, channel in zip(answer, label, strict=True):
        if np.isnan(channel).any():
            rows.append(None)
            continue
        truth = channel > 0.5
        near = _around(mask | truth)
        padded = [np.pad(values[near], 1) for values in (truth, mask)]
        apart = surface_distances(*padded, spacing_mm)
        rows.append([float(dice(truth, mask)), apart.dice(TOLERANCE_MM), apart.hausdorff_mm(95.0)])
    return rows


def _around(either: np.ndarray) -> tuple[slice, ...]:
    places = np.argwhere(either)
    if not len(places):
        return (slice(0, 1),) * 3
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(places.min(0), places.max(0), strict=True))
