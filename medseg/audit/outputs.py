"""What an audit leaves behind for people and machines: audit.csv, audit.json and audit.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import medseg
from medseg.audit.pairs import KINDS
from medseg.audit.ranking import Finding, Ranking
from medseg.files import plain, write_csv
from medseg.reports.audit import AuditPage, write_audit_page
from medseg.reports.pictures import Picture

DISCLAIMER = "Research use only, not a medical device. A suspicion is no finding: a qualified person decides."

DEFINITIONS = {
    "implementation": f"medseg {medseg.__version__}",
    "score": "1 / (1 + exp(3 - z)): 0.5 three robust standard deviations beyond the structure's usual "
    "disagreement",
    "z": "robust z, (value - median) / (1.4826 x median absolute deviation) over all labels of the "
    "structure, at most 10, of 1 - Dice; plus 2 x (unusual - 1); plus 2.5 x (dice_after - dice)",
    "dice": "label against the prediction, which is cut where the structure's median prediction is as large "
    "as its label",
    "soft_dice": "label against the predicted probabilities as they are",
    "distance": "mean absolute distance between both outlines, both directions alike",
    "bias": "mean signed distance, positive where the label lies outside the prediction",
    "slice": "of the image's own series, from 1 in their order along the normal, with the largest differing "
    "area; slices: how many the series has; both without a number where it is not cut axially",
    "z_mm": "height of that slice in the patient (DICOM: to Superior)",
    "unusual": "root mean square of how many robust standard deviations the label's own volume, thickness, "
    "height, gaps and grey levels lie from those of its structure; 1 is as expected",
    "dice_after": "Dice of the label with the correction that the reason names",
    "style_removed": "the consistent bias of the case's group that was taken out of the label before it was "
    "judged",
    "empty": "label and prediction both empty: score 0; one of them empty: Dice 0, distance infinite",
}

COLUMNS = (
    "rank",
    "case",
    "structure",
    "group",
    "fold",
    "score",
    "z",
    "reason",
    "words",
    "slice",
    "slices",
    "z_mm",
    "amount",
    "dice",
    "soft_dice",
    "dice_after",
    "distance",
    "bias",
    "unusual",
    "style_removed",
    "label_size",
    "predicted_size",
    "unit",
    "image",
    "label",
)


def row_of(finding: Finding, rank: int) -> dict[str, Any]:
    """One line of audit.csv, by COLUMNS."""
    numbers = finding.numbers
    number, count, z_mm = finding.place or (None, None, None)
    return {
        "rank": rank,
        "case": finding.case,
        "structure": finding.structure,
        "group": finding.group,
        "fold": finding.fold + 1 if finding.fold >= 0 else "",
        "score": finding.score,
        "z": finding.z,
        "reason": finding.reason.kind,
        "words": finding.reason.words,
        "slice": number,
        "slices": count,
        "z_mm": z_mm,
        "amount": finding.reason.amount,
        "dice": numbers.dice,
        "soft_dice": numbers.soft_dice,
        "dice_after": finding.reason.dice_after,
        "distance": numbers.distance,
        "bias": numbers.bias,
        "unusual": finding.unusual,
        "style_removed": finding.style,
        "label_size": numbers.label_size,
        "predicted_size": numbers.predicted_size,
        "unit": finding.unit,
        "image": finding.image_source,
        "label": finding.label_source,
    }


def record(ranking: Ranking, about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole audit as plain values; a number that does not exist or is infinite is None. ``about``: how it
    was made."""
    rows = []
    for number, finding in enumerate(ranking.findings, 1):
        row = {name: plain(value) for name, value in row_of(finding, number).items()}
        row["vector"] = [plain(part) for part in finding.reason.vector]
        row["other_explanations"] = [
            {"words": words, "dice_after": plain(dice)} for words, dice in finding.others
        ]
        rows.append(row)
    habits = [{name: plain(value) for name, value in vars(style).items()} for style in ranking.styles]
    thresholds = {
        name: {("all" if fold < 0 else str(fold + 1)): plain(value) for fold, value in by_fold.items()}
        for name, by_fold in ranking.thresholds.items()
    }
    return {
        **about,
        "cases": len(ranking.cases),
        "labels": len(rows),
        "definitions": DEFINITIONS,
        "reasons": KINDS,
        "thresholds_by_fold": thresholds,
        "styles": habits,
        "findings": rows,
        "notices": list(ranking.notices),
        "disclaimer": DISCLAIMER,
    }


def write_html(
    ranking: Ranking, drawn: Mapping[int, Sequence[Picture]], about: Mapping[str, str], out: Path
) -> None:
    """Write the page atomically. ``drawn``: {rank: pictures}; ``about``: words on how the predictions were
    made, by title."""
    labels = [
        {**row_of(finding, number), "others": finding.others, "place": str(finding.place or "")}
        for number, finding in enumerate(ranking.findings, 1)
    ]
    page = AuditPage(
        labels,
        drawn,
        ranking.names,
        len(ranking.cases),
        [vars(style) for style in ranking.styles],
        ranking.unit,
        about,
        ranking.notices,
        DEFINITIONS,
    )
    write_audit_page(page, out)


def write_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], out: Path) -> None:
    """Write the ``columns`` of rows as CSV, atomically; nothing where there is no number."""
    cells = [{column: _cell(row.get(column)) for column in columns} for row in rows]
    write_csv(cells, columns, out)


def _cell(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
