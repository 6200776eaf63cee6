"""The audit of boxes: detectors that never saw an image say where its boxes are wrong, and which are missing.

The folds are those of every other audit. :mod:`medseg.audit.box_suspicions` says what is suspected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.audit.box_suspicions import KINDS, Suspicion, suspicions_of
from medseg.audit.evidence import file_stem
from medseg.audit.folds import Fold
from medseg.audit.outputs import DISCLAIMER
from medseg.audit.patients import group_of
from medseg.bundles.config import build
from medseg.bundles.find import Bundle, read_json
from medseg.errors import BundleError
from medseg.files import load_json, write_json
from medseg.metrics.detection import ImageBoxes

COLUMNS = ("rank", "case", "structure", "group", "fold", "score", "reason", "words", "low", "high", "image")

DEFINITIONS = {
    "structure": "the class of the box with its number in the case's label, or of a detection without a box",
    "score": "how much a detector that never saw the image, or another one of its patient, speaks against "
    "the label, 0 to 1, by its own scores",
    **KINDS,
    "low, high": "corners as the datalist has them; of a missing box those of the detection: (row, column) "
    "of a film, LPS mm of a volume",
}


def save_boxes(fold: Fold, parser) -> None:
    """Write what the network in ``parser`` finds in each held-out case beside its label, on the network's
    grid, and the affine that leads from there to the case: a JSON file for each."""
    network, inferer = (build(fold.bundle, parser, name) for name in ("network", "validate#inferer"))
    device, dataset = (build(fold.bundle, parser, name) for name in ("device", "validate#dataset"))
    network.eval()
    for number, case in enumerate(fold.held_out):
        sample = dataset[number]
        image = sample["image"]
        with torch.inference_mode():
            found = inferer(torch.as_tensor(image)[None].to(device), network)[0]
        content = {
            "fold": fold.number,
            "found": _known(found),
            "label": _known(sample["label"]),
            "affine": np.asarray(image.affine, dtype=float).tolist(),
        }
        write_json(content, fold.predictions / f"{file_stem(case['case_id'])}.json")


def _known(rows: torch.Tensor) -> list[list[float]]:
    kept = torch.as_tensor(rows).float().cpu()
    return kept[~kept.isnan().any(dim=1)].tolist()


def rank_boxes(
    bundle: Bundle, items: Sequence[Mapping[str, Any]], folder: Path, group_key: str | None = None
) -> dict[str, Any]:
    """The content of audit.json from what :func:`save_boxes` wrote into ``folder``: a finding for every
    labelled box and every detection without one, the most suspicious first."""
    classes = _classes(bundle)
    rows = []
    for item in items:
        said = load_json(folder / f"{file_stem(item['case_id'])}.json")
        image, affine = _image(said), np.array(said["affine"])
        new: Counter[str] = Counter()
        for one in suspicions_of(image, classes):
            if one.kind == "missing":
                new[one.name] += 1
                structure = f"{one.name}, unlabelled {new[one.name]}"
                low, high = in_case(one.box, affine)
            else:
                structure, box = f"{one.name} {one.number + 1}", item["label"][one.number]
                low, high = box["low"], box["high"]
            rows.append(
                {
                    "case": item["case_id"],
                    "structure": structure,
                    "group": group_of(item, group_key),
                    "fold": said["fold"] + 1 if said["fold"] >= 0 else "",
                    "score": one.score,
                    "reason": one.kind,
                    "words": words_of(one, affine),
                    "low": low,
                    "high": high,
                    "image": item["image"],
                }
            )
    ranks = np.argsort([-row["score"] for row in rows], kind="stable")
    return {
        "cases": len(items),
        "labels": sum(len(item["label"]) for item in items),
        "definitions": DEFINITIONS,
        "styles": [],
        "findings": [{"rank": rank, **rows[number]} for rank, number in enumerate(ranks, 1)],
        "disclaimer": DISCLAIMER,
    }


def _classes(bundle: Bundle) -> tuple[str, ...]:
    classes = read_json(bundle.folder / "configs" / "train.json").get("classes")
    if not isinstance(classes, list) or not classes:
        raise BundleError(f"bundle {bundle.name}: train.json has no list `classes` of its boxes.")
    return tuple(classes)


def _image(said: Mapping[str, Any]) -> ImageBoxes:
    """Rows of corners, score and class, and rows of corners and class, as what metrics take."""
    width = max((len(row) for row in said["found"]), default=0) or 1 + max(
        (len(row) for row in said["label"]), default=5
    )
    found = np.array(said["found"], dtype=float).reshape(-1, width)
    label = np.array(said["label"], dtype=float).reshape(-1, width - 1)
    return ImageBoxes(
        found[:, :-2], found[:, -2], found[:, -1].astype(int), label[:, :-1], label[:, -1].astype(int)
    )


def in_case(box: np.ndarray, affine: np.ndarray) -> tuple[list[float], list[float]]:
    """The corners of a box of the network's grid as a datalist has them: (row, column) of a film, whose
    affine leads to its own pixels, LPS mm of a volume, whose affine leads to RAS mm."""
    low, high = np.split(np.asarray(box, dtype=float), 2)
    dimensions = len(low)
    ends = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1).reshape(-1, dimensions)
    # An index is a voxel's middle; a box counts from corners.
    axes = affine[:dimensions, :dimensions]
    points = (ends - 0.5) @ axes.T + affine[:dimensions, -1]
    points = points + 0.5 if dimensions == 2 else points * [-1, -1, 1]
    return tuple([round(float(value), 2) for value in end(points, axis=0)] for end in (np.min, np.max))


def words_of(one: Suspicion, affine: np.ndarray) -> str:
    """What is suspected, for people."""
    percent = f"{100 * one.score:.0f} %"
    if one.kind == "missing":
        return f"a {one.name} that nobody labelled, by networks that never saw it ({percent})"
    if one.kind == "wrong class":
        return f"labelled {one.name}, which networks that never saw it call {one.instead} ({percent})"
    if one.kind == "shifted":
        low, high = in_case(np.asarray(one.instead), affine)
        there = ", ".join(f"{(a + b) / 2:.0f}" for a, b in zip(low, high, strict=True))
        return f"labelled where networks that never saw it find none; they find one at {there} ({percent})"
    return f"labelled where networks that never saw it find none ({percent})"
