"""Write datalists of boxes from images and masks: any CT with an RTSTRUCT, a DICOM SEG or NIfTI masks.

    python tools/datasets/masks_to_boxes.py DATASET_DIR OUT_DIR --folds 5 --class nodule

DATASET_DIR holds cases.csv with the columns image (a DICOM folder, or a NIfTI or MetaImage file), mask (an RT
Structure Set, a DICOM Segmentation, a NIfTI file or a folder of such) and patient, paths from DATASET_DIR.
Each connected piece of a mask becomes a box, LPS mm, around its voxels; of --rois alone where they are given.
An empty mask is an image without findings. Patients, in the order of their names, are shuffled with the seed
and dealt out to the folds; of fold_K.json, fold K tests, fold K + 1 validates and the rest trains.

A clinic's exports without a table are listed by: medseg datalist EXPORTS ROIS.json OUT.json --boxes
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datalists import read_table, write_box_folds
from mass_nodule import folds_of

from medseg.cases.find import folder_name
from medseg.cases.mask_boxes import mask_boxes
from medseg.cases.mask_sources import open_masks
from medseg.cases.volume import open_case
from medseg.errors import InputError, MedsegError


def boxes_of(folder: Path, row: dict[str, str], name: str, rois: list[str]) -> list[dict]:
    """The boxes of one row of the table."""
    case = open_case(str(folder / row["image"]))
    source = open_masks(folder / row["mask"], case.series, case.geometry)
    source.require(rois)
    found = []
    for roi in rois or source.names:
        mask = source.read(roi)[0]
        found += mask_boxes(mask if mask.dtype == bool else mask >= 0.5, case.geometry, name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DATASET_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--class", dest="name", default="nodule", help="of every box; default nodule")
    parser.add_argument("--rois", nargs="+", default=[], metavar="ROI", help="default: all of a mask file")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()
    try:
        rows = read_table(options.folder / "cases.csv", {"image", "mask", "patient"})
        cases = [
            {
                "image": row["image"],
                "label": boxes_of(options.folder, row, options.name, options.rois),
                "case_id": folder_name(row["image"]),
                "patient_id": row["patient"],
            }
            for row in rows
        ]
        if not any(case["label"] for case in cases):
            raise InputError(f"{options.folder}: no mask has a voxel.")
        folds = folds_of({case["patient_id"] for case in cases}, options.folds, options.seed)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return write_box_folds(cases, folds, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
