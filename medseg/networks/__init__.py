"""Networks that MONAI lacks. Every network returns logits of shape (B, C_out, *spatial), a
Classifier (B, classes), a detector boxes."""

from medseg.networks.classifiers import Classifier
from medseg.networks.cycle import CycleNet
from medseg.networks.detectors import Detector
from medseg.networks.folded import FoldedNet
from medseg.networks.quality import QualityModule, StructureQualityModule
from medseg.networks.res_unet_se import ResUNetSE
from medseg.networks.segmenters import Segmenter
from medseg.networks.slice_detectors import SliceDetector
from medseg.networks.stages import Stages
from medseg.networks.volume_detectors import VolumeDetector

__all__ = [
    "Classifier",
    "CycleNet",
    "Detector",
    "FoldedNet",
    "QualityModule",
    "ResUNetSE",
    "Segmenter",
    "SliceDetector",
    "Stages",
    "StructureQualityModule",
    "VolumeDetector",
]
