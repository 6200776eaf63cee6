"""Contour a cohort of DICOM series with a bundle and compare with its structure sets: the test table of a
model card.

    python tools/evaluate_cohort.py COHORT --bundle ct_gtv --truth GTV_Mass_CT -o OUT --region-margins-mm 5 40

COHORT/<patient>/ holds one CT series and one structure set each, anywhere below. With --region-margins-mm
every case is contoured within a box around the true structure, each side moved out by its own margin drawn
from that range (seeded): what a planner's rough box does. Without it the whole image is given. "ellipsoid
DSC" is what no network at all scores: the ellipsoid that fills the box less the mean margin; a model that
does not beat it has only learned the box. Prints a row per patient and means with 95 % bootstrap intervals
over patients. Contours are read back from the RTSTRUCT of medseg.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from medseg.bundles.cohort import segment
from medseg.bundles.job import Request
from medseg.dicom import find_series, read_rtstruct, read_series
from medseg.errors import InputError, MedsegError
from medseg.metrics.surfaces import SURFACE_DEFINITION, dice, surface_distances, volume_cc

TOLERANCES_MM = (2.0, 5.0)
BOOTSTRAP_SAMPLES = 10_000
SCORES = ("DSC", *(f"sDSC {t:g} mm" for t in TOLERANCES_MM), "HD95 mm", "ellipsoid DSC")
COLUMNS = (*SCORES, "true cc", "contoured cc")


def region_box(
    truth: np.ndarray, geometry, margins_mm: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """A box (2, 3) in LPS mm: the truth's bounding box, each of its six sides moved out by its own margin."""
    points = np.concatenate(
        [geometry.points_lps_mm(k, np.argwhere(truth[k])) for k in np.flatnonzero(truth.any((1, 2)))]
    )
    outwards = rng.uniform(*margins_mm, size=(2, 3))
    return np.array([points.min(0) - outwards[0], points.max(0) + outwards[1]])


def ellipsoid(box_lps_mm: np.ndarray, margin_mm: float, geometry) -> np.ndarray:
    """bool [slice, row, column]: the ellipsoid that fills the box less ``margin_mm`` on every side."""
    centre, half = box_lps_mm.mean(0), np.maximum((box_lps_mm[1] - box_lps_mm[0]) / 2 - margin_mm, 1.0)
    pairs = np.stack(
        np.meshgrid(*(np.arange(n) for n in geometry.shape[1:]), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    planes = [
        (((geometry.points_lps_mm(k, pairs) - centre) / half) ** 2).sum(1) <= 1
        for k in range(geometry.shape[0])
    ]
    return np.array(planes).reshape(geometry.shape)


def evaluate_case(patient: Path, options: argparse.Namespace, rng: np.random.Generator) -> dict[str, float]:
    """Contour one patient's folder and score the result; the keys are COLUMNS."""
    structure_sets = find_series(patient).structure_sets
    if len(structure_sets) != 1:
        raise InputError(f"{patient}: {len(structure_sets)} structure sets; expected one with the truth.")
    series = read_series(patient)
    truths = read_rtstruct(structure_sets[0], series)
    if options.truth not in truths:
        raise InputError(f"{structure_sets[0]}: no ROI {options.truth!r}; it has {', '.join(truths)}.")
    truth = truths[options.truth]
    within, no_network = None, float("nan")
    if options.region_margins_mm:
        box = region_box(truth, series.geometry, tuple(options.region_margins_mm), rng)
        within = ",".join(f"{value:.1f}" for value in box.T.ravel())
        no_network = dice(truth, ellipsoid(box, float(np.mean(options.region_margins_mm)), series.geometry))
    out = options.output / patient.name
    formats = ("rtstruct", "preview")
    cohort = segment(
        Request(patient, options.bundle, out, formats=formats, device=options.device, within=within)
    )
    case = cohort["cases"][0]
    if case["status"] == "failed":
        raise InputError(f"{patient}: {case['error']}")
    result = read_rtstruct(Path(case["folder"]) / "RS.dcm", series)[options.roi]
    distances = surface_distances(truth, result, series.geometry.spacing_mm)
    scores = [
        dice(truth, result),
        *(distances.dice(t) for t in TOLERANCES_MM),
        distances.hausdorff_mm(95.0),
        no_network,
    ]
    values = [*scores, volume_cc(truth, series.geometry), volume_cc(result, series.geometry)]
    return dict(zip(COLUMNS, map(float, values), strict=True))


def interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean over patients."""
    means = rng.choice(values, size=(BOOTSTRAP_SAMPLES, len(values))).mean(1)
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def table(scores: dict[str, dict[str, float]]) -> str:
    """Markdown: a row per patient, then mean and interval of every score."""
    rng = np.random.default_rng(0)
    lines = [f"| patient | {' | '.join(COLUMNS)} |", "|---|" + "--:|" * len(COLUMNS)]
    for patient, row in scores.items():
        lines.append(f"| {patient} | " + " | ".join(_number(name, row[name]) for name in COLUMNS) + " |")
    means, intervals = [], []
    for name in SCORES:
        values = np.array([row[name] for row in scores.values()])
        low, high = interval(values, rng)
        means.append(f"**{_number(name, float(values.mean()))}**")
        intervals.append(f"{_number(name, low)} to {_number(name, high)}")
    lines.append(f"| **mean of {len(scores)}** | {' | '.join(means)} | | |")
    lines.append(f"| 95 % interval | {' | '.join(intervals)} | | |")
    return "\n".join(lines)


def _number(name: str, value: float) -> str:
    return f"{value:.1f}" if name.endswith(("mm", "cc")) and not name.startswith("sDSC") else f"{value:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--truth", required=True, help="ROI name of the truth in the structure sets")
    parser.add_argument("--roi", default="GTV", help="structure of the bundle to compare (default GTV)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--region-margins-mm", type=float, nargs=2, metavar=("MIN", "MAX"))
    parser.add_argument("--seed", type=int, default=0, help="of the region's margins")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scores, failed = {}, False
    for patient in sorted(folder for folder in options.cohort.glob("*") if folder.is_dir()):
        try:
            scores[patient.name] = evaluate_case(patient, options, rng)
        except MedsegError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    if not scores:
        print(f"error: {options.cohort}: no patient folder in it could be scored.", file=sys.stderr)
        return 2
    text = f"{table(scores)}\n\nSurface measures: {SURFACE_DEFINITION}, on the CT's own grid."
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json:
        finite = {p: {k: v if np.isfinite(v) else None for k, v in row.items()} for p, row in scores.items()}
        options.json.write_text(json.dumps(finite, indent=1) + "\n", encoding="utf-8")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
