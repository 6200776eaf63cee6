"""Tables and figures of finished cells."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from figures import draw_dice, draw_review
from headline import headline
from scores import detection

from medseg.errors import InputError
from medseg.files import write_csv
from medseg.metrics.intervals import Interval, interval

CONDITION = ("data", "generator", "direction", "share", "sizes")
CELL = (*CONDITION, "method", "subset", "fixed_share", "fixed_by", "seed")
DRAWS = 2000


def write_report(out: Path, output: Path, name: str, page: Path | None = None) -> None:
    """Read OUT/cells/*.json, write tables and figures to `output`, and the section `name` of `page`.

    InputError when there is no cell, and when cells of several budgets or devices lie together.
    """
    results = [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]
    if not results:
        raise InputError(f"{out}/cells holds no finished cell; run the benchmark first.")
    made = {(json.dumps(result["budget"], sort_keys=True), result["device"]) for result in results}
    if len(made) > 1:
        raise InputError(
            f"{out}/cells holds cells of {len(made)} budgets and devices, which must not be compared; use a "
            "folder for each."
        )
    output.mkdir(parents=True, exist_ok=True)
    _write(output / f"{name}.csv", score_rows(results))
    # Rounded here only: the page's three digits are not made of four.
    compared = [
        {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        for row in comparison_rows(results)
    ]
    _write(output / f"{name}_comparison.csv", compared)
    _write(output / f"{name}_detection.csv", detection_rows(results))
    draw_dice(by_condition(results), output / f"{name}.png")
    if any(result["cell"]["fixed_share"] for result in results):
        draw_review(results, output / f"{name}_review.png")
    if page is not None:
        sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
        from page_section import put_section

        put_section(page, name, markdown(results))
        # Beside the published table there is something to put only where the paper's noise was tried.
        cells = [result["cell"] for result in results if result["cell"]["data"] == "phantom"]
        if any(cell["share"] and cell["generator"] in ("fixed", "paper") for cell in cells):
            put_section(page, f"{name}_headline", headline(results))


def _write(path: Path, rows: list[dict]) -> None:
    write_csv(rows, list(dict.fromkeys(name for row in rows for name in row)), path)


def score_rows(results: list[dict]) -> list[dict]:
    """One row per cell and structure, means over the test cases; "mean" is over the structures."""
    rows = []
    for result in results:
        dice = np.array(result["test"]["dice"])
        for column, structure in [*enumerate(result["structures"]), (None, "mean")]:
            mean = dice.mean() if column is None else dice[:, column].mean()
            rows.append(
                {name: result["cell"][name] for name in CELL}
                | {
                    "device": result["device"],
                    "structure": structure,
                    "test_cases": len(dice),
                    "dice": round(float(mean), 4),
                    "minutes": round(result["minutes"], 3),
                }
            )
    return rows


def by_condition(results: list[dict]) -> dict[tuple, dict[tuple, list[dict]]]:
    """condition -> (method, subset) -> results of all seeds; cells with corrected labels left out."""
    grouped: dict[tuple, dict[tuple, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        cell = result["cell"]
        if not cell["fixed_share"]:
            grouped[tuple(cell[n] for n in CONDITION)][cell["method"], cell["subset"]].append(result)
    return grouped


def difference(runs: list[dict], others: list[dict]) -> Interval | None:
    """Mean difference of Dice over the seeds both have, with an interval over seeds and test images.

    Images are drawn by medseg.metrics.intervals; for each draw of images the seeds are drawn too. An image
    that a seed did not test on (real films are split anew) counts for the other seeds only. None without a
    common seed.
    """
    pairs = {run["cell"]["seed"]: run for run in runs}, {run["cell"]["seed"]: run for run in others}
    seeds = sorted(pairs[0].keys() & pairs[1].keys())
    if not seeds:
        return None
    rows = []
    for seed in seeds:
        first, second = (_dice_by_image(side[seed]) for side in pairs)
        rows.append({name: first[name] - second[name] for name in first})
    names = sorted(set().union(*rows))
    table = np.array([[row.get(name, np.nan) for name in names] for row in rows])
    rng = np.random.default_rng(0)

    def drawn(columns: np.ndarray) -> float:
        return float(np.nanmean(table[rng.integers(len(table), size=len(table))][:, columns]))

    found = interval(drawn, names, draws=DRAWS)
    return Interval(float(np.nanmean(table)), found.low, found.high)


def _dice_by_image(result: dict) -> dict[str, float]:
    return dict(zip(result["test"]["cases"], np.mean(result["test"]["dice"], axis=1).tolist(), strict=True))


def comparison_rows(results: list[dict]) -> list[dict]:
    """Mean Dice and sd over seeds of each method, and its difference to Dice + cross-entropy on the same
    labels ("plain") and on right ones ("clean"); AUROC of the module's score and of the final loss."""
    grouped = by_condition(results)
    rows = []
    for condition, methods in sorted(grouped.items()):
        plain = methods.get(("dice_ce", "all"))
        clean = grouped.get((condition[0], "fixed", "both", 0.0, "5-13"), {}).get(("dice_ce", "all"))
        for (method, subset), runs in sorted(methods.items()):
            seeds = [np.mean(run["test"]["dice"]) for run in runs]
            row = dict(zip(CONDITION, condition, strict=True))
            row |= {"method": method, "subset": subset, "seeds": len(runs)}
            row |= {"dice": float(np.mean(seeds)), "lowest": float(np.min(seeds))}
            row["sd_over_seeds"] = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else float("nan")
            for name, other in (("plain", plain), ("clean", clean)):
                found = difference(runs, other) if other else None
                if found is not None:
                    row |= dict(zip((f"minus_{name}", f"low_{name}", f"high_{name}"), found, strict=True))
            found = [detection(run) for run in runs]
            for score in ("quality", "final_loss"):
                for part in ("auroc", "auroc_dilated", "auroc_eroded"):
                    values = [d[score][part] for d in found if part in d.get(score, {})]
                    if values:
                        row[f"{score}_{part}"] = float(np.mean(values))
            rows.append(row)
    return rows


def named(condition: tuple) -> str:
    """A condition in words."""
    data, generator, direction, share, sizes = condition
    if not share:
        return f"{data}: no noise"
    habit = "" if direction == "both" else f", {direction} only"
    return (
        f"{data}: {share:.0%} of labels, {sizes} px, {'fresh' if generator == 'paper' else generator}{habit}"
    )


def markdown(results: list[dict]) -> str:
    """A table per condition: Dice, its sd over seeds and its worst seed, differences with 95 % intervals, and
    AUROC (of dilated, of eroded wrong labels) of the module's own score beside that of the final loss."""
    rows: dict[tuple, list[dict]] = defaultdict(list)
    for row in comparison_rows(results):
        rows[tuple(row[name] for name in CONDITION)].append(row)
    parts = []
    for condition in sorted(rows, key=lambda c: (c[0], c[1:3] != ("fixed", "both"), c)):
        lines = [f"**{named(condition)}**", ""]
        lines.append(
            "| method | seeds | Dice | worst | minus plain | minus clean | AUROC, module | AUROC, loss |"
        )
        lines.append("|---|--:|--:|--:|--:|--:|--:|--:|")
        for row in sorted(rows[condition], key=lambda row: -row["dice"]):
            name = row["method"] if row["subset"] == "all" else f"{row['method']}, clean cases only"
            cells = [name, row["seeds"], f"{row['dice']:.3f} ± {row['sd_over_seeds']:.3f}"]
            cells.append(f"{row['lowest']:.3f}")
            for other in ("plain", "clean"):
                three = [row.get(f"{part}_{other}") for part in ("minus", "low", "high")]
                cells.append("" if three[0] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*three))
            cells += [_auroc(row, score) for score in ("quality", "final_loss")]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _auroc(row: dict, score: str) -> str:
    if f"{score}_auroc" not in row:
        return ""
    sides = [row.get(f"{score}_auroc_{side}") for side in ("dilated", "eroded")]
    return f"{row[f'{score}_auroc']:.3f} ({', '.join('-' if s is None else f'{s:.3f}' for s in sides)})"


def detection_rows(results: list[dict]) -> list[dict]:
    """One row per cell and ranking score; none for cells without both clean and corrupted labels."""
    return [
        {name: result["cell"][name] for name in CELL}
        | {"score": score}
        | {name: round(value, 4) for name, value in values.items()}
        for result in results
        if not result["cell"]["fixed_share"]
        for score, values in detection(result).items()
    ]
