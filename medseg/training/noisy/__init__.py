"""Training on labels of uneven quality: learners, quality weights, label noise."""

from medseg.training.noisy.generators import FreshLabelNoised, LabelNoised
from medseg.training.noisy.trainer import NoisyLabelTrainer

__all__ = ["FreshLabelNoised", "LabelNoised", "NoisyLabelTrainer"]
