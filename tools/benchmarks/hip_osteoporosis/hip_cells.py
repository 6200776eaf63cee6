"""One cell of the hip experiments: one training of the bundle's own train.json with some settings, and the
logits of the films that it is judged by.

experiments.py runs grids of cells; here is what one of them does, so that it can be tested. No epoch is
chosen: the last one answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.bundles.config import build, load_config, run_config
from medseg.bundles.find import Bundle, find_bundle
from medseg.errors import InputError
from medseg.files import write_json

BUNDLE = "hip_osteoporosis"
KEPT = ("case_id", "patient_id", "label", "device", "sex", "view", "image_date", "bmd")
"""What of a case stands beside its logits, where the datalist has it."""


@dataclass(frozen=True)
class Cell:
    """``settings``: overrides of train.json. ``data``: where the paths of ``cases`` begin, {section: cases},
    of which "training" is trained on and those named in ``judged`` are answered. ``boxes``: a folder below
    ``data`` with the boxes that films are cut to, "" for whole films."""

    key: str
    data: Path
    cases: Mapping[str, list[dict]] = field(repr=False)
    judged: tuple[str, ...]
    settings: Mapping[str, Any]
    boxes: str = ""


def run_cell(cell: Cell, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Train a cell and answer; its record lies in ``out``/cells when it returns, and what is there is read.
    ``device``: cpu or cuda, always in full precision; ``minutes`` are those of the processor on the one, of
    the wall on the other.

    A training that was killed goes on from its last epoch. InputError where a finished cell there had other
    settings."""
    path = out / "cells" / f"{cell.key}.json"
    if path.exists():
        return read_record(path, cell)
    folder = out / "runs" / cell.key
    for needed in (folder, path.parent):
        needed.mkdir(parents=True, exist_ok=True)
    datalist = folder / "datalist.json"
    # The recipe needs validation films though none chooses an epoch: the first of those that are judged.
    # Patients are not named, since medseg refuses a split that they straddle, which is what some cells show.
    parts = {"training": cell.cases["training"], "validation": cell.cases[cell.judged[0]]}
    nameless = {
        part: [{key: case[key] for key in case if key != "patient_id"} for case in cases]
        for part, cases in parts.items()
    }
    write_json(nameless, datalist)
    settings = {
        "seed": 123,
        **cell.settings,
        "dataset_dir": str(cell.data),
        "datalist": str(datalist),
        "ckpt_dir": str(folder),
        "output_dir": str(folder),
        "val_interval": cell.settings["epochs"] + 1,
        "resume": True,
        "device": device,
        "amp": False,
        "neck_boxes": str(cell.data / cell.boxes) if cell.boxes else None,
    }
    bundle = find_bundle(BUNDLE)
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    if epochs_done(folder) < cell.settings["epochs"]:
        run_config(bundle, ["train"], "training", settings)
    record = {
        "key": cell.key,
        "settings": dict(cell.settings),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "minutes": (clock() - began) / 60,
        "answers": answers(bundle, settings, folder / "last.pt", cell),
    }
    write_json(record, path)
    return record


def read_record(path: Path, cell: Cell | None = None) -> dict[str, Any]:
    """A finished cell. InputError where it had other settings: such cells must not be compared."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if cell is not None and record["settings"] != json.loads(json.dumps(dict(cell.settings))):
        raise InputError(
            f"{path} had other settings ({record['settings']}); delete it or use another folder."
        )
    return record


def epochs_done(folder: Path) -> int:
    """Of the training in a folder; 0 where there is none."""
    last = folder / "last.pt"
    if not last.exists():
        return 0
    return int(torch.load(last, map_location="cpu", weights_only=True)["trainer"]["epoch"])


def answers(
    bundle: Bundle, settings: Mapping[str, Any], weights: Path, cell: Cell
) -> dict[str, list[dict[str, Any]]]:
    """{judged section: a row per film, what is kept of its case and its logits}."""
    parser = load_config(bundle, "train", settings)
    network = build(bundle, parser, "network_def")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["network"])
    network.eval()
    prepare = build(bundle, parser, "validate#preprocessing")
    found: dict[str, list[dict[str, Any]]] = {}
    for section in cell.judged:
        rows = found.setdefault(section, [])
        for case in cell.cases[section]:
            image = prepare({**case, "image": str(cell.data / case["image"])})["image"]
            with torch.inference_mode():
                logits = network(torch.as_tensor(image)[None])[0]
            kept = {name: case[name] for name in KEPT if name in case}
            rows.append({**kept, "logits": [round(float(value), 5) for value in logits]})
    return found


def logits_of(rows: list[dict]) -> np.ndarray:
    """float (N, classes)."""
    return np.array([row["logits"] for row in rows])


def truth_of(rows: list[dict]) -> np.ndarray:
    """int (N,): the class of each film."""
    return np.array([row["label"] for row in rows], int)


def patients_of(rows: list[dict]) -> list[str]:
    return [row["patient_id"] for row in rows]
