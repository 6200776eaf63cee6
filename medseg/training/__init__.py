"""What MONAI's trainers lack: checkpoints one can resume from, mixed precision on any device, guards for
small lesions; draws that balance groups; labels of uneven quality."""

from medseg.training.balance import group_sampler, undersampled
from medseg.training.box_losses import image_losses
from medseg.training.boxes import BoxPrecision
from medseg.training.checkpoints import AutocastInferer, Checkpoints
from medseg.training.curve import MetricCurve, read_curve
from medseg.training.foreground import ForegroundWatch, PixelAveragePrecision
from medseg.training.progress import ProgressLog
from medseg.training.volume_boxes import VolumePrecision

__all__ = [
    "AutocastInferer",
    "BoxPrecision",
    "Checkpoints",
    "ForegroundWatch",
    "MetricCurve",
    "PixelAveragePrecision",
    "ProgressLog",
    "VolumePrecision",
    "group_sampler",
    "image_losses",
    "read_curve",
    "undersampled",
]
