"""One cell of the label-noise benchmark: train on corrupted labels with one method, score on clean ones, rank
the labels.

tools/benchmark_noisy_labels.py runs grids of cells; here is what one of them does, so that it can be tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from monai.networks.nets import UNet
from torch import nn

from medseg.errors import InputError
from medseg.losses.per_sample import BCEPerSample
from medseg.networks.quality import QualityModule
from medseg.training.checkpoints import AutocastInferer
from medseg.training.noisy.benchmark_data import Fetched, Images, augmented, cxr_images, phantom_images
from medseg.training.noisy.generators import FreshLabelNoised, Noise, plan
from medseg.training.noisy.learners import QualityWeights
from medseg.training.noisy.noise import Corruption, corrupt
from medseg.training.noisy.trainer import METHODS, NoisyLabelTrainer

SIZES_AT_256 = {"1-8": (1.0, 8.0), "5-13": (5.0, 13.0)}
"""The two ranges of the paper, in pixels of a 256 x 256 image."""

SURFACE_TOLERANCE_PX = 2.0
GIVEN_THE_SHARE = ("trimming", "co_teaching")
"""Methods that are told the true share of corrupted labels, which the others have to do without."""


@dataclass(frozen=True)
class Cell:
    """One training run. `sizes`: a key of SIZES_AT_256. `subset` "clean": only the cases left uncorrupted
    (the oracle).

    `fixed_share`: the worst share of the training labels, by `fixed_by` ("random", or a score of the cell
    without fixing), that is replaced by the true ones before training.
    """

    data: str
    generator: str
    share: float
    sizes: str
    method: str
    seed: int
    direction: str = "both"
    subset: str = "all"
    fixed_share: float = 0.0
    fixed_by: str = ""

    @property
    def key(self) -> str:
        parts = [
            self.data,
            self.generator,
            self.direction,
            f"{self.share:.2f}",
            self.sizes,
            self.method,
            self.subset,
        ]
        fixed = [f"fixed{self.fixed_share:.2f}", self.fixed_by] if self.fixed_share else []
        return "_".join([*parts, *fixed, f"seed{self.seed}"])


@dataclass(frozen=True)
class Budget:
    """What every cell gets, whatever its method: steps, batch and a one-cycle learning rate with these
    maxima.

    The large rate and batch norm are what lets a small U-Net converge within a minute on one processor
    thread.
    """

    side: int = 128
    train: int = 165
    test: int = 82
    steps: int = 300
    batch: int = 16
    learning_rate: float = 2e-2
    quality_learning_rate: float = 1e-3
    warmup: float = 0.5
    channels: tuple[int, ...] = (8, 16, 32, 64, 96)
    quality_channels: tuple[tuple[int, ...], ...] = ((8,), (16,), (32,), (32,))


def noise_of(cell: Cell, budget: Budget, channels: int) -> Noise:
    """The cell's noise with sizes scaled from 256 pixels to the budget's grid."""
    if cell.sizes not in SIZES_AT_256:
        raise InputError(f"unknown noise sizes '{cell.sizes}'; choose one of {', '.join(SIZES_AT_256)}.")
    low, high = (size * budget.side / 256 for size in SIZES_AT_256[cell.sizes])
    return Noise(
        cell.generator,
        cell.share,
        (low, high),
        cell.direction,
        channels=channels,
        axes=2,
        seed=1000 + cell.seed,
    )


def run_cell(
    cell: Cell, budget: Budget, folder: Path | None = None, base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train, score and rank; returns what JSON can hold. `base`: the result whose ranking `fixed_by`
    follows."""
    load: dict[str, Callable[[], tuple[Images, Images]]] = {
        "phantom": lambda: phantom_images(budget.side, (budget.train, budget.test), cell.seed),
        "cxr": lambda: cxr_images(_required(folder), budget.side, cell.seed),
        "cxr_fold1": lambda: cxr_images(_required(folder), budget.side, cell.seed, "fold1"),
        "cxr_fold2": lambda: cxr_images(_required(folder), budget.side, cell.seed, "fold2"),
    }
    if cell.data not in load:
        raise InputError(f"unknown data '{cell.data}'; choose one of {', '.join(load)}.")
    train, test = load[cell.data]()
    noise = noise_of(cell, budget, len(train.structures))
    if cell.generator == "paper":
        corruptions = {name: Corruption("clean") for name in train.names}
    else:
        corruptions = plan(noise, train.names)
        for name in _fixed(cell, train.names, base):
            corruptions[name] = Corruption("clean")
    if cell.subset == "clean":
        train = train.rows(
            np.array([i for i, name in enumerate(train.names) if corruptions[name].kind == "clean"])
        )
    made = [
        corrupt(n, corruptions[n], mask, (1.0, 1.0)) for n, mask in zip(train.names, train.masks, strict=True)
    ]
    labels = np.stack([label for label, _ in made])
    torch.manual_seed(cell.seed)
    trainer, quality, mean_loss = _trained(cell, budget, train, labels, noise)
    network = trainer.network.eval()
    return {
        "cell": asdict(cell),
        "budget": asdict(budget),
        "structures": list(train.structures),
        "test": {"cases": test.names, **score(network, test)},
        "train": {
            "cases": train.names,
            "noisy": [int(record.noisy) for _, record in made],
            "label_dice": [float(np.nanmean(record.label_dice)) for _, record in made],
            "scores": rankings(network, quality, train.images, labels) | {"mean_loss": mean_loss},
        },
        "last_epoch": {name: float(value) for name, value in trainer.state.metrics.items()},
    }


def _required(folder: Path | None) -> Path:
    if folder is None:
        raise InputError("the real radiographs need their folder: --cxr FOLDER.")
    return folder


def _fixed(cell: Cell, names: list[str], base: dict[str, Any] | None) -> list[str]:
    """The cases whose labels a reviewer has corrected."""
    count = round(cell.fixed_share * len(names))
    if not count:
        return []
    if cell.fixed_by == "random":
        return list(np.random.default_rng([cell.seed, 31]).permutation(names)[:count])
    if base is None or cell.fixed_by not in base["train"]["scores"]:
        raise InputError(
            f"{cell.key} follows the ranking '{cell.fixed_by}' of a run without fixing, which is missing."
        )
    suspicion = base["train"]["scores"][cell.fixed_by]
    return [base["train"]["cases"][i] for i in np.argsort(suspicion)[::-1][:count]]


# ---- training ----------------------------------------------------------------------------------------------


def _trained(
    cell: Cell, budget: Budget, train: Images, labels: np.ndarray, noise: Noise
) -> tuple[NoisyLabelTrainer, nn.Module | None, list[float]]:
    channels = len(train.structures)
    network = UNet(
        2, 1, channels, budget.channels, (2,) * (len(budget.channels) - 1), num_res_units=1, norm="batch"
    )
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=budget.learning_rate)
    batch = min(budget.batch, len(train.names))
    epochs = max(1, budget.steps // max(1, len(train.names) // batch))
    options, quality = _method_options(cell, budget, channels, epochs)
    samples = [
        {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label.astype(np.float32)),
            "case_id": name,
        }
        for image, label, name in zip(train.images, labels, train.names, strict=True)
    ]
    fresh = FreshLabelNoised("label", noise) if cell.generator == "paper" else None
    if fresh is not None:
        fresh.set_random_state(cell.seed)
    trainer = NoisyLabelTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(
            Fetched(samples, fresh), batch_size=batch, shuffle=True, drop_last=True, collate_fn=augmented
        ),
        network=network,
        optimizer=optimizer,
        inferer=AutocastInferer(),
        decollate=False,
        method=cell.method,
        method_options=options,
        warmup=budget.warmup,
    )
    mean_loss = _follow(trainer, train.names)
    trainer.run()
    return trainer, quality, [mean_loss[name] for name in train.names]


def _method_options(
    cell: Cell, budget: Budget, channels: int, epochs: int
) -> tuple[dict[str, Any], nn.Module | None]:
    if cell.method in GIVEN_THE_SHARE:
        return {"drop_share": cell.share}, None
    if cell.method == "confident_learning":
        return {"teacher_epochs": epochs // 2}, None
    if cell.method in METHODS and METHODS[cell.method].learner is QualityWeights:
        quality = QualityModule(2, 1 + channels, backbone=budget.quality_channels)
        return {
            "quality": quality,
            "optimizer": torch.optim.Adam(quality.parameters(), budget.quality_learning_rate),
        }, quality
    return {}, None


def _follow(trainer: NoisyLabelTrainer, names: list[str]) -> dict[str, float]:
    """Let learning rates follow one cycle, and return each case's loss, averaged over the training; filled as
    it runs."""
    # The trainer hands the network's rate to all other optimizers but the quality module's.
    optimizers = [
        trainer.optimizer,
        *(o for name, o in trainer.learner.optimizers.items() if name == "quality"),
    ]
    steps = trainer.state.max_epochs * len(trainer.data_loader)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, optimizer.param_groups[0]["lr"], total_steps=steps, pct_start=0.15
        )
        for optimizer in optimizers
    ]
    seen: dict[str, list[float]] = {name: [] for name in names}
    means = dict.fromkeys(names, 0.0)

    def after_step(engine: NoisyLabelTrainer) -> None:
        for schedule in schedules:
            schedule.step()
        for name, loss in zip(
            engine.state.batch["case_id"], engine.state.output["sample_loss"].tolist(), strict=True
        ):
            seen[name].append(loss)
            means[name] = float(np.mean(seen[name]))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, after_step)
    return means


# ---- scores ------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(network: nn.Module, images: np.ndarray) -> torch.Tensor:
    """Logits float32 (N, C, side, side) in float32 arithmetic."""
    return torch.cat([network(torch.from_numpy(images[i : i + 16])) for i in range(0, len(images), 16)])


def score(network: nn.Module, test: Images) -> dict[str, list]:
    """Per case and structure, lists (N, C): dice, surface_dice at SURFACE_TOLERANCE_PX and hd95_px.

    An empty prediction of a structure that is there scores 0, 0 and the image's diagonal.
    """
    predicted, truth = predict(network, test.images) > 0, torch.from_numpy(test.masks)
    both = (predicted & truth).sum((2, 3)).float()
    dice = 2 * both / (predicted.sum((2, 3)) + truth.sum((2, 3))).clamp(min=1)
    a, b = predicted.float(), truth.float()
    surface = compute_surface_dice(a, b, [SURFACE_TOLERANCE_PX] * truth.shape[1], include_background=True)
    hd95 = compute_hausdorff_distance(a, b, include_background=True, percentile=95)
    empty = ~predicted.flatten(2).any(-1)
    diagonal = float(np.hypot(*truth.shape[2:]))
    return {
        "dice": dice.tolist(),
        "surface_dice": surface.masked_fill(empty, 0.0).tolist(),
        "hd95_px": hd95.masked_fill(empty, diagonal).clamp(max=diagonal).tolist(),
    }


@torch.no_grad()
def rankings(
    network: nn.Module, quality: nn.Module | None, images: np.ndarray, labels: np.ndarray
) -> dict[str, list[float]]:
    """How suspicious each training label is, larger = more: final loss, 1 - Dice to the prediction, and -t if
    scored."""
    logits, given = predict(network, images), torch.from_numpy(labels)
    predicted = logits > 0
    overlap = 2 * (predicted & given).sum((2, 3)) / (predicted.sum((2, 3)) + given.sum((2, 3))).clamp(min=1)
    found = {
        "final_loss": BCEPerSample()(logits, given.float()).tolist(),
        "disagreement": (1 - overlap).mean(1).tolist(),
    }
    if quality is not None:
        pairs = torch.cat([torch.from_numpy(images), given.float()], dim=1)
        found["quality"] = (-quality.eval()(pairs).mean(1)).tolist()
    return found


def detection(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each score of a result: AUROC, average precision and precision among the worst 10 %; {} without
    both kinds."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    noisy = np.array(result["train"]["noisy"])
    if noisy.min() == noisy.max():
        return {}
    answer = {}
    for name, suspicion in result["train"]["scores"].items():
        worst = np.argsort(suspicion)[::-1][: max(1, round(0.1 * len(noisy)))]
        answer[name] = {
            "auroc": float(roc_auc_score(noisy, suspicion)),
            "average_precision": float(average_precision_score(noisy, suspicion)),
            "precision_at_10_percent": float(noisy[worst].mean()),
        }
    return answer


def without_fixing(cell: Cell) -> Cell:
    """The cell whose ranking `cell` follows."""
    return replace(cell, fixed_share=0.0, fixed_by="")
