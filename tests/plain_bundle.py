"""A bundle of CT alone in a box, as somebody writes it who has no other series: mm_gtv's files with the
steps that put PET and MR beside the CT taken out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

SHIPPED = Path(__file__).resolve().parents[1] / "monai_bundles" / "mm_gtv"
SERIES_AND_CLICKS = ("modalities", "optional_modalities", "clicks")
WINDOW = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": "$@window_hu[0]",
    "a_max": "$@window_hu[1]",
    "b_min": 0.0,
    "b_max": 1.0,
    "clip": True,
}


def edit(path: Path, change) -> None:
    """Write what ``change`` makes of the content of a JSON file."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def plain_bundle(folder: Path) -> Path:
    """``folder``, made, without weights; its inference.json and train.json prepare one channel, the CT's
    window as 0 to 1."""
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.pt"))
    (folder / "models").mkdir(exist_ok=True)
    edit(folder / "configs" / "metadata.json", _metadata)
    edit(folder / "configs" / "inference.json", _inference)
    edit(folder / "configs" / "train.json", _train)
    return folder


def _metadata(meta: dict) -> dict:
    meta = {key: value for key, value in meta.items() if key not in SERIES_AND_CLICKS}
    image = meta["network_data_format"]["inputs"]["image"]
    image |= {"modality": "CT", "num_channels": 1, "channel_def": {"0": "CT"}}
    return meta


def _of_ct_alone(steps: list[dict]) -> None:
    several = [f"medseg.transforms.{name}" for name in ("LoadSeriesd", "RandSeriesLookd", "RandDropSeriesd")]
    steps[:] = [
        WINDOW if step["_target_"] == "medseg.transforms.StackSeriesd" else step
        for step in steps
        if step["_target_"] not in several
    ]


def _train(config: dict) -> dict:
    for part in ("deterministic_transforms", "random_transforms"):
        _of_ct_alone(config["train"][part])
    return config


def _inference(config: dict) -> dict:
    _of_ct_alone(config["preprocessing"]["transforms"])
    items = {"_target_": "medseg.bundles.case_items", "path": "@dataset_dir", "modality": "CT"}
    config["dataset"]["data"] = items
    config["inferer"] = config["inferer"]["inferer"]  # an answer is the network's, not a mean of eight
    return config
