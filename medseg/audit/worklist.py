"""worklist.csv, the list that annotators work through: written worst first, read back as spreadsheets leave
it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.audit.outputs import write_table
from medseg.errors import InputError

WORKLIST = ("case", "structure", "score", "reason", "status", "reviewer", "date", "comment")
STATUSES = ("open", "accepted", "edited", "rejected")
"""Of an entry of the worklist: not looked at; the label is right; it was corrected; the case is not to be
trained on."""


def read_worklist(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """{(case, structure): row} of a worklist, {} without a file.

    As spreadsheets write it: with or without a byte-order mark, separated by commas or semicolons, blank
    lines, a status in capitals. InputError for other columns, an unknown status, a row given twice, and
    another encoding than UTF-8.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        table = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ","
        )
        rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable worklist ({error}); save it as CSV in UTF-8.") from error
    if not {"case", "structure", "status"} <= set(table.fieldnames or ()):
        raise InputError(
            f"{path}: expected the columns {', '.join(WORKLIST)}; it has {', '.join(table.fieldnames or ())}."
        )
    found: dict[tuple[str, str], dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        if not any(value for value in row.values()):
            continue
        status, key = (row["status"] or "").strip().lower(), (_bare(row["case"]), _bare(row["structure"]))
        if status not in STATUSES:
            raise InputError(
                f"{path}, line {number}: status {row['status']!r}; expected one of {', '.join(STATUSES)}."
            )
        if key in found:
            raise InputError(f"{path}, line {number}: {key[0]} {key[1]} is there twice; which row holds?")
        found[key] = {**row, "status": status}
    return found


def _bare(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def write_worklist(findings: Sequence[Mapping[str, Any]], out: Path, least_score: float, most: int) -> int:
    """Write the worst labels, worst first, for people to work through; returns how many there are.

    ``findings``: rows of audit.csv, worst first, with ``case``, ``structure``, ``score`` and ``words``.

    Labels of at least ``least_score``, at most ``most`` of them. What a person entered in an earlier worklist
    at ``out`` stays, also for a label that is no longer among them.
    """
    earlier = read_worklist(out)
    done = {
        key: row
        for key, row in earlier.items()
        if row["status"] != "open" or row.get("reviewer") or row.get("comment")
    }
    worst = [one for one in findings if one["score"] >= least_score][:most]
    rows = []
    for finding in worst:
        kept = done.pop((finding["case"], finding["structure"]), {})
        new = {key: finding[key] for key in ("case", "structure", "score")} | {"reason": finding["words"]}
        rows.append({"status": "open", **{key: kept.get(key, "") for key in WORKLIST[4:] if kept}, **new})
    rows += [{**row, "case": case, "structure": structure} for (case, structure), row in done.items()]
    write_table(rows, WORKLIST, out)
    return len(worst)
