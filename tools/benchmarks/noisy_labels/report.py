"""Tables and figures of finished cells of tools/benchmark_noisy_labels.py."""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from noisy_headline import headline

from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.training.noisy.benchmark import SURFACE_TOLERANCE_PX, detection
from medseg.training.noisy.trainer import METHODS

CELL = (
    "data",
    "generator",
    "direction",
    "share",
    "sizes",
    "method",
    "subset",
    "fixed_share",
    "fixed_by",
    "seed",
)
CONDITION = ("data", "generator", "direction", "share", "sizes")
BOOTSTRAP_SAMPLES = 10_000


def write_report(out: Path, output: Path, page: Path | None = None) -> None:
    """Read OUT/cells/*.json, write tables and figures to `output`, and sections "headline" and "results" of
    the page `page`.

    InputError when there is no cell.
    """
    results = [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]
    if not results:
        raise InputError(f"{out}/cells holds no finished cell; run the benchmark first.")
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / "noisy_labels.csv", score_rows(results))
    write_table(output / "noisy_labels_comparison.csv", comparison_rows(results))
    write_table(output / "noisy_labels_detection.csv", detection_rows(results))
    for data in sorted({result["cell"]["data"] for result in results}):
        draw_dice(results, data, output / f"noisy_labels_{data}.png")
    if any(result["cell"]["fixed_share"] for result in results):
        draw_review(results, output / "noisy_labels_review.png")
    if page is not None:
        sys.path.append(str(Path(__file__).resolve().parent / "docs"))
        from page_section import put_section

        put_section(page, "headline", headline(results))
        put_section(page, "results", markdown(results))


def write_table(path: Path, rows: list[dict]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.4f}" if isinstance(v, float) else v for name, v in row.items()})


def score_rows(results: list[dict]) -> list[dict]:
    """One row per cell and structure, means over the test cases; "mean" is over the structures."""
    rows = []
    for result in results:
        scores = {name: np.array(result["test"][name]) for name in ("dice", "surface_dice", "hd95_px")}
        for column, structure in [*enumerate(result["structures"]), (None, "mean")]:
            means = {n: float(v.mean() if column is None else v[:, column].mean()) for n, v in scores.items()}
            means[f"surface_dice_{SURFACE_TOLERANCE_PX:g}px"] = means.pop("surface_dice")
            cell = {name: result["cell"][name] for name in CELL}
            rows.append(
                {
                    **cell,
                    "structure": structure,
                    "test_cases": len(scores["dice"]),
                    **means,
                    "minutes": float(result["minutes"]),
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


def dice_by_image(results: list[dict]) -> dict[str, float]:
    """Test image -> Dice, mean over structures and seeds."""
    seen = defaultdict(list)
    for result in results:
        for name, dice in zip(result["test"]["cases"], result["test"]["dice"], strict=True):
            seen[name].append(float(np.mean(dice)))
    return {name: float(np.mean(values)) for name, values in seen.items()}


def paired_bootstrap(a: dict[str, float], b: dict[str, float]) -> tuple[float, float, float]:
    """Mean of a - b over the images both have, and its 95 % interval over resampled images."""
    difference = np.array([a[name] - b[name] for name in sorted(a.keys() & b.keys())])
    rng = np.random.default_rng(0)
    means = difference[rng.integers(len(difference), size=(BOOTSTRAP_SAMPLES, len(difference)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def comparison_rows(results: list[dict]) -> list[dict]:
    """Mean Dice and sd over seeds of each method, and its difference to plain cross-entropy and to clean
    training with Dice + cross-entropy, the best plain loss.
    """
    grouped = by_condition(results)
    rows = []
    for condition, methods in sorted(grouped.items()):
        plain = methods.get(("ce", "all"))
        clean = grouped.get((condition[0], "fixed", "both", 0.0, "5-13"), {}).get(("dice_ce", "all"))
        for (method, subset), runs in sorted(methods.items()):
            seeds = [np.mean(run["test"]["dice"]) for run in runs]
            sd = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else float("nan")
            row = dict(zip(CONDITION, condition, strict=True)) | {
                "method": method,
                "subset": subset,
                "seeds": len(runs),
            }
            row |= {"dice": float(np.mean(seeds)), "sd_over_seeds": sd}
            for name, other in (("ce", plain), ("clean", clean)):
                if other:
                    values = paired_bootstrap(dice_by_image(runs), dice_by_image(other))
                    row |= dict(zip((f"minus_{name}", f"low_{name}", f"high_{name}"), values, strict=True))
            rows.append(row)
    return rows


def markdown(results: list[dict]) -> str:
    """A table per condition: Dice with its sd over seeds, the last structure, differences with 95 %
    intervals, AUROC."""
    grouped = by_condition(results)
    rows = {tuple(row[n] for n in (*CONDITION, "method", "subset")): row for row in comparison_rows(results)}
    parts = []
    for condition, methods in sorted(
        grouped.items(), key=lambda item: (item[0][0], item[0][1:3] != ("fixed", "both"), item[0])
    ):
        data, generator, direction, share, sizes = condition
        habit = "" if direction == "both" else f", {direction} only"
        noise = f"{share:.0%} of labels, {sizes} px, {generator}{habit}" if share else "no noise"
        structure = next(iter(methods.values()))[0]["structures"][-1]
        lines = [
            f"**{data}: {noise}**",
            "",
            f"| method | seeds | Dice | {structure} | minus CE | minus clean training | AUROC |",
        ]
        lines.append("|---|--:|--:|--:|--:|--:|--:|")
        for method, subset in sorted(methods, key=lambda key: -rows[(*condition, *key)]["dice"]):
            row, runs = rows[(*condition, method, subset)], methods[method, subset]
            thin = np.mean([np.mean(np.array(run["test"]["dice"])[:, -1]) for run in runs])
            found = [detection(run).get("final_loss", {}).get("auroc", np.nan) for run in runs]
            name = method if subset == "all" else f"{method}, clean cases only"
            cells = [name, row["seeds"], f"{row['dice']:.3f} ± {row['sd_over_seeds']:.3f}", f"{thin:.3f}"]
            for other in ("ce", "clean"):
                difference = [row.get(f"{part}_{other}") for part in ("minus", "low", "high")]
                cells.append(
                    "" if difference[0] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference)
                )
            cells.append("" if np.isnan(found).all() else f"{np.nanmean(found):.3f}")
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def detection_rows(results: list[dict]) -> list[dict]:
    """One row per cell and ranking score; none for cells without both clean and corrupted labels."""
    return [
        {**{name: result["cell"][name] for name in CELL}, "score": score, **values}
        for result in results
        if not result["cell"]["fixed_share"]
        for score, values in detection(result).items()
    ]


def _figure(panels: int):
    """A figure and its axes, at most three in a row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.4 * rows), sharey=True, squeeze=False
    )
    for axis in axes.flat[panels:]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("Dice on clean test images")
    return figure, axes.flat[:panels]


def _save(figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")


def draw_dice(results: list[dict], data: str, path: Path) -> None:
    """Mean test Dice against the share of corrupted labels, a line per method, a panel per kind and size of
    noise."""
    import matplotlib

    colours = dict(zip(METHODS, matplotlib.colormaps["tab20"].colors, strict=False))
    grouped = {key: value for key, value in by_condition(results).items() if key[0] == data}
    panels = sorted({(key[1], key[2], key[4]) for key in grouped if key[3] > 0}) or [
        ("fixed", "both", "5-13")
    ]
    figure, axes = _figure(len(panels))
    clean = grouped.get((data, "fixed", "both", 0.0, "5-13"), {})
    for axis, (generator, direction, sizes) in zip(axes, panels, strict=True):
        lines = defaultdict(list)
        for key, methods in sorted(grouped.items()):
            if (key[1], key[2], key[4]) == (generator, direction, sizes) and key[3] > 0:
                for (method, subset), runs in methods.items():
                    lines[method, subset].append((key[3], [np.mean(run["test"]["dice"]) for run in runs]))
        for (method, subset), points in sorted(lines.items()):
            if subset == "all" and (method, "all") in clean:
                points.insert(0, (0.0, [np.mean(run["test"]["dice"]) for run in clean[method, "all"]]))
            name = method if subset == "all" else f"{method}, clean cases only"
            shares, means = [100 * p[0] for p in points], [np.mean(p[1]) for p in points]
            line = {
                "color": colours[method],
                "marker": "o" if subset == "all" else "*",
                "markersize": 4,
                "capsize": 2,
            }
            axis.errorbar(shares, means, [np.std(p[1]) for p in points], label=name, **line)
        habit = "" if direction == "both" else f", {direction} only"
        axis.set(title=f"{generator}, {sizes} px{habit}", xlabel="corrupted training labels, %")
    shown = {
        name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.tight_layout()
    names = sorted(shown)
    figure.legend(
        [shown[name] for name in names],
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=5,
        fontsize=8,
    )
    _save(figure, path)


def draw_review(results: list[dict], path: Path) -> None:
    """Mean test Dice after the worst share of labels was corrected, by ranking, against corrections at
    random."""
    fixed = [result for result in results if result["cell"]["fixed_share"]]
    conditions = sorted({tuple(result["cell"][n] for n in CONDITION) for result in fixed})
    figure, axes = _figure(len(conditions))
    for axis, condition in zip(axes, conditions, strict=True):
        methods = {result["cell"]["method"] for result in fixed}
        start = [
            np.mean(result["test"]["dice"])
            for method in methods
            for result in by_condition(results).get(condition, {}).get((method, "all"), [])
        ]
        curves: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for result in fixed:
            cell = result["cell"]
            if tuple(cell[n] for n in CONDITION) == condition:
                curves[cell["fixed_by"]][cell["fixed_share"]].append(float(np.mean(result["test"]["dice"])))
        for ranking, points in sorted(curves.items()):
            shares = sorted(points)
            values = ([start] if start else []) + [points[share] for share in shares]
            x = ([0.0] if start else []) + [100 * share for share in shares]
            axis.errorbar(
                x,
                [np.mean(v) for v in values],
                [np.std(v) for v in values],
                label=ranking,
                marker="o",
                capsize=2,
            )
        axis.set(
            title=f"{condition[0]}, {condition[1]} {condition[3]:.0%}, {condition[4]} px",
            xlabel="labels corrected, %",
        )
        axis.legend()
    figure.tight_layout()
    _save(figure, path)
