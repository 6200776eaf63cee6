"""What monailabel 0.8.5 lacks to start beside pydicom 3, and on a computer without a graphics card."""

import sys
import types

import pydicom.uid
import torch

# pydicom-seg, which the server imports, looks for a module that pydicom 3 has no more.
gone = types.ModuleType("pydicom._storage_sopclass_uids")
gone.SegmentationStorage = pydicom.uid.SegmentationStorage
sys.modules[gone.__name__] = gone

try:
    import torchvision  # noqa: F401
except RuntimeError:  # a build for graphics cards beside a torch without
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
