"""Two small networks for nodule crops, one that outlines and one that judges, trained fold by fold."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from crop_data import LEVELS, Crops, load
from monai.losses import DiceCELoss
from monai.networks.nets import ResNet, UNet
from torch import nn

SIDE = 48
"""Voxels of 1 mm along each side of what a network sees, around the middle of the crop."""

SHIFT = 4
"""In training the middle lies so many voxels elsewhere, at most, along each axis."""

TASKS = ("mask", "malignancy")


@dataclass(frozen=True)
class Training:
    """How a fold is trained."""

    data: Path
    out: Path
    epochs: int = 40
    batch: int = 16
    rate: float = 1e-3
    folds: int = 5
    device: str = "cpu"
    most: int = 0
    """So many crops of each fold only, for a try; 0: all."""


def network(task: str) -> nn.Module:
    """1.2 million weights that outline, or 0.9 million that judge."""
    if task == "mask":
        return UNet(3, 1, 1, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2)
    return ResNet(
        "basic",
        layers=[1, 1, 1, 1],
        block_inplanes=[16, 32, 64, 128],
        n_input_channels=1,
        num_classes=1,
        conv1_t_size=3,
        conv1_t_stride=1,
    )


def centred(array: np.ndarray, side: int) -> np.ndarray:
    """(side, side, side) around the middle of an array (x, y, z): cut where it is larger, 0 beyond it."""
    result = np.zeros((side,) * 3, dtype=array.dtype)
    source, target = [], []
    for n in array.shape:
        kept = min(n, side)
        source.append(slice((n - kept) // 2, (n - kept) // 2 + kept))
        target.append(slice((side - kept) // 2, (side - kept) // 2 + kept))
    result[tuple(target)] = array[tuple(source)]
    return result


def put_back(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of :func:`centred`: an array of ``shape``, 0 where the network did not look."""
    result = np.zeros(shape, dtype=values.dtype)
    side = values.shape[0]
    source, target = [], []
    for n in shape:
        kept = min(n, side)
        target.append(slice((n - kept) // 2, (n - kept) // 2 + kept))
        source.append(slice((side - kept) // 2, (side - kept) // 2 + kept))
    result[tuple(target)] = values[tuple(source)]
    return result


def cubes(crops: Crops, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (N, 1, side, side, side) images and masks."""
    images = np.stack([centred(image, side) for image in crops.images])
    masks = np.stack([centred(mask, side) for mask in crops.masks])
    return torch.from_numpy(images)[:, None], torch.from_numpy(masks.astype(np.uint8))[:, None]


def moved(images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float batches cut from cubes that are 2 SHIFT larger: shifted, mirrored, turned by quarters about the
    body's axis, each sample with another brightness (up to 45 HU) and contrast (5 %)."""
    starts = torch.randint(2 * SHIFT + 1, (len(images), 3)).tolist()
    both = torch.stack(
        [
            pair[:, x : x + SIDE, y : y + SIDE, z : z + SIDE]
            for pair, (x, y, z) in zip(torch.cat([images, masks], dim=1), starts, strict=True)
        ]
    )
    axes = [axis for axis in (2, 3, 4) if torch.rand(()) < 0.5]
    both = torch.rot90(both.flip(axes), int(torch.randint(4, ())), (2, 3))
    light, contrast = (torch.rand(len(both), 1, 1, 1, 1, device=both.device) * 2 - 1 for _ in range(2))
    seen = both[:, :1].float() / LEVELS
    return seen * (1 + 0.05 * contrast) + 0.025 * light, both[:, 1:].float()


def train_fold(task: str, fold: int, seed: int, training: Training) -> Path:
    """Train on the other folds, for a fixed number of epochs, and write what is said of this one: masks of
    the crops' own shape, or chances. A fold that is done is left alone."""
    out = training.out / f"{task}_{fold}_{seed}.npz"
    if out.exists():
        return out
    crops = load(training.data)
    folds, votes = crops.folds(training.folds, 0), crops.votes()
    learn = np.flatnonzero((folds != fold) & ((votes != 0) | (task == "mask")))
    told = np.flatnonzero(folds == fold)
    if training.most:
        learn, told = learn[: training.most], told[: training.most]
    torch.manual_seed(seed)
    device = torch.device(training.device)
    model = network(task).to(device)
    loss = DiceCELoss(sigmoid=True) if task == "mask" else nn.BCEWithLogitsLoss()
    wide = tuple(part.to(device) for part in cubes(crops, SIDE + 2 * SHIFT))
    truth = torch.from_numpy(votes > 0).float().to(device)[:, None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.rate, weight_decay=1e-2)
    steps = training.epochs * -(-len(learn) // training.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, total_steps=steps)
    model.train()
    for _ in range(training.epochs):
        for rows in torch.from_numpy(learn)[torch.randperm(len(learn))].split(training.batch):
            images, masks = moved(*(part[rows.to(device)] for part in wide))
            wanted = masks if task == "mask" else truth[rows.to(device)]
            optimizer.zero_grad()
            loss(model(images), wanted).backward()
            optimizer.step()
            schedule.step()
    answers = _answers(model, wide[0][told][..., SHIFT:-SHIFT, SHIFT:-SHIFT, SHIFT:-SHIFT])
    save_answers(out, told, answers if task == "mask" else answers.ravel(), crops, task)
    return out


@torch.inference_mode()
def _answers(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Chances, the mean over the crop and its mirror images along the three axes."""
    model.eval()
    found = []
    for batch in images.split(16):
        seen, chances = batch.float() / LEVELS, 0.0
        for axes in ((), (2,), (3,), (4,)):
            said = torch.sigmoid(model(seen.flip(axes)))
            chances = chances + (said.flip(axes) if said.ndim == 5 else said) / 4
        found.append(chances.cpu().numpy())
    return np.concatenate(found)


def save_answers(out: Path, rows: np.ndarray, answers: np.ndarray, crops: Crops, task: str) -> None:
    """One .npz of a fold: ``rows`` of the crops and ``chances`` of malignancy, or ``masks`` as bits."""
    if task == "malignancy":
        kept = {"chances": answers.astype(np.float32)}
    else:
        masks = [
            put_back(said[0] >= 0.5, crops.masks[row].shape) for row, said in zip(rows, answers, strict=True)
        ]
        kept = {"masks": np.packbits(np.concatenate([mask.ravel() for mask in masks]))}
    temporary = out.with_suffix(".part.npz")
    np.savez_compressed(temporary, rows=rows, **kept)
    temporary.replace(out)


def train_all(training: Training, seeds: int, jobs: int) -> None:
    """Every fold of both tasks, ``jobs`` at a time."""
    training.out.mkdir(parents=True, exist_ok=True)
    wanted = [(t, f, s) for s in range(seeds) for t in TASKS for f in range(training.folds)]
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed([pool.submit(train_fold, *one, training) for one in wanted]):
            print(f"{done.result().name}: done", flush=True)
