"""Networks that MONAI lacks. Every network returns logits of shape (B, C_out, *spatial), a
Classifier (B, classes)."""

from medseg.networks.classifiers import Classifier
from medseg.networks.cycle import CycleNet
from medseg.networks.folded import FoldedNet
from medseg.networks.quality import QualityModule, StructureQualityModule
from medseg.networks.res_unet_se import ResUNetSE
from medseg.networks.segmenters import Segmenter
from medseg.networks.stages import Stages

__all__ = [
    "Classifier",
    "CycleNet",
    "FoldedNet",
    "QualityModule",
    "ResUNetSE",
    "Segmenter",
    "Stages",
    "StructureQualityModule",
]
