"""Train a network of bundle ct_nodule on phantom CTs, and score it on phantoms that it has not seen.

    python tools/datasets/nodule_phantoms.py DATASET_DIR
    python tools/benchmarks/ct_nodule/run.py train DATASET_DIR RUN_DIR --variant retinanet_small
    python tools/benchmarks/ct_nodule/run.py score DATASET_DIR RUN_DIR --plot froc.png

train runs the bundle's own training; a stopped run goes on where it was. It prints the minutes of processor
time of all its parts. score asks the best epoch about every test patient and prints FROC by LUNA16's rules (a
hit is a centre within the nodule's radius), AP and AR of boxes and, of Mask R-CNN, of masks, with intervals
over patients. The threshold in RUN_DIR/thresholds.json is chosen on the validation patients of the first
DATASET_DIR that is scored after a training, and stays for others.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser

from medseg.bundles.find import read_json
from medseg.cases.nifti import load_image
from medseg.cases.results import Boxes
from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path, write_json
from medseg.metrics.detection import (
    BoxPrecisions,
    Candidates,
    ImageBoxes,
    best_threshold,
    froc,
    froc_interval,
    rounded_down,
    within_radius,
)
from medseg.training.checkpoints import load_checkpoint, load_weights

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "ct_nodule"
FALSE_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SIZES_MM = ((4.0, 8.0), (8.0, 16.0), (16.0, 30.1))
FIGURES = (("AP", "0.10"), ("AP", "0.50"), ("AR", "0.10"), ("AR", "0.50"))


def training_command(options: argparse.Namespace) -> list[str]:
    """``python -m monai.bundle run training`` of one variant."""
    configs = BUNDLE / "configs"
    files = [str(configs / name) for name in ("train.json", f"{options.variant}.json")]
    given = [word for setting in options.set for word in _words_of(setting)]
    return [
        *(sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(files)),
        *("--meta_file", str(configs / "metadata.json"), "--logging_file", str(configs / "logging.conf")),
        *("--bundle_root", str(BUNDLE), "--dataset_dir", str(options.data)),
        *("--datalist", str(options.data / "datalist.json")),
        *("--ckpt_dir", str(options.run), "--output_dir", str(options.run)),
        *("--resume", str((options.run / "last.pt").exists()), *given),
    ]


def _words_of(setting: str) -> tuple[str, str]:
    name, _, value = setting.partition("=")
    return f"--{name}", value


def train(options: argparse.Namespace) -> int:
    options.run.mkdir(parents=True, exist_ok=True)
    with open(options.run / "train.log", "a", encoding="utf-8") as log:
        done = subprocess.run(training_command(options), stdout=log, stderr=log, check=False)
    if done.returncode:
        raise InputError(f"the training stopped; see {options.run / 'train.log'}.")
    (options.run / "thresholds.json").unlink(missing_ok=True)  # those of the weights before
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = options.run / "minutes.json"
    before = json.loads(record.read_text()) if record.exists() else 0
    minutes = before + (used.ru_utime + used.ru_stime) / 60
    write_json(round(minutes, 2), record)
    print(f"{options.variant}: trained in {minutes:.1f} minutes of processor time")
    return 0


class Answers:
    """The network of one run, asked about CTs as the bundle prepares them."""

    def __init__(self, weights: Path, variant: str, device: str) -> None:
        parser = ConfigParser()
        parser.read_config(BUNDLE / "configs" / "inference.json")
        own = read_json(BUNDLE / "configs" / f"{variant}.json")
        own = {name: value for name, value in own.items() if name in parser.config}
        given = {"bundle_root": str(BUNDLE), "device": torch.device(device), "thresholds": 0.0}
        parser.update({**own, **given, "allow": ["out_of_distribution"]})
        self.device = device
        self.network = parser.get_parsed_content("network")
        load_weights(self.network, load_checkpoint(weights), weights)
        steps = parser.get_parsed_content("preprocessing").transforms
        self.prepare = [step for step in steps if type(step).__name__ != "CheckInputd"]
        self.inferer = parser.get_parsed_content("inferer")
        self.after = [
            step
            for step in parser.get_parsed_content("postprocessing").transforms
            if type(step).__name__ in ("SplitAnswerd", "ToVolumeBoxesd")
        ]

    def of(self, image: Path) -> Boxes:
        item = {"image": str(image)}
        for step in self.prepare:
            item = step(item)
        with torch.no_grad():
            found = self.inferer(item["image"][None].as_tensor().to(self.device), self.network)
        # One image's part of a batch, as MONAI's evaluator hands it on.
        item["pred"] = {key: part[0] for key, part in found.items()} if isinstance(found, dict) else found[0]
        for step in self.after:
            item = step(item)
        return item["boxes"]


def judge(answers: Answers, data: Path, case: dict) -> tuple[Candidates, ImageBoxes]:
    """One patient's candidates by LUNA16's rule, and its boxes and masks beside the true ones."""
    found = answers.of(data / case["image"])
    truth = np.array([[*box["low"], *box["high"]] for box in case["label"]], dtype=float).reshape(-1, 6)
    centres = (truth[:, :3] + truth[:, 3:]) / 2
    diameters = (truth[:, 3:] - truth[:, :3]).mean(axis=1)
    candidates = within_radius(found.corners.mean(axis=1), found.scores, centres, diameters)
    overlaps = None if len(found.scores) else np.zeros((0, len(truth)))
    if found.masks:
        overlaps = mask_overlaps(
            found, np.asarray(load_image(data / case["mask"])[1]).transpose(2, 1, 0), len(truth)
        )
    zeros = (np.zeros(len(found.scores), int), truth, np.zeros(len(truth), int))
    boxes = ImageBoxes(found.corners.reshape(-1, 6), found.scores, *zeros, case["patient_id"], overlaps)
    return candidates, boxes


def mask_overlaps(found: Boxes, labels: np.ndarray, count: int) -> np.ndarray:
    """float (N, ``count``): IoU of the masks of boxes with the nodules 1, 2, … of a map of the case's
    shape."""
    sizes = np.bincount(labels.ravel().astype(int), minlength=count + 1)[1 : count + 1]
    iou = np.zeros((len(found.scores), count))
    for number in range(len(found.scores)):
        mask = found.mask(number)
        shared = np.bincount(labels[mask].astype(int), minlength=count + 1)[1 : count + 1]
        iou[number] = shared / np.maximum(mask.sum() + sizes - shared, 1)
    return iou


def table(images: list[tuple[Candidates, ImageBoxes]], masks: bool, draws: int) -> Iterator[tuple[str, str]]:
    """(figure, value with its 95 % interval over ``draws`` draws of patients)."""
    candidates, boxes = [pair[0] for pair in images], [pair[1] for pair in images]
    patients = [image.patient for image in boxes]
    yield "**CPM**", words(froc_interval(candidates, patients, draws=draws))
    for number in FALSE_PER_SCAN:
        figure = froc_interval(candidates, patients, lambda curve, n=number: curve.at(n), draws)
        yield f"sensitivity at {number:g} false per CT", words(figure)
    for low, high in SIZES_MM:
        own = [image.of_size(low, high) for image in candidates]
        count = sum(len(image.sizes) for image in own)
        yield (
            f"CPM, {count} nodules of {low:g} to {high:.0f} mm",
            words(froc_interval(own, patients, draws=draws)),
        )
    for kind, by_masks in (("boxes", False), *([("masks", True)] if masks else [])):
        precisions = BoxPrecisions(boxes, ("nodule",), by_masks)
        for measure, overlap in FIGURES:
            value = precisions.with_interval(("all", measure, overlap), draws)
            yield f"{measure} of {kind} at IoU {overlap}", words(value)


def words(figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def plot(images: list[Candidates], variant: str, out: Path) -> None:
    from matplotlib.figure import Figure

    curve = froc(images)
    figure = Figure(figsize=(6, 4))
    ax = figure.add_subplot()
    label = f"{variant}, CPM {curve.cpm:.3f}"
    ax.step(curve.false_per_image, curve.sensitivity, where="post", label=label)
    ax.set(xscale="symlog", xlim=(0, 16), ylim=(0, 1.02))
    ax.set(xlabel="false candidates per CT", ylabel="sensitivity")
    ax.legend()
    figure.tight_layout()
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def score(options: argparse.Namespace) -> int:
    lists = read_json(options.data / "datalist.json")
    answers = Answers(options.run / "model.pt", options.variant, options.device)
    record = options.run / "thresholds.json"
    if not record.exists():
        validated = [judge(answers, options.data, case)[0] for case in lists["validation"]]
        threshold, f1 = best_threshold(validated)
        chosen = f"the greatest F1 ({f1:.3f}) on {len(validated)} validation patients"
        write_json({"chosen": chosen, "thresholds": {"nodule": rounded_down(threshold)}}, record)
    said = read_json(record)
    tested = [judge(answers, options.data, case) for case in lists["test"]]
    nodules = sum(len(pair[0].sizes) for pair in tested)
    print(f"{options.variant}: {len(tested)} unseen phantoms, {nodules} nodules")
    print(f"threshold {said['thresholds']['nodule']:.3f}: {said['chosen']}")
    record = options.run / "minutes.json"
    if record.exists():
        print(f"trained in {json.loads(record.read_text()):.1f} minutes of processor time")
    print("\n| | value (95 % over patients) |\n|---|--:|")
    overlaps = [pair[1].mask_overlaps for pair in tested]
    masks = all(iou is not None for iou in overlaps) and any(len(iou) for iou in overlaps)
    for figure, value in table(tested, masks, options.draws):
        print(f"| {figure} | {value} |")
    if options.plot:
        plot([pair[0] for pair in tested], options.variant, options.plot)
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "score"))
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--variant", default="retinanet_small")
    parser.add_argument("--set", action="append", default=[], metavar="ID=VALUE", help="of the training")
    parser.add_argument("--draws", type=int, default=1000, help="of patients, for the intervals")
    parser.add_argument("--device", default="cpu", help="score on it")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args(arguments)
    options.data, options.run = options.data.resolve(), options.run.resolve()
    try:
        return train(options) if options.what == "train" else score(options)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
