"""Training samples a second: the windows of ct_head_neck, and MONAI's own transforms in their place.

    python tools/benchmarks/head_neck/run.py prepare DATASET_DIR CASES.npz
    python tools/benchmarks/head_neck/throughput.py CASES.npz [--rounds 20] [--workers 0]

All get the same prepared volumes in memory, network, loss, optimizer and DataLoader, one thread. Stock, as
MONAI's trainer and transforms are by default: float32; RandCropByPosNegLabeld on a window with a margin,
RandAffined, RandFlipd and the bundle's intensity transforms, on eight float channels. Then the same in
bfloat16. Ours, the bundle's default on a processor with bfloat16: RandWindowd on the packed label, then the
same. Printed: seconds of drawing a sample and of a training step, samples a second, and the ratio to the
first. They take turns, round by round.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.transforms import (
    Compose,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    SelectItemsd,
)
from volumes import BUNDLE, samples

from medseg.training import AutocastInferer

MARGIN = (24, 24, 24)
"""Voxels around a window that turning and moving may reach: those of the bundle before RandWindowd."""


def stock(size: tuple[int, ...], rest: list) -> Compose:
    """The bundle's random transforms as MONAI has them."""
    keys = ("image", "label")
    wide = [a + b for a, b in zip(size, MARGIN, strict=True)]
    crop = RandCropByPosNegLabeld(
        keys,
        "label",
        wide,
        pos=4.0,
        neg=1.0,
        fg_indices_key="organs_fg_indices",
        bg_indices_key="organs_bg_indices",
        allow_smaller=True,
    )
    turn = RandAffined(
        keys,
        prob=1.0,
        rotate_range=(0.2,) * 3,
        translate_range=(8, 8, 10),
        scale_range=(0.15,) * 3,
        spatial_size=size,
        mode=("bilinear", "nearest"),
        padding_mode="zeros",
    )
    return Compose(
        [crop, SelectItemsd((*keys, "case_id")), turn, RandFlipd(keys, prob=0.5, spatial_axis=0), *rest]
    )


class Training:
    """A network in training on one of the pipelines."""

    def __init__(self, config: ConfigParser, dataset: Dataset, workers: int, bfloat16: bool) -> None:
        torch.manual_seed(0)
        self.loader = DataLoader(dataset, batch_size=1, shuffle=True, num_workers=workers)
        self.network, self.loss = config.get_parsed_content("network"), config.get_parsed_content("loss")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3)
        self.inferer = AutocastInferer(enabled=bfloat16)
        self.batches = iter(self.loader)

    def step(self) -> tuple[float, float]:
        """Seconds of waiting for a batch, and of learning from it."""
        begin = time.perf_counter()
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        middle = time.perf_counter()
        logits = self.inferer(batch["image"].as_tensor(), self.network)
        self.loss(logits, batch["label"].as_tensor().nan_to_num()).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return middle - begin, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = ConfigParser()
    config.read_config(BUNDLE / "configs" / "train.json")
    config["bundle_root"], config["device"] = str(BUNDLE), torch.device("cpu")
    ours = config.get_parsed_content("train#random_transforms")
    items = samples(options.cases, "training")
    packing = Compose(config.get_parsed_content("train#packing"))
    packed = [packing(dict(item)) for item in items]
    indices = ("organs_fg_indices", "organs_bg_indices")
    plain = [{**item, **{key: p[key] for key in indices}} for item, p in zip(items, packed, strict=True)]
    size = tuple(config.get_parsed_content("window_size"))
    drawn = {"stock": Dataset(plain, stock(size, ours[2:])), "ours": Dataset(packed, Compose(ours))}
    trainings = {
        "MONAI's transforms, float32": Training(config, drawn["stock"], options.workers, False),
        "MONAI's transforms, bfloat16": Training(config, drawn["stock"], options.workers, True),
        "RandWindowd, bfloat16": Training(config, drawn["ours"], options.workers, True),
    }
    seen: dict[str, list] = {name: [] for name in trainings}
    for number in range(options.rounds + 2):
        for name, training in trainings.items():
            took = training.step()
            if number >= 2:
                seen[name].append(took)
    print(
        "| pipeline | drawing a sample, s | learning, s | samples a second | ratio |\n|---|--:|--:|--:|--:|"
    )
    first = None
    for name, took in seen.items():
        drawing, learning = np.median(np.array(took), axis=0)
        rate = 1 / np.mean(np.array(took).sum(1))
        first = first or rate
        print(f"| {name} | {drawing:.3f} | {learning:.3f} | {rate:.2f} | {rate / first:.2f} |")


if __name__ == "__main__":
    main()
