"""Calibrate and score the bundle hip_osteoporosis on films of a datalist.

    python tools/benchmarks/hip_osteoporosis/run.py calibrate DATASET_DIR
    python tools/benchmarks/hip_osteoporosis/run.py score DATASET_DIR
    python tools/benchmarks/hip_osteoporosis/run.py score DATASET_DIR --datalist OTHER.json --weights model.pt

`calibrate` fits the temperature on the validation films and writes it with their scores into the bundle's
configs/calibration.json; `score` prints the tables of the model card: per class, ranking, calibration,
decisions, with 95 % intervals over patients. A film goes through the bundle's own preprocessing and network,
its side from the datalist. --section names another section than the test set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from scipy.special import softmax

from medseg.bundles.find import read_json
from medseg.cases.radiograph import open_radiograph
from medseg.errors import InputError, MedsegError
from medseg.files import write_json
from medseg.metrics.classification import brier_score, class_scores, fit_temperature, net_benefit, venn_abers
from medseg.metrics.intervals import interval
from medseg.metrics.pixels import (
    average_precision,
    calibration_error,
    count_levels,
    roc_auc,
    sensitivity_at,
)
from medseg.training.checkpoints import load_checkpoint, load_weights
from medseg.transforms.labels import read_calibration

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "hip_osteoporosis"
CALIBRATION = BUNDLE / "configs" / "calibration.json"
SPECIFICITY, TREAT_FROM = 0.9, 0.3
"""Where sensitivity and the worth of a decision are told: a missed patient counts as 7/3 false alarms."""


def cases_of(datalist: Path, section: str) -> list[dict]:
    cases = read_json(datalist).get(section)
    if not isinstance(cases, list) or not cases:
        raise InputError(f"{datalist}: no section {section!r} with films.")
    return cases


def answers_of(data: Path, cases: list[dict], weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the bundle's network, float (N, classes), and the mean grey of every film, (N,)."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.json")
    parser.update({"bundle_root": str(BUNDLE), "device": "cpu", "allow": ["out_of_distribution"]})
    network = parser.get_parsed_content("network")
    load_weights(network, load_checkpoint(weights), weights)
    prepare = parser.get_parsed_content("preprocessing")
    found, greys = [], []
    with torch.no_grad():
        for case in cases:
            image = prepare({**case, "image": str(data / case["image"])})["image"]
            found.append(network(image[None].as_tensor())[0].numpy())
            greys.append(float(open_radiograph(data / case["image"]).pixels.mean()))
    return np.array(found), np.array(greys)


def calibrate(options: argparse.Namespace) -> None:
    cases = cases_of(options.datalist, "validation")
    logits, _ = answers_of(options.data, cases, options.weights)
    truth = np.array([case["label"] for case in cases])
    temperature = fit_temperature(logits, truth)
    scores = (logits[:, 1] - logits[:, 0]) / temperature
    content = {
        "fitted": f"{len(cases)} validation films, by tools/benchmarks/hip_osteoporosis/run.py calibrate",
        "temperature": round(temperature, 4),
        "scores": [round(float(score), 4) for score in scores],
        "truth": truth.tolist(),
    }
    write_json(content, CALIBRATION)
    print(f"temperature {temperature:.3f} -> {CALIBRATION}")


def score(options: argparse.Namespace) -> None:
    cases = cases_of(options.datalist, options.section)
    known = read_calibration(CALIBRATION)
    logits, greys = answers_of(options.data, cases, options.weights)
    truth = np.array([case["label"] for case in cases]) == 1
    patients = [case["patient_id"] for case in cases]
    plain, calibrated = (softmax(logits / t, axis=1)[:, 1] for t in (1.0, known.temperature))
    print(f"{len(cases)} films of {len(set(patients))} patients, {int(truth.sum())} with osteoporosis\n")
    print("| class | precision | recall | F1 | n |\n|---|--:|--:|--:|--:|")
    for name, row in zip(
        ("no osteoporosis", "osteoporosis"), class_scores(truth, calibrated >= 0.5, 2), strict=True
    ):
        print(f"| {name} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} | {row.support} |")
    print("\n| | value (95 % interval over patients) |\n|---|--:|")
    rules = figures(plain, calibrated, truth) | {
        "AUROC of the film's mean grey alone": of_greys(greys, truth)
    }
    for name, statistic in rules.items():
        value, low, high = interval(statistic, patients, draws=1000)
        print(f"| {name} | {value:.3f} ({low:.3f} to {high:.3f}) |")
    ends = np.array(
        [venn_abers(known.scores, known.truth, s) for s in (logits[:, 1] - logits[:, 0]) / known.temperature]
    )
    print(f"| width of the calibrated interval, median | {np.median(ends[:, 1] - ends[:, 0]):.3f} |")


def figures(
    plain: np.ndarray, calibrated: np.ndarray, truth: np.ndarray
) -> dict[str, Callable[[np.ndarray], float]]:
    """{name: figure of row numbers}."""

    def counted(rows: np.ndarray):
        return count_levels(calibrated[rows], truth[rows])

    def worth(chances: np.ndarray) -> Callable[[np.ndarray], float]:
        return lambda rows: float(net_benefit(chances[rows], truth[rows], np.array([TREAT_FROM]))[0])

    return {
        "AUROC": lambda rows: roc_auc(counted(rows)),
        "AUPRC": lambda rows: average_precision(counted(rows)),
        f"sensitivity at specificity {SPECIFICITY}": lambda rows: sensitivity_at(counted(rows), SPECIFICITY),
        "Brier score": lambda rows: brier_score(calibrated[rows], truth[rows]),
        "ECE, calibrated": lambda rows: calibration_error(counted(rows)),
        "ECE, as trained": lambda rows: calibration_error(count_levels(plain[rows], truth[rows])),
        f"net benefit at {TREAT_FROM}": worth(calibrated),
        f"net benefit at {TREAT_FROM}, sending everybody": worth(np.ones(len(truth))),
    }


def of_greys(greys: np.ndarray, truth: np.ndarray) -> Callable[[np.ndarray], float]:
    """The baseline that learned nothing: a dark film is called sick."""
    darkness = 1 - greys
    return lambda rows: roc_auc(count_levels(darkness[rows], truth[rows]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    for name, run in (("calibrate", calibrate), ("score", score)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("data", type=Path, metavar="DATASET_DIR")
        verb.add_argument("--datalist", type=Path, default=BUNDLE / "configs" / "datalist.json")
        verb.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
        if run is score:
            verb.add_argument("--section", default="test")
    options = parser.parse_args()
    try:
        options.run(options)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
