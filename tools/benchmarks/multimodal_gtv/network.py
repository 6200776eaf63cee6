"""The bundle's own training on the patients of other folds, and its answers to those of one fold."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from cases import BUNDLE, SETS, Patient
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import Dataset
from monai.transforms import Compose

from medseg.cases.multimodal import sampled_on
from medseg.inference import FlipAverage
from medseg.training.checkpoints import load_checkpoint, load_weights
from medseg.transforms import only_series


def train(training: list[dict], validation: list[dict], ckpt_dir: Path, **settings) -> None:
    """Train as ``train.json`` says on prepared items; the last epoch is kept and nothing is chosen. Resumes.

    ``settings`` override top-level names of the configuration. ``validation`` is only looked at for the log,
    after the last epoch.
    """
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "train.json"),
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(BUNDLE),
        ckpt_dir=str(ckpt_dir),
        resume=True,
        **settings,
    )
    parser = workflow.parser
    random_transforms = Compose(parser.get_parsed_content("train#random_transforms"))
    region = parser.get_parsed_content("validate#region")
    parser["train#dataset"] = Dataset(training, random_transforms)
    parser["validate#dataset"] = Dataset(validation, region)
    logging.getLogger().setLevel(logging.WARNING)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def network(weights: Path) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """The bundle's network with these weights, ready to answer, and the size of its input."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.json")
    net = parser.get_parsed_content("network_def")
    load_weights(net, load_checkpoint(weights), weights)
    return net.eval(), tuple(parser.get_parsed_content("grid_size"))


def answers(net: torch.nn.Module, size: tuple[int, ...], patient: Patient, flips: bool = True) -> dict:
    """Probability float32 of each set of series on ``patient.box_grid``."""
    image, small = patient.sampled(size)
    inferer = FlipAverage(axes=(0, 1, 2) if flips else ())
    found = {}
    for name, kept in SETS.items():
        with torch.no_grad():
            logits = inferer(only_series(image, kept)[None], net)[0, 0]
        probability = torch.sigmoid(logits).numpy().transpose(2, 1, 0)
        found[name] = sampled_on(np.ascontiguousarray(probability), small, patient.box_grid)[0]
    return found
