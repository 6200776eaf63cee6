"""One audit from its request to its outputs: predictions that are out of fold, the ranking, the page, lists
and contours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.audit import boxes, classes
from medseg.audit.evidence import file_stem, save_evidence
from medseg.audit.folds import Fold, predict_with_weights, run_fold, save_predictions
from medseg.audit.mask_files import cases_of, evidence_from_files, names_without_prediction, structure_names
from medseg.audit.outputs import COLUMNS, record, row_of, write_html, write_table
from medseg.audit.patients import group_of, patient_folds, patient_of, read_cases
from medseg.audit.pictures import draw_worst
from medseg.audit.ranking import Ranking, rank
from medseg.audit.worklist import read_worklist, write_worklist
from medseg.bundles.find import find_bundle
from medseg.bundles.trust import trusted_bundle
from medseg.errors import InputError, unusable
from medseg.files import make_folder, no_empty_folders, own_folder, write_json

LEAST_DRAWN = 6

LISTED = {
    "labels": (classes.save_chances, classes.rank_classes, classes.COLUMNS),
    "boxes": (boxes.save_boxes, boxes.rank_boxes, boxes.COLUMNS),
}
"""{kind of result: (what keeps the answers, what ranks them, columns of audit.csv)}, where labels are no
files."""


@dataclass(frozen=True)
class AuditRequest:
    """What is audited. Either ``bundle``, which is trained, or ``predictions``, a folder of what exists
    already.

    ``data_dir``: where the datalist's paths start. ``folds``: 0 takes the bundle's own weights, for cases it
    never saw. ``group``: the datalist's key of annotator or centre. ``settings``: overrides of train.json.
    ``worst``: at most so many labels are drawn and listed, if they score ``least_score``; the page draws the
    LEAST_DRAWN worst whatever they score, so that nobody has to take on trust that nothing is wrong.
    """

    data_dir: Path
    output_dir: Path
    bundle: str | None = None
    predictions: Path | None = None
    datalist: Path | None = None
    folds: int = 3
    seed: int = 0
    group: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    worst: int = 30
    least_score: float = 0.5
    trust_bundle: bool = False


def audit(request: AuditRequest, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Make or read the predictions, rank the labels, and write audit.csv, .json, .html, worklist.csv and
    rtstruct/; of a bundle that answers with labels or boxes audit.csv, .json and worklist.csv
    (:mod:`medseg.audit.classes`, :mod:`medseg.audit.boxes`).

    Returns what audit.json holds. InputError, GeometryError, StructureError or BundleError in one line,
    before anything of the ranking is written.
    """
    if (request.bundle is None) == (request.predictions is None):
        raise InputError(
            "an audit needs a bundle to train, or `predictions` that exist already, and not both."
        )
    for path in filter(None, (request.data_dir, request.predictions, request.datalist)):
        if not (path.is_file() or path.is_dir()):
            raise unusable(path)
    if request.worst < 0 or not 0 <= request.least_score <= 1:
        raise InputError(
            f"worst {request.worst} and least score {request.least_score}: expected 0 or more, and 0 to 1."
        )
    if request.seed < 0:
        raise InputError(f"seed {request.seed}: expected 0 or more.")
    if request.output_dir in (request.data_dir, request.predictions):
        raise InputError(
            f"{request.output_dir}: holds what is audited; choose another folder for the output."
        )
    read_worklist(
        request.output_dir / "worklist.csv"
    )  # one that cannot be read must stop us before hours of training
    made = [request.output_dir / name for name in ("cases", "rtstruct", "folds")]
    with own_folder(request.output_dir), no_empty_folders(*made):
        return _audit(request, report)


def _audit(request: AuditRequest, report: Callable[[str], None]) -> dict[str, Any]:
    evidence_dir = request.output_dir / "cases"
    kind = find_bundle(request.bundle).result_kind if request.bundle else "structures"
    if kind in LISTED:
        return _audit_listed(request, evidence_dir, report, kind)
    if request.predictions is not None:
        items, about = (
            _from_files(request, evidence_dir, report),
            {"Predictions": f"as given in {request.predictions}"},
        )
    else:
        items, about = _from_bundle(request, evidence_dir, report)
    groups = {str(item["case_id"]): group_of(item, request.group) for item in items} if request.group else {}
    patients = {str(item["case_id"]): patient_of(item) for item in items}
    paths = [evidence_dir / f"{file_stem(str(item['case_id']))}.npz" for item in items]
    ranking = rank(paths, groups, patients)
    return _write(request, ranking, about, report)


def _audit_listed(
    request: AuditRequest, answers_dir: Path, report: Callable[[str], None], kind: str
) -> dict[str, Any]:
    """Of labels that stand in the datalist: classes of whole images, or boxes."""
    save, rank_answers, columns = LISTED[kind]
    items, about = _from_bundle(request, answers_dir, report, kind, save)
    found = rank_answers(find_bundle(request.bundle), items, answers_dir, request.group)
    content = {"about": about, **found}
    write_table(content["findings"], columns, request.output_dir / "audit.csv")
    write_worklist(
        content["findings"], request.output_dir / "worklist.csv", request.least_score, request.worst
    )
    write_json(content, request.output_dir / "audit.json")
    return content


# ---- where predictions come from ---------------------------------------------------------------------------


def _from_files(request: AuditRequest, evidence_dir: Path, report: Callable[[str], None]) -> list[dict]:
    if request.settings:
        raise InputError("`settings` change a training; with `predictions` nothing is trained.")
    datalist = read_cases(request.datalist) if request.datalist else None
    items = cases_of(request.data_dir, request.predictions, datalist, leave_out=request.output_dir)
    names = structure_names(items, request.predictions)
    make_folder(evidence_dir)
    for item in items:
        lacking = names_without_prediction(item, request.data_dir, request.predictions)
        if lacking:
            report(
                f"note: {item['case_id']}: no prediction of {', '.join(lacking)}; these labels are not "
                f"judged."
            )
        save_evidence(evidence_from_files(item, request.data_dir, request.predictions, names), evidence_dir)
    return items


def _from_bundle(
    request: AuditRequest,
    evidence_dir: Path,
    report: Callable[[str], None],
    kind: str = "structures",
    save: Callable[[Fold, Any], None] = save_predictions,
) -> tuple[list[dict], dict[str, str]]:
    bundle = trusted_bundle(request.bundle, request.trust_bundle)
    own_list = bundle.folder / "configs" / "datalist.json"
    items = read_cases(request.datalist or own_list, kind=kind)
    if request.group:
        for item in items:
            group_of(item, request.group)
    fold_of = [0] * len(items) if request.folds == 0 else patient_folds(items, request.folds, request.seed)
    made = [
        Fold(
            bundle,
            request.data_dir,
            tuple(
                item for item, own in zip(items, fold_of, strict=True) if own != number or request.folds == 0
            ),
            tuple(item for item, own in zip(items, fold_of, strict=True) if own == number),
            request.output_dir / "folds" / (f"fold_{number + 1}" if request.folds else "weights"),
            evidence_dir,
            request.settings,
            number if request.folds else -1,
        )
        for number in range(max(request.folds, 1))
    ]
    words = "; ".join(f"{key}={json.dumps(value)}" for key, value in request.settings.items())
    if request.folds == 0:
        seen = read_cases(own_list, kind="images") if own_list.exists() else []
        predict_with_weights(made[0], seen, report, save)
        return items, {"Predictions": f"the weights of bundle {bundle.name} {bundle.version}, no training"}
    for one in made:
        run_fold(one, report, save)
    how = f"bundle {bundle.name} {bundle.version}, {request.folds} folds by patient, seed {request.seed}"
    return items, {"Predictions": f"{how}{', ' + words if words else ''}"}


# ---- outputs -----------------------------------------------------------------------------------------------


def _write(
    request: AuditRequest, ranking: Ranking, about: dict[str, str], report: Callable[[str], None]
) -> dict[str, Any]:
    out = request.output_dir
    rows = [row_of(finding, number) for number, finding in enumerate(ranking.findings, 1)]
    suspected = sum(row["score"] >= request.least_score for row in rows)
    ranks = [row["rank"] for row in rows][: min(request.worst, max(suspected, LEAST_DRAWN))]
    drawn, sets = draw_worst(ranking, ranks, suspected, out / "cases", request.data_dir, out / "rtstruct")
    content = record(ranking, {"about": about, "contour_sets": sets})
    write_table(rows, COLUMNS, out / "audit.csv")
    write_worklist(rows, out / "worklist.csv", request.least_score, request.worst)
    if suspected < len(drawn):
        scored = f"{suspected} labels score {request.least_score:g} or more"
        about = about | {"Suspected": f"{scored}; the worst few of the others are drawn too"}
    write_html(ranking, drawn, about, out / "audit.html")
    write_json(content, out / "audit.json")
    for notice in ranking.notices:
        report(f"note: {notice}")
    return content
