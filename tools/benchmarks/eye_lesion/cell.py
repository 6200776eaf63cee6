"""One cell of the eye-lesion benchmark: train an architecture on one fold, score its validation patients, and
say what it cost.

run.py runs grids of cells; here is what one of them does, so that it can be tested.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.bundles.config import build, load_config, run_config
from medseg.bundles.find import find_bundle
from medseg.bundles.score_photographs import PhotographScore, score_photograph
from medseg.errors import InputError
from medseg.files import atomic_path, write_json
from medseg.metrics.lesions import LesionCounts
from medseg.metrics.pixels import LevelCounts, as_levels
from medseg.networks.segmenters import Segmenter

TOOLS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOOLS / "datasets"), str(TOOLS / "baselines")]

import tophat  # noqa: E402
from hei_med import read_rows, split  # noqa: E402

BASELINE = "tophat"
SPLIT_SEED, FOLDS = 123, 5


@dataclass(frozen=True)
class Budget:
    """What every architecture gets alike: ``epochs`` over the fold's photographs, ``patches`` of
    ``patch_pixels`` squared from each, ``batch_size`` photographs at a time, and one recipe, the bundle's
    own."""

    epochs: int = 8
    batch_size: int = 2
    patches: int = 2
    patch_pixels: int = 256
    longest_side: int = 1024
    learning_rate: float = 0.002
    seed: int = 123


@dataclass(frozen=True)
class Cell:
    """``architecture``: a key of ARCHITECTURES, or BASELINE."""

    architecture: str
    fold: int

    @property
    def key(self) -> str:
        return f"{self.architecture}_fold{self.fold}"


def run_cell(cell: Cell, budget: Budget, data: Path, out: Path) -> dict[str, Any]:
    """Train and score one cell; its record and its scores lie in ``out`` when it returns.

    A training that was killed goes on from its last epoch. InputError when a finished cell there had another
    budget."""
    record_path = out / "cells" / f"{cell.key}.json"
    if record_path.exists():
        return read_record(record_path, budget)
    parts = split(read_rows(data / "cases.csv"), SPLIT_SEED, FOLDS, cell.fold)
    if cell.architecture == BASELINE:
        scores, cost = _baseline(parts, data)
    else:
        scores, cost = _network(cell, budget, parts, data, out)
    save_scores(scores, out / "cells" / f"{cell.key}.npz")
    record = {**asdict(cell), "budget": asdict(budget), "cost": cost, "cases": list(scores)}
    write_json(record, record_path)
    return record


def read_record(path: Path, budget: Budget | None = None) -> dict[str, Any]:
    """A finished cell. InputError when it had another budget: such cells must not be compared."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if budget is not None and record["budget"] != asdict(budget):
        raise InputError(f"{path} had another budget ({record['budget']}); use another folder or delete it.")
    return record


def _baseline(parts: dict[str, list[dict]], data: Path) -> tuple[dict[str, PhotographScore], dict[str, Any]]:
    began = time.process_time()
    threshold = tophat.best_threshold([tophat.counts_of(case, data) for case in parts["training"]])
    trained = time.process_time()
    scores = tophat.score_cases(parts["validation"], threshold, data)
    per_image_ms = 1000 * (time.process_time() - trained) / len(scores)
    return scores, {
        "device": "cpu",
        "parameters": 1,
        "training_minutes": (trained - began) / 60,
        "ms_per_image": per_image_ms,
        "peak_memory_mb": _peak_memory_mb("cpu"),
        "threshold": threshold,
    }


def _network(
    cell: Cell, budget: Budget, parts: dict[str, list[dict]], data: Path, out: Path
) -> tuple[dict[str, PhotographScore], dict[str, Any]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = out / "runs" / cell.key
    folder.mkdir(parents=True, exist_ok=True)
    datalist = folder / "datalist.json"
    write_json(parts, datalist)
    began = _clock(device)
    _train(cell, budget, data, folder)
    minutes = (_clock(device) - began) / 60
    network = Segmenter(cell.architecture)
    state = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    network.to(device).eval()
    scores, per_image_ms = _scored(network, budget, parts["validation"], data, device)
    return scores, {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "parameters": sum(p.numel() for p in network.parameters()),
        "training_minutes": minutes,
        "ms_per_image": per_image_ms,
        "peak_memory_mb": _peak_memory_mb(device),
    }


def _clock(device: str) -> float:
    """Seconds of this process on a processor that is shared; of the wall where a GPU does the work."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def _peak_memory_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _train(cell: Cell, budget: Budget, data: Path, folder: Path) -> None:
    """The bundle's own training, resumed where one was killed; nothing of it if it had ended."""
    last = folder / "last.pt"
    if last.exists():
        done = torch.load(last, map_location="cpu", weights_only=True)["trainer"]["epoch"]
        if done >= budget.epochs:
            return
    settings = {
        "architecture": cell.architecture,
        "dataset_dir": str(data),
        "datalist": str(folder / "datalist.json"),
        "ckpt_dir": str(folder),
        "output_dir": str(folder),
        "epochs": budget.epochs,
        "val_interval": budget.epochs + 1,  # no epoch is chosen: the last one counts
        "batch_size": budget.batch_size,
        "patches": budget.patches,
        "patch_size": [budget.patch_pixels] * 2,
        "longest_side": budget.longest_side,
        "learning_rate": budget.learning_rate,
        "seed": budget.seed,
        "resume": True,
    }
    run_config(find_bundle("eye_lesion"), ["train"], "training", settings)


def _scored(
    network: torch.nn.Module, budget: Budget, cases: list[dict], data: Path, device: str
) -> tuple[dict[str, PhotographScore], float]:
    """({case: scores}, milliseconds of the network per photograph), as ``medseg segment`` would answer."""
    from PIL import Image

    from medseg.cases.photograph import field_of_view, open_photograph
    from medseg.cases.volume import ALLOWABLE_AT_THE_GATE

    overrides = {
        "device": device,
        "allow": list(ALLOWABLE_AT_THE_GATE),
        "longest_side": budget.longest_side,
        "patch_size": [budget.patch_pixels] * 2,
        "engine": "torch",
    }
    bundle = find_bundle("eye_lesion")
    parser = load_config(bundle, "inference", overrides)
    prepare, inferer = build(bundle, parser, "preprocessing"), build(bundle, parser, "inferer")
    scores, seconds = {}, 0.0
    for case in cases:
        item = prepare({"image": str(data / case["image"])})
        began = _clock(device)
        with torch.inference_mode():
            logits = inferer(item["image"][None].to(device), network)
            chances = torch.sigmoid(torch.as_tensor(logits)).cpu()
        seconds += _clock(device) - began
        bits = np.asarray(Image.open(data / case["label"]))
        whole = torch.nn.functional.interpolate(chances, size=bits.shape, mode="bilinear")[0, 0]
        field = field_of_view(open_photograph(data / case["image"]).pixels)
        levels = as_levels(whole.numpy() * field)
        scores[case["case_id"]] = score_photograph(levels, bits, field, tophat.BITS, case["patient_id"])
    return scores, 1000 * seconds / len(cases)


# ---- scores as a file --------------------------------------------------------------------------------------


def save_scores(scores: dict[str, PhotographScore], out: Path) -> None:
    """Counts of every photograph, from which all figures follow."""
    arrays: dict[str, np.ndarray] = {}
    for case, score in scores.items():
        pixels, lesions = score.pixels, score.lesions
        arrays[f"{case}/pixels"] = np.stack([pixels.levels, pixels.positive, pixels.negative])
        arrays[f"{case}/finds"] = np.stack([lesions.found, lesions.false_finds])
        arrays[f"{case}/lesions"] = np.array(lesions.lesions)
        arrays[f"{case}/patient"] = np.array(score.patient)
        for kind, taken in score.look_alikes.items():
            arrays[f"{case}/look-alike/{kind}"] = np.array(taken)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_scores(path: Path, cases: list[str]) -> list[PhotographScore]:
    """What save_scores wrote, in this order."""
    found = []
    with np.load(path, allow_pickle=False) as arrays:
        for case in cases:
            prefix = f"{case}/look-alike/"
            kinds = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
            found.append(
                PhotographScore(
                    str(arrays[f"{case}/patient"]),
                    LevelCounts(*arrays[f"{case}/pixels"]),
                    LesionCounts(*arrays[f"{case}/finds"], int(arrays[f"{case}/lesions"])),
                    {kind: (int(taken[0]), int(taken[1])) for kind, taken in kinds.items()},
                )
            )
    return found
