"""How far the box alone goes: Dice between each validation GTV and the ellipsoid inscribed in its bounding
box.

    python tools/baselines/ellipsoid.py DATASET_DIR DATALIST.json

A model that is given a box around the tumour has to beat this answer, which looks at no image. It is a
generous baseline: it knows the tumour's extent exactly, while the box a user draws has an unknown margin.
"""

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np


def inscribed_ellipsoid_dice(mask: np.ndarray) -> float:
    """Return the Dice of a bool mask (i, j, k), not empty, with the ellipsoid that fills its bounding box."""
    occupied = np.argwhere(mask)
    box = mask[
        tuple(slice(low, high + 1) for low, high in zip(occupied.min(0), occupied.max(0), strict=True))
    ]
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in box.shape]
    ellipsoid = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= 1
    return float(
        2 * np.count_nonzero(box & ellipsoid) / (np.count_nonzero(box) + np.count_nonzero(ellipsoid))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("datalist", type=Path)
    args = parser.parse_args()
    scores = {}
    for case in json.loads(args.datalist.read_text())["validation"]:
        mask = np.asanyarray(nibabel.load(args.dataset_dir / case["label"]).dataobj) > 0
        scores[case["case_id"]] = inscribed_ellipsoid_dice(mask)
        print(f"{case['case_id']}  {scores[case['case_id']]:.3f}")
    print(f"mean  {np.mean(list(scores.values())):.3f}")


if __name__ == "__main__":
    main()
