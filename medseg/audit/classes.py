"""The audit of labels of whole images: how likely networks that never saw a label hold its class.

The folds are those of every other audit. A network that has never seen a label gives its class a probability;
minus its logarithm is the loss of the sample, and the higher it is, the likelier the label is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.audit.evidence import file_stem
from medseg.audit.folds import Fold, channel_names, probability_steps
from medseg.audit.outputs import DISCLAIMER
from medseg.audit.patients import group_of
from medseg.bundles.config import build
from medseg.bundles.find import Bundle
from medseg.files import load_json, write_json

COLUMNS = ("rank", "case", "structure", "group", "fold", "score", "loss", "likeliest", "words", "image")

DEFINITIONS = {
    "structure": "the class that the label names",
    "score": "1 - p, where p is the probability that networks that never saw the label, or another image of "
    "its patient, give to its class; over 0.5 of two classes they call the other one",
    "loss": "-log p, cross-entropy of the sample",
    "likeliest": "the class of the highest probability",
}

LEAST_CHANCE = 1e-7
"""A probability of 0 would be an infinite loss, which no table holds."""


def save_chances(fold: Fold, parser) -> None:
    """Write what the network in ``parser`` gives each held-out case: a JSON file of probabilities by case."""
    network, inferer = (build(fold.bundle, parser, name) for name in ("network", "validate#inferer"))
    device, dataset = (build(fold.bundle, parser, name) for name in ("device", "validate#dataset"))
    steps = probability_steps(build(fold.bundle, parser, "validate#postprocessing"))
    network.eval()
    for number, case in enumerate(fold.held_out):
        with torch.inference_mode():
            logits = inferer(torch.as_tensor(dataset[number]["image"])[None].to(device), network)
        output = {"pred": logits[0].float().cpu()}
        for step in steps:
            output = step(output)
        content = {"fold": fold.number, "chances": [float(chance) for chance in output["pred"]]}
        write_json(content, fold.predictions / f"{file_stem(case['case_id'])}.json")


def rank_classes(
    bundle: Bundle, items: Sequence[Mapping[str, Any]], folder: Path, group_key: str | None = None
) -> dict[str, Any]:
    """The content of audit.json from what :func:`save_chances` wrote into ``folder``: a finding for every
    case, the most suspicious first."""
    names = channel_names(bundle)
    rows = []
    for item in items:
        said = load_json(folder / f"{file_stem(item['case_id'])}.json")
        chances = dict(zip(names, said["chances"], strict=True))
        own = names[int(item["label"])]
        likeliest = max(chances, key=chances.get)
        words = f"labelled {own}, which networks that never saw it hold {100 * chances[own]:.0f} % likely"
        rows.append(
            {
                "case": item["case_id"],
                "structure": own,
                "group": group_of(item, group_key),
                "fold": said["fold"] + 1 if said["fold"] >= 0 else "",
                "score": 1 - chances[own],
                "loss": -math.log(max(chances[own], LEAST_CHANCE)),
                "likeliest": likeliest,
                "words": words if likeliest == own else f"{words}; they call it {likeliest}",
                "image": item["image"],
                "probabilities": chances,
            }
        )
    order = np.argsort([-row["score"] for row in rows], kind="stable")
    findings = [{"rank": rank, **rows[number]} for rank, number in enumerate(order, 1)]
    return {
        "cases": len(rows),
        "labels": len(rows),
        "definitions": DEFINITIONS,
        "styles": [],
        "findings": findings,
        "disclaimer": DISCLAIMER,
    }
