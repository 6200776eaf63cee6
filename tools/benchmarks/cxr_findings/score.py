"""Score the folds of cxr_findings, beside a baseline that looks at nothing; choose and save the threshold.

    python tools/benchmarks/cxr_findings/score.py DATASET_DIR LISTS_DIR RUNS_DIR --plot froc.png
    python tools/benchmarks/cxr_findings/score.py DATASET_DIR LISTS_DIR RUNS_DIR --save-threshold fold_0

RUNS_DIR is what folds.py trained; folds without model.pt are left out, and how many were scored is said.
Every film is scored once, by the network of the fold that tests it, in the film's own pixels. The baseline
gives every film the same boxes: those of the training films, in shares of the sides, each with the mean
overlap (IoU) that it has with all of them. The threshold is chosen on the fold's validation films
(medseg.metrics.detection.best_threshold) and with --save-threshold written into the bundle.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from torchvision.ops import box_iou, nms

from medseg.bundles.find import read_json
from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path, write_json
from medseg.metrics.detection import (
    BoxPrecisions,
    Froc,
    ImageBoxes,
    best_threshold,
    froc,
    froc_interval,
    rounded_down,
)
from medseg.training.checkpoints import load_checkpoint, load_weights

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "cxr_findings"
OVERLAP = 0.4
FIGURES = (("AP", "0.10"), ("AP", "0.40"), ("AP", "0.50"), ("AP", "0.50:0.95"), ("AR", "0.40"))
FALSE_PER_FILM = (0.25, 0.5, 1.0, 2.0)
SIZES_PIXELS = ((0.0, 64.0), (64.0, 128.0), (128.0, np.inf))
"""Roots of a box's area, of 1024 pixels a film."""


class Answers:
    """The network of one run, asked about films as the bundle prepares them."""

    def __init__(self, weights: Path):
        parser = ConfigParser()
        parser.read_config(BUNDLE / "configs" / "inference.json")
        given = {"device": "cpu", "bundle_root": str(BUNDLE), "allow": ["out_of_distribution"]}
        parser.update({**given, "thresholds": 0.0})
        self.network = parser.get_parsed_content("network")
        load_weights(self.network, load_checkpoint(weights), weights)
        self.prepare = parser.get_parsed_content("preprocessing")
        self.restore = parser.get_parsed_content("postprocessing").transforms[0]

    def of(self, data: Path, case: dict) -> ImageBoxes:
        item = self.prepare({"image": str(data / case["image"])})
        with torch.no_grad():
            item["pred"] = self.network(item["image"][None].as_tensor())[0]
        found = self.restore(item)["boxes"]
        return with_truth(found.corners.reshape(-1, 4), found.scores, case)


def with_truth(boxes: np.ndarray, scores: np.ndarray, case: dict) -> ImageBoxes:
    """Boxes of one class beside those of the datalist."""
    truth = np.array([[*box["low"], *box["high"]] for box in case["label"]], dtype=float).reshape(-1, 4)
    counts = (np.zeros(len(boxes), int), truth, np.zeros(len(truth), int))
    return ImageBoxes(boxes, scores, *counts, patient=case["patient_id"])


def mean_boxes(cases: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(boxes (N, 4), scores (N,)) of the training films, best first, without those that nearly repeat."""
    boxes = torch.tensor([[*box["low"], *box["high"]] for case in cases for box in case["label"]])
    scores = box_iou(boxes.double(), boxes.double()).mean(dim=1)
    kept = nms(boxes.double(), scores, 0.5)
    return boxes[kept].double().numpy(), scores[kept].numpy()


def fold_answers(data: Path, datalist: Path, weights: Path) -> dict[str, list[ImageBoxes]]:
    """{"validation", "test" and "mean boxes" (of the test films): answers}."""
    lists, network = read_json(datalist), Answers(weights)
    found = {name: [network.of(data, case) for case in lists[name]] for name in ("validation", "test")}
    found["mean boxes"] = [with_truth(*mean_boxes(lists["training"]), case) for case in lists["test"]]
    return found


def rows_of(images: list[ImageBoxes]) -> dict[str, str]:
    """{figure: value with its 95 % interval over patients}."""
    precisions = BoxPrecisions(images, ("mass or nodule",))
    found = {}
    for measure, overlap in FIGURES:
        found[f"{measure} at IoU {overlap}"] = words(precisions.with_interval(("all", measure, overlap), 300))
    candidates = [image.candidates(OVERLAP) for image in images]
    patients = [image.patient for image in images]
    for number in FALSE_PER_FILM:
        figure = froc_interval(candidates, patients, lambda curve, n=number: curve.at(n), draws=500)
        found[f"sensitivity at {number:g} false per film"] = words(figure)
    found["CPM"] = words(froc_interval(candidates, patients, draws=500))
    for low, high in SIZES_PIXELS:
        own = [image.of_size(low, high) for image in candidates]
        found[f"CPM, findings of {low:g} to {high:g} pixels"] = words(froc_interval(own, patients, draws=500))
    return found


def words(figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def called(folds: dict[str, dict[str, list[ImageBoxes]]]) -> str:
    """What the thresholds that were chosen on validation films call on the test films."""
    found = false = findings = films = 0
    for answers in folds.values():
        threshold, _ = best_threshold([image.candidates(OVERLAP) for image in answers["validation"]])
        for image in (image.candidates(OVERLAP) for image in answers["test"]):
            over = image.scores >= threshold
            found += int(image.hits[over].any(axis=0).sum())
            false += int((over & ~image.hits.any(axis=1)).sum())
            findings, films = findings + len(image.sizes), films + 1
    return (
        f"at the thresholds chosen on validation films: {found} of {findings} findings found, "
        f"{false / films:.2f} false boxes per film"
    )


def plot(curves: dict[str, Froc], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    ax = figure.add_subplot()
    for name, curve in curves.items():
        ax.step(curve.false_per_image, curve.sensitivity, where="post", label=f"{name}, CPM {curve.cpm:.3f}")
    ax.set(xscale="symlog", xlim=(0, 16), ylim=(0, 1), xlabel="false boxes per film", ylabel="sensitivity")
    ax.legend()
    figure.tight_layout()
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def save_threshold(name: str, answers: dict[str, list[ImageBoxes]]) -> str:
    """Write configs/thresholds.json of the bundle; what was chosen, in words."""
    images = [image.candidates(OVERLAP) for image in answers["validation"]]
    threshold, f1 = best_threshold(images)
    chosen = f"the greatest F1 ({f1:.3f} at IoU {OVERLAP:g}) on {len(images)} validation films of {name}"
    content = {"chosen": chosen, "thresholds": {"mass or nodule": rounded_down(threshold)}}
    write_json(content, BUNDLE / "configs" / "thresholds.json")
    return f"threshold {threshold:.4f}: {chosen}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("lists", type=Path, metavar="LISTS_DIR")
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--save-threshold", metavar="FOLD")
    options = parser.parse_args()
    try:
        return run(options)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    lists = sorted(options.lists.glob("fold_*.json"))
    trained = {path.stem: path for path in lists if (options.runs / path.stem / "model.pt").is_file()}
    if not trained:
        raise InputError(f"{options.runs}: no fold with model.pt; train them with folds.py.")
    folds = {
        name: fold_answers(options.data, path, options.runs / name / "model.pt")
        for name, path in trained.items()
    }
    if options.save_threshold:
        print(save_threshold(options.save_threshold, folds[options.save_threshold]))
    pooled = {
        name: [image for answers in folds.values() for image in answers[key]]
        for name, key in (("network", "test"), ("mean boxes", "mean boxes"))
    }
    images = pooled["network"]
    findings, patients = sum(len(image.truth) for image in images), len({image.patient for image in images})
    print(f"{len(folds)} of {len(lists)} folds: {len(images)} films of {patients} patients, {findings} boxes")
    print()
    tables = {name: rows_of(own) for name, own in pooled.items()}
    print("| | network | mean boxes |\n|---|--:|--:|")
    for figure, value in tables["network"].items():
        print(f"| {figure} | {value} | {tables['mean boxes'][figure]} |")
    print(f"\n{called(folds)}")
    if options.plot:
        curves = {n: froc([image.candidates(OVERLAP) for image in own]) for n, own in pooled.items()}
        plot(curves, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
