"""Figure and tables of the simulated annotators' finished cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from annotators import CHOOSERS, LABELS, LOOKS, SEEDS

from medseg.files import atomic_path, load_json, make_folder

COLOURS = {"first": "tab:grey", "random": "tab:blue", "uncertain": "tab:orange", "diverse": "tab:green"}
ORDERS = {"suspect": "tab:red", "random": "tab:blue"}
TARGETS = (0.87, 0.88, 0.89)
FOUND = (0.5, 0.8, 0.95)


def read(out: Path, name: str) -> list[dict[str, Any]]:
    """The finished cells of a name, a seed each."""
    files = [out / f"{name}_seed{seed}.json" for seed in SEEDS]
    return [load_json(file) for file in files if file.exists()]


def reached(points: list[dict[str, Any]], target: float) -> float:
    """How many labels give the target, between the points on a straight line; nan when it is not reached."""
    counts, scores = [p["count"] for p in points], [p["dsc"] for p in points]
    for k, score in enumerate(scores):
        if score >= target:
            if k == 0:
                return counts[0]
            share = (target - scores[k - 1]) / (score - scores[k - 1])
            return counts[k - 1] + share * (counts[k] - counts[k - 1])
    return float("nan")


def looks_for(cell: dict[str, Any], share: float) -> float:
    """How many labels were looked at when this share of the errors was found; nan when it never was."""
    total = np.cumsum(cell["found"])
    enough = np.flatnonzero(total >= share * cell["errors"])
    return float(enough[0] + 1) if len(enough) else float("nan")


def spread(values: list[float], form: str = "{:.0f}") -> str:
    """Mean and range of the seeds; how many of them, where some have no value."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "not reached"
    text = form.format(np.mean(known))
    if len(known) > 1:
        text += f" ({form.format(min(known))} to {form.format(max(known))})"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)} seeds"


def report(out: Path, output: Path) -> None:
    """Write ``annotators.png`` and ``annotators.md`` into ``output``."""
    make_folder(output)
    _draw(out, output / "annotators.png")
    with atomic_path(output / "annotators.md") as temporary:
        temporary.write_text("\n".join([*_labels_table(out), "", *_looks_table(out), ""]))
    print((output / "annotators.md").read_text())


def _labels_table(out: Path) -> list[str]:
    heads = [f"labels for DSC {target}" for target in TARGETS]
    rows = [
        f"| strategy | {' | '.join(heads)} | DSC with {LABELS[-1]} | of bedside films | seeds |",
        f"|---|{'--:|' * (len(TARGETS) + 3)}",
    ]
    for name in CHOOSERS:
        cells = read(out, f"labels_{name}")
        if cells:
            needed = [spread([reached(cell["points"], target) for cell in cells]) for target in TARGETS]
            last = [cell["points"][-1] for cell in cells]
            scores = [spread([p[key] for p in last], "{:.3f}") for key in ("dsc", "dsc_bedside")]
            rows.append(f"| `{name}` | {' | '.join([*needed, *scores])} | {len(cells)} |")
    cells = read(out, "labels_all")
    if cells:
        points = [cell["points"][0] for cell in cells]
        scores = [spread([p[key] for p in points], "{:.3f}") for key in ("dsc", "dsc_bedside")]
        count = f"all {points[0]['count']} labelled"
        rows.append(f"| {' | '.join([count, *[''] * len(TARGETS), *scores, str(len(cells))])} |")
    return rows


def _looks_table(out: Path) -> list[str]:
    heads = [f"looks for {share:.0%} of the errors" for share in FOUND]
    more = [f"DSC after {looks} looks" for looks in (0, *LOOKS)]
    columns = [*heads, "looks per error at 80%", *more]
    rows = [f"| order | {' | '.join(columns)} | seeds |", f"|---|{'--:|' * (len(columns) + 1)}"]
    for name in ORDERS:
        cells = read(out, f"looks_{name}")
        if cells:
            looks = [spread([looks_for(cell, share) for cell in cells]) for share in FOUND]
            each = spread([looks_for(cell, 0.8) / (0.8 * cell["errors"]) for cell in cells], "{:.1f}")
            scores = [
                spread([cell["points"][k]["dsc"] for cell in cells], "{:.3f}") for k in range(len(LOOKS) + 1)
            ]
            rows.append(f"| `{name}` | {' | '.join([*looks, each, *scores])} | {len(cells)} |")
    cells = read(out, "looks_right")
    if cells:
        right = spread([cell["points"][0]["dsc"] for cell in cells], "{:.3f}")
        blanks = [""] * (len(columns) - 1)
        rows.append(f"| {' | '.join(['no errors at all', *blanks, right, str(len(cells))])} |")
    return rows


def _draw(out: Path, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    for name, colour in COLOURS.items():
        for k, cell in enumerate(read(out, f"labels_{name}")):
            counts, scores = zip(*[(p["count"], p["dsc"]) for p in cell["points"]], strict=True)
            left.plot(counts, scores, "-o", color=colour, alpha=0.6, ms=3, label=None if k else name)
    full = [cell["points"][0]["dsc"] for cell in read(out, "labels_all")]
    if full:
        left.axhline(np.mean(full), color="k", lw=0.8, ls=":", label="every film labelled")
    left.set(xlabel="labelled films", ylabel="DSC of films that nobody labels")
    for name, colour in ORDERS.items():
        for k, cell in enumerate(read(out, f"looks_{name}")):
            found = np.cumsum(cell["found"]) / cell["errors"]
            right.plot(range(1, len(found) + 1), found, color=colour, alpha=0.7, label=None if k else name)
    right.set(
        xlabel="labels looked at again", ylabel="share of the errors found", xlim=(0, 290), ylim=(0, 1.02)
    )
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
    plt.close(figure)
