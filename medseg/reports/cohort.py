"""What a cohort leaves beside its cases: volumes.csv, a row per structure, findings.csv, a row per box, or
labels.csv, a row per class and value; and cohort.html with distributions, what is unlike the other cases, and
pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medseg.files import write_csv
from medseg.metrics.outliers import Outlier, outliers
from medseg.reports.charts import histogram
from medseg.reports.page import GENERATOR, write_page

COLUMNS = ("case", "status", "structure", "empty", "volume_cc", "area_cm2", "area_pixels", "error")
"""Of volumes.csv. A size that is not known, as on a single slice, is left out."""

CORNERS = ("low_1", "low_2", "low_3", "high_1", "high_2", "high_3")
FINDING_COLUMNS = (
    *("case", "status", "number", "class", "score", "unit"),
    *CORNERS,
    *("volume_cc", "area_cm2", "area_pixels", "error"),
)
"""Of findings.csv. ``unit``: of the corners, whose third coordinate a flat image has not."""

LABEL_COLUMNS = ("case", "status", "label", "probability", "value", "unit", "low", "high", "error")
"""Of labels.csv: a class has a probability, another label a value with its unit; ``low`` to ``high`` is the
calibrated interval of either."""

PICTURE_WIDTH = 1000
"""Pixels: previews are embedded this wide, so that a page of a hundred cases can still be mailed."""

MOST_PICTURES = 60
"""Of more cases those are shown that are most unlike the others, and the first of the rest."""

MOST_ROWS = 200
"""Of the tables of failures and outliers."""

DISTRIBUTIONS = {"volume_cc": ("volume", "cc", True), "dsc": ("DSC", "", False)}
"""{what a structure's row has: (what it is called, its unit, whether its axis is logarithmic)}."""

DEFINITIONS = {
    "volume": "voxels inside the structure times their volume, in cc; of a radiograph the area",
    "skipped": "contoured by an earlier run with the same images, bundle and options; shown as it was",
    "unlike the others": "a volume more than 4 robust standard deviations (of its logarithm) and a factor of "
    "1.5 from the median of these cases, a centre more than 4 from where it lies in them relative to their "
    "other structures, or no structure where 80 % of the cases have one; nothing is said of fewer than 5",
    "failed": "not contoured, for the reason beside it; the other cases went on",
}


def write_cohort(
    records: Sequence[Mapping[str, Any]], bundle: str, notes: Sequence[str], folder: Path
) -> list[str]:
    """Write FOLDER/cohort.html and the one of FOLDER/volumes.csv, findings.csv (where cases have boxes) and
    labels.csv, each atomically; a sentence for each that is not ours to replace.

    ``records``: of each case, as its run.json has it. ``bundle``: name and version. ``notes``: what was
    passed over.
    """
    page, left = folder / "cohort.html", []
    table = table_of(records)
    if _is_free(folder / table.name, ",".join(table.columns)):
        write_csv(table.rows(records), table.columns, folder / table.name)
    else:
        left.append(f"{folder / table.name}: was not written by medseg and is left as it is.")
    if _is_free(page, GENERATOR):
        ended = {r["case"]: r.get("structures") or [] for r in records if r["status"] in ("done", "skipped")}
        found = outliers(ended)
        worst = dict.fromkeys([one.case for one in found])
        order = sorted(
            records,
            key=lambda record: list(worst).index(record["case"]) if record["case"] in worst else len(worst),
        )
        values = {
            "bundle": bundle,
            "cases": [_shown(record, found) for record in order[:MOST_PICTURES]],
            "counts": f"{len(records)}: {_counts(records)}",
            "left_out": len(records) - min(len(records), MOST_PICTURES),
            "outliers": found[:MOST_ROWS],
            "n_outliers": len(found),
            "failures": [record for record in records if record.get("error")][:MOST_ROWS],
            "distributions": _distributions(ended, found),
            "table": f"{table.name}, a row per {table.one}",
        }
        write_page("cohort.html", page, **values, notices=notes[:MOST_ROWS], definitions=DEFINITIONS)
    else:
        left.append(f"{page}: was not written by medseg and is left as it is.")
    return left


def _case(record: Mapping[str, Any]) -> dict[str, Any]:
    """What every row of a case begins with."""
    return {key: record[key] for key in ("case", "status", "error") if key in record}


def volume_rows(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of volumes.csv: one per structure, and one for a case that has none."""
    for record in records:
        case = _case(record)
        structures = record.get("structures") or [{}]
        for row in structures:
            known = {key: row[key] for key in COLUMNS if row.get(key) is not None}
            yield case | known | ({"structure": row["name"]} if row else {})


def finding_rows(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of findings.csv: one per box, the best of a case first, and one for a case without any."""
    for record in records:
        case = _case(record)
        boxes = record.get("boxes") or {}
        for number, box in enumerate(boxes.get("found") or [{}], 1):
            known = {key: box[key] for key in FINDING_COLUMNS if box.get(key) is not None}
            for key in ("low", "high"):
                known |= {f"{key}_{axis}": value for axis, value in enumerate(box.get(key, ()), 1)}
            yield case | known | ({"number": number, "unit": boxes["unit"]} if box else {})


def label_rows(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of labels.csv: one per class, then one per value, and one for a case without any."""
    for record in records:
        case = _case(record)
        labels = record.get("labels") or {}
        rows = {name: {"probability": chance} for name, chance in labels.get("probabilities", {}).items()}
        rows |= labels.get("values", {})
        for name, (low, high) in labels.get("intervals", {}).items():
            rows[name] = {**rows[name], "low": low, "high": high}
        if not rows:
            yield case
        for name, row in rows.items():
            yield case | {"label": name} | row


class Table(NamedTuple):
    """A table of a cohort: the key of ``of`` in the record of a case has its rows, one per ``one``."""

    of: str
    name: str
    one: str
    columns: tuple[str, ...]
    rows: Callable[[Sequence[Mapping[str, Any]]], Iterator[dict[str, Any]]]


TABLES = (
    Table("structures", "volumes.csv", "structure", COLUMNS, volume_rows),
    Table("boxes", "findings.csv", "box", FINDING_COLUMNS, finding_rows),
    Table("labels", "labels.csv", "class and value", LABEL_COLUMNS, label_rows),
)


def table_of(records: Sequence[Mapping[str, Any]]) -> Table:
    """The table of what the cases have: that of structures too where all failed."""
    return next((table for table in TABLES if any(table.of in record for record in records)), TABLES[0])


def _is_free(path: Path, mark: str) -> bool:
    """True when there is no file, or one that holds the mark of ours in its first 4 kB."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        return mark.encode() in file.read(4096)


def _counts(records: Sequence[Mapping[str, Any]]) -> str:
    statuses = [record["status"] for record in records]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def _distributions(
    ended: Mapping[str, Sequence[Mapping[str, Any]]], found: Sequence[Outlier]
) -> list[dict[str, Any]]:
    """A row for each structure and quantity with its spread in numbers and as a chart, outliers marked."""
    marked = {(one.case, one.structure): one.words for one in found if one.what == "volume"}
    rows = []
    for key, (called, unit, log) in DISTRIBUTIONS.items():
        values: dict[str, dict[str, float]] = {}
        for case, structures in ended.items():
            for row in structures:
                if row.get(key) is not None and not row.get("empty"):
                    values.setdefault(row["name"], {})[case] = float(row[key])
        for name, of_case in values.items():
            flags = [
                (value, f"{case}: {marked[case, name]}")
                for case, value in of_case.items()
                if (case, name) in marked
            ]
            low, middle, high = np.percentile(list(of_case.values()), [5, 50, 95])
            chart = histogram(list(of_case.values()), flags if key == "volume_cc" else [], unit, log)
            what = {"structure": name, "what": called, "unit": unit, "n": len(of_case)}
            rows.append({**what, "low": low, "middle": middle, "high": high, "chart": chart})
    return rows


def _shown(record: Mapping[str, Any], found: Sequence[Outlier]) -> dict[str, Any]:
    """What the page shows of a case."""
    pictures = [row["file"] for row in record.get("outputs", ()) if row["file"] == "preview.png"]
    return {
        "case": record["case"],
        "status": record["status"],
        "words": record.get("error") or record.get("summary", ""),
        "warnings": record.get("warnings", ()),
        "odd": [one.words for one in found if one.case == record["case"]],
        "picture": _embedded(Path(record["folder"]) / pictures[0]) if pictures else "",
    }


def _embedded(path: Path) -> str:
    """The picture as base64 text of a JPEG; "" when it is gone or cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            height = round(image.height * min(1.0, PICTURE_WIDTH / image.width))
            small = image.convert("RGB").resize((min(PICTURE_WIDTH, image.width), height))
    except OSError:
        return ""
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=82)
    return base64.b64encode(file.getvalue()).decode("ascii")
