"""The lung finder against the contours of a planning CT, and what it finds where there are no lungs.

    python tools/benchmarks/ct_nodule/lungs.py ../shared/data/rt/lung1_001/CT \
        --contours ../shared/data/rt/lung1_001/RTSTRUCT.dcm --rois "Lung L" "Lung R"
    python tools/benchmarks/ct_nodule/lungs.py ../shared/data/rt/sts/STS_0*/CT

Prints per CT the volume that was found, its seconds, the share of the voxels that the box with its margin
keeps and, with contours, the Dice of both lungs together and the share of them inside the box.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from medseg.dicom import read_rtstruct, read_series
from medseg.errors import MedsegError
from medseg.metrics.overlap import dice
from medseg.shapes.boxes import box_of
from medseg.shapes.lungs import lung_mask

MARGIN_MM = 10.0


def row(folder: Path, contours: Path | None, rois: list[str]) -> str:
    """One line of the table."""
    series = read_series(folder)
    image = series.volume().transpose(2, 1, 0)
    voxel_mm = tuple(float(mm) for mm in reversed(series.geometry.spacing_mm))
    start = time.perf_counter()
    found = lung_mask(image, voxel_mm)
    seconds = time.perf_counter() - start
    box = box_of(found, [int(np.ceil(MARGIN_MM / mm)) for mm in voxel_mm])
    kept = found[box].size / found.size
    words = (
        f"| {folder} | {found.sum() * np.prod(voxel_mm) / 1000:.0f} | {seconds:.1f} | {100 * kept:.0f} % |"
    )
    if contours is None:
        return f"{words} | |"
    masks = read_rtstruct(contours, series)
    truth = np.any([masks[name] for name in rois], axis=0).transpose(2, 1, 0)
    return f"{words} {dice(found, truth):.3f} | {100 * truth[box].sum() / truth.sum():.1f} % |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="CT_DIR")
    parser.add_argument("--contours", type=Path, metavar="RTSTRUCT", help="of the one folder given")
    parser.add_argument("--rois", nargs="+", default=["Lung L", "Lung R"], metavar="ROI")
    options = parser.parse_args()
    print("| CT | found, cc | s | kept by the box | Dice | lung in the box |\n|---|--:|--:|--:|--:|--:|")
    try:
        for folder in options.folders:
            print(row(folder, options.contours, options.rois))
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
