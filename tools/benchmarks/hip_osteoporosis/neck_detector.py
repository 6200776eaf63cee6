"""Find the femoral neck on films of hips with the detection core, so that nobody has to draw its box.

    python tools/benchmarks/hip_osteoporosis/neck_detector.py DATASET_DIR --epochs 6

Trains the Faster R-CNN of the bundle cxr_findings with the one class "femoral neck" on training films of
DATASET_DIR (tools/datasets/hip_phantoms.py, whose boxes/*.xml it learns) and writes found/<film>/boxes.json
of every film, which the hip bundle takes as its `neck_boxes`. Prints how well the best box of a film fits the
drawn one, on films that were not trained on. On one thread of a processor; a training that is done is not
done again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from hip_cells import epochs_done

from medseg.bundles.config import build, load_config, run_config
from medseg.bundles.find import find_bundle, read_json
from medseg.cases.box_sources import boxes_of, read_voc
from medseg.errors import MedsegError
from medseg.files import write_json

BUNDLE = "cxr_findings"
LEAST_SCORE = 0.05
SECTIONS = ("training", "validation", "test")


def settings_of(data: Path, run: Path, epochs: int, pixels: int) -> dict:
    return {
        "dataset_dir": str(data),
        "datalist": str(run / "datalist.json"),
        "ckpt_dir": str(run),
        "output_dir": str(run),
        "epochs": epochs,
        "val_interval": epochs + 1,
        "image_size": [pixels] * 2,
        "classes": ["femoral neck"],
        "merged": {},
        "anchor_sides": [16, 32, 64, 96, 128],
        "proposals": 50,
        "device": "cpu",
        "seed": 123,
        "resume": True,
    }


def train(data: Path, cases: dict[str, list[dict]], settings: dict) -> None:
    """The bundle's own training, from the last epoch that is done."""
    run = Path(settings["ckpt_dir"])
    run.mkdir(parents=True, exist_ok=True)
    drawn = {
        section: [{**case, "label": boxes_of(read_voc(box_of(data, case), None))} for case in cases[section]]
        for section in ("training", "validation")
    }
    write_json(drawn, run / "datalist.json")
    if epochs_done(run) < settings["epochs"]:
        run_config(find_bundle(BUNDLE), ["train"], "training", settings)


def box_of(data: Path, case: dict) -> Path:
    return data / "boxes" / f"{Path(case['image']).stem}.xml"


def find(data: Path, cases: list[dict], settings: dict) -> None:
    """Write found/<film>/boxes.json of films as `medseg segment` would."""
    bundle = find_bundle(BUNDLE)
    known = read_json(bundle.folder / "configs" / "inference.json")
    own = {key: value for key, value in settings.items() if key in known}
    parser = load_config(
        bundle,
        "inference",
        {**own, "output_dir": str(data / "found"), "thresholds": LEAST_SCORE, "formats": ["json"]},
    )
    network, prepare = (build(bundle, parser, name) for name in ("network", "preprocessing"))
    state = torch.load(Path(settings["ckpt_dir"]) / "last.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(state["network"])
    prepare.transforms = [step for step in prepare.transforms if type(step).__name__ != "CheckInputd"]
    answer = build(bundle, parser, "postprocessing")
    for case in cases:
        item = prepare({"image": str(data / case["image"])})
        with torch.inference_mode():
            item["pred"] = network(item["image"][None].as_tensor())[0]
        answer(item)


def overlap(data: Path, case: dict) -> float:
    """IoU of the best box found on a film with the drawn one; 0 where none was found."""
    found = read_json(data / "found" / Path(case["image"]).stem / "boxes.json")["boxes"]["found"]
    drawn = next(iter(read_voc(box_of(data, case), None)))
    if not found:
        return 0.0
    first = np.array([found[0]["low"], found[0]["high"]])
    second = np.array([drawn.low, drawn.high])
    sides = np.minimum(first[1], second[1]) - np.maximum(first[0], second[0])
    both = float(np.prod(np.clip(sides, 0, None)))
    return both / float(np.prod(first[1] - first[0]) + np.prod(second[1] - second[0]) - both)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--films", type=int, default=100, help="to train on; default 100")
    parser.add_argument("--pixels", type=int, default=128)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = options.data.resolve()
    try:
        cases = {section: read_json(data / "datalist.json")[section] for section in SECTIONS}
        used = cases | {"training": cases["training"][: options.films]}
        settings = settings_of(data, data / "neck_detector", options.epochs, options.pixels)
        train(data, used, settings)
        find(data, [case for section in SECTIONS for case in cases[section]], settings)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fits = np.array([overlap(data, case) for case in cases["validation"] + cases["test"]])
    print(
        f"{options.films} films trained, {options.epochs} epochs. Of {len(fits)} others the best box fits "
        f"the drawn one with a median IoU of {np.median(fits):.3f}; {(fits < 0.5).sum()} below 0.5, the "
        f"worst {fits.min():.3f}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
