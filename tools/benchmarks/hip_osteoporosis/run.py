"""Calibrate the bundle hip_osteoporosis, and score the rule that needs no network.

    python tools/benchmarks/hip_osteoporosis/run.py calibrate DATASET_DIR
    python tools/benchmarks/hip_osteoporosis/run.py calibrate DATASET_DIR --bundle DIR --datalist LIST
    python tools/benchmarks/hip_osteoporosis/run.py greys DATASET_DIR

`calibrate` fits temperature and offset on the validation films and writes them with their scores, and how far
the network was off in each of its numbers, into configs/calibration.json of the bundle (default: the one of
this checkout), whose weights and inference.json it takes. A bundle that `medseg bundles copy` made asks for
no calibration until then; its inference.json is told to. `greys` calls dark films sick and prints the AUROC
of that on the test films, with its 95 % interval over patients. `medseg score hip_osteoporosis` scores the
network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser

from medseg.bundles.find import read_json
from medseg.cases.radiograph import open_radiograph
from medseg.errors import InputError, MedsegError
from medseg.files import write_json
from medseg.metrics.classification import fit_platt, grouped_auc
from medseg.metrics.intervals import interval
from medseg.training.checkpoints import load_checkpoint, load_weights
from medseg.transforms import AppendNumbersd

BUNDLE = Path(__file__).resolve().parents[3] / "monai_bundles" / "hip_osteoporosis"


def cases_of(datalist: Path, section: str) -> list[dict]:
    cases = read_json(datalist).get(section)
    if not isinstance(cases, list) or not cases:
        raise InputError(f"{datalist}: no section {section!r} with films.")
    return cases


def answers_of(data: Path, cases: list[dict], bundle: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """(logits (N, classes), standardised numbers (N, numbers), what the bundle says of the numbers); the side
    of a film comes from the datalist."""
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(bundle), "device": "cpu", "allow": ["out_of_distribution"]})
    network, weights = parser.get_parsed_content("network"), bundle / "models" / "model.pt"
    load_weights(network, load_checkpoint(weights), weights)
    prepare = parser.get_parsed_content("preprocessing")
    with torch.no_grad():
        images = (prepare({**case, "image": str(data / case["image"])})["image"] for case in cases)
        found = np.array([network(image[None].as_tensor())[0].numpy() for image in images])
    classes = len(parser["classes"])
    return found[:, :classes], found[:, classes:], parser["numbers"]


def calibrate(options: argparse.Namespace) -> None:
    cases = cases_of(options.datalist, "validation")
    logits, learned, numbers = answers_of(options.data, cases, options.bundle)
    truth = np.array([case["label"] for case in cases])
    scores = logits[:, 1] - logits[:, 0]
    temperature, offset = fit_platt(scores, truth == 1)
    scores = scores / temperature
    content = {
        "fitted": f"{len(cases)} validation films, by tools/benchmarks/hip_osteoporosis/run.py calibrate",
        "temperature": round(temperature, 4),
        "offset": round(offset, 4),
        "scores": [round(float(score), 4) for score in scores],
        "truth": truth.tolist(),
    }
    targets = [AppendNumbersd("label", numbers)({**case, "label": torch.zeros(0)})["label"] for case in cases]
    off = learned - np.array([target.numpy() for target in targets]).reshape(learned.shape)
    if numbers:
        content["off"] = {
            field: [round(float(number), 4) for number in column if np.isfinite(number)]
            for field, column in zip(numbers, off.T, strict=True)
        }
    out = write_calibration(options.bundle, content)
    print(f"temperature {temperature:.3f}, offset {offset:.3f} -> {out}")


def write_calibration(bundle: Path, content: dict) -> Path:
    """Write the bundle's calibration.json, and let its inference.json ask for it where it asks for none."""
    out, inference = bundle / "configs" / "calibration.json", bundle / "configs" / "inference.json"
    write_json(content, out)
    config = read_json(inference)
    for step in config["postprocessing"]["transforms"]:
        if step.get("calibration", out) is None:
            step["calibration"] = "$@bundle_root + '/configs/calibration.json'"
            write_json(config, inference)
    return out


def greys(options: argparse.Namespace) -> None:
    cases = cases_of(options.datalist, "test")
    darkness = -np.array([open_radiograph(options.data / case["image"]).pixels.mean() for case in cases])
    truth = np.array([case["label"] for case in cases]) == 1
    alone = np.zeros(len(cases))
    value, low, high = interval(
        lambda rows: grouped_auc(darkness[rows], truth[rows], alone[rows]),
        [case["patient_id"] for case in cases],
        draws=1000,
    )
    print(f"AUROC of the film's mean grey: {value:.3f} ({low:.3f} to {high:.3f})")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    for name, run in (("calibrate", calibrate), ("greys", greys)):
        verb = verbs.add_parser(name)
        verb.set_defaults(run=run)
        verb.add_argument("data", type=Path, metavar="DATASET_DIR")
        verb.add_argument("--datalist", type=Path, default=BUNDLE / "configs" / "datalist.json")
        if run is calibrate:
            verb.add_argument("--bundle", type=Path, default=BUNDLE, metavar="DIR")
    options = parser.parse_args()
    try:
        options.run(options)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
