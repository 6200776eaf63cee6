"""Losses that give one value per sample, (B,), so that a label's quality can weigh it."""

from medseg.losses.boxes import BoxesPerSample
from medseg.losses.labels import LabelCEPerSample
from medseg.losses.per_sample import (
    BCEPerSample,
    DiceBCEPerSample,
    DicePerSample,
    PerSampleLoss,
    SizedBCEPerSample,
)
from medseg.losses.pixels import FocalPerSample, SoftmaxCEPerSample, TverskyPerSample, loss_named
from medseg.losses.robust import GeneralisedCE, InverseFrequencyBCE, NoiseRobustDice, TLoss

__all__ = [
    "BCEPerSample",
    "BoxesPerSample",
    "DiceBCEPerSample",
    "DicePerSample",
    "FocalPerSample",
    "GeneralisedCE",
    "InverseFrequencyBCE",
    "LabelCEPerSample",
    "NoiseRobustDice",
    "PerSampleLoss",
    "SizedBCEPerSample",
    "SoftmaxCEPerSample",
    "TLoss",
    "TverskyPerSample",
    "loss_named",
]
