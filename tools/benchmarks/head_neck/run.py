"""The bundle ct_head_neck trained from volumes that were read once, so that a graphics card is kept busy.

    python tools/benchmarks/head_neck/run.py prepare DATASET_DIR CASES.npz
    python tools/benchmarks/head_neck/run.py train CASES.npz RUN_DIR [--variant finetune] [--set NAME=VALUE …]
    python tools/benchmarks/head_neck/run.py step CASES.npz [--set NAME=VALUE …]

`prepare` runs the bundle's own deterministic transforms over DATASET_DIR (OpenKBP) and keeps the training and
validation volumes, grey values rounded to 256 steps. `train` is `monai.bundle run training` with these
volumes in the place of the files: the same train.json, the same random windows, checkpoints and validation;
it resumes. `step` prints seconds of one training step and of drawing one window.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import Dataset
from monai.transforms import Compose
from volumes import BUNDLE, samples, write


def prepare(options: argparse.Namespace) -> None:
    """Read the files once."""
    write(options.dataset, options.cases_file, options.cases)


def workflow_of(options: argparse.Namespace, ckpt_dir: str) -> ConfigWorkflow:
    """The bundle's training, its data sets already in memory."""
    settings = dict(item.split("=", 1) for item in options.set)
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *options.variant)],
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(BUNDLE),
        ckpt_dir=ckpt_dir,
        resume=True,
        seed=options.seed,
        **{name: json.loads(value) for name, value in settings.items()},
    )
    parser = workflow.parser
    packing = Compose(parser.get_parsed_content("train#packing"))
    training = [packing(sample) for sample in samples(options.cases_file, "training")]
    random_transforms = Compose(parser.get_parsed_content("train#random_transforms"))
    parser["train#dataset"] = Dataset(training, random_transforms)
    parser["validate#dataset"] = Dataset(samples(options.cases_file, "validation"))
    return workflow


def train(options: argparse.Namespace) -> None:
    """The whole training; prints its validation scores."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    workflow = workflow_of(options, str(options.run_dir))
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def step(options: argparse.Namespace) -> None:
    """Seconds of a step and of a window, the median of twenty."""
    parser = workflow_of(options, "none").parser
    dataset, batch_size = parser.get_parsed_content("train#dataset"), parser.get_parsed_content("batch_size")
    network, loss = parser.get_parsed_content("network"), parser.get_parsed_content("loss")
    optimizer, inferer = parser.get_parsed_content("optimizer"), parser.get_parsed_content("train#inferer")
    device = parser.get_parsed_content("device")
    drawn, stepped = [], []
    for number in range(25):
        begin = _now(device)
        items = [dataset[(number * batch_size + k) % len(dataset)] for k in range(batch_size)]
        middle = _now(device)
        image, label = (
            torch.stack([item[key].as_tensor() for item in items]).to(device) for key in ("image", "label")
        )
        loss(inferer(image, network), label).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        drawn.append((middle - begin) / batch_size)
        stepped.append(_now(device) - middle)
    print(
        json.dumps({"window_s": np.median(drawn[5:]), "step_s": np.median(stepped[5:]), "set": options.set})
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


COMMANDS = {"prepare": prepare, "train": train, "step": step}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        if name == "prepare":
            command.add_argument("dataset", type=Path)
        command.add_argument("cases_file", type=Path)
        if name == "prepare":
            command.add_argument("--cases", type=int, help="only so many of each section")
            continue
        if name == "train":
            command.add_argument("run_dir", type=Path)
        command.add_argument("--seed", type=int, default=123)
        command.add_argument("--variant", action="append", default=[], help="a config laid over train.json")
        command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
