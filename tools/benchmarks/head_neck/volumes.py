"""The training and validation volumes of ct_head_neck, read once and kept in one small file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from medseg.errors import InputError
from medseg.files import atomic_path

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "ct_head_neck"
SECTIONS = ("training", "validation")


def write(dataset_dir: Path, path: Path, cases: int | None = None) -> None:
    """Read every volume with the bundle's deterministic transforms; keep it, its packed label and its place.

    ``cases``: only so many of each section.
    """
    from medseg.transforms import PackChannelsd

    config = ConfigParser(json.loads((BUNDLE / "configs" / "train.json").read_text()))
    config["bundle_root"] = str(BUNDLE)
    read = Compose([*config.get_parsed_content("train#deterministic_transforms"), PackChannelsd("label")])
    datalist = json.loads((BUNDLE / "configs" / "datalist.json").read_text())
    kept: dict[str, np.ndarray] = {}
    for section in SECTIONS:
        for entry in datalist[section][:cases]:
            paths = {key: str(dataset_dir / entry[key]) for key in ("image", "label")}
            sample, base = read({**entry, **paths}), f"{section}/{entry['case_id']}"
            kept[f"{base}/image"] = (sample["image"].as_tensor()[0] * 255).round().to(torch.uint8).numpy()
            kept[f"{base}/label"] = sample["label"].as_tensor()[0].numpy()
            kept[f"{base}/known"] = sample["known"].numpy()
            kept[f"{base}/affine"] = np.asarray(sample["image"].affine)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **kept)


def samples(path: Path, section: str) -> list[dict[str, Any]]:
    """What the bundle's deterministic transforms gave: "image" float (1, x, y, z), "label" float (C, x, y, z)
    with NaN where nobody contoured, "case_id"."""
    if not path.is_file():
        raise InputError(f"{path} is not there; write it with: run.py prepare DATASET_DIR {path}")
    found = []
    with np.load(path) as kept:
        for key in sorted(
            name for name in kept.files if name.startswith(section) and name.endswith("/image")
        ):
            base = key.removesuffix("/image")
            known, field, affine = (kept[f"{base}/{name}"] for name in ("known", "label", "affine"))
            label = np.stack([(field >> channel & 1).astype(np.float32) for channel in range(len(known))])
            label[~known] = np.nan
            found.append(
                {
                    "image": MetaTensor(kept[key][None].astype(np.float32) / 255, affine=affine),
                    "label": MetaTensor(label, affine=affine),
                    "case_id": base.split("/")[1],
                }
            )
    return found
