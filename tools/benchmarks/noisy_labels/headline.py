"""The headline table of the label-noise benchmark: mean Dice here beside the published one."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

PUBLISHED = {
    (0.0, ""): (0.915, 0.898, 0.911),
    (0.25, "1-8"): (0.765, 0.866, 0.895),
    (0.5, "1-8"): (0.765, 0.857, 0.898),
    (0.75, "1-8"): (0.720, 0.753, 0.895),
    (0.25, "5-13"): (0.715, 0.781, 0.890),
    (0.5, "5-13"): (0.652, 0.724, 0.912),
    (0.75, "5-13"): (0.621, 0.636, 0.892),
}
"""(share of wrong labels, size in pixels at 256): mean Dice of lungs, heart and clavicles with the baseline,
QAM and QAM + OCM. Source: Zhu, Shi and Wu, MICCAI 2019, arXiv 1907.11835, its table of results: one run each
on JSRT films. Two printed means do not follow from their columns and stand here as the columns give them:
0.724 (0.714) and 0.898 (0.895). The two rows of 75 % are in the order of the paper; slides by the authors
exchange them.
"""

HERE = {
    "fixed": ("ce", "dice_ce", "qam_ocm_published", "qam_ocm", "loss_history"),
    "paper": ("ce", "dice_ce", "qam_ocm_published", "qam_ocm"),
}
"""Columns: kind of noise, and methods. Without noise both kinds are one."""


def headline(results: list[dict]) -> str:
    """A Markdown table; "" where a cell has not run. Means over structures, test images and seeds of the
    phantom."""
    dice: dict[tuple, list[float]] = defaultdict(list)
    for result in results:
        cell = result["cell"]
        if (cell["data"], cell["direction"], cell["subset"], cell["fixed_share"]) == (
            "phantom",
            "both",
            "all",
            0,
        ):
            sizes = cell["sizes"] if cell["share"] else ""
            dice[cell["generator"], cell["share"], sizes, cell["method"]].append(
                float(np.mean(result["test"]["dice"]))
            )
    names = [
        f"{method}, {'fresh' if kind == 'paper' else kind}"
        for kind, methods in HERE.items()
        for method in methods
    ]
    lines = [
        f"| wrong labels | published: base / QAM / QAM+OCM | {' | '.join(names)} |",
        "|---|---|" + "--:|" * len(names),
    ]
    for (share, sizes), published in PUBLISHED.items():
        cells = [
            f"{share:.0%}, {sizes} px" if share else "none",
            " / ".join(f"{value:.3f}" for value in published),
        ]
        for kind, methods in HERE.items():
            for method in methods:
                values = dice.get((kind if share else "fixed", share, sizes, method))
                cells.append(f"{np.mean(values):.3f}" if values else "")
        if any(cells[2:]):
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
