"""One tidy CSV, one figure with intervals and the tables of the page."""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from steps import STEPS, compared_with

from medseg.errors import InputError
from medseg.files import write_csv
from medseg.metrics.intervals import Interval, mean_interval

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

FIELDS = ("task", "device", "network", "fold", "seed", "patient", "structure", "dsc", "sdsc", "hd95_mm")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "benchmark_ladder.md"


def write(cells: Path, output_dir: Path) -> None:
    """Read every cell and cost; write ladder.csv and ladder.png, and the page's section "ladder".

    Rows of an earlier ladder.csv stay, unless their cell was trained anew; their minutes are not known.
    """
    results = [
        json.loads(path.read_text())
        for path in sorted(cells.glob("*.json"))
        if not path.name.startswith("cost_")
    ]
    if not results:
        raise InputError(f"{cells} holds no finished cell; train first.")
    costs = [row for path in sorted(cells.glob("cost_*.json")) for row in json.loads(path.read_text())]
    rows = [row for result in results for row in tidy(result)]
    anew = {cell_of(row) for row in rows}
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = [row for row in earlier(output_dir / "ladder.csv") if cell_of(row) not in anew] + rows
    write_csv(rows, FIELDS, output_dir / "ladder.csv")
    figure(rows, output_dir / "ladder.png")
    text = "\n\n".join(section(rows, results, costs, *key) for key in sorted(places(rows)))
    sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
    from page_section import put_section

    put_section(PAGE, "ladder", text)
    print(text)


def tidy(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per patient and contoured structure."""
    rows = []
    for patient, channels in result["scores"].items():
        for structure, values in zip(result["structures"], channels, strict=True):
            if values is not None:
                figures = dict(zip(("dsc", "sdsc", "hd95_mm"), (round(v, 4) for v in values), strict=True))
                named = {"device": result["device"], "patient": patient, "structure": structure}
                rows.append({**result["cell"], **named, **figures})
    return rows


def earlier(path: Path) -> list[dict[str, Any]]:
    """The rows that were written there; none where nothing was."""
    if not path.is_file():
        return []
    figures, numbers = ("dsc", "sdsc", "hd95_mm"), ("fold", "seed")
    with open(path, newline="", encoding="utf-8") as file:
        return [
            # a leading sign stands behind a quote there, so that no spreadsheet takes it for a formula
            {
                **row,
                "network": row["network"].removeprefix("'"),
                **{k: float(row[k]) for k in figures},
                **{k: int(row[k]) for k in numbers},
            }
            for row in csv.DictReader(file)
        ]


def cell_of(row: dict[str, Any]) -> tuple:
    """Which training a row is of."""
    return tuple(row[key] for key in ("task", "device", "network", "fold", "seed"))


def places(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Task and device of the cells: figures of two devices are never averaged."""
    return {(row["task"], row["device"]) for row in rows}


def of_patients(rows: list[dict[str, Any]], measure: str) -> dict[tuple[int, str], float]:
    """{(seed, patient): mean over structures}; HD95 of an empty answer is left out."""
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["seed"], row["patient"]].append(row[measure])
    return {key: float(np.mean([v for v in of if np.isfinite(v)] or [np.nan])) for key, of in values.items()}


def gain(one: dict[tuple[int, str], float], other: dict[tuple[int, str], float]) -> Interval:
    """Mean paired difference with an interval over patients, each with all of its seeds."""
    both = sorted(one.keys() & other.keys())
    return mean_interval(np.array([one[key] - other[key] for key in both]), [key[1] for key in both])


def section(
    rows: list[dict[str, Any]], results: list[dict], costs: list[dict], task: str, device: str
) -> str:
    """The table of one task on one device."""
    here = [row for row in rows if (row["task"], row["device"]) == (task, device)]
    of = {name: [row for row in here if row["network"] == name] for name in STEPS}
    scores = {name: of_patients(found, "dsc") for name, found in of.items() if found}
    lines = [
        f"**{task}, {device}**",
        "",
        "| network | cells | DSC | less the step before | sDSC 3 mm | HD95 mm, median | parameters, million "
        "| GFLOP a window | training, min |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, of_patient in scores.items():
        mean = mean_interval(np.array(list(of_patient.values())), [key[1] for key in of_patient])
        cells = [
            r
            for r in results
            if r["cell"]["network"] == name and (r["cell"]["task"], r["device"]) == (task, device)
        ]
        before = compared_with(name, scores)
        step = f"{_said(gain(of_patient, scores[before]), '+')} on {before}" if before else ""
        surface = mean_interval(np.array(list(of_patients(of[name], "sdsc").values())))
        far = np.nanmedian(list(of_patients(of[name], "hd95_mm").values()))
        cost = next((row for row in costs if row["network"] == name and row["task"] == task), None)
        spent = [f"{cost['parameters'] / 1e6:.2f}", f"{cost['gflop']:.1f}"] if cost else ["", ""]
        minutes = f"{np.mean([cell['minutes'] for cell in cells]):.1f}" if cells else ""
        figures = [
            str(len({cell_of(row) for row in of[name]})),
            _said(mean),
            step,
            f"{surface.value:.3f}",
            f"{far:.1f}",
            *spent,
            minutes,
        ]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join([*lines, "", structures(of)])


def structures(of: dict[str, list[dict[str, Any]]]) -> str:
    """DSC of each structure; nothing where there is only one."""
    names = list(dict.fromkeys(row["structure"] for found in of.values() for row in found))
    if len(names) < 2:
        return ""
    lines = [f"| DSC | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for network, found in of.items():
        if found:
            means = [np.mean([row["dsc"] for row in found if row["structure"] == name]) for name in names]
            lines.append(f"| {network} | {' | '.join(f'{value:.3f}' for value in means)} |")
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """What each step gains over the step before it, with its interval, one panel per task and device."""
    panels = sorted(places(rows))
    fig, axes = plt.subplots(1, len(panels), figsize=(7 * len(panels), 4), squeeze=False)
    for axis, (task, device) in zip(axes[0], panels, strict=True):
        scores = {}
        for name in STEPS:
            found = [r for r in rows if (r["task"], r["device"], r["network"]) == (task, device, name)]
            if found:
                scores[name] = of_patients(found, "dsc")
        pairs = [(name, before) for name in scores if (before := compared_with(name, scores))]
        for place, (name, before) in enumerate(pairs):
            found = gain(scores[name], scores[before])
            axis.plot([found.low, found.high], [place, place], color="tab:blue")
            axis.plot([found.value], [place], "o", color="tab:blue")
        axis.axvline(0, color="0.6", linewidth=1)
        axis.set_yticks(range(len(pairs)), [f"{name}\non {before}" for name, before in pairs], fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel("gain in DSC, 95 % interval over patients")
        axis.set_title(f"{task}, {device}", fontsize=9)
    fig.tight_layout()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _said(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"
