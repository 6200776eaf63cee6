"""Films of a hospital that annotators label, and a small network that learns from what they labelled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandGaussianNoised
from scipy.ndimage import gaussian_filter, rotate

from medseg.phantoms.chest_film import STRUCTURES, Radiograph, make_radiograph

FIRST_TEST_PATIENT = 900_000
SHARE_AT_BEDSIDE = 0.25


@dataclass(frozen=True)
class Budget:
    """What every training gets, whatever it learns from."""

    side: int = 96
    steps: int = 150
    batch: int = 8
    learning_rate: float = 1e-2
    channels: tuple[int, ...] = (8, 16, 32, 64)


@dataclass(frozen=True)
class Films:
    """ids in the order of the folder; images float32 (N, 1, side, side); masks bool (N, C, side, side);
    bedside bool (N)."""

    ids: list[str]
    images: np.ndarray
    masks: np.ndarray
    bedside: np.ndarray

    def rows(self, index: np.ndarray) -> Films:
        return Films([self.ids[i] for i in index], self.images[index], self.masks[index], self.bedside[index])


def films(first: int, count: int, side: int) -> Films:
    """``count`` patients from number ``first`` on; the last quarter of them on a bedside machine, as a folder
    looks whose hospital bought one: turned, softer, flatter, noisier."""
    made = [make_radiograph(first + number, side) for number in range(count)]
    bedside = np.arange(count) >= round(count * (1 - SHARE_AT_BEDSIDE))
    made = [
        _at_bedside(film, first + number) if there else film
        for number, (film, there) in enumerate(zip(made, bedside, strict=True))
    ]
    images = np.stack([film.image[None] for film in made])
    return Films([f"film_{n:03d}" for n in range(count)], images, np.stack([f.masks for f in made]), bedside)


def _at_bedside(film: Radiograph, seed: int) -> Radiograph:
    rng = np.random.default_rng([seed, 20261126])
    angle = rng.choice([-1, 1]) * rng.uniform(10, 25)
    image = rotate(film.image, angle, reshape=False, order=1, mode="nearest")
    masks = rotate(film.masks.astype(np.float32), angle, axes=(1, 2), reshape=False, order=1) > 0.5
    flat = 0.35 + rng.uniform(0.4, 0.6) * gaussian_filter(image, 0.008 * len(image))
    noisy = flat + rng.normal(0, 0.06, image.shape)
    return replace(film, image=np.clip(noisy, 0, 1).astype(np.float32), masks=masks)


def trained(images: np.ndarray, labels: np.ndarray, budget: Budget, seed: int) -> UNet:
    """A network trained from nothing on images (N, 1, side, side) and labels (N, C, side, side), with random
    turns, shifts, contrast and noise; its last step counts."""
    torch.manual_seed(seed)
    network = UNet(
        2,
        1,
        labels.shape[1],
        budget.channels,
        (2,) * (len(budget.channels) - 1),
        num_res_units=1,
        norm="BATCH",
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=budget.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.learning_rate, total_steps=budget.steps + 1, pct_start=0.2
    )
    overlap, each, rng = (
        DiceLoss(sigmoid=True, batch=True),
        torch.nn.BCEWithLogitsLoss(),
        np.random.default_rng([seed, 1]),
    )
    vary = _variation(budget.side, seed)
    for _ in range(budget.steps):
        chosen = rng.choice(len(images), budget.batch, replace=len(images) < budget.batch)
        rows = [vary({"image": images[i], "label": labels[i].astype(np.float32)}) for i in chosen]
        batch = {key: torch.stack([torch.as_tensor(row[key]) for row in rows]) for key in ("image", "label")}
        optimizer.zero_grad()
        logits = network(batch["image"])
        (overlap(logits, batch["label"]) + each(logits, batch["label"])).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _variation(side: int, seed: int) -> Compose:
    keys = ("image", "label")
    turned = RandAffined(
        keys,
        prob=0.8,
        rotate_range=0.15,
        translate_range=0.05 * side,
        scale_range=0.1,
        padding_mode="border",
        mode=("bilinear", "nearest"),
    )
    light = RandAdjustContrastd("image", prob=0.5, gamma=(0.7, 1.4))
    return Compose([turned, light, RandGaussianNoised("image", prob=0.3, std=0.03)]).set_random_state(seed)


@torch.no_grad()
def logits_of(network: UNet, images: np.ndarray) -> np.ndarray:
    """float32 (N, C, side, side)."""
    parts = [network(torch.as_tensor(images[i : i + 16])).numpy() for i in range(0, len(images), 16)]
    return np.concatenate(parts)


def dice(network: UNet, films: Films) -> np.ndarray:
    """DSC (N, C) of each film and structure."""
    found = logits_of(network, films.images) >= 0
    both = (found & films.masks).sum((2, 3))
    return 2 * both / np.maximum(found.sum((2, 3)) + films.masks.sum((2, 3)), 1)


__all__ = ["STRUCTURES", "Budget", "Films", "dice", "films", "logits_of", "trained"]
