"""The page of the hip experiments: a table for each question that has finished cells."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from hip_cells import read_record
from hip_grids import ARCHITECTURES, FOLDS, NECKS, RECIPES, SEEDS
from scipy.special import expit

from medseg.errors import InputError
from medseg.metrics.classification import class_scores, fit_temperature, grouped_auc
from medseg.metrics.intervals import interval
from medseg.metrics.numbers import agreement, determination, mean_absolute_error
from medseg.metrics.pixels import calibration_error, count_levels

DRAWS = 500
SOURCE = {
    "resnet18": (0.81, 0.81, 0.81, 0.85, 0.85, 0.85, 30.6),
    "resnet34": (0.83, 0.78, 0.81, 0.84, 0.87, 0.85, 55.0),
    "googlenet": (0.79, 0.84, 0.82, 0.87, 0.83, 0.85, 52.4),
    "densenet121": (0.73, 0.89, 0.80, 0.90, 0.74, 0.81, 114.3),
    "vgg16": (0.68, 0.92, 0.78, 0.91, 0.66, 0.77, 157.7),
}
"""What the source reports on its 84 test films, on which it also chose: precision, recall and F1 of no
osteoporosis and of osteoporosis, and minutes of training."""


class Films:
    """Answers of one or several cells side by side: ``score``: float (N,), the logit of class 1; ``truth``:
    bool (N,); ``patients`` and further fields of the films."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows
        logits = np.array([row["logits"] for row in rows])
        self.logits, self.score = logits, logits[:, 1] - logits[:, 0]
        self.truth = np.array([row["label"] for row in rows]) == 1
        self.patients = [row["patient_id"] for row in rows]

    def field(self, name: str) -> np.ndarray:
        return np.array([str(row[name]) for row in self.rows])

    def auc(self, groups: np.ndarray | None = None) -> str:
        """AUROC, or that over pairs of one group, with its interval over patients."""
        groups = np.zeros(len(self.rows)) if groups is None else groups
        return self.words(lambda n: grouped_auc(self.score[n], self.truth[n], groups[n]))

    def words(self, figure: Callable[[np.ndarray], float]) -> str:
        value, low, high = interval(figure, self.patients, draws=DRAWS)
        return f"{value:.3f} ({low:.3f} to {high:.3f})"


def cells_of(work: Path, question: str) -> dict[str, dict]:
    return {path.stem: read_record(path) for path in sorted((work / question / "cells").glob("*.json"))}


def together(cells: dict[str, dict], keys: list[str], section: str) -> Films | None:
    """The answers of some cells; None when none of them is finished."""
    rows = [row for key in keys if key in cells for row in cells[key]["answers"][section]]
    return Films(rows) if rows else None


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def scale(cells: dict[str, dict]) -> str:
    settings = next(iter(cells.values()))["settings"]
    minutes = [cell["minutes"] for cell in cells.values()]
    names = {cell["device"].replace("cpu", "a processor") for cell in cells.values()}
    devices = " and ".join(sorted(names))
    return (
        f"{len(cells)} cells of {settings['image_size'][0]} pixels and {settings['epochs']} epochs on "
        f"{devices}, one thread each; {np.median(minutes):.1f} minutes a cell (median), "
        f"{max(minutes):.1f} at most."
    )


# ---- the questions -----------------------------------------------------------------------------------------


def backbones(cells: dict[str, dict]) -> Iterator[str]:
    rows = []
    for name in ARCHITECTURES:
        keys = [f"{name}_fold{number}" for number in range(FOLDS) if f"{name}_fold{number}" in cells]
        films = together(cells, keys, "validation")
        if films is None:
            continue
        scores = class_scores(films.truth.astype(int), (films.score >= 0).astype(int), 2)
        minutes = np.median([cells[key]["minutes"] for key in keys])
        figures = [f"{value:.2f}" for row in scores for value in row[:3]]
        rows.append((f"{name}_narrow", str(len(keys)), *figures, films.auc(), f"{minutes:.1f}"))
    heads = ("backbone", "folds", *(f"{what} {c}" for c in (0, 1) for what in ("precision", "recall", "F1")))
    yield table((*heads, "AUROC, all folds", "minutes"), rows)
    yield (
        "All held-out films of the earlier years together, called at 0.5. What the source reports of real "
        "films, on the test year that it chose on:"
    )
    theirs = [(name, *(f"{value:g}" for value in figures)) for name, figures in SOURCE.items()]
    yield table((heads[0], *heads[2:], "minutes"), theirs)


def confounder(cells: dict[str, dict]) -> Iterator[str]:
    rows = []
    for number, name in enumerate(RECIPES):
        for seed in SEEDS:
            key = f"recipe{number}_seed{seed}"
            if key in cells:
                inside, later = (together(cells, [key], part) for part in ("validation", "test"))
                machine = inside.field("device")
                reads = inside.words(
                    lambda n, f=inside, m=machine: grouped_auc(f.score[n], m[n] == "soft", f.truth[n])
                )
                rows.append((name, str(seed), inside.auc(), inside.auc(machine), reads, later.auc()))
    yield table(
        (
            *("recipe", "seed", "AUROC, validation", "of one machine"),
            *("tells the machine, of one class", "AUROC, turned over"),
        ),
        rows,
    )


def leak(cells: dict[str, dict]) -> Iterator[str]:
    rows = []
    for by in ("film", "patient"):
        for seed in SEEDS:
            keys = [f"by_{by}_fold{number}_seed{seed}" for number in range(FOLDS)]
            keys = [key for key in keys if key in cells]
            if keys:
                held_out, new = (together(cells, keys, part) for part in ("validation", "test"))
                rows.append((f"by {by}", str(seed), str(len(keys)), held_out.auc(), new.auc()))
    yield table(("split", "seed", "folds", "AUROC, held out", "AUROC, patients of the last year"), rows)


def covariates(cells: dict[str, dict]) -> Iterator[str]:
    rows = []
    for seed in SEEDS:
        alone, both = (
            together(cells, [f"{name}_seed{seed}"], "validation") for name in ("film", "film_and_patient")
        )
        if alone and both:
            gain = both.words(
                lambda n, a=alone, b=both: (
                    grouped_auc(b.score[n], b.truth[n], np.zeros(len(n)))
                    - grouped_auc(a.score[n], a.truth[n], np.zeros(len(n)))
                )
            )
            rows.append((str(seed), alone.auc(), both.auc(), gain))
    yield table(("seed", "film alone", "film, age, sex, height, weight", "difference"), rows)


def bmd(cells: dict[str, dict]) -> Iterator[str]:
    rows = []
    for seed in SEEDS:
        alone, both = (
            together(cells, [f"{name}_seed{seed}"], "validation") for name in ("classes", "classes_and_bmd")
        )
        if alone and both:
            spec = cells[f"classes_and_bmd_seed{seed}"]["settings"]["numbers"]["bmd"]
            said = spec["mean"] + spec["sd"] * both.logits[:, 2]
            true = np.array([row["bmd"] for row in both.rows])
            figures = [
                both.words(lambda n, s=said, t=true, f=figure: f(s[n], t[n]))
                for figure in (
                    mean_absolute_error,
                    *(lambda s, t, end=end: agreement(s, t)[end] for end in range(3)),
                    determination,
                )
            ]
            rows.append((str(seed), *figures, both.auc(), alone.auc()))
    yield table(
        (
            *("seed", "mean absolute error, g/cm2", "bias", "lower limit", "upper limit", "R2"),
            *("AUROC, BMD beside", "AUROC, classes alone"),
        ),
        rows,
    )


def neck(cells: dict[str, dict]) -> Iterator[str]:
    rows = []
    for seed in SEEDS:
        films = {
            name: together(cells, [f"{name.replace(' ', '_')}_seed{seed}"], "validation") for name in NECKS
        }
        whole = films["whole film"]
        for name, part in films.items():
            if part and whole:
                gain = part.words(
                    lambda n, a=whole, b=part: (
                        grouped_auc(b.score[n], b.truth[n], np.zeros(len(n)))
                        - grouped_auc(a.score[n], a.truth[n], np.zeros(len(n)))
                    )
                )
                rows.append((str(seed), name, part.auc(), gain if part is not whole else ""))
    yield table(("seed", "film", "AUROC", "more than the whole film"), rows)


def chest(cells: dict[str, dict]) -> Iterator[str]:
    rows, calibration, rule = [], [], ""
    for seed in SEEDS:
        keys = [f"fold{number}_seed{seed}" for number in range(FOLDS) if f"fold{number}_seed{seed}" in cells]
        own = together(cells, [f"its_own_seed{seed}"], "test")
        films = together(cells, keys, "validation")
        if films is None:
            continue
        view = films.field("view")
        reads = films.words(lambda n, f=films, v=view: grouped_auc(f.score[n], v[n] == "AP", f.truth[n]))
        its_own = "" if own is None else own.auc()
        rows.append((str(seed), str(len(keys)), films.auc(), its_own, films.auc(view), reads))
        calibration.append((str(seed), *_calibrated(cells, keys)))
        if rule:
            continue
        ap = (view == "AP").astype(float)
        rule = films.words(lambda n, f=films, a=ap: grouped_auc(a[n], f.truth[n], np.zeros(len(n))))
    yield table(
        (
            *("seed", "folds", "AUROC by patient", "AUROC, its own split"),
            *("of one view, by patient", "tells AP from PA, of one class"),
        ),
        rows,
    )
    yield f"The rule that calls every AP film abnormal: AUROC {rule}."
    yield table(("seed", "ECE as trained", "ECE after temperature", "temperatures"), calibration)


def _calibrated(cells: dict[str, dict], keys: list[str]) -> tuple[str, str, str]:
    """ECE before and after a temperature that was fitted on the other folds, and the temperatures."""
    parts = {key: together(cells, [key], "validation") for key in keys}
    if len(parts) < 2:
        return "", "", ""
    temperatures, after = [], []
    for key, films in parts.items():
        others = [part for other, part in parts.items() if other != key]
        logits = np.concatenate([part.logits for part in others])
        truth = np.concatenate([part.truth for part in others]).astype(int)
        temperatures.append(fit_temperature(logits, truth))
        after.append(films.score / temperatures[-1])
    whole = together(cells, keys, "validation")
    chances = {"before": expit(whole.score), "after": expit(np.concatenate(after))}
    words = [
        whole.words(lambda n, c=chance: calibration_error(count_levels(c[n], whole.truth[n]), bins=10))
        for chance in chances.values()
    ]
    return *words, f"{min(temperatures):.2f} to {max(temperatures):.2f}"


QUESTIONS = {
    "backbones": backbones,
    "leak": leak,
    "confounder": confounder,
    "covariates": covariates,
    "bmd": bmd,
    "neck": neck,
    "chest": chest,
}


def report(work: Path, page: Path) -> int:
    """Put the table of every question that has finished cells into its section of ``page``. InputError where
    nothing is finished."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
    from page_section import put_section

    found = 0
    for question, tables in QUESTIONS.items():
        cells = cells_of(work, question)
        if cells:
            put_section(page, question, "\n\n".join([scale(cells), *tables(cells)]))
            found += 1
            print(f"{question}: {len(cells)} cells")
    if not found:
        raise InputError(f"{work}: no finished cells; run `train` first.")
    return 0
