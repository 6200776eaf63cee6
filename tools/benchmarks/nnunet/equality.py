"""Voxels at which medseg segment and nnU-Net's own predictor differ, by kind of model and engine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from models import noise, write_image
from nnunet_models import (
    LABELS,
    REGIONS,
    configuration,
    dataset_of,
    network_of,
    plans_of,
    predicted_by_nnunet,
    write_model,
)

ENGINES = ("torch", "openvino")
CT, MR = ["CTNormalization"], ["ZScoreNormalization"]
OBLIQUE = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
FLIPPED = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SHAPE = (32, 56, 48)


@dataclass(frozen=True)
class Row:
    """A kind of model and of image."""

    configurations: dict[str, dict[str, Any]]
    name: str = "3d_fullres"
    dataset: dict[str, Any] = field(default_factory=lambda: dataset_of(LABELS))
    mm: tuple[float, float, float] = (2.5, 1.0, 1.2)
    turn: np.ndarray | None = None
    folds: tuple[int, ...] = (0,)
    transpose: tuple[int, int, int] = (0, 1, 2)
    mirror: tuple[int, ...] = (0, 1, 2)


def _full(*schemes: str, residual: bool = False) -> dict[str, dict[str, Any]]:
    return {"3d_fullres": configuration([2, 1.5, 1.5], [16, 24, 24], schemes, residual)}


def _cascade() -> dict[str, dict[str, Any]]:
    full = _full(*CT)["3d_fullres"]
    low = configuration([4, 3, 3], [16, 16, 16], CT)
    cascade = {**full, "previous_stage": "3d_lowres"}
    return {"3d_fullres": full, "3d_lowres": low, "3d_cascade_fullres": cascade}


ROWS = {
    "2D": Row({"2d": configuration([1.5, 1.5], [24, 24], CT)}, "2d", mirror=(0, 1)),
    "3D full resolution": Row(_full(*CT)),
    "3D, oblique image": Row(_full(*CT), turn=OBLIQUE),
    "3D, axes in another order, image flipped": Row(_full(*CT), turn=FLIPPED, transpose=(2, 0, 1)),
    "3D, coarse slices": Row({"3d_fullres": configuration([5, 1.2, 1.2], [12, 24, 24], CT)}, mm=(6, 1, 1)),
    "3D, three folds": Row(_full(*CT), folds=(0, 1, 2)),
    "3D, residual encoder": Row(_full(*CT, residual=True)),
    "3D, two MR series": Row(_full(*MR * 2), dataset=dataset_of(LABELS, ("T1", "T2"))),
    "3D, regions": Row(_full(*MR), dataset=dataset_of(REGIONS, ("T1",))),
    "cascade": Row(_cascade(), "3d_cascade_fullres"),
}


def equality(trained: bool) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of the table; the lines say how many labels nnU-Net's mask holds, and what differs."""
    rows = []
    for title, row in ROWS.items():
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.environ["MEDSEG_TRUST_FILE"] = str(Path(name) / "trusted.json")
            found, wanted = compare(Path(name), row, trained)
        differ = [str(int((labels != wanted).sum())) for labels in found]
        rows.append([title, str(len(np.unique(wanted)) - 1), str(wanted.size), *differ])
    return ["model and image", "labels found", "voxels", *(f"differ, {engine}" for engine in ENGINES)], rows


def compare(folder: Path, row: Row, trained: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """(label maps of medseg segment by each engine, that of nnU-Net), all [slice, row, column]."""
    from medseg.bundles.cohort import segment
    from medseg.bundles.importers.nnunet import NnunetRequest, import_nnunet
    from medseg.bundles.request import Request

    plans = plans_of(row.configurations, row.transpose)
    names = [name for name in ("3d_lowres", row.name) if name in row.configurations]
    models = [
        write_model(folder, plans, row.dataset, name, row.folds, row.mirror) for name in dict.fromkeys(names)
    ]
    volumes = [noise(SHAPE, seed) for seed in range(len(row.dataset["channel_names"]))]
    if trained:
        for model, name in zip(models, dict.fromkeys(names), strict=True):
            for fold in row.folds:
                train(model / f"fold_{fold}" / "checkpoint_final.pth", (plans, row.dataset, name), volumes)
    files = [write_image(v, row.mm, folder / f"image{n}.nii.gz", row.turn) for n, v in enumerate(volumes)]
    series = tuple((f"MR:T{n + 1}", str(file)) for n, file in enumerate(files) if n)
    bundle = import_nnunet(NnunetRequest(models[-1], folder / "bundle"))
    found = []
    for engine in ENGINES:
        fields = {"formats": ("nifti",), "device": "cpu", "series": series, "engine": engine}
        with contextlib.redirect_stderr(io.StringIO()):
            (case,) = segment(Request(files[0], bundle, folder / engine, **fields))["cases"]
        found.append(label_map(Path(case["folder"]), row.dataset))
    mm = [float(np.float32(side)) for side in row.mm]
    channels, previous = np.stack(volumes), None
    for model in models:
        previous = predicted_by_nnunet(model, channels, mm, row.folds, previous)
    return found, previous


def label_map(folder: Path, dataset: dict[str, Any]) -> np.ndarray:
    """The written masks as one label map; of regions, written from the outside in, the innermost wins."""
    result = None
    for number, name in enumerate([name for name in dataset["labels"] if name != "background"], start=1):
        mask = np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj).transpose(2, 1, 0) > 0
        result = np.zeros(mask.shape, int) if result is None else result
        result[mask] = number
    assert result is not None
    return result


def train(path: Path, what: tuple[dict, dict, str], volumes: list[np.ndarray], iterations: int = 20) -> None:
    """Train a fold's network to tell low, middle and high values of the image apart, and put its weights into
    the checkpoint."""
    plans, dataset, name = what
    content = torch.load(path, weights_only=False)
    network = network_of(plans, dataset, name)
    network.load_state_dict(content["network_weights"])
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.99, nesterov=True)
    patch = plans["configurations"][name]["patch_size"]
    values = torch.from_numpy(np.stack(volumes))[None] / 500
    truth = (values[:, 0] > -0.5).long() + (values[:, 0] > 0.2).long() + (values[:, 0] > 0.8).long()
    spare = next(network.parameters()).shape[1] - values.shape[1]
    for iteration in range(iterations):
        corner = [
            (7 * iteration) % max(n - side, 1) for n, side in zip(SHAPE[-len(patch) :], patch, strict=True)
        ]
        box = tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True))
        at = (iteration % SHAPE[0],) if len(patch) == 2 else ()
        image, labels = values[(slice(None), slice(None), *at, *box)], truth[(slice(None), *at, *box)]
        image = torch.cat([image, torch.zeros_like(image[:, :1]).repeat_interleave(spare, 1)], 1)
        logits = network(image)
        if logits.shape[1] == 3:  # regions
            target = torch.stack([(labels > level).float() for level in range(3)], 1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        else:
            loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({**content, "network_weights": network.state_dict()}, path)


def train_on_blocks(model: Path, side: int = 32, iterations: int = 40) -> None:
    """Train the one fold of a model of full resolution on cubes of ``side`` voxels, since a patch of a real
    model's size takes minutes."""
    plans, dataset = (json.loads((model / f"{name}.json").read_text()) for name in ("plans", "dataset"))
    plans["configurations"]["3d_fullres"]["patch_size"] = [side] * 3
    path = model / "fold_0" / "checkpoint_final.pth"
    train(path, (plans, dataset, "3d_fullres"), [noise(SHAPE)], iterations)
