"""Several networks in one file of weights: the stages of a model, and the folds of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Stages(nn.Module):
    """The networks of a model that an inferer runs one after the other: ``stages[n]`` holds one network per
    fold of stage n. Called itself it answers as the first network of the first stage does."""

    def __init__(self, stages: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(folds) for folds in stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) to the logits of the first network."""
        return self.stages[0][0](x)
