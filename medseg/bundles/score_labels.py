"""Score a bundle that answers with labels through the door a user takes: per class, ranking, calibration,
decisions, and apart by machine, sex or whatever else the datalist tells of its images.

What is judged is the ``labels.json`` that ``medseg segment`` wrote. The truth is the class number, or name,
under ``label`` of a datalist.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.score_numbers import number_scores
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
from medseg.metrics.classification import ClassScore, brier_score, class_scores, grouped_auc, net_benefit
from medseg.metrics.intervals import Interval, interval
from medseg.metrics.pixels import (
    average_precision,
    calibration_error,
    count_levels,
    reliability,
    roc_auc,
    sensitivity_at,
)

SPECIFICITY = 0.9
THRESHOLDS = np.linspace(0.05, 0.95, 19)
"""Of the decision curve; a patient missed at 0.25 counts as three false alarms."""

TOLD = 0.3
"""The threshold whose net benefit stands in the table."""

DRAWS = 1000
PER_CASE = ("side",)
"""Ids of inference.json that a datalist may set case by case."""


@dataclass(frozen=True)
class Answers:
    """``chances``: float (N, classes), ``truth``: int (N,), ``patients`` and ``rows`` (the datalist's cases)
    of the same N images."""

    classes: tuple[str, ...]
    chances: np.ndarray
    truth: np.ndarray
    patients: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def scored(self) -> list[int]:
        """Classes that ranking and calibration are told of: of two the second, of more each against the
        rest."""
        return [1] if len(self.classes) == 2 else list(range(len(self.classes)))


@dataclass(frozen=True)
class ScoredLabels:
    """``per_class``: {class: precision, recall, F1, support, calling the most likely class}. ``figures``:
    {class: {figure: Interval over patients}}. ``strata``: {field: {"n": {value: images}, "values": {value:
    {figure: Interval}}, "within": AUC over pairs of one value, "reads": how well the answer tells the two
    most frequent values among images of one class}}, of the last class. ``failed``: {case: reason}.
    ``numbers``: see :func:`medseg.bundles.score_numbers.number_scores`."""

    classes: tuple[str, ...]
    images: int
    patients: int
    per_class: dict[str, ClassScore]
    figures: dict[str, dict[str, Interval]]
    strata: dict[str, dict[str, Any]]
    failed: dict[str, str]
    numbers: dict[str, dict[str, Interval]] = field(default_factory=dict)


def score_labels(request: ScoreRequest, report: Callable[[str], None] = print) -> ScoredLabels:
    """Answer and score a section; writes ``<class>_reliability.png`` and ``<class>_decision.png`` into
    ``request.output_dir``. ``report`` gets a line for every case without an answer.

    InputError for a ``truth`` (labels have no ROI), a label that is no class, a field of ``strata`` that a
    case lacks, and when no case could be answered.
    """
    if request.truth:
        raise InputError("`truth` names ROIs; a bundle that answers with labels is scored by a datalist.")
    bundle = trusted_bundle(request.bundle, request.trust_bundle)
    cases = cases_of(request.datalist or bundle.folder / "configs" / "datalist.json", request)
    require_folders(cases, request.section)
    for case in cases:
        lacking = [name for name in request.strata if name not in case]
        if lacking:
            raise InputError(f"{case['case_id']} has no {lacking[0]!r}, which `strata` names.")
    with tempfile.TemporaryDirectory() as folder:
        used = used_bundle(bundle, request, Path(folder))
        numbers = read_json(used.folder / "configs" / "inference.json").get("numbers", {})
        records = _records(used, request, cases)
    done, failed = without_failed(request, cases, records, report)
    said = [_said(records[folder_name(case["case_id"])]) for case in done]
    answers = _answers(said, done)
    _draw(answers, request.output_dir)
    scored = scores_of(answers, request.strata, failed)
    return replace(scored, numbers=number_scores(said, done, numbers, answers.patients, DRAWS))


def _records(bundle: Bundle, request: ScoreRequest, cases: list[dict]) -> dict[str, dict[str, Any]]:
    """{name of the case's folder: record}; cases that set the same are answered together."""
    known = read_json(bundle.folder / "configs" / "inference.json")
    together: dict[str, list[dict]] = {}
    for case in cases:
        own = {name: case[name] for name in PER_CASE if name in known and case.get(name)}
        together.setdefault(json.dumps(own, sort_keys=True), []).append(case)
    records: dict[str, dict[str, Any]] = {}
    for settings, some in together.items():
        asked = {"settings": json.loads(settings)}
        records |= answer_cases(bundle, request, some, None, ("json",), asked)
    return records


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    return read_json(Path(record["folder"]) / "labels.json")["labels"]


def _answers(said: list[dict[str, Any]], cases: list[dict]) -> Answers:
    classes = tuple(said[0]["probabilities"])
    truth = [_class_number(case, classes) for case in cases]
    return Answers(
        classes,
        np.array([[one["probabilities"][name] for name in classes] for one in said]),
        np.array(truth),
        tuple(str(case.get("patient_id", case["case_id"])) for case in cases),
        tuple(cases),
    )


def _class_number(case: Mapping[str, Any], classes: tuple[str, ...]) -> int:
    label = case["label"]
    number = classes.index(label) if label in classes else label
    if isinstance(number, str) or number != int(number) or not 0 <= number < len(classes):
        raise InputError(
            f"the label of {case['case_id']} is {label!r}; expected 0 to {len(classes) - 1} or a class of "
            f"{', '.join(classes)}."
        )
    return int(number)


# ---- figures -----------------------------------------------------------------------------------------------


def scores_of(answers: Answers, strata: tuple[str, ...], failed: dict[str, str]) -> ScoredLabels:
    """Every figure of some answers; see ScoredLabels."""
    called = answers.chances.argmax(axis=1)
    rows = class_scores(answers.truth, called, len(answers.classes))
    last = answers.scored[-1]
    return ScoredLabels(
        answers.classes,
        len(answers.truth),
        len(set(answers.patients)),
        dict(zip(answers.classes, rows, strict=True)),
        {answers.classes[number]: _figures(answers, number) for number in answers.scored},
        {name: _stratum(answers, last, name) for name in strata},
        failed,
    )


def figures_of(chances: np.ndarray, truth: np.ndarray) -> dict[str, Callable[[np.ndarray], float]]:
    """{name: the figure of row numbers}, of float (N,) probabilities and bool (N,) truth."""

    def counted(rows: np.ndarray):
        return count_levels(chances[rows], truth[rows])

    def worth(said: np.ndarray) -> Callable[[np.ndarray], float]:
        return lambda rows: float(net_benefit(said[rows], truth[rows], np.array([TOLD]))[0])

    return {
        "AUROC": lambda rows: roc_auc(counted(rows)),
        "AUPRC": lambda rows: average_precision(counted(rows)),
        f"sensitivity at specificity {SPECIFICITY}": lambda rows: sensitivity_at(counted(rows), SPECIFICITY),
        "Brier score": lambda rows: brier_score(chances[rows], truth[rows]),
        "ECE": lambda rows: calibration_error(counted(rows)),
        f"net benefit at {TOLD}": worth(chances),
        f"net benefit at {TOLD}, acting on everybody": worth(np.ones(len(truth))),
    }


def _figures(answers: Answers, number: int) -> dict[str, Interval]:
    found = figures_of(answers.chances[:, number], answers.truth == number)
    return {name: interval(figure, answers.patients, draws=DRAWS) for name, figure in found.items()}


def _stratum(answers: Answers, number: int, name: str) -> dict[str, Any]:
    """Figures of each value of a field, and whether the answer follows the field."""
    values = np.array([str(row[name]) for row in answers.rows])
    chances, truth = answers.chances[:, number], answers.truth == number
    patients = np.array(answers.patients)
    counts = {value: int((values == value).sum()) for value in np.unique(values)}
    found: dict[str, Any] = {"n": counts, "values": {}}
    for value in counts:
        here = values == value
        figures = figures_of(chances[here], truth[here])
        found["values"][value] = {
            key: interval(figures[key], list(patients[here]), draws=DRAWS)
            for key in ("AUROC", f"sensitivity at specificity {SPECIFICITY}", "ECE")
        }
    found["within"] = interval(
        lambda rows: grouped_auc(chances[rows], truth[rows], values[rows]), answers.patients, draws=DRAWS
    )
    first, second, *_ = [*sorted(counts, key=lambda value: -counts[value]), ""]
    two = np.flatnonzero((values == first) | (values == second))
    found["reads"] = interval(
        lambda rows: grouped_auc(chances[two][rows], (values == first)[two][rows], truth[two][rows]),
        list(patients[two]),
        draws=DRAWS,
    )
    found["reads_of"] = [first, second]
    return found


def _draw(answers: Answers, out: Path) -> None:
    from medseg.reports.curves import write_decision_curve, write_reliability

    for number in answers.scored:
        name, chances, truth = answers.classes[number], answers.chances[:, number], answers.truth == number
        points = reliability(count_levels(chances, truth), bins=10)
        path = out / f"{folder_name(name)}_reliability.png"
        write_reliability(points, path, of="images", share=f"share with {name}")
        curves = {
            "by the answer": net_benefit(chances, truth, THRESHOLDS),
            "everybody": net_benefit(np.ones(len(truth)), truth, THRESHOLDS),
        }
        write_decision_curve(THRESHOLDS, curves, out / f"{folder_name(name)}_decision.png", positive=name)
