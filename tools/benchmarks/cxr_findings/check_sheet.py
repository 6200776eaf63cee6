"""A sheet of films as the bundle cxr_findings prepares them, with their boxes, to look at before a training.

    python tools/benchmarks/cxr_findings/check_sheet.py DATASET_DIR sheet.png --films 6 --log-gain 20

Each film stands as it was read, after the logarithm, and as the network sees it; boxes by class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from medseg.bundles.find import read_json
from medseg.errors import MedsegError
from medseg.reports.boxes import write_check_sheet
from medseg.transforms import FilmGreyd, LoadRadiographd
from medseg.transforms.detections import check_boxes

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "cxr_findings"
CONFIG = BUNDLE / "configs" / "train.json"


def stages(path: Path, log_gain: float) -> dict[str, np.ndarray]:
    """{name: grey values} of one film."""
    config = read_json(CONFIG)
    read = LoadRadiographd("image", config["views"])({"image": str(path)})
    look = {"clip": config["clip_percentiles"], "window": config["window"]}
    return {
        "original": read["image"][0].numpy(),
        "logarithm": FilmGreyd(window=(0.0, 1.0), log_gain=log_gain)(read)["image"][0].numpy(),
        "network": FilmGreyd(**look, log_gain=config["log_gain"])(read)["image"][0].numpy(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("out", type=Path, metavar="SHEET.png")
    parser.add_argument("--datalist", type=Path, default=BUNDLE / "configs" / "datalist.json")
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--log-gain", type=float, default=20.0)
    options = parser.parse_args()
    try:
        films, boxes = [], []
        for case in read_json(options.datalist)["training"][: options.films]:
            film = stages(options.data / case["image"], options.log_gain)
            shape = film["original"].shape
            corners = check_boxes(case["label"], shape, case["image"]) / shape
            names = [box["class"] for box in case["label"]]
            films.append(film)
            boxes.append(list(zip(names, corners, strict=True)))
        print(write_check_sheet(films, boxes, options.out))
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
