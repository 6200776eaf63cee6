"""Scores of labels as Markdown tables, and as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from medseg.bundles.score_labels import ScoredLabels
from medseg.metrics.intervals import Interval


def in_words(scored: ScoredLabels) -> str:
    """The tables: per class, figures with 95 % intervals over patients, those of numbers, and apart by each
    stratum."""
    parts = [f"{scored.images} images of {scored.patients} patients.", _per_class(scored)]
    parts += [_figures(name, found) for name, found in scored.figures.items()]
    parts += [_figures(name, found) for name, found in scored.numbers.items()]
    parts += [_stratum(name, found) for name, found in scored.strata.items()]
    return "\n\n".join(parts)


def _per_class(scored: ScoredLabels) -> str:
    lines = ["| class | precision | recall | F1 | n |", "|---|--:|--:|--:|--:|"]
    rows = scored.per_class
    total = sum(row.support for row in rows.values())
    for name, row in rows.items():
        lines.append(f"| {name} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} | {row.support} |")
    right = sum(row.recall * row.support for row in rows.values() if row.support)
    lines.append(f"| accuracy | | | {right / total:.3f} | {total} |")
    for what, weights in (
        ("macro average", np.ones(len(rows))),
        ("weighted average", np.array([row.support for row in rows.values()])),
    ):
        means = [
            float(np.average([getattr(row, key) for row in rows.values()], weights=weights))
            for key in ("precision", "recall", "f1")
        ]
        lines.append(f"| {what} | {means[0]:.3f} | {means[1]:.3f} | {means[2]:.3f} | {total} |")
    return "\n".join(lines)


def _figures(name: str, found: dict[str, Interval]) -> str:
    lines = [f"| {name} | value (95 % interval over patients) |", "|---|--:|"]
    lines += [f"| {figure} | {_words(value)} |" for figure, value in found.items()]
    return "\n".join(lines)


def _stratum(name: str, found: dict[str, Any]) -> str:
    heads = list(next(iter(found["values"].values())))
    lines = [f"| {name} | n | {' | '.join(heads)} |", "|---|--:|" + "--:|" * len(heads)]
    for value, figures in found["values"].items():
        cells = " | ".join(_words(figures[key]) for key in heads)
        lines.append(f"| {value or '(not known)'} | {found['n'][value]} | {cells} |")
    lines += ["", f"AUROC over pairs of one {name}: {_words(found['within'])}."]
    reads: Interval = found["reads"]
    if np.isfinite(reads.value):
        first, second = found["reads_of"]
        warns = reads.low > 0.5 or reads.high < 0.5
        lines.append(
            f"Among images of one class the answer tells {first} from {second} with AUROC {_words(reads)}: "
            + (f"**it follows {name}, or what comes with it**." if warns else "no sign that it follows it.")
        )
    return "\n".join(lines)


def _words(value: Interval) -> str:
    if not np.isfinite(value.value):
        return "none"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def as_json(scored: ScoredLabels) -> str:
    """Every number, for machines; what does not exist is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if hasattr(value, "_asdict"):
            return plain(value._asdict())
        return value if not isinstance(value, float) or np.isfinite(value) else None

    return json.dumps({key: plain(value) for key, value in vars(scored).items()}, indent=1)
