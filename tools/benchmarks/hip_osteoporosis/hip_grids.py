"""Which trainings each question of the hip experiments takes, as cells of hip_cells.py."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hip_cells import BUNDLE, Cell
from sklearn.model_selection import KFold, StratifiedGroupKFold

from medseg.bundles.find import find_bundle, read_json

ARCHITECTURES = ("resnet18", "resnet34", "googlenet", "densenet121", "vgg16")
RECIPES = {
    "as sharp as it is": {"soften_pixels": 0.1, "balance_by": []},
    "softened": {"balance_by": []},
    "softened, drawn by label and machine": {},
}
"""Of the question of the confounder: the last is the bundle's."""

NECKS = {"whole film": "", "drawn box": "boxes", "box of a detector": "found"}
"""Of the question of the neck: which folder of boxes films are cut to."""

FOLDS, FOLD_SEED = 5, 123
LEAK_PATIENTS = 60
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Plan:
    """``data``: the folder of the phantoms, ``films``: that of nih1000_64px; ``pixels`` and ``epochs`` of
    every cell."""

    data: Path
    films: Path
    pixels: int
    epochs: int

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"epochs": self.epochs, "image_size": [self.pixels] * 2} | more


def sections(data: Path) -> dict[str, list[dict]]:
    content = read_json(data / "datalist.json")
    return {name: content[name] for name in ("training", "validation", "test")}


def folds(cases: list[dict], by_patient: bool = True, seed: int = FOLD_SEED) -> list[dict[str, list[dict]]]:
    """{"training", "validation"} of each of five folds: all films of a patient on one side, and sound and
    sick alike in all folds; or every film for itself."""
    labels = [case["label"] for case in cases]
    patients = [case["patient_id"] for case in cases]
    if by_patient:
        split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(cases, labels, patients)
    else:
        split = KFold(FOLDS, shuffle=True, random_state=seed).split(cases)
    return [
        {"training": [cases[n] for n in training], "validation": [cases[n] for n in held_out]}
        for training, held_out in split
    ]


def backbones(plan: Plan) -> Iterator[Cell]:
    """The source's five architectures in a quarter of their widths, in five folds of the earlier years; fold
    by fold, so that an interrupted grid compares like with like. The last year stays locked."""
    parts = sections(plan.data / "plain")
    for number, cases in enumerate(folds(parts["training"] + parts["validation"])):
        for name in ARCHITECTURES:
            settings = plan.settings(backbone=f"{name}_narrow", seed=FOLD_SEED, balance_by=[])
            yield Cell(f"{name}_fold{number}", plan.data / "plain", cases, ("validation",), settings)


def confounder(plan: Plan) -> Iterator[Cell]:
    """Machine and brightness tied to the bone in training and validation, turned over in the last year."""
    data = plan.data / "confounded"
    for seed in SEEDS:
        for number, more in enumerate(RECIPES.values()):
            settings = plan.settings(seed=seed, **more)
            yield Cell(f"recipe{number}_seed{seed}", data, sections(data), ("validation", "test"), settings)


def leak(plan: Plan) -> Iterator[Cell]:
    """Both hips of a patient on two sides of a split, or on one; the last year's patients are new to both.
    Records with an error of SD 1: what the film does not hold can be known of the other hip only. Few
    patients and many epochs, since only a network that learned its films by heart can use it."""
    data = plan.data / "uncertain"
    parts = sections(data)
    earlier = (parts["training"] + parts["validation"])[: 2 * LEAK_PATIENTS]
    for seed in SEEDS:
        for by in ("patient", "film"):
            for number, fold in enumerate(folds(earlier, by == "patient", seed)):
                settings = plan.settings(seed=seed, balance_by=[])
                cases = fold | {"test": parts["test"]}
                yield Cell(f"by_{by}_fold{number}_seed{seed}", data, cases, ("validation", "test"), settings)


def covariates(plan: Plan) -> Iterator[Cell]:
    """Age, sex, height and weight behind the backbone, or the film alone; records with an error of SD 1."""
    data = plan.data / "uncertain"
    variant = read_json(find_bundle(BUNDLE).folder / "configs" / "covariates.json")
    for seed in SEEDS:
        for name, more in (("film", {}), ("film_and_patient", {"covariates": variant["covariates"]})):
            settings = plan.settings(seed=seed, balance_by=[], **more)
            yield Cell(f"{name}_seed{seed}", data, sections(data), ("validation",), settings)


def bmd(plan: Plan) -> Iterator[Cell]:
    """The density itself beside the classes, or the classes alone."""
    data = plan.data / "plain"
    numbers = read_json(find_bundle(BUNDLE).folder / "configs" / "bmd.json")["numbers"]
    for seed in SEEDS:
        for name, more in (("classes", {}), ("classes_and_bmd", {"numbers": numbers})):
            settings = plan.settings(seed=seed, balance_by=[], **more)
            yield Cell(f"{name}_seed{seed}", data, sections(data), ("validation",), settings)


def neck(plan: Plan) -> Iterator[Cell]:
    """The whole film, cut to the drawn box of the neck, or to the box that a detector found."""
    data = plan.data / "plain"
    for seed in SEEDS:
        for name, boxes in NECKS.items():
            settings = plan.settings(seed=seed, balance_by=[])
            key = f"{name.replace(' ', '_')}_seed{seed}"
            yield Cell(key, data, sections(data), ("validation",), settings, boxes)


def chest(plan: Plan) -> Iterator[Cell]:
    """Real films, normal or abnormal: five folds by patient, and the split they came with, in which patients
    stand on two sides."""
    with open(plan.films / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    cases = [
        {
            **{"image": f"images/{row['image']}", "case_id": row["image"], "patient_id": row["patient"]},
            **{"label": int(row["label"]), "view": row["view"], "sex": row["sex"], "side": "L"},
            "source_split": row["source_split"],
        }
        for row in rows
    ]
    its_own = {
        name: [case for case in cases if case["source_split"] == source]
        for name, source in (("training", "train"), ("validation", "valid"), ("test", "test"))
    }
    for seed in SEEDS:
        settings = plan.settings(seed=seed, balance_by=[]) | {"image_size": [64, 64], "soften_pixels": 0.1}
        for number, fold in enumerate(folds(cases)):
            yield Cell(f"fold{number}_seed{seed}", plan.films, fold, ("validation",), settings)
        yield Cell(f"its_own_seed{seed}", plan.films, its_own, ("test",), settings)


GRIDS: dict[str, Callable[[Plan], Iterator[Cell]]] = {
    "backbones": backbones,
    "confounder": confounder,
    "leak": leak,
    "covariates": covariates,
    "bmd": bmd,
    "neck": neck,
    "chest": chest,
}
"""{question: its cells}."""
