"""Films cut to their lungs by cxr_anatomy, with their boxes: a set to train on beside the whole films.

    python tools/benchmarks/cxr_findings/lung_crop.py DATASET_DIR OUT_DIR --margin 0.05

DATASET_DIR is what tools/datasets/mass_nodule.py takes; OUT_DIR becomes such a folder, so the same lists,
folds and scores can be made of it. Boxes are cut to the crop; those with less than half of their area in it
are left out of boxes.csv. Prints how much of the films is left, and what became of the boxes: a crop that
loses findings cannot help.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.errors import InputError, MedsegError
from medseg.files import write_csv
from medseg.shapes.boxes import box_of

LUNGS = ("Lung_L.png", "Lung_R.png")
LEAST = 0.5
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def lung_boxes(images: Path, out: Path, margin: float) -> dict[str, tuple[int, int, int, int]]:
    """{image: xmin, ymin, xmax, ymax} of both lungs and ``margin`` of the film's sides around them; the whole
    film where one lung was not found."""
    request = Request(images, "cxr_anatomy", out, formats=("png",), allow=("out_of_distribution",))
    found = {}
    for record in segment(request)["cases"]:
        if record["status"] == "failed":
            raise InputError(f"{record['case']}: {record['error']}")
        film = next(images.glob(f"{record['case']}.*"))
        masks = [np.array(Image.open(Path(record["folder"]) / name)) > 0 for name in LUNGS]
        rows, columns = masks[0].shape
        if not all(mask.any() for mask in masks):
            found[film.name] = (0, 0, columns, rows)
            continue
        high, wide = box_of(masks[0] | masks[1], [round(margin * rows), round(margin * columns)])
        found[film.name] = (wide.start, high.start, wide.stop, high.stop)
    return found


def moved(row: dict[str, str], crop: tuple[int, int, int, int]) -> tuple[dict[str, object] | None, float]:
    """(the box in the crop, or None; the share of its area that lies there)."""
    low, high = np.array(crop[:2], float), np.array(crop[2:], float)
    corners = np.array([[float(row["xmin"]), float(row["ymin"])], [float(row["xmax"]), float(row["ymax"])]])
    cut = np.clip(corners, low, high)
    share = float(np.prod(cut[1] - cut[0]) / np.prod(corners[1] - corners[0]))
    numbers = (cut - low).round(1).ravel().tolist()
    return ({**row, **dict(zip(CORNERS, numbers, strict=True))} if share >= LEAST else None), share


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--margin", type=float, default=0.05, help="of the film's sides; default 0.05")
    options = parser.parse_args()
    try:
        crops = lung_boxes(options.data / "images", options.out / "lungs", options.margin)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    kept = []
    for name, crop in crops.items():
        film = Image.open(options.data / "images" / name)
        kept.append((crop[2] - crop[0]) * (crop[3] - crop[1]) / (film.width * film.height))
        film.crop(crop).save(options.out / "images" / name, quality=95)
    with open(options.data / "boxes.csv", newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    told = [moved(row, crops[row["image"]]) for row in rows]
    write_csv([row for row, _ in told if row], list(rows[0]), options.out / "boxes.csv")
    shutil.copyfile(options.data / "cases.csv", options.out / "cases.csv")
    shares = np.array([share for _, share in told])
    print(f"{len(crops)} films: {100 * np.mean(kept):.0f} % of the film is left on average")
    whole, lost = int((shares > 0.999).sum()), int((shares < LEAST).sum())
    print(f"{len(shares)} boxes: {whole} whole, {len(shares) - whole - lost} cut, {lost} lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
