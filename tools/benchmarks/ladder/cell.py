"""One cell of the ladder: train one network on two thirds of the patients, score it on the others."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from data import TOLERANCE_MM, Task, score
from monai.data import DataLoader
from monai.data.utils import set_rnd
from steps import STEPS, Step
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medseg.losses import BCEPerSample, PerSampleLoss
from medseg.training.checkpoints import AutocastInferer


@dataclass(frozen=True)
class Budget:
    """What every cell gets, whatever its network: AdamW, one cycle of the learning rate."""

    steps: int = 300
    batch: int = 2
    learning_rate: float = 2e-3
    weight_decay: float = 0.01


BUDGETS = {
    "head_neck": Budget(),
    "head_neck_coarse": Budget(steps=500, learning_rate=4e-3),
    "sarcoma": Budget(),
}


def run(task: Task, name: str, fold: int, seed: int, budget: Budget, device: torch.device) -> dict[str, Any]:
    """Train and score; returns what JSON can hold."""
    torch.manual_seed(1000 * seed + fold)
    step = STEPS[name]
    network = step.network(task.inputs, len(task.structures), task.widths, task.fold, task.start).to(device)
    begin = time.perf_counter()
    losses = _trained(network, loss_of(step, task), task, (fold, seed), budget, device)
    _wait(device)
    minutes = (time.perf_counter() - begin) / 60
    rows = {}
    network.eval()
    inferer = AutocastInferer(task.inferer)
    for item in task.held_out(fold):
        with torch.no_grad():
            logits = inferer(item["image"].as_tensor()[None].to(device), network)[0]
        spacing_mm = tuple(float(v) for v in np.linalg.norm(np.asarray(item["image"].affine)[:3, :3], axis=0))
        label = item["label"].as_tensor().cpu().numpy()
        rows[item["case_id"]] = score((logits > 0).cpu().numpy(), label, spacing_mm)
    return {
        "cell": {"task": task.name, "network": name, "fold": fold, "seed": seed},
        "budget": asdict(budget),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "structures": list(task.structures),
        "tolerance_mm": TOLERANCE_MM,
        "scores": rows,
        "loss": losses,
        "minutes": minutes,
    }


def loss_of(step: Step, task: Task) -> PerSampleLoss:
    """Cross-entropy, with the Dice loss where the step has it."""
    return task.both if step.dice else BCEPerSample()


def _trained(
    network: nn.Module,
    loss: nn.Module,
    task: Task,
    drawn_by: tuple[int, int],
    budget: Budget,
    device: torch.device,
) -> list[float]:
    """Train in place; the mean loss of every tenth of the steps."""
    fold, seed = drawn_by
    dataset = task.training(fold)
    set_rnd(dataset, 1000 * seed + fold)
    loader = DataLoader(dataset, batch_size=budget.batch, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(
        network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.learning_rate, total_steps=budget.steps, pct_start=0.15
    )
    inferer, seen, number = AutocastInferer(), [], 0
    while number < budget.steps:
        for batch in loader:
            logits = inferer(batch["image"].as_tensor().to(device), network)
            value = loss(logits, batch["label"].as_tensor().to(device)).mean()
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            seen.append(value.detach())
            number += 1
            if number == budget.steps:
                break
    means = torch.stack(seen).float().cpu()
    return [round(float(part.mean()), 4) for part in means.chunk(10)]


def cost(task: Task, name: str, device: torch.device) -> dict[str, Any]:
    """Parameters, FLOPs and time of one window forwards, and the most memory a training step takes (on a
    graphics card)."""
    step = STEPS[name]
    network = step.network(task.inputs, len(task.structures), task.widths, task.fold).to(device).eval()
    image = torch.rand(1, task.inputs, *task.window, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    inferer, seconds = AutocastInferer(), []
    with torch.no_grad():
        for _ in range(8):
            begin = time.perf_counter()
            inferer(image, network)
            _wait(device)
            seconds.append(time.perf_counter() - begin)
    memory = None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        network.train()
        batch = image.expand(2, *image.shape[1:])
        label = torch.zeros(2, len(task.structures), *task.window, device=device)
        loss_of(step, task)(inferer(batch, network), label).mean().backward()
        memory = torch.cuda.max_memory_allocated(device) / 2**20
    return {
        "task": task.name,
        "network": name,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop": counter.get_total_flops() / 1e9,
        "window_ms": 1000 * float(np.median(seconds[2:])),
        "memory_mib": memory,
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
