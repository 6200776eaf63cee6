"""The prepared patients in one small file, for a machine that has neither the images nor pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from medseg.files import atomic_path

STEPS = 170
"""Grey values a unit: PET, CT and MR end at 1 or 1.5, so 255 of them suffice."""

AROUND_MM = 22.0
"""Kept around the tumour: a drawn box reaches 20 mm."""


def write(items: list[dict], fold_of: dict[str, int], path: Path) -> None:
    """Every item's image in 8 bits, its coverage, label and place, and the patient's fold."""
    kept: dict[str, np.ndarray] = {}
    for item in items:
        base, affine = item["case_id"], np.asarray(item["image"].affine).copy()
        near = _near(item["label"][0].numpy() > 0.5, np.linalg.norm(affine[:3, :3], axis=0))
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in near]
        image = item["image"].as_tensor()[(slice(None), *near)]
        kept[f"{base}/image"] = (image[:3] * STEPS).round().clamp(0, 255).to(torch.uint8).numpy()
        kept[f"{base}/covered"] = (image[3:] > 0.5).numpy()
        kept[f"{base}/label"] = (item["label"].as_tensor()[(slice(None), *near)] > 0.5).numpy()
        kept[f"{base}/affine"] = affine
        kept[f"{base}/fold"] = np.int64(fold_of[base])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **kept)


def _near(inside: np.ndarray, voxel_mm: np.ndarray) -> tuple[slice, ...]:
    places, around = np.argwhere(inside), np.ceil(AROUND_MM / voxel_mm).astype(int)
    low = (places.min(0) - around).clip(min=0)
    high = np.minimum(places.max(0) + 1 + around, inside.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def read(path: Path, device: torch.device) -> tuple[list[dict], dict[str, int]]:
    """The items on ``device``, by name, and the fold of each."""
    items, fold_of = [], {}
    with np.load(path) as kept:
        for name in sorted({key.split("/")[0] for key in kept.files}):
            affine = kept[f"{name}/affine"]
            image = torch.cat(
                [
                    torch.from_numpy(kept[f"{name}/image"]).float() / STEPS,
                    torch.from_numpy(kept[f"{name}/covered"]).float(),
                ]
            )
            label = torch.from_numpy(kept[f"{name}/label"]).float()
            items.append(
                {
                    "image": MetaTensor(image.to(device), affine=affine),
                    "label": MetaTensor(label.to(device), affine=affine),
                    "case_id": name,
                }
            )
            fold_of[name] = int(kept[f"{name}/fold"])
    return items, fold_of
