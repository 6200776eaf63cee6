"""Make phantom chest CTs with nodules, and the datalist that bundle ct_nodule trains and is scored by.

    python tools/datasets/nodule_phantoms.py DATASET_DIR --training 240 --validation 10 --test 20

DATASET_DIR gets ct_0000.nii.gz, nodules_0000.nii.gz (the number of each nodule in its voxels) and
datalist.json with the sections training, validation and test. Each phantom is a patient of its own, drawn
from --seed and its number; every fifth has no nodule. See medseg.phantoms.nodules for what is in them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.cases.nifti import write_volume
from medseg.errors import InputError, MedsegError
from medseg.files import write_json
from medseg.phantoms.nodules import ChestCt, Nodule, make_chest_ct

SECTIONS = ("training", "validation", "test")
DRAWN_APART = 10_000
"""Seeds of a patient's sections lie so far apart, so that a larger training set leaves the test set as it
was."""

HEALTHY_EACH = 5


def box(nodule: Nodule) -> dict:
    """``{"class", "low", "high"}``, LPS mm, of the cube around a nodule, as LUNA16's are."""
    centre, half = np.array(nodule.centre_lps_mm), nodule.diameter_mm / 2
    low, high = ([round(float(mm), 3) for mm in centre + way * half] for way in (-1, 1))
    return {"class": "nodule", "low": low, "high": high}


def write_patient(ct: ChestCt, folder: Path, name: str) -> dict:
    """Write one CT and its nodules; the datalist's entry."""
    files = {"image": f"ct_{name}.nii.gz", "mask": f"nodules_{name}.nii.gz"}
    write_volume(np.rint(ct.volume_hu), ct.geometry, folder / files["image"])
    write_volume(ct.labels, ct.geometry, folder / files["mask"])
    label = [box(nodule) for nodule in ct.nodules]
    return {**files, "case_id": name, "patient_id": name, "label": label}


def make(
    folder: Path, counts: Sequence[int], seed: int, shape: Sequence[int], spacing_mm: float
) -> dict[str, list[dict]]:
    """Write every section; the datalist."""
    folder.mkdir(parents=True, exist_ok=True)
    sections: dict[str, list[dict]] = {}
    for place, (section, count) in enumerate(zip(SECTIONS, counts, strict=True)):
        rows = sections.setdefault(section, [])
        for number in range(count):
            drawn = seed * len(SECTIONS) * DRAWN_APART + place * DRAWN_APART + number
            nodules = 0 if number % HEALTHY_EACH == HEALTHY_EACH - 1 else None
            ct = make_chest_ct(drawn, tuple(shape), spacing_mm, count=nodules)
            rows.append(write_patient(ct, folder, f"{section[:2]}{number:04d}"))
    write_json(sections, folder / "datalist.json")
    return sections


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DATASET_DIR")
    for section, count in zip(SECTIONS, (240, 10, 20), strict=True):
        parser.add_argument(f"--{section}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 80, 80), help="slices, rows and columns")
    parser.add_argument("--spacing-mm", type=float, default=2.0)
    options = parser.parse_args(arguments)
    counts = [getattr(options, section) for section in SECTIONS]
    try:
        if min(counts) < 0 or options.seed < 0:
            raise InputError(f"{counts} patients, seed {options.seed}; expected 0 or more.")
        sections = make(options.folder, counts, options.seed, options.shape, options.spacing_mm)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {name: sum(len(row["label"]) for row in rows) for name, rows in sections.items()}
    for name, rows in sections.items():
        print(f"{name}: {len(rows)} patients, {found[name]} nodules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
