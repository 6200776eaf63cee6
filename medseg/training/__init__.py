"""What MONAI's trainers lack: checkpoints one can resume from, mixed precision on any device; labels of
uneven quality."""

from medseg.training.checkpoints import AutocastInferer, Checkpoints
from medseg.training.progress import ProgressLog

__all__ = ["AutocastInferer", "Checkpoints", "ProgressLog"]
