"""Scores of a trained cell: Dice on clean test images, and how well rankings find the wrong labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from images import Images
from torch import nn

from medseg.losses.per_sample import BCEPerSample

SIDES = {"dilated": 1, "eroded": -1}
"""Which way a wrong label went: named apart, because a ranking that finds one side and takes the other for
the best has a mean of one half."""


@torch.no_grad()
def predict(network: nn.Module, images: np.ndarray, device: torch.device) -> torch.Tensor:
    """Logits float32 (N, C, side, side) on the CPU, in float32 arithmetic."""
    pieces = (torch.from_numpy(images[i : i + 16]).to(device) for i in range(0, len(images), 16))
    return torch.cat([network(piece).cpu() for piece in pieces])


def dice_of(network: nn.Module, test: Images, device: torch.device) -> list[list[float]]:
    """Dice per case and structure, lists (N, C); 0 for an empty prediction of a structure that is there."""
    predicted, truth = predict(network, test.images, device) > 0, torch.from_numpy(test.masks)
    both = (predicted & truth).sum((2, 3)).float()
    return (2 * both / (predicted.sum((2, 3)) + truth.sum((2, 3))).clamp(min=1)).tolist()


@torch.no_grad()
def rankings(
    network: nn.Module,
    quality: nn.Module | None,
    images: np.ndarray,
    labels: np.ndarray,
    device: torch.device,
) -> dict[str, list[float]]:
    """How suspicious each training label is, larger = more: final loss, 1 - Dice to the prediction, and -t if
    scored."""
    logits, given = predict(network, images, device), torch.from_numpy(labels)
    predicted = logits > 0
    overlap = 2 * (predicted & given).sum((2, 3)) / (predicted.sum((2, 3)) + given.sum((2, 3))).clamp(min=1)
    found = {
        "final_loss": BCEPerSample()(logits, given.float()).tolist(),
        "disagreement": (1 - overlap).mean(1).tolist(),
    }
    if quality is not None:
        pairs = torch.cat([torch.from_numpy(images), given.float()], dim=1)
        found["quality"] = (-quality.eval()(pairs.to(device)).mean(1)).tolist()
    return found


def side_of(masks: np.ndarray, labels: np.ndarray) -> list[int]:
    """1 for a label larger than the truth, -1 for a smaller one, 0 for an equal area; masks (N, C, ...)."""
    axes = tuple(range(1, masks.ndim))
    return np.sign(labels.sum(axes).astype(int) - masks.sum(axes).astype(int)).tolist()


def detection(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For each score of a result: AUROC over all wrong labels and over those of each side, average precision
    and precision among the worst 10 %; {} without both right and wrong labels."""
    from sklearn.metrics import average_precision_score

    noisy, side = np.array(result["train"]["noisy"]), np.array(result["train"]["side"])
    if noisy.min() == noisy.max():
        return {}
    answer = {}
    for name, suspicion in result["train"]["scores"].items():
        suspicion = np.array(suspicion)
        worst = np.argsort(suspicion)[::-1][: max(1, round(0.1 * len(noisy)))]
        answer[name] = {
            "auroc": auroc(noisy, suspicion),
            "average_precision": float(average_precision_score(noisy, suspicion)),
            "precision_at_10_percent": float(noisy[worst].mean()),
        }
        for way, sign in SIDES.items():
            some = (noisy == 0) | (side == sign)
            if noisy[some].any():
                answer[name][f"auroc_{way}"] = auroc(noisy[some], suspicion[some])
    return answer


def auroc(noisy: np.ndarray, suspicion: np.ndarray) -> float | None:
    """Area under the ROC curve of suspicions (N,), nan left out; None without both right and wrong labels."""
    from sklearn.metrics import roc_auc_score

    known = ~np.isnan(suspicion)
    if not known.any() or noisy[known].min() == noisy[known].max():
        return None
    return float(roc_auc_score(noisy[known], suspicion[known]))
