"""Which trainings each question of the hip experiments takes, as cells of hip_cells.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hip_cells import Cell
from sklearn.model_selection import KFold, StratifiedGroupKFold

from medseg.bundles.find import read_json

ARCHITECTURES = ("resnet18", "resnet34", "googlenet", "densenet121", "vgg16")
FOLDS, FOLD_SEED = 5, 123
SEEDS = (1, 2, 3)
PIXELS, EPOCHS = 96, 6
"""Less than the bundle's 128 and 30, for a processor."""


def earlier_years(data: Path) -> list[dict]:
    """Training and validation films of a datalist: all but the locked last year."""
    content = read_json(data / "datalist.json")
    return [*content["training"], *content["validation"]]


def folds(cases: list[dict], by_patient: bool = True, seed: int = FOLD_SEED) -> list[dict[str, list[dict]]]:
    """{"training", "validation"} of each of five folds, sound and sick alike in all; all films of a patient
    on one side, or every film for itself."""
    labels = [case["label"] for case in cases]
    patients = [case["patient_id"] for case in cases]
    split = (
        StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(cases, labels, patients)
        if by_patient
        else KFold(FOLDS, shuffle=True, random_state=seed).split(cases)
    )
    return [
        {"training": [cases[n] for n in training], "validation": [cases[n] for n in held_out]}
        for training, held_out in split
    ]


def backbones(data: Path) -> list[Cell]:
    """The source's five architectures in a quarter of their widths, fold by fold, so that an interrupted grid
    compares like with like."""
    plain = data / "plain"
    return [
        Cell(
            f"{name}_fold{number}",
            plain,
            cases,
            ("validation",),
            {"backbone": f"{name}_narrow", "epochs": EPOCHS, "image_size": [PIXELS] * 2, "seed": FOLD_SEED},
        )
        for number, cases in enumerate(folds(earlier_years(plain)))
        for name in ARCHITECTURES
    ]


GRIDS: dict[str, Callable[[Path], list[Cell]]] = {"backbones": backbones}
"""{question: its cells, given the folder of hip phantoms that experiments.py makes}."""
