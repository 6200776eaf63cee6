"""How a network is run over a whole image: engines, windows merged in little memory, and mirror images."""

from medseg.inference.flips import FlipAverage
from medseg.inference.nnunet import NnunetInferer
from medseg.inference.sliding_window import SlidingWindow

__all__ = ["FlipAverage", "NnunetInferer", "SlidingWindow"]
