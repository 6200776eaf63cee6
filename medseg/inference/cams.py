"""Where a classifier looked: maps of what a layer answered to, on the image's own pixels.

MONAI's GradCAM gives the same map (a test compares them), but leaves its hooks on the network with every
call, which a server would gather.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn


def grad_cam(network: nn.Module, image: torch.Tensor, layer: str, class_number: int) -> torch.Tensor:
    """float32 (H, W), 0 to 1: where the maps of ``layer`` speak for the class (Selvaraju et al., ICCV 2017).

    ``image``: (1, C, H, W). All 0 where nothing speaks for it. The network is left in the mode it was in.
    """
    with _maps_of(network, layer) as kept, torch.enable_grad():
        logits = network(image.detach().requires_grad_(True))
        (gradient,) = torch.autograd.grad(logits[0, class_number], kept[0])
    weights = gradient[0].mean(dim=(1, 2), keepdim=True)
    return _on_image((weights * kept[0][0].detach()).sum(0), image)


def eigen_cam(network: nn.Module, image: torch.Tensor, layer: str) -> torch.Tensor:
    """float32 (H, W), 0 to 1: the first principal component of the maps of ``layer`` (Muhammad and Yeasin,
    IJCNN 2020). No class and no gradient: what the layer tells apart most, whatever it is taken for. A
    component has no sign; the place that stands out most points upwards. All 0 where all places are alike."""
    with _maps_of(network, layer) as kept, torch.no_grad():
        network(image)
    rows = kept[0][0].detach().float().flatten(1).T
    rows = rows - rows.mean(0)
    _, _, directions = torch.linalg.svd(rows, full_matrices=False)
    component = (rows @ directions[0]).reshape(kept[0].shape[2:])
    return _on_image(-component if component.max() < -component.min() else component, image)


@contextmanager
def _maps_of(network: nn.Module, layer: str) -> Iterator[list[torch.Tensor]]:
    """Within the block the network only answers, and what ``layer`` gives in this thread is put into the
    list: another thread may be at the next case with the same network."""
    kept: list[torch.Tensor] = []
    own = threading.get_ident()

    def keep(_layer: nn.Module, _input: tuple, maps: torch.Tensor) -> None:
        if threading.get_ident() == own:
            kept.append(maps)

    hook = network.get_submodule(layer).register_forward_hook(keep)
    was_training = network.training
    network.eval()
    try:
        yield kept
    finally:
        hook.remove()
        network.train(was_training)


def _on_image(found: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    found = found.float().clamp(min=0)[None, None]
    large = F.interpolate(found, size=image.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    highest = large.max()
    return large / highest if highest > 1e-12 else torch.zeros_like(large)
