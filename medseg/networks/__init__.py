"""Networks that MONAI lacks. Every network returns logits of shape (B, C_out, *spatial)."""

from medseg.networks.cycle import CycleNet
from medseg.networks.quality import QualityModule, StructureQualityModule
from medseg.networks.res_unet_se import ResUNetSE

__all__ = ["CycleNet", "QualityModule", "ResUNetSE", "StructureQualityModule"]
