"""The loss of boxes, one value per image, shape (B,)."""

from __future__ import annotations

from typing import Any

import torch

from medseg.errors import InputError
from medseg.losses.per_sample import PerSampleLoss


class BoxesPerSample(PerSampleLoss):
    """The sum of a detector's losses, (B,), of what :class:`medseg.networks.Detector`, VolumeDetector or
    SliceDetector saw in training.

    ``weights``: {part: factor}, 1 for the parts that it does not name. InputError for a prediction that no
    detector in training made, a target of another shape than the detector's, and a weight of a part that
    there is not.
    """

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})

    def forward(self, seen: Any, target: torch.Tensor) -> torch.Tensor:
        if not hasattr(seen, "losses"):
            raise InputError(
                f"the loss of boxes got {type(seen).__name__}; expected a detector's in training."
            )
        parts = seen.losses(target)
        unknown = sorted(set(self.weights) - set(parts))
        if unknown:
            raise InputError(f"no part {unknown[0]!r} to weigh; this detector has {', '.join(parts)}.")
        self.parts = {name: loss.detach() for name, loss in parts.items()}
        return sum(self.weights.get(name, 1.0) * loss for name, loss in parts.items())
