"""How a network is run over a whole image: engines, and windows merged in little memory."""

from medseg.inference.sliding_window import SlidingWindow

__all__ = ["SlidingWindow"]
