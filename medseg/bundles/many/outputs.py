"""What a run over many cases leaves: run.json, cohort.html, and cohort.parquet and volumes.csv with a row per
structure (findings.csv per box, labels.csv per class and value)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.bundles.many.run import DATABASE
from medseg.bundles.record import write_record
from medseg.files import atomic_path, plain
from medseg.metrics.outliers import outliers
from medseg.reports.cohort import table_of, write_cohort

TABLE = "cohort.parquet"
PREVIEW = "preview.png"
CASE_COLUMNS = ("case", "status", "fault", "error", "seconds", "attempts", "bytes", "began", "ended")
SHORT = ("case", "status", "fault", "error", "seconds", "attempts")


def write_outputs(result: Mapping[str, Any], title: str, folder: Path) -> list[str]:
    """Write the files of a run's result (:func:`medseg.bundles.many.run.run_cohort`), each atomically;
    a sentence for each that could not be."""
    cases = result["cases"]
    ended = {case["case"]: case.get("structures") or [] for case in cases if case["status"] == "done"}
    left = write_table(table_rows(cases), folder / TABLE)
    left += write_cohort([_on_the_page(case, folder) for case in cases], title, result["passed_over"], folder)
    statuses = [case["status"] for case in cases]
    record = {
        **{key: value for key, value in result.items() if key != "cases"},
        "state": "ended",
        "counts": {status: statuses.count(status) for status in sorted(set(statuses))},
        "outliers": [plain(one._asdict()) for one in outliers(ended)],
        "cases": [{key: case[key] for key in SHORT if key in case} for case in cases],
    }
    write_record(record, folder / "run.json")
    return left


def _on_the_page(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    own = folder / case["case"]
    there = [{"file": PREVIEW}] if case["status"] == "done" and (own / PREVIEW).is_file() else []
    return {**case, "folder": str(own), "outputs": there}


def table_rows(cases: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row per structure, box, or class and value of each case, and one for a case without any; what a case
    says stands in each. Of boxes and labels the columns are those of findings.csv and labels.csv."""
    table = table_of(cases)
    for case in cases:
        own = {key: case.get(key) for key in CASE_COLUMNS}
        if table.of != "structures":
            yield from (dict.fromkeys(table.columns) | own | row for row in table.rows([case]))
            continue
        for row in case.get("structures") or [{}]:
            flat = {"structure": row.get("name")} if row else {"structure": None}
            for key, value in row.items():
                if key == "centre_lps_mm":
                    flat |= dict(zip(("x_mm", "y_mm", "z_mm"), value or (None,) * 3, strict=True))
                elif key != "name" and isinstance(value, str | int | float | bool | None):
                    flat[key] = value
            yield own | flat


def write_table(rows: Iterator[dict[str, Any]], out: Path) -> list[str]:
    """Write rows as Parquet, atomically; [a sentence] where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return [f"{out.name} needs pyarrow: pip install 'medseg[records]'; {DATABASE} has every record."]
    listed = list(rows)
    columns = dict.fromkeys(key for row in listed for key in row)
    table = pyarrow.table({column: _column([row.get(column) for row in listed]) for column in columns})
    with atomic_path(out) as temporary:
        parquet.write_table(table, temporary)
    return []


def _column(values: list[Any]) -> list[Any]:
    """Numbers of one column as one kind: a column of 1 and 2.5 is one of floats."""
    if any(isinstance(value, float) for value in values):
        return [float(value) if isinstance(value, int | float) else None for value in values]
    return values
