"""What MONAI's trainers lack: checkpoints one can resume from, mixed precision on any device, a mean of
the weights, guards for small lesions; draws that balance groups; labels of uneven quality."""

from medseg.training.balance import group_sampler, undersampled
from medseg.training.box_losses import image_losses
from medseg.training.boxes import BoxPrecision
from medseg.training.checkpoints import AutocastInferer, Checkpoints, bfloat16_pays
from medseg.training.curve import MetricCurve, read_curve
from medseg.training.foreground import ForegroundWatch, PixelAveragePrecision
from medseg.training.progress import ProgressLog
from medseg.training.running_mean import RunningMean
from medseg.training.volume_boxes import VolumePrecision

__all__ = [
    "AutocastInferer",
    "BoxPrecision",
    "Checkpoints",
    "ForegroundWatch",
    "MetricCurve",
    "PixelAveragePrecision",
    "ProgressLog",
    "RunningMean",
    "VolumePrecision",
    "bfloat16_pays",
    "group_sampler",
    "image_losses",
    "read_curve",
    "undersampled",
]
