"""Contour the test patients of ct_head_neck through `medseg segment` and score every structure: the card's
test table.

    python tools/evaluate_openkbp.py DATASET_DIR -o OUT [--section test] [--bundle ct_head_neck]

Cases are those of the bundle's configs/datalist.json; the masks are read back from the NIfTI files that
medseg wrote, on the CT's own grid. A structure that was not contoured in a patient is not scored; what is
contoured there all the same is counted. Prints, per structure: patients, mean Dice (DSC), surface Dice at 2
mm and 95th percentile Hausdorff distance with 95 % bootstrap intervals over patients, the worst patient, the
median of contoured over true volume, and how often an absent structure was contoured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from evaluate_cohort import interval

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.job import Request
from medseg.errors import InputError, MedsegError
from medseg.metrics.surfaces import SURFACE_DEFINITION, dice, surface_distances

TOLERANCE_MM = 2.0
SCORES = ("DSC", f"sDSC {TOLERANCE_MM:g} mm", "HD95 mm")
COLUMNS = ("n", *SCORES, "worst DSC (patient)", "contoured / true volume", "contoured though absent")


def read_canonical(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """(values, affine, voxel size in mm) of a NIfTI file with its axes in RAS+ order."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    return np.asanyarray(image.dataobj), image.affine, tuple(float(mm) for mm in image.header.get_zooms()[:3])


def contoured_cases(cases: list[dict], options: argparse.Namespace) -> dict[str, Path]:
    """{case: folder of its masks} of the cases that `medseg segment` could do, all in one run; prints why
    others failed."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            (Path(folder) / f"{case['case_id']}.nii.gz").symlink_to(
                (options.dataset_dir / case["image"]).resolve()
            )
        formats = ("nifti", "preview")
        request = Request(
            Path(folder), options.bundle, options.output, formats=formats, device=options.device
        )
        cohort = segment(request, report=_say_failure)
    return {
        record["case"]: Path(record["folder"]) for record in cohort["cases"] if record["status"] != "failed"
    }


def _say_failure(record: dict) -> None:
    if record["status"] == "failed":
        print(f"error: {record['case']}: {record['error']}", file=sys.stderr)


def case_scores(case: dict, folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """{structure: scores and volumes in cc} of one case; scores are nan where the structure was not
    contoured."""
    field, affine, voxel_mm = read_canonical(options.dataset_dir / case["label"])
    voxel_cc, scores = float(np.prod(voxel_mm)) / 1000, {}
    for name, numbers in options.bits.items():
        mask, mask_affine, _ = read_canonical(folder / f"{name}.nii.gz")
        if mask.shape != field.shape or not np.allclose(affine, mask_affine, atol=1e-3):
            raise InputError(f"{case['case_id']}: {name} does not lie on the grid of the label.")
        predicted, row = mask > 0, dict.fromkeys(SCORES, float("nan"))
        truth = (field & sum(1 << n for n in numbers)) != 0
        if name in case["present"]:
            distances = surface_distances(truth, predicted, voxel_mm)
            row = dict(
                zip(
                    SCORES,
                    (dice(truth, predicted), distances.dice(TOLERANCE_MM), distances.hausdorff_mm(95.0)),
                    strict=True,
                )
            )
        scores[name] = {**row, "true cc": truth.sum() * voxel_cc, "contoured cc": predicted.sum() * voxel_cc}
    return scores


def mean_with_interval(values: np.ndarray, decimals: int) -> str:
    """Mean and 95 % interval of the finite values, and how many were not finite (nothing was contoured)."""
    finite = values[np.isfinite(values)]
    low, high = interval(finite, np.random.default_rng(0))
    missed = f"; {len(values) - len(finite)} missed" if len(finite) < len(values) else ""
    return f"{finite.mean():.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f}{missed})"


def structure_row(name: str, cases: dict[str, dict]) -> str:
    """A Markdown row of COLUMNS for one structure."""
    scored = {patient: rows[name] for patient, rows in cases.items() if not np.isnan(rows[name]["DSC"])}
    absent = [rows[name] for rows in cases.values() if np.isnan(rows[name]["DSC"])]
    values = {score: np.array([row[score] for row in scored.values()]) for score in SCORES}
    worst = min(scored, key=lambda patient: scored[patient]["DSC"])
    ratio = np.median([row["contoured cc"] / row["true cc"] for row in scored.values()])
    cells = [
        str(len(scored)),
        *(mean_with_interval(values[score], 1 if score == "HD95 mm" else 3) for score in SCORES),
        f"{scored[worst]['DSC']:.3f} ({worst})",
        f"{ratio:.2f}",
        f"{sum(row['contoured cc'] > 0 for row in absent)} of {len(absent)}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def table(cases: dict[str, dict], structures: list[str]) -> str:
    """Markdown: a row per structure, then the mean over the organs (every structure but PTV) of the mean
    DSC."""
    lines = [f"| structure | {' | '.join(COLUMNS)} |", "|---|" + "--:|" * len(COLUMNS)]
    lines += [structure_row(name, cases) for name in structures]
    organs = [name for name in structures if name != "PTV"]
    dsc = np.array([[rows[name]["DSC"] for name in organs] for rows in cases.values()])
    draws = np.random.default_rng(0).integers(0, len(dsc), size=(10_000, len(dsc)))
    means = np.nanmean(np.nanmean(dsc[draws], axis=1), axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = np.nanmean(np.nanmean(dsc, axis=0))
    lines.append(
        f"| **mean of {len(organs)} organs** | | **{mean:.3f} ({low:.3f} to {high:.3f})** | | | | | |"
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bundle", default="ct_head_neck")
    parser.add_argument("--section", default="test", choices=("training", "validation", "test"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write every patient's numbers there")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    options = parser.parse_args()
    configs = find_bundle(options.bundle).folder / "configs"
    options.bits = json.loads((configs / "train.json").read_text(encoding="utf-8"))["bits"]
    cases = json.loads((configs / "datalist.json").read_text(encoding="utf-8"))[options.section]
    try:
        folders = contoured_cases(cases, options)
        done = [case for case in cases if case["case_id"] in folders]
        scores = {case["case_id"]: case_scores(case, folders[case["case_id"]], options) for case in done}
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not scores:
        return 2
    text = (
        f"{table(scores, list(options.bits))}\n\nSurface measures: {SURFACE_DEFINITION}, on the CT's own "
        f"grid."
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(scores, indent=1, default=float) + "\n", encoding="utf-8")
    return 0 if len(scores) == len(cases) else 2


if __name__ == "__main__":
    sys.exit(main())
