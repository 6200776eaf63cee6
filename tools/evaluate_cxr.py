"""Contour the test radiographs of cxr_anatomy through `medseg segment` and score every structure: the card's
test table.

    python tools/evaluate_cxr.py DATASET_DIR -o OUT [--section test] python tools/evaluate_cxr.py DATASET_DIR
-o OUT --weights RUN_DIR/model.pt --config unet     # the baseline beside it

Images are those of the bundle's configs/datalist.json; the masks are read back from the PNG files that medseg
wrote, on the images' own pixels. Prints per structure: images, mean Dice (DSC), surface Dice at 2 pixels and
95th percentile Hausdorff distance in pixels, since the images have no spacing, with 95 % bootstrap intervals
over patients, and the worst image. What was not found scores 0, 0 and the image's diagonal; a structure
without a mask is not scored.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.job import Request
from medseg.errors import InputError, MedsegError

TOLERANCE_PX = 2.0
SCORES = ("DSC", f"sDSC {TOLERANCE_PX:g} px", "HD95 px")
DRAWS = 10_000


def chosen_bundle(options: argparse.Namespace, folder: Path) -> Path | str:
    """The bundle itself, or a copy in ``folder`` with other weights and what ``configs/<config>.json``
    changes."""
    if options.weights is None:
        return options.bundle
    copy = folder / "bundle"
    shutil.copytree(find_bundle(options.bundle).folder, copy)
    shutil.copyfile(options.weights, copy / "models" / "model.pt")
    path = copy / "configs" / "inference.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    changes = json.loads((copy / "configs" / f"{options.config}.json").read_text()) if options.config else {}
    for key, value in changes.items():
        *parents, name = key.split("#")
        node = config
        for parent in parents:
            node = node[parent]
        if name in node:
            node[name] = value
    path.write_text(json.dumps(config), encoding="utf-8")
    return copy


def contoured(cases: list[dict], bundle: Path | str, options: argparse.Namespace) -> dict[str, Path]:
    """{case: folder of its masks} of the images that `medseg segment` could do; prints why others failed."""
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            (Path(folder) / f"{case['case_id']}.png").symlink_to(
                (options.dataset_dir / case["image"]).resolve()
            )
        request = Request(
            Path(folder), str(bundle), options.output, formats=("png", "preview"), device=options.device
        )
        cohort = segment(request, report=_say_failure)
    return {
        record["case"]: Path(record["folder"]) for record in cohort["cases"] if record["status"] != "failed"
    }


def _say_failure(record: dict) -> None:
    if record["status"] == "failed":
        print(f"error: {record['case']}: {record['error']}", file=sys.stderr)


def image_scores(
    case: dict, folder: Path, bits: dict[str, list[int]], dataset_dir: Path
) -> dict[str, dict[str, float]]:
    """{structure: scores} of one image; nan where it has no mask of the structure."""
    field = np.asarray(Image.open(dataset_dir / case["label"]))
    scores = {}
    for name, numbers in bits.items():
        if name not in case["present"]:
            scores[name] = dict.fromkeys(SCORES, float("nan"))
            continue
        truth = (field & sum(1 << n for n in numbers)) != 0
        predicted = np.asarray(Image.open(folder / f"{name}.png")) > 0
        dice = 2 * np.count_nonzero(truth & predicted) / (truth.sum() + predicted.sum())
        surface, hd95 = 0.0, float(np.hypot(*truth.shape))
        if predicted.any():
            a, b = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (predicted, truth))
            surface = float(compute_surface_dice(a, b, [TOLERANCE_PX], include_background=True))
            hd95 = float(compute_hausdorff_distance(a, b, include_background=True, percentile=95))
        scores[name] = dict(zip(SCORES, (float(dice), surface, hd95), strict=True))
    return scores


def mean_with_interval(values: np.ndarray, patients: list[str], decimals: int) -> str:
    """Mean over images and its 95 % interval from drawing patients, each with all of their images. nan is
    left out."""
    names = sorted(set(patients))
    members = [[i for i, patient in enumerate(patients) if patient == name] for name in names]
    totals = np.array(
        [[np.nansum(values[rows]), np.count_nonzero(~np.isnan(values[rows]))] for rows in members]
    )
    draws = np.random.default_rng(0).integers(0, len(names), size=(DRAWS, len(names)))
    sums = totals[draws].sum(axis=1)
    low, high = np.nanpercentile(sums[:, 0] / np.maximum(sums[:, 1], 1), [2.5, 97.5])
    return f"{np.nanmean(values):.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def table(cases: list[dict], scores: dict[str, dict], structures: list[str]) -> str:
    """Markdown: a row per structure, then the mean over structures of the Dice."""
    patients = [case["patient_id"] for case in cases]
    lines = [
        f"| structure | n | {' | '.join(SCORES)} | worst DSC (image) |",
        "|---|" + "--:|" * (len(SCORES) + 2),
    ]
    for name in structures:
        values = {
            score: np.array([scores[case["case_id"]][name][score] for case in cases]) for score in SCORES
        }
        worst = int(np.nanargmin(values["DSC"]))
        cells = [
            mean_with_interval(values[score], patients, 1 if score == "HD95 px" else 3) for score in SCORES
        ]
        count = np.count_nonzero(~np.isnan(values["DSC"]))
        lines.append(
            f"| {name} | {count} | {' | '.join(cells)} | {values['DSC'][worst]:.3f} "
            f"({cases[worst]['case_id']}) |"
        )
    means = np.array(
        [np.nanmean([scores[case["case_id"]][name]["DSC"] for name in structures]) for case in cases]
    )
    lines.append(f"| **mean** | {len(cases)} | **{mean_with_interval(means, patients, 3)}** | | | |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bundle", default="cxr_anatomy")
    parser.add_argument("--section", default="test", choices=("training", "validation", "test"))
    parser.add_argument("--weights", type=Path, metavar="FILE", help="other weights than the bundle's")
    parser.add_argument(
        "--config", metavar="NAME", help="with --weights: configs/NAME.json, as in their training"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write every image's numbers there")
    options = parser.parse_args()
    try:
        configs = find_bundle(options.bundle).folder / "configs"
        if options.config and not options.weights:
            raise InputError(
                "--config NAME is of the training of other weights; give them with --weights FILE."
            )
        bits = json.loads((configs / "train.json").read_text(encoding="utf-8"))["bits"]
        cases = json.loads((configs / "datalist.json").read_text(encoding="utf-8"))[options.section]
        if not (options.dataset_dir / cases[0]["image"]).is_file():
            raise InputError(
                f"{options.dataset_dir}: no {cases[0]['image']}; give the folder of the bundle's radiographs."
            )
        with tempfile.TemporaryDirectory() as folder:
            folders = contoured(cases, chosen_bundle(options, Path(folder)), options)
    except (MedsegError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done = [case for case in cases if case["case_id"] in folders]
    if not done:
        return 2
    scores = {
        case["case_id"]: image_scores(case, folders[case["case_id"]], bits, options.dataset_dir)
        for case in done
    }
    print(table(done, scores, list(bits)))
    if options.json:
        options.json.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return 0 if len(done) == len(cases) else 2


if __name__ == "__main__":
    sys.exit(main())
