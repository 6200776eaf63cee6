"""Tables of finished runs of head_neck.py."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scores import auroc

from medseg.errors import InputError
from medseg.files import write_csv
from medseg.metrics.intervals import Interval, interval

DRAWS, LEAST_SCORE = 2000, 0.5
"""Contours of this score and above are what `medseg audit` lists by default."""


def write_report(
    out: Path,
    output: Path,
    structures: tuple[str, ...],
    page: Path | None = None,
    name: str = "head_neck",
    audit: Path | None = None,
) -> None:
    """Read OUT/*.json; write NAME.csv to `output` and the section NAME of `page`. With the audit.json of test
    patients, only contours count that it judged and did not suspect. InputError when there is no run."""
    results = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    if not results:
        raise InputError(f"{out} holds no finished run; train first.")
    note = ""
    if audit is not None:
        findings = json.loads(audit.read_text(encoding="utf-8"))["findings"]
        note = keep_unsuspected(results, findings, structures)
    output.mkdir(parents=True, exist_ok=True)
    rows = score_rows(results, structures)
    write_csv(rows, list(rows[0]), output / f"{name}.csv")
    if page is not None:
        sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
        from page_section import put_section

        put_section(page, name, note + markdown(results))


def keep_unsuspected(results: list[dict], findings: list[dict], structures: tuple[str, ...]) -> str:
    """Take every test contour out of `results` that an audit did not judge, or suspects; says how many stay.

    InputError where no test contour is among the findings.
    """
    kept = {
        (one["case"], one["structure"])
        for one in findings
        if one["reason"] != "not judged" and one["score"] < LEAST_SCORE
    }
    count, total = 0, 0
    for result in results:
        test = result["test"]
        total = sum(value is not None for row in test["dice"] for value in row)
        test["dice"] = [
            [value if (case, name) in kept else None for value, name in zip(row, structures, strict=True)]
            for case, row in zip(test["cases"], test["dice"], strict=True)
        ]
        count = sum(value is not None for row in test["dice"] for value in row)
    if not count:
        raise InputError("the audit judged no contour of the test patients; audit them.")
    return f"{count} of {total} test contours, which an audit judged and did not suspect.\n\n"


def score_rows(results: list[dict], structures: tuple[str, ...]) -> list[dict]:
    """One row per run and structure: mean Dice over the test patients, AUROC of the final loss and of the
    module's score; None where there is none."""
    rows = []
    for result in results:
        dice = np.array(result["test"]["dice"], dtype=float)
        noisy = np.array(result["train"]["noisy"])
        for column, structure in enumerate(structures):
            row = {**result["run"], "device": result["device"], "structure": structure}
            own = dice[:, column][~np.isnan(dice[:, column])]
            row["dice"] = float(own.mean()) if len(own) else None
            for name in ("final_loss", "quality"):
                values = np.array(result["train"]["scores"].get(name, []), dtype=float)
                found = auroc(noisy, values[:, column]) if len(values) else None
                row[f"{name}_auroc"] = found
            rows.append({**row, "minutes": result["minutes"]})
    return rows


def table_of(result: dict) -> np.ndarray:
    """Mean Dice over the structures that each test patient has, (patients,)."""
    return np.nanmean(np.array(result["test"]["dice"], dtype=float), axis=1)


def difference(runs: dict[int, dict], others: dict[int, dict]) -> Interval:
    """Mean over the seeds both have, with an interval over seeds and patients."""
    seeds = sorted(runs.keys() & others.keys())
    table = np.array([table_of(runs[seed]) - table_of(others[seed]) for seed in seeds])
    rng = np.random.default_rng(0)

    def drawn(columns: np.ndarray) -> float:
        return float(table[rng.integers(len(table), size=len(table))][:, columns].mean())

    found = interval(drawn, runs[seeds[0]]["test"]["cases"], draws=DRAWS)
    return Interval(float(table.mean()), found.low, found.high)


def markdown(results: list[dict]) -> str:
    """Dice of every method at each share of wrong patients, what it gains over dice_ce, how much of what the
    wrong contours cost that is, and AUROC over structures."""
    runs: dict[tuple[float, str], dict[int, dict]] = defaultdict(dict)
    for result in results:
        run = result["run"]
        runs[run["share"], run["method"]][run["seed"]] = result
    clean = runs.get((0.0, "dice_ce"), {})
    lines = [
        "| wrong patients | method | seeds | Dice | minus dice_ce | of the loss won back | AUROC, final loss "
        "| AUROC, module |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (share, method), group in sorted(runs.items()):
        plain = runs[share, "dice_ce"]
        cells = [f"{share:.0%}", method, str(len(group)), f"{_mean(group):.3f}"]
        if method == "dice_ce" or not plain:
            cells += ["", ""]
        else:
            found = difference(group, plain)
            cells.append(f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})")
            cells.append(_won_back(group, plain, clean) if share else "")
        for name in ("final_loss", "quality"):
            values = [row[f"{name}_auroc"] for row in score_rows(list(group.values()), tuple(range(8)))]
            known = [value for value in values if value is not None]
            cells.append(f"{np.mean(known):.2f}" if known else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _won_back(group: dict[int, dict], plain: dict[int, dict], clean: dict[int, dict]) -> str:
    """Of what the wrong contours cost, over the seeds that all three have; empty where they cost nothing."""
    seeds = group.keys() & plain.keys() & clean.keys()
    own, base, best = ({seed: runs[seed] for seed in seeds} for runs in (group, plain, clean))
    if not seeds or _mean(best) <= _mean(base):
        return ""
    return f"{(_mean(own) - _mean(base)) / (_mean(best) - _mean(base)):.0%}"


def _mean(group: dict[int, dict]) -> float:
    return float(np.mean([table_of(run).mean() for run in group.values()]))
