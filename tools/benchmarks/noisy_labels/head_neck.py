"""Wrong contours in 3D: whole head-and-neck CTs, with blunders in the contours of some of the patients.

    python tools/benchmarks/noisy_labels/head_neck.py prepare DATASET_DIR CASES.npz
    python tools/benchmarks/noisy_labels/head_neck.py train CASES.npz OUT --device cuda --jobs 4
    python tools/benchmarks/noisy_labels/head_neck.py report OUT -o docs/reference/noisy_labels

    python tools/benchmarks/noisy_labels/head_neck.py prepare DATASET_DIR COARSE.npz --spacing-mm 6
    python tools/benchmarks/noisy_labels/head_neck.py train COARSE.npz OUT --budget coarse

DATASET_DIR is OpenKBP as the bundle ct_head_neck reads it. Every run sees the 72 training patients in batches
of two, which quality weights compare with a queue of earlier ones; each structure has a score of its own.
Wrong patients have a blunder in every contour (head_neck_cases.draw). The 20 test patients are scored once,
on their given contours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from head_neck_cases import SHAPES, Case, Volumes, corrupted, load, prepare
from ignite.engine import Events
from monai.data import DataLoader
from monai.networks.nets import UNet

from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path
from medseg.losses import BCEPerSample, DiceBCEPerSample, SizedBCEPerSample
from medseg.networks import QualityModule, ResUNetSE, StructureQualityModule
from medseg.training.checkpoints import AutocastInferer
from medseg.training.noisy.trainer import NoisyLabelTrainer

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "ct_head_neck"
STRUCTURES = (
    "Brainstem",
    "SpinalCord",
    "Parotid_R",
    "Parotid_L",
    "Esophagus",
    "Larynx",
    "Bone_Mandible",
    "PTV",
)
QUEUE = {"pool": "queue", "pool_options": {"length": 30, "max_age": 15}, "per_class": True}
SIZED = {**QUEUE, "judge": SizedBCEPerSample(), "objective": "regress", "strength": 4.0}


@dataclass(frozen=True)
class Compared:
    """method: the trainer's. module: the quality module, where it has one."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    module: type[QualityModule] | None = None


METHODS = {
    "dice_ce": Compared("dice_ce"),
    "qam_ocm": Compared("qam_ocm", QUEUE, QualityModule),
    "qam_ocm_sized": Compared("qam_ocm", SIZED, StructureQualityModule),
    "loss_history": Compared("loss_history"),
}
"""qam_ocm_sized: judged by the size of each structure, and looking around each label."""

SEEDS, SHARES = (11, 12, 13), (0.5, 0.0, 0.75, 0.25)


@dataclass(frozen=True)
class Budget:
    """What every run gets."""

    steps: int = 900
    batch: int = 2
    learning_rate: float = 3e-3
    channels: tuple[int, ...] = (8, 16, 32, 64, 96)
    squeeze: bool = True

    def network(self) -> torch.nn.Module:
        """ResUNetSE, or without ``squeeze`` a plain U-Net with instance normalisation."""
        count = len(STRUCTURES)
        if self.squeeze:
            return ResUNetSE(3, 1, count, channels=self.channels)
        return UNet(3, 1, count, self.channels, strides=(2,) * (len(self.channels) - 1))


BUDGETS = {"fine": Budget(), "coarse": Budget(steps=2000, channels=(16, 32, 64, 128), squeeze=False)}
"""fine: volumes of 4 mm on a graphics card. coarse: volumes of 6 mm, minutes of a processor each."""


def run(cases: Path, share: float, method: str, seed: int, budget: Budget, device: str) -> dict[str, Any]:
    """Train on wrong contours, score on the test patients; returns what JSON can hold."""
    begin = time.perf_counter()
    place, training, test = torch.device(device), load(cases, "training"), load(cases, "test")
    labels, noisy = corrupted(training, share, seed)
    torch.manual_seed(seed)
    network = budget.network().to(place)
    optimizer = torch.optim.AdamW(network.parameters(), budget.learning_rate, weight_decay=0.01)
    compared = METHODS[method]
    options, quality = dict(compared.options), None
    if compared.module is not None:
        channels = ((8,), (16,), (32,), (32,))
        quality = compared.module(3, 1 + len(STRUCTURES), len(STRUCTURES), backbone=channels)
        options["quality"] = quality
    loader = DataLoader(
        Volumes(training, labels, noisy, place), batch_size=budget.batch, shuffle=True, drop_last=True
    )
    epochs = max(1, budget.steps // len(loader))
    trainer = NoisyLabelTrainer(
        device=place,
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        inferer=AutocastInferer(),
        decollate=False,
        method=compared.method,
        method_options=options,
        loss_function=DiceBCEPerSample(bce_weight=2.0, smooth=0.001),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.learning_rate, total_steps=epochs * len(loader), pct_start=0.15
    )
    seen: list[dict[str, float]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: schedule.step())
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda engine: seen.append({k: round(float(v), 3) for k, v in engine.state.metrics.items()}),
    )
    trainer.run()
    network.eval()
    return {
        "run": {"share": share, "method": method, "seed": seed},
        "budget": asdict(budget),
        "device": device,
        "test": {
            "cases": [case.name for case in test],
            "dice": [dice(network, case, place) for case in test],
        },
        "train": {
            "cases": [case.name for case in training],
            "noisy": noisy,
            "scores": rankings(network, quality, training, labels, place),
        },
        "epochs": seen,
        "trusted": None if quality is None else trainer.learner.trusted.tolist(),
        "minutes": (time.perf_counter() - begin) / 60,
    }


@torch.no_grad()
def logits(network: torch.nn.Module, image: np.ndarray, place: torch.device) -> torch.Tensor:
    """(1, C, x, y, z) of an image uint8 (x, y, z)."""
    return AutocastInferer()(torch.from_numpy(image).to(place)[None, None].float() / 255, network)


def dice(network: torch.nn.Module, case: Case, place: torch.device) -> list[float | None]:
    """Of each structure; None where it was not contoured."""
    found = (logits(network, case.image, place)[0] > 0).cpu().numpy()
    both = (found & case.masks).sum((1, 2, 3))
    sizes = found.sum((1, 2, 3)) + case.masks.sum((1, 2, 3))
    return [
        float(2 * b / max(s, 1)) if known else None
        for b, s, known in zip(both, sizes, case.present, strict=True)
    ]


@torch.no_grad()
def rankings(
    network: torch.nn.Module,
    quality: QualityModule | None,
    cases: list[Case],
    labels: list[np.ndarray],
    place: torch.device,
) -> dict[str, list[list[float | None]]]:
    """How suspicious each training contour is, larger = more, (cases, structures); None if not contoured."""
    found: dict[str, list] = {"final_loss": []} | ({"quality": []} if quality is not None else {})
    for case, label in zip(cases, labels, strict=True):
        given = torch.from_numpy(label).to(place)[None].float()
        given[:, torch.from_numpy(~case.present).to(place)] = torch.nan
        losses = BCEPerSample().per_channel(logits(network, case.image, place), given)[0][0]
        values = {"final_loss": losses}
        if quality is not None:
            image = torch.from_numpy(case.image).to(place)[None, None].float() / 255
            values["quality"] = -AutocastInferer()(torch.cat([image, given], 1), quality.eval())[0]
        for name, row in values.items():
            pairs = zip(row.tolist(), case.present, strict=True)
            found[name].append([value if known else None for value, known in pairs])
    return found


def finish(cases: Path, out: Path, what: tuple[float, str, int], budget: Budget, device: str) -> str:
    """One run and its file, unless that is there; its name."""
    share, method, seed = what
    path = out / f"{share:.2f}_{method}_seed{seed}.json"
    if not path.exists():
        torch.set_num_threads(1)
        result = run(cases, share, method, seed, budget, device)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(result))
    return path.stem


def train(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    budget = BUDGETS[options.budget]
    budget = replace(budget, steps=options.steps or budget.steps)
    todo = [(share, method, seed) for seed, share, method in itertools.product(SEEDS, SHARES, METHODS)]
    todo = [what for what in todo if options.only in f"{what[0]:.2f}_{what[1]}_seed{what[2]}"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        jobs = [
            pool.submit(finish, options.cases, options.out, what, budget, options.device) for what in todo
        ]
        for job in as_completed(jobs):
            print(job.result(), flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare", help="read the CTs once")
    one.add_argument("dataset", type=Path)
    one.add_argument("cases", type=Path)
    one.add_argument("--spacing-mm", type=float, choices=tuple(SHAPES), default=4.0)
    one.add_argument("--jobs", type=int, default=1)
    two = commands.add_parser("train", help="train the runs that are not finished")
    two.add_argument("cases", type=Path)
    two.add_argument("out", type=Path)
    two.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    two.add_argument("--jobs", type=int, default=1)
    two.add_argument("--budget", choices=tuple(BUDGETS), default="fine")
    two.add_argument("--steps", type=int, help="training steps instead of the budget's")
    two.add_argument("--only", default="", help="only runs whose name contains this")
    three = commands.add_parser("report", help="tables of what is finished")
    three.add_argument("out", type=Path)
    three.add_argument("-o", "--output", type=Path, required=True)
    three.add_argument("--markdown", type=Path, help="page whose section NAME is replaced")
    three.add_argument("--name", default="head_neck", help="of the section and the table")
    three.add_argument(
        "--audit", type=Path, help="audit.json of the test patients: what it suspects is left out"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        if options.command == "prepare":
            prepare(options.dataset, BUNDLE, options.cases, options.spacing_mm, options.jobs)
        elif options.command == "train":
            if options.jobs < 1 or (options.steps is not None and options.steps < 1):
                raise InputError("--jobs and --steps are 1 or more.")
            train(options)
        else:
            from head_neck_report import write_report

            page = options.markdown
            write_report(options.out, options.output, STRUCTURES, page, options.name, options.audit)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
