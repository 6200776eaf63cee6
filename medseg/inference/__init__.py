"""How a network is run over a whole image: engines, windows merged in little memory, and mirror images;
windows and slices of detectors."""

from medseg.inference.boxes import BoxWindows, LinkedSlices
from medseg.inference.flips import FlipAverage
from medseg.inference.nnunet import NnunetInferer
from medseg.inference.sliding_window import SlidingWindow

__all__ = ["BoxWindows", "FlipAverage", "LinkedSlices", "NnunetInferer", "SlidingWindow"]
