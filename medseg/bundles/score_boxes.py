"""Score a bundle that answers with boxes through the door a user takes: FROC, CPM, average precision and
recall, each with its interval over patients.

What is judged is the ``boxes.json`` that ``medseg segment`` wrote, with every candidate in it, whatever the
threshold of the bundle: FROC asks about all of them. The truth stands under ``label`` of a datalist, boxes
``{"class", "low", "high"}`` in the unit of the case; what stands under ``ignored`` counts neither way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.kinds import case_kind
from medseg.bundles.score_request import (
    ScoreRequest,
    answer_cases,
    cases_of,
    require_folders,
    used_bundle,
    without_failed,
)
from medseg.bundles.trust import trusted_bundle
from medseg.cases.find import folder_name
from medseg.errors import InputError
from medseg.files import atomic_path, write_json
from medseg.metrics.detection import (
    OVERLAPS,
    BoxPrecisions,
    Candidates,
    Froc,
    ImageBoxes,
    best_threshold,
    froc,
    froc_interval,
    image_auroc,
    rounded_down,
    within_radius,
)
from medseg.metrics.intervals import Interval, interval
from medseg.metrics.lesions import FALSE_FINDS

FLAT_OVERLAP = 0.4
"""IoU from which a box on a flat image hits, VinDr-CXR's; in a volume its middle has to lie within the
finding's radius, LUNA16's rule."""

DRAWS = 500
SIZES = {3: (0.0, 6.0, 10.0, np.inf), 2: (0.0, 64.0, 128.0, np.inf)}
"""Bounds of the strata by size: mm of a volume's findings, pixels of a flat image's."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one image: its boxes beside the truth, the boxes that are ``ignored`` (K, 2 D), and its case_id."""

    image: ImageBoxes
    ignored: np.ndarray
    case_id: str

    def candidates(self) -> Candidates:
        """Hits by the rule of its dimensions, within one class; what is ignored is a ball in a volume, as
        findings are, and a box on a film."""
        found, middles = self.image, _middles(self.image.boxes)
        if found.truth.shape[1] == 4:
            return replace(found.candidates(FLAT_OVERLAP), ignored=_inside(middles, self.ignored))
        told = within_radius(middles, found.scores, *_balls(found.truth), *_balls(self.ignored))
        return replace(told, hits=told.hits & (found.classes[:, None] == found.truth_classes[None]))

    def without_ignored(self) -> ImageBoxes:
        """The boxes without those that hit nothing but what is ignored."""
        image, kept = self.image, self.candidates().counted
        return replace(image, boxes=image.boxes[kept], scores=image.scores[kept], classes=image.classes[kept])


def _middles(boxes: np.ndarray) -> np.ndarray:
    dimensions = boxes.shape[1] // 2
    return (boxes[:, :dimensions] + boxes[:, dimensions:]) / 2


def _balls(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles (N, 3) and diameters (N,) of boxes (N, 6)."""
    return _middles(boxes), (boxes[:, 3:] - boxes[:, :3]).mean(axis=1)


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """bool (N,): points within any of the boxes."""
    dimensions = boxes.shape[1] // 2
    low, high = boxes[:, :dimensions], boxes[:, dimensions:]
    return ((points[:, None] >= low) & (points[:, None] <= high)).all(axis=2).any(axis=1)


@dataclass(frozen=True)
class ScoredBoxes:
    """``figures``: {name: Interval over patients}. ``per_class``: {class: {"n": findings, "AP", "AR"}} at
    FLAT_OVERLAP. ``cases``: {case: findings, found, candidates, best score}. ``unit``: of sizes.
    ``failed``: {case: reason}."""

    classes: tuple[str, ...]
    images: int
    patients: int
    findings: int
    unit: str
    figures: dict[str, Interval]
    per_class: dict[str, dict[str, Any]]
    cases: dict[str, dict[str, Any]]
    failed: dict[str, str]


def score_boxes(request: ScoreRequest, report: Callable[[str], None] = print) -> ScoredBoxes:
    """Answer and score a section; writes ``froc.png`` into ``request.output_dir``, and of the section
    "validation" :func:`thresholds_by` as ``thresholds.json``. ``report`` gets a line for every case without
    an answer.

    InputError for a ``truth`` (boxes stand in the datalist) and for ``strata``, a label that is no list of
    boxes or of another class, and when no case could be answered.
    """
    if request.truth or request.strata:
        raise InputError("`truth` and `strata` are of other results; boxes are scored by a datalist's boxes.")
    bundle = trusted_bundle(request.bundle, request.trust_bundle)
    cases = cases_of(request.datalist or bundle.folder / "configs" / "datalist.json", request)
    require_folders(cases, request.section)
    config = read_json(bundle.folder / "configs" / "inference.json")
    asked = {"settings": {"thresholds": 0.0}} if "thresholds" in config else {}
    with tempfile.TemporaryDirectory() as folder:
        used = used_bundle(bundle, request, Path(folder))
        records = answer_cases(used, request, cases, None, ("json",), asked)
    done, failed = without_failed(request, cases, records, report)
    classes, merged = classes_of(bundle)
    dimensions = 3 if case_kind(bundle) == "volume" else 2
    answers = [
        read_answer(
            Path(records[folder_name(case["case_id"])]["folder"]) / "boxes.json",
            case,
            classes,
            merged,
            dimensions,
        )
        for case in done
    ]
    if request.section == "validation":
        write_json(thresholds_by(answers, classes), request.output_dir / "thresholds.json")
    _draw(froc([answer.candidates() for answer in answers]), request.output_dir / "froc.png")
    return scores_of(answers, classes, failed)


def classes_of(bundle: Bundle) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The classes of the bundle's inference.json, and train.json's {class of a datalist: its class}."""
    classes = read_json(bundle.folder / "configs" / "inference.json").get("classes")
    if not isinstance(classes, list) or not classes:
        raise InputError(f"bundle {bundle.name}: inference.json has no list `classes` to score boxes by.")
    train = bundle.folder / "configs" / "train.json"
    merged = read_json(train).get("merged", {}) if train.is_file() else {}
    return tuple(classes), dict(merged or {})


def read_answer(
    path: Path, case: Mapping[str, Any], classes: Sequence[str], merged: Mapping[str, str], dimensions: int
) -> Answer:
    """One boxes.json beside its case of a datalist. InputError for what is no box or of another class."""
    found = read_json(path)["boxes"]["found"]
    own, numbers = boxes_of(found, classes, {}, dimensions, str(path))
    truth, true = boxes_of(case.get("label"), classes, merged, dimensions, case["case_id"])
    ignored = _corners(case.get("ignored", []), dimensions, case["case_id"])
    scores = np.array([float(box["score"]) for box in found])
    patient = str(case.get("patient_id", case["case_id"]))
    return Answer(ImageBoxes(own, scores, numbers, truth, true, patient), ignored, case["case_id"])


def boxes_of(
    rows: Any, classes: Sequence[str], merged: Mapping[str, str], dimensions: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """(float (N, 2 D), int (N,)) of boxes ``{"class", "low", "high"}``. InputError, naming ``where``, for
    anything else."""
    corners = _corners(rows, dimensions, where)
    names = [merged.get(row.get("class"), row.get("class")) for row in rows]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise InputError(f"{where}: class {unknown[0]!r} is unknown; expected {', '.join(classes)}.")
    return corners, np.array([classes.index(name) for name in names], dtype=int)


def _corners(rows: Any, dimensions: int, where: str) -> np.ndarray:
    try:
        corners = np.array([[*row["low"], *row["high"]] for row in rows], dtype=float)
        corners = corners.reshape(-1, 2 * dimensions) if len(rows) == 0 else corners
        if corners.ndim != 2 or corners.shape[1] != 2 * dimensions:
            raise ValueError(f"corners of {corners.shape}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: no list of boxes {{class, low, high}} of {dimensions} numbers each ({error})."
        ) from error
    if not (corners[:, :dimensions] < corners[:, dimensions:]).all():  # nan is not below either
        raise InputError(f"{where}: a box whose low corner is not below its high one.")
    return corners


def thresholds_by(answers: Sequence[Answer], classes: Sequence[str]) -> dict[str, Any]:
    """The content of a bundle's configs/thresholds.json: of each class the score with the greatest F1
    (:func:`medseg.metrics.detection.best_threshold`), 0.5 where there is no finding of it."""
    chosen, said = {}, []
    for number, name in enumerate(classes):
        own = [replace(answer, image=answer.image.of_class(number)).candidates() for answer in answers]
        threshold, f1 = best_threshold(own)
        chosen[name] = 0.5 if np.isnan(f1) else rounded_down(threshold)
        said.append(f"{name}: no finding" if np.isnan(f1) else f"{name}: the greatest F1 ({f1:.3f})")
    return {"chosen": f"{', '.join(said)} on {len(answers)} validation images", "thresholds": chosen}


# ---- figures -----------------------------------------------------------------------------------------------


def scores_of(answers: Sequence[Answer], classes: Sequence[str], failed: dict[str, str]) -> ScoredBoxes:
    """Every figure of some answers; see ScoredBoxes."""
    candidates = [answer.candidates() for answer in answers]
    patients = [answer.image.patient for answer in answers]
    dimensions = answers[0].image.truth.shape[1] // 2
    unit = "mm" if dimensions == 3 else "pixels"
    precisions = BoxPrecisions([answer.without_ignored() for answer in answers], classes)
    keys = [("all", "AP", f"{overlap:.2f}") for overlap in OVERLAPS]
    keys += [("all", "AP", "0.50:0.95"), ("all", "AR", f"{FLAT_OVERLAP:.2f}")]
    figures = {"CPM": froc_interval(candidates, patients, draws=DRAWS)}
    for number in FALSE_FINDS:
        at = froc_interval(candidates, patients, lambda curve, n=number: curve.at(n), draws=DRAWS)
        figures[f"sensitivity at {number:g} false per image"] = at
    figures |= {f"{key[1]} at IoU {key[2]}": precisions.with_interval(key, DRAWS) for key in keys}
    figures["AUROC of images"] = interval(
        lambda rows: image_auroc([candidates[row] for row in rows]), patients, draws=DRAWS
    )
    bounds = SIZES[dimensions]
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        own = [image.of_size(low, high) for image in candidates]
        name = f"{low:g} to {high:g} {unit}" if np.isfinite(high) else f"{low:g} {unit} and more"
        count = sum(len(image.sizes) for image in own)
        figures[f"CPM, {count} findings of {name}"] = froc_interval(own, patients, draws=DRAWS)
    return ScoredBoxes(
        tuple(classes),
        len(answers),
        len(set(patients)),
        sum(len(image.sizes) for image in candidates),
        unit,
        figures,
        _per_class(answers, classes, precisions),
        {answer.case_id: _case(image) for answer, image in zip(answers, candidates, strict=True)},
        failed,
    )


def _per_class(
    answers: Sequence[Answer], classes: Sequence[str], precisions: BoxPrecisions
) -> dict[str, dict[str, Any]]:
    table, overlap = precisions.table(), f"{FLAT_OVERLAP:.2f}"
    return {
        name: {
            "n": sum(int((answer.image.truth_classes == number).sum()) for answer in answers),
            "AP": table[name, "AP", overlap],
            "AR": table[name, "AR", overlap],
        }
        for number, name in enumerate(classes)
    }


def _case(image: Candidates) -> dict[str, Any]:
    return {
        "findings": len(image.sizes),
        "found": int(image.hits.any(axis=0).sum()),
        "candidates": len(image.scores),
        "best score": float(image.scores.max(initial=0.0)),
    }


def _draw(curve: Froc, out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    ax = figure.add_subplot()
    ax.step(curve.false_per_image, curve.sensitivity, where="post")
    ax.set(xscale="symlog", xlim=(0, 16), ylim=(0, 1), xlabel="false per image", ylabel="sensitivity")
    ax.set_title(f"CPM {curve.cpm:.3f}")
    figure.tight_layout()
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
