"""Where a detector looked, through the package grad-cam: maps over the image for each class.

A map is an aid, not evidence: it shows what a layer answered to, also where the answer is wrong. What it must
do at least is change with the weights (Adebayo et al., NeurIPS 2018), which a test asks of every method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from medseg.errors import InputError

METHODS = ("EigenCAM", "AblationCAM", "Grad-CAM", "Grad-CAM++", "saliency")
"""EigenCAM knows no class: it shows what the layer tells apart most."""


def box_map(network: nn.Module, image: torch.Tensor, method: str, class_number: int) -> torch.Tensor:
    """float32 (H, W), 0 to 1: what the sum of the scores of a class's boxes rests on.

    ``network``: a :class:`medseg.networks.Detector`, or what gives rows and has ``maps``; a copy of it works,
    so that no hook stays behind. ``image``: (1, C, H, W). All 0 where no box of the class is found, however
    low its score, and where nothing speaks for them. KeyError for a method that is not one of METHODS.
    """
    own = copy.deepcopy(network).eval().requires_grad_(True)
    with torch.enable_grad():
        watched = image.detach().as_subclass(torch.Tensor).clone().requires_grad_(True)
        score = _score(class_number, own(watched)[0])
        if score is None:
            return torch.zeros(image.shape[2:])
        if method == "saliency":
            (gradient,) = torch.autograd.grad(score, watched)
            return _to_one(gradient[0].abs().amax(dim=0))
        try:
            from pytorch_grad_cam import AblationCAM, EigenCAM, GradCAM, GradCAMPlusPlus
        except ImportError as error:
            raise InputError(
                "maps of a detector need the package grad-cam: install medseg[boxes], or leave out `preview`."
            ) from error
        made: dict[str, Callable] = {
            "EigenCAM": EigenCAM,
            "AblationCAM": partial(AblationCAM, batch_size=16),
            "Grad-CAM": GradCAM,
            "Grad-CAM++": GradCAMPlusPlus,
        }
        with made[method](model=own, target_layers=[own.get_submodule(own.maps)]) as cam:
            found = cam(input_tensor=watched, targets=[partial(_score_or_nothing, class_number)])
    return _to_one(torch.from_numpy(found[0]).float())


def _score(class_number: int, rows: torch.Tensor) -> torch.Tensor | None:
    """() the sum of a class's scores in rows (N, 6); None where it has none."""
    own = rows[:, 5] == class_number
    return rows[own, 4].sum() if own.any() else None


def _score_or_nothing(class_number: int, rows: torch.Tensor) -> torch.Tensor:
    score = _score(class_number, rows)
    return rows.new_zeros(()) if score is None else score


def _to_one(found: torch.Tensor) -> torch.Tensor:
    found = found.detach().float().cpu().clamp(min=0)
    highest = found.max()
    return found / highest if highest > 1e-12 else torch.zeros_like(found)
