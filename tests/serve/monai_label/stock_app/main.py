"""An app of the stock server that answers as the tests' bundle "sides": what is brighter than 600 HU is
Parotid_R, the second of three structures."""

import shim  # noqa: F401 - first, since chores of the server import this file in processes of their own
import torch
from monai.transforms import EnsureChannelFirstd, LoadImaged
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.transform.post import Restored

LABELS = {"Brainstem": 1, "Parotid_R": 2, "Parotid_L": 3}


class Sides(BasicInferTask):
    def __init__(self):
        super().__init__(
            path=None,
            network=None,
            type=InferType.SEGMENTATION,
            labels=LABELS,
            dimension=3,
            description="sides",
        )

    def is_valid(self):
        return True

    def pre_transforms(self, data=None):
        return [LoadImaged(keys="image"), EnsureChannelFirstd(keys="image")]

    def inferer(self, data=None):
        return None

    def run_inferer(self, data, convert_to_batch=True, device="cpu"):
        data["pred"] = 2.0 * torch.as_tensor(data["image"] > 600)
        return data

    def post_transforms(self, data=None):
        return [Restored(keys="pred", ref_image="image")]


class App(MONAILabelApp):
    def __init__(self, app_dir, studies, conf):
        super().__init__(app_dir, studies, conf, name="sides", description="the tests' bundle", version="1")

    def init_infers(self):
        return {"sides": Sides()}

    def init_trainers(self):
        return {}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random(), "first": First()}
