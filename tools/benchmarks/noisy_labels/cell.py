"""One cell of the label-noise benchmark: train on corrupted labels with one method, score on clean ones, rank
the labels.

run.py runs grids of cells; here is what one of them does, so that it can be tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from images import Fetched, Images, augmented, cxr_images, phantom_images
from methods import COMPARED, Compared
from monai.data import DataLoader
from monai.networks.nets import UNet
from scores import dice_of, rankings, side_of
from torch import nn

from medseg.errors import InputError
from medseg.networks.quality import QualityModule
from medseg.training.checkpoints import AutocastInferer
from medseg.training.noisy.generators import FreshLabelNoised, Noise, plan
from medseg.training.noisy.noise import Corruption, CorruptionRecord, corrupt
from medseg.training.noisy.quality_weights import QualityWeights
from medseg.training.noisy.trainer import METHODS, NoisyLabelTrainer

SIZES_AT_256 = {"1-8": (1.0, 8.0), "5-13": (5.0, 13.0)}
"""The two ranges of the paper, in pixels of a 256 x 256 image."""


@dataclass(frozen=True)
class Cell:
    """One training run. `sizes`: a key of SIZES_AT_256. `method`: a key of COMPARED. `subset` "clean": only
    the cases left uncorrupted (the oracle).

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
        noise = [self.data, self.generator, self.direction, f"{self.share:.2f}", self.sizes]
        fixed = [f"fixed{self.fixed_share:.2f}", self.fixed_by] if self.fixed_share else []
        return "_".join([*noise, self.method, self.subset, *fixed, f"seed{self.seed}"])


@dataclass(frozen=True)
class Budget:
    """What every cell gets, whatever its method: steps, batch and a one-cycle learning rate with this
    maximum.

    The large rate and batch norm are what lets a small U-Net converge within a minute on one processor
    thread.
    """

    side: int = 128
    train: int = 165
    test: int = 82
    steps: int = 300
    batch: int = 16
    learning_rate: float = 2e-2
    channels: tuple[int, ...] = (8, 16, 32, 64, 96)
    quality_channels: tuple[tuple[int, ...], ...] = ((8,), (16,), (32,), (32,))


@dataclass(frozen=True)
class Place:
    """Where a cell runs: device; folder of the real radiographs; folder that keeps drawn phantoms."""

    device: str = "cpu"
    radiographs: Path | None = None
    drawn: Path | None = None


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


def images_of(cell: Cell, budget: Budget, place: Place) -> tuple[Images, Images]:
    """The cell's training and test images."""
    load: dict[str, Callable[[], tuple[Images, Images]]] = {
        "phantom": lambda: phantom_images(budget.side, (budget.train, budget.test), cell.seed, place.drawn),
        "cxr": lambda: cxr_images(_required(place.radiographs), budget.side, cell.seed),
        "cxr_fold1": lambda: cxr_images(_required(place.radiographs), budget.side, cell.seed, "fold1"),
        "cxr_fold2": lambda: cxr_images(_required(place.radiographs), budget.side, cell.seed, "fold2"),
    }
    if cell.data not in load:
        raise InputError(f"unknown data '{cell.data}'; choose one of {', '.join(load)}.")
    return load[cell.data]()


def run_cell(
    cell: Cell, budget: Budget, place: Place = Place(), base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train, score and rank; returns what JSON can hold. `base`: the result whose ranking `fixed_by`
    follows."""
    if cell.method not in COMPARED:
        raise InputError(f"unknown method '{cell.method}'; choose one of {', '.join(COMPARED)}.")
    compared = COMPARED[cell.method]
    train, test = images_of(cell, budget, place)
    noise = noise_of(cell, budget, len(train.structures))
    train, labels, records = corrupted(cell, noise, train, base)
    anchors = anchors_of(compared, records, cell.seed)
    if compared.anchors_only:
        kept = np.array([i for i, name in enumerate(train.names) if name in anchors])
        train, labels, records = train.rows(kept), labels[kept], [records[i] for i in kept]
    torch.manual_seed(cell.seed)
    trainer, quality, epochs = trained(cell, budget, place, (train, labels), (noise, anchors))
    device = torch.device(place.device)
    network = trainer.network.eval()
    return {
        "cell": asdict(cell),
        "budget": asdict(budget),
        "device": place.device,
        "structures": list(train.structures),
        "test": {"cases": test.names, "dice": dice_of(network, test, device)},
        "train": {
            "cases": train.names,
            "noisy": [int(record.noisy) for record in records],
            "side": side_of(train.masks, labels),
            "anchors": sorted(anchors),
            "label_dice": [float(np.nanmean(record.label_dice)) for record in records],
            "scores": rankings(network, quality, train.images, labels, device),
        },
        "epochs": epochs if quality is not None else epochs[-1:],
        "trusted": None if quality is None else _plain(trainer.learner.trusted),
    }


def corrupted(
    cell: Cell, noise: Noise, train: Images, base: dict[str, Any] | None
) -> tuple[Images, np.ndarray, list[CorruptionRecord]]:
    """Images, labels and what was done to them; fresh noise is not put on here."""
    if cell.generator == "paper":
        corruptions = {name: Corruption("clean") for name in train.names}
    else:
        corruptions = plan(noise, train.names)
        for name in _fixed(cell, train.names, base):
            corruptions[name] = Corruption("clean")
    if cell.subset == "clean":
        right = [i for i, name in enumerate(train.names) if corruptions[name].kind == "clean"]
        train = train.rows(np.array(right))
    made = [
        corrupt(n, corruptions[n], mask, (1.0, 1.0)) for n, mask in zip(train.names, train.masks, strict=True)
    ]
    return train, np.stack([label for label, _ in made]), [record for _, record in made]


def anchors_of(compared: Compared, records: list[CorruptionRecord], seed: int) -> list[str]:
    """Names of labels the method is told to be right, drawn among those that are."""
    right = sorted(record.case for record in records if not record.noisy)
    if len(right) < compared.anchors:
        raise InputError(f"{compared.anchors} labels should be known right; only {len(right)} are.")
    return list(np.random.default_rng([seed, 77]).permutation(right)[: compared.anchors])


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


def trained(
    cell: Cell,
    budget: Budget,
    place: Place,
    labelled: tuple[Images, np.ndarray],
    told: tuple[Noise, list[str]],
) -> tuple[NoisyLabelTrainer, nn.Module | None, list[dict[str, float]]]:
    """A trainer that has run, its quality module, and what it logged after each epoch. told: the law of the
    noise, and the anchors' names."""
    (train, labels), (noise, anchors) = labelled, told
    device, channels = torch.device(place.device), len(train.structures)
    network = UNet(
        2, 1, channels, budget.channels, (2,) * (len(budget.channels) - 1), num_res_units=1, norm="batch"
    )
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=budget.learning_rate)
    batch = min(budget.batch, len(train.names))
    epochs = max(1, budget.steps // max(1, len(train.names) // batch))
    compared = COMPARED[cell.method]
    options, quality = method_options(compared, cell, budget, channels, epochs)
    if quality is not None and anchors:
        options["anchors"] = anchors
    fresh = FreshLabelNoised("label", noise) if cell.generator == "paper" else None
    if fresh is not None:
        fresh.set_random_state(cell.seed)
    # Fresh noise is made of arrays in memory; everything else is augmented where it is trained.
    kept_on = torch.device("cpu") if fresh is not None else device
    samples = [
        {
            "image": torch.from_numpy(image).to(kept_on),
            "label": torch.from_numpy(label.astype(np.float32)).to(kept_on),
            "case_id": name,
            "noisy": int(noisy),
        }
        for image, label, name, noisy in zip(
            train.images, labels, train.names, (labels != train.masks).any((1, 2, 3)), strict=True
        )
    ]
    trainer = NoisyLabelTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=DataLoader(
            Fetched(samples, fresh), batch_size=batch, shuffle=True, drop_last=True, collate_fn=augmented
        ),
        network=network,
        optimizer=optimizer,
        inferer=AutocastInferer(),
        decollate=False,
        method=compared.method,
        method_options=options,
        loss_function=compared.loss() if compared.loss is not None else None,
    )
    _one_cycle(trainer)
    epochs_seen: list[dict[str, float]] = []
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: epochs_seen.append(_rounded(engine.state.metrics))
    )
    trainer.run()
    return trainer, quality, epochs_seen


def method_options(
    compared: Compared, cell: Cell, budget: Budget, channels: int, epochs: int
) -> tuple[dict[str, Any], nn.Module | None]:
    """What the trainer is given, and the quality module among it."""
    options = dict(compared.options)
    if compared.needs_share:
        options["drop_share"] = cell.share
    if compared.method == "confident_learning":
        options["teacher_epochs"] = epochs // 2
    if METHODS[compared.method].learner is not QualityWeights:
        return options, None
    quality = QualityModule(
        2, 1 + channels, backbone=budget.quality_channels, standardise=compared.standardise
    )
    return {**options, "quality": quality}, quality


def _one_cycle(trainer: NoisyLabelTrainer) -> None:
    """Let the network's learning rate follow one cycle; the trainer hands it to the other optimizers."""
    steps = trainer.state.max_epochs * len(trainer.data_loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        trainer.optimizer, trainer.optimizer.param_groups[0]["lr"], total_steps=steps, pct_start=0.15
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: schedule.step())


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 3) for name, value in metrics.items()}


def _plain(trusted: torch.Tensor | None) -> list[bool] | None:
    return None if trusted is None else trusted.tolist()


def without_fixing(cell: Cell) -> Cell:
    """The cell whose ranking `cell` follows."""
    return replace(cell, fixed_share=0.0, fixed_by="")
