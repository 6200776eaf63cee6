"""Look inside a Mask R-CNN of bundle ct_nodule: what it finds on single slices, and what linking them costs.

    python tools/benchmarks/ct_nodule/slices.py DATASET_DIR --variant mask_rcnn_small
    python tools/benchmarks/ct_nodule/slices.py DATASET_DIR --run RUN_DIR --variant mask_rcnn_small

The first takes the true masks of the test patients, slice by slice on the network's grid, as if a network had
found them: the CPM that is left is the most that any network can reach behind this linking. The second prints
the share of the cuts through nodules that a trained network finds (IoU 0.3 or more of the masks), by the
diameter of the cut and the score, and how many false findings there are on a slice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from run import BUNDLE, SIZES_MM, Answers

from medseg.bundles.find import read_json
from medseg.errors import MedsegError
from medseg.inference import LinkedSlices
from medseg.metrics.detection import Candidates, froc, within_radius

CUTS_MM = ((0.0, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, 31.0))
SCORES = (0.05, 0.3, 0.5, 0.7)
FOUND_FROM = 0.3


def grids(data: Path, variant: str, section: str) -> Iterator[dict]:
    """Of each patient what the training sees of it: ``image`` and ``mask`` (1, x, y, z) and ``label``."""
    parser = ConfigParser()
    parser.read_config([BUNDLE / "configs" / "train.json", BUNDLE / "configs" / f"{variant}.json"])
    prepare = Compose(parser.get_parsed_content("train#deterministic_transforms"))
    for case in read_json(data / "datalist.json")[section]:
        item = prepare({**case, **{key: str(data / case[key]) for key in ("image", "mask")}})
        yield {**item, "sizes_mm": np.array([np.subtract(b["high"], b["low"]).mean() for b in case["label"]])}


def cuts(labels: torch.Tensor) -> torch.Tensor:
    """bool (N, x, y): the nodules that a slice (x, y) of numbers cuts."""
    return labels == labels[labels > 0].unique()[:, None, None]


class Truth(torch.nn.Module):
    """A detector of slices that knows the answer: its input are maps of numbers."""

    def forward(self, x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found = [cuts(maps[1]) for maps in x]
        return [{"rows": torch.ones(len(masks), 6), "masks": masks} for masks in found]


def ceiling(item: dict) -> Candidates:
    """The candidates of one patient if every slice were outlined without a fault."""
    labels = item["mask"].as_tensor()
    rows = LinkedSlices()(labels[None].float(), Truth())["rows"][0]
    found, true = (r[~r.isnan().any(dim=1)].numpy() for r in (rows, item["label"]))
    steps_mm = item["image"].pixdim.numpy()
    centres = [(r[:, :3] + r[:, 3:6]) / 2 * steps_mm for r in (found, true)]
    return within_radius(centres[0], found[:, 6], centres[1], item["sizes_mm"])


def found_on_slices(
    item: dict, network: torch.nn.Module
) -> tuple[list[tuple[float, float]], list[float], int]:
    """(diameter in mm, best score or 0) of each cut, the scores of false findings, and the slices of one
    patient."""
    volume = item["image"].as_tensor()[0].movedim(-1, 0)
    pixel_mm2 = float(item["image"].pixdim[:2].prod())
    seen, false = [], []
    for level in range(len(volume)):
        near = volume[[max(level - 1, 0), level, min(level + 1, len(volume) - 1)]]
        with torch.no_grad():
            (found,) = network(near[None].float())
        scores, masks = found["rows"][: len(found["masks"]), 4], found["masks"].flatten(1).float()
        true = cuts(item["mask"].as_tensor()[0, ..., level]).flatten(1).float()
        shared = true @ masks.T
        hits = shared / (true.sum(1)[:, None] + masks.sum(1)[None] - shared).clamp(min=1) >= FOUND_FROM
        for cut, hit in zip(true, hits, strict=True):
            best = float(scores[hit].max()) if hit.any() else 0.0
            seen.append((2 * float(np.sqrt(cut.sum() * pixel_mm2 / np.pi)), best))
        false += scores[~hits.any(dim=0)].tolist()
    return seen, false, len(volume)


def report_linking(items: Iterator[dict]) -> None:
    candidates = [ceiling(item) for item in items]
    print(f"linking of true masks: CPM {froc(candidates).cpm:.3f}")
    for low, high in SIZES_MM:
        own = froc([image.of_size(low, high) for image in candidates])
        print(f"  nodules of {low:g} to {high:.0f} mm: {own.cpm:.3f}")


def report_slices(items: Iterator[dict], network: torch.nn.Module) -> None:
    parts = [found_on_slices(item, network) for item in items]
    seen = np.array([cut for part in parts for cut in part[0]]).reshape(-1, 2)
    false = np.array([score for part in parts for score in part[1]])
    count = sum(part[2] for part in parts)
    print(f"| cuts of {count} slices | number |" + "".join(f" found at {s:g} |" for s in SCORES))
    print("|---|--:|" + "--:|" * len(SCORES))
    for low, high in CUTS_MM:
        own = seen[(seen[:, 0] >= low) & (seen[:, 0] < high), 1]
        shares = [f" {(own >= score).mean():.2f} |" if len(own) else " |" for score in SCORES]
        print(f"| {low:g} to {high:g} mm | {len(own)} |" + "".join(shares))
    rates = [f" {(false >= score).sum() / count:.2f} |" for score in SCORES]
    print("| false findings on a slice | |" + "".join(rates))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("--run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--variant", default="mask_rcnn_small")
    parser.add_argument("--section", default="test")
    options = parser.parse_args(arguments)
    try:
        items = grids(options.data, options.variant, options.section)
        if options.run:
            report_slices(items, Answers(options.run / "model.pt", options.variant, "cpu").network)
        else:
            report_linking(items)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
