"""Images of the label-noise benchmark: phantoms or real radiographs, split by patient, fetched in augmented
batches."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import PILReader
from monai.transforms import Compose, LoadImage, Resize
from torch.nn import functional
from torch.utils.data import default_collate

from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.phantoms.chest_film import STRUCTURES, make_radiograph
from medseg.training.noisy.generators import FreshLabelNoised

CXR_STRUCTURES = ("Right Lung", "Left Lung", "Cardiomediastinum", "Airways")
JSRT_STRUCTURES = ("Right Lung", "Left Lung", "Heart", "Right Clavicle", "Left Clavicle")
"""Columns of cases.csv and bits of the masks, in this order, as tools/datasets/jsrt.py writes them."""

FIRST_TEST_PATIENT = 500_000
"""Phantom patients from here on are scored only."""

DEVELOPMENT_SEED, DEVELOPMENT_PATIENTS = 0, range(40)
"""Settings were chosen with this seed, scored on these patients; neither is part of a reported grid."""

ROTATION_RAD, SCALE, SHIFT = 0.15, 0.1, 0.05
"""Largest random rotation, change of scale, and shift as a share of the image."""
CONTRAST, BRIGHTNESS = 0.2, 0.1


@dataclass(frozen=True)
class Images:
    """names (N), images float32 (N, 1, side, side), masks bool (N, C, side, side), structures (C)."""

    names: list[str]
    images: np.ndarray
    masks: np.ndarray
    structures: tuple[str, ...]

    def rows(self, index: np.ndarray) -> Images:
        return Images([self.names[i] for i in index], self.images[index], self.masks[index], self.structures)


def phantom_images(
    side: int, counts: tuple[int, int], seed: int, drawn: Path | None = None
) -> tuple[Images, Images]:
    """`counts` for training and test; training patients of their own for every seed, the same test patients
    for all but the development seed. `drawn`: a folder that keeps what was drawn once."""
    first = 10_000 * (seed + 1)
    tested = range(FIRST_TEST_PATIENT, FIRST_TEST_PATIENT + counts[1])
    if seed == DEVELOPMENT_SEED:
        tested = DEVELOPMENT_PATIENTS[: counts[1]]
    return tuple(_phantoms(numbers, side, drawn) for numbers in (range(first, first + counts[0]), tested))


def _phantoms(numbers: range, side: int, drawn: Path | None) -> Images:
    path = drawn / f"phantoms_{side}_{numbers.start}_{numbers.stop}.npz" if drawn is not None else None
    if path is not None and path.exists():
        with np.load(path) as kept:
            images, masks = kept["images"], kept["masks"]
    else:
        films = [make_radiograph(number, side) for number in numbers]
        images, masks = (
            np.stack([film.image[None] for film in films]),
            np.stack([film.masks for film in films]),
        )
        if path is not None:
            drawn.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, images=images, masks=masks)
    return Images([f"p{n}" for n in numbers], images, masks, STRUCTURES)


def cxr_images(folder: Path, side: int, seed: int, tested_fold: str = "") -> tuple[Images, Images]:
    """The radiographs of `folder` (cases.csv, images/, masks/ of bit fields), split into training and test.

    Structures are JSRT_STRUCTURES or CXR_STRUCTURES, whichever cases.csv has as columns; images that lack one
    are left out. ``tested_fold``: what the column scr_fold says of the images to test on; all others train.
    Otherwise a column random_165_82 ("train", "test") is the split for every seed; without it the patients
    are drawn anew for each seed, about a third for testing. Raises InputError without cases.csv, without
    those columns, and for a fold that is not there.
    """
    if not (folder / "cases.csv").is_file():
        raise InputError(
            f"{folder} holds no cases.csv; give the folder of the chest radiographs with their masks."
        )
    with open(folder / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    known = [names for names in (JSRT_STRUCTURES, CXR_STRUCTURES) if rows and set(names) <= set(rows[0])]
    if not known:
        raise InputError(
            f"{folder}/cases.csv has neither the columns {JSRT_STRUCTURES} nor {CXR_STRUCTURES}."
        )
    structures = known[0]
    rows = [row for row in rows if all(row[name] == "1" for name in structures)]
    size = (side, side)
    # MONAI's reader would otherwise exchange rows and columns.
    read = LoadImage(PILReader(reverse_indexing=False), image_only=True, ensure_channel_first=True)
    load_image = Compose([read, Resize(size, mode="area")])
    load_mask = Compose([read, Resize(size, mode="nearest")])
    images = np.stack(
        [np.asarray(load_image(folder / "images" / f"{row['case']}.png")) / 255 for row in rows]
    )
    fields = np.stack(
        [np.asarray(load_mask(folder / "masks" / f"{row['case']}.png"))[0] for row in rows]
    ).astype(int)
    masks = np.stack([(fields >> bit & 1).astype(bool) for bit in range(len(structures))], axis=1)
    all_images = Images([row["case"] for row in rows], images.astype(np.float32), masks, structures)
    if tested_fold:
        is_test = np.array([row.get("scr_fold") == tested_fold for row in rows])
        if not is_test.any() or is_test.all():
            raise InputError(
                f"{folder}/cases.csv: column scr_fold does not split the images into {tested_fold} and "
                f"others."
            )
    elif "random_165_82" in rows[0]:
        is_test = np.array([row["random_165_82"] == "test" for row in rows])
    else:
        patients = sorted({row["patientid"] for row in rows})
        np.random.default_rng([seed, 44]).shuffle(patients)
        tested = set(patients[: round(len(patients) / 3)])
        is_test = np.array([row["patientid"] in tested for row in rows])
    return all_images.rows(np.flatnonzero(~is_test)), all_images.rows(np.flatnonzero(is_test))


class Fetched(torch.utils.data.Dataset):
    """Samples in memory, with noise drawn at each fetch where there is any."""

    def __init__(self, samples: list[dict[str, Any]], transform: FreshLabelNoised | None) -> None:
        self.samples, self.transform = samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        if self.transform is not None:
            sample = {key: value for key, value in self.transform(sample).items() if key != "noise_record"}
        return sample


def augmented(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Collate samples into a batch in which each image and its label are turned, scaled and shifted by one
    random map.

    Contrast and brightness change too. Without it a small network learns wrong outlines by heart case by
    case, which nobody's training would allow. One call per batch: transforms one by one took half as long
    again as the network.
    """
    batch = default_collate(samples)
    count = len(batch["image"])

    device = batch["image"].device

    def drawn(largest: float, *shape: int) -> torch.Tensor:
        return (2 * torch.rand(count, *shape).to(device) - 1) * largest

    angle, scale, shift = drawn(ROTATION_RAD), 1 + drawn(SCALE, 2), drawn(2 * SHIFT, 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cos * scale[:, 0], -sin * scale[:, 0], shift[:, 0]], dim=1),
        torch.stack([sin * scale[:, 1], cos * scale[:, 1], shift[:, 1]], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(batch["image"].shape), align_corners=False)
    image = functional.grid_sample(batch["image"], grid, padding_mode="border", align_corners=False)
    batch["image"] = (image - 0.5) * (1 + drawn(CONTRAST, 1, 1, 1)) + 0.5 + drawn(BRIGHTNESS, 1, 1, 1)
    batch["label"] = functional.grid_sample(batch["label"], grid, mode="nearest", align_corners=False)
    return batch
