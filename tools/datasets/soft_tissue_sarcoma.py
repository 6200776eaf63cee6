"""Write a bundle's datalist: which patient trains and which validates.

    python tools/datasets/soft_tissue_sarcoma.py DATASET_DIR OUT.json --validation 6 --seed 123

DATASET_DIR holds one folder per patient with ct.nii.gz and gtv.nii.gz. Patients are sorted by GTV volume and
cut into as many strata as there are validation patients; one patient of each stratum, drawn with the seed,
validates. Paths in the list are relative to DATASET_DIR (MONAI decathlon style).
"""

import argparse
import json
import random
from pathlib import Path

import nibabel
import numpy as np


def gtv_volume_cc(path: Path) -> float:
    """Return the volume of the voxels above 0 in a NIfTI mask, in cubic centimetres."""
    image = nibabel.load(path)
    return float(
        np.count_nonzero(np.asanyarray(image.dataobj)) * np.prod(image.header.get_zooms()[:3]) / 1000
    )


def split_by_volume(volumes_cc: dict[str, float], n_validation: int, seed: int) -> set[str]:
    """Return the patients that validate: one per volume stratum, so that small and large tumours are both
    present."""
    ordered = sorted(volumes_cc, key=lambda patient: (volumes_cc[patient], patient))
    draw = random.Random(seed)
    return {draw.choice(list(stratum)) for stratum in np.array_split(ordered, n_validation)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--validation", type=int, default=6, help="number of validation patients")
    parser.add_argument("--seed", type=int, default=123)
    args = parser.parse_args()

    volumes_cc = {
        path.parent.name: gtv_volume_cc(path) for path in sorted(args.dataset_dir.glob("*/gtv.nii.gz"))
    }
    if len(volumes_cc) <= args.validation:
        parser.error(
            f"{args.dataset_dir} holds {len(volumes_cc)} patients with gtv.nii.gz; need more than validation"
        )
    validation = split_by_volume(volumes_cc, args.validation, args.seed)

    def entry(patient: str) -> dict[str, str]:
        return {"image": f"{patient}/ct.nii.gz", "label": f"{patient}/gtv.nii.gz", "case_id": str(patient)}

    datalist = {
        "description": (
            f"One case per patient; {args.validation} volume strata, one patient of each drawn to validate."
        ),
        "seed": args.seed,
        "training": [entry(patient) for patient in volumes_cc if patient not in validation],
        "validation": [entry(patient) for patient in volumes_cc if patient in validation],
    }
    args.out.write_text(json.dumps(datalist, indent=4) + "\n")


if __name__ == "__main__":
    main()
