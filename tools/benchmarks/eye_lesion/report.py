"""Tables of the eye-lesion benchmark from its finished cells, put into a page between markers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cell import BASELINE, load_scores, read_record
from curves import draw

from medseg.bundles.score_photographs import SPECIFICITY, PhotographScore, row_of
from medseg.errors import InputError
from medseg.metrics.intervals import Interval, mean_interval
from medseg.metrics.lesions import mean_sensitivity, sensitivity_at_false_finds
from medseg.metrics.pixels import (
    average_precision,
    calibration_error,
    dice_at,
    pooled,
    pooled_interval,
    roc_auc,
    sensitivity_at,
    specificity_at,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))

HEADS = (
    "architecture",
    "AUPR, pooled",
    "AUPR, mean of images",
    "ROC AUC, pooled",
    "Dice, pooled",
    f"sens. at spec. {SPECIFICITY:g}",
    "spec., images without",
    "lesions found at 1 false find",
    "FROC mean",
    "look-alikes taken",
    "ECE",
)
COSTS = ("architecture", "parameters", "ms per image", "peak memory, MB", "training, min per fold")


def finished(out: Path, folds: list[int] | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """(file, record) of every finished cell of these folds, or of all. InputError when there is none."""
    records = [(path, read_record(path)) for path in sorted((out / "cells").glob("*.json"))]
    records = [(path, record) for path, record in records if folds is None or record["fold"] in folds]
    if not records:
        raise InputError(f"{out}: no finished cell; run train first.")
    return records


def report(out: Path, page: Path, folds: list[int] | None = None) -> int:
    """Write the section of each device and budget, of these folds only where some are named; InputError when
    no cell is finished."""
    from page_section import put_section

    records = finished(out, folds)
    groups: dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]] = {}
    for path, record in records:
        if record["architecture"] != BASELINE:
            key = (record["cost"]["device"], str(sorted(record["budget"].items())))
            groups.setdefault(key, []).append((path, record))
    baseline = [(path, record) for path, record in records if record["architecture"] == BASELINE]
    for (device, _), group in groups.items():
        budget = group[0][1]["budget"]
        by_name: dict[str, list] = {}
        for path, record in [*baseline, *group]:
            by_name.setdefault(record["architecture"], []).append((path, record))
        scores = best_first(by_name)
        words = f"{device}, {budget['epochs']} epochs"
        picture = f"eye_lesions_{re.sub(r'[^a-z0-9]+', '_', words.lower())}.png"
        draw(scores, page.parent.parent / "pictures" / picture)
        text = f"{tables(by_name, scores, device)}\n\n![The curves behind the table](../pictures/{picture})"
        put_section(page, f"eye lesions, {words}", text)
    return 0


def best_first(by_name: dict[str, list]) -> dict[str, list[PhotographScore]]:
    """{architecture: scores of all its photographs}, the highest pooled AUPR first."""
    scores = {
        name: [
            score
            for path, record in found
            for score in load_scores(path.with_suffix(".npz"), record["cases"])
        ]
        for name, found in by_name.items()
    }
    return dict(sorted(scores.items(), key=lambda item: -pooled_aupr(item[1])))


def pooled_aupr(scores: list[PhotographScore]) -> float:
    return average_precision(pooled([score.pixels for score in scores]))


def tables(by_name: dict[str, list], scores: dict[str, list[PhotographScore]], device: str) -> str:
    """Scores and costs of one group of cells, in the order of ``scores``, and what the baseline has to say to
    them."""
    order = list(scores)
    budget = by_name[next(name for name in order if name != BASELINE)][0][1]["budget"]
    folds = {name: sorted(record["fold"] for _, record in by_name[name]) for name in order}
    complete = len({tuple(numbers) for numbers in folds.values()}) == 1
    lines = [
        f"Device: {device}. Budget of every cell: {budget['epochs']} epochs of {budget['patches']} patches "
        f"of {budget['patch_pixels']} x {budget['patch_pixels']} pixels per photograph of "
        f"{budget['longest_side']} pixels, batch {budget['batch_size'] * budget['patches']}, AdamW, one "
        f"cycle up to {budget['learning_rate']:g}, seed {budget['seed']}. Validation patients of folds "
        f"{', '.join(map(str, folds[order[0]]))}: {len(scores[order[0]])}, "
        f"{sum(s.pixels.positives > 0 for s in scores[order[0]])} with exudates.",
        "",
        _table(HEADS, [_score_row(name, scores[name]) for name in order]),
        "",
        _table(COSTS, [_cost_row(name, [record for _, record in by_name[name]]) for name in order]),
        "",
        verdict({name: pooled_aupr(found) for name, found in scores.items()}),
    ]
    if not complete:
        lines += ["", f"Not comparable yet, folds differ: {'; '.join(f'{n} {f}' for n, f in folds.items())}."]
    return "\n".join(lines)


def verdict(found: dict[str, float]) -> str:
    """Which networks do not beat the baseline."""
    if BASELINE not in found:
        return "The baseline has not been run."
    behind = [n for n, value in found.items() if n != BASELINE and value <= found[BASELINE]]
    if not behind:
        return "Every network has a higher pooled AUPR than the green-channel top-hat."
    return f"**Not better than the green-channel top-hat** in pooled AUPR: {', '.join(behind)}."


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _score_row(name: str, scores: list[PhotographScore]) -> list[str]:
    pixels, patients = [score.pixels for score in scores], [score.patient for score in scores]
    lesions = [score.lesions for score in scores]
    whole, clean = pooled(pixels), pooled([counts for counts in pixels if not counts.positives])
    each = np.array([row_of(score)["AUPR"] for score in scores])
    alike = np.sum([taken for score in scores for taken in score.look_alikes.values()], axis=0)
    return [
        name,
        _words(pooled_interval(average_precision, pixels, patients)),
        _words(mean_interval(each, patients)),
        _words(pooled_interval(roc_auc, pixels, patients)),
        _words(pooled_interval(dice_at, pixels, patients)),
        f"{sensitivity_at(whole, SPECIFICITY):.3f}",
        f"{specificity_at(clean):.4f}",
        f"{sensitivity_at_false_finds(lesions, 1):.3f}",
        f"{mean_sensitivity(lesions):.3f}",
        f"{alike[1] / max(alike[0], 1):.3f}",
        f"{calibration_error(whole):.4f}",
    ]


def _cost_row(name: str, records: list[dict[str, Any]]) -> list[str]:
    costs = [record["cost"] for record in records]

    def mean(key: str) -> float:
        return float(np.mean([cost[key] for cost in costs]))

    return [
        name,
        f"{costs[0]['parameters']:,}",
        f"{mean('ms_per_image'):.0f}",
        f"{max(cost['peak_memory_mb'] for cost in costs):.0f}",
        f"{mean('training_minutes'):.1f}",
    ]


def _words(found: Interval) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
