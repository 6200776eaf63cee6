"""How well a mask answers, on the CT's own grid."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from cases import Patient

from medseg.files import atomic_path
from medseg.metrics import dice
from medseg.metrics.surfaces import surface_distances

FIELDS = ("patient", "fold", "method", "gtv_cc", "answer_cc", "dsc", "sdsc_3mm", "hd95_mm")


def row(patient: Patient, fold: int, method: str, mask: np.ndarray) -> dict:
    """One line of the table for a bool mask on ``patient.box_grid``; nothing is contoured outside the box."""
    truth, voxel_cc = patient.truth[patient.box], np.prod(patient.grid.spacing_mm) / 1000
    padded = [np.pad(values, 1) for values in (truth, mask)]
    apart = surface_distances(*padded, patient.grid.spacing_mm)
    return {
        "patient": patient.name,
        "fold": fold,
        "method": method,
        "gtv_cc": round(float(truth.sum() * voxel_cc), 2),
        "answer_cc": round(float(mask.sum() * voxel_cc), 2),
        "dsc": round(float(dice(truth, mask)), 4),
        "sdsc_3mm": round(apart.dice(3.0), 4),
        "hd95_mm": round(apart.hausdorff_mm(95.0), 2),
    }


def write(rows: list[dict], path: Path) -> None:
    """The rows as CSV, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict]:
    """The rows of a CSV that :func:`write` made, numbers as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: value if key in ("patient", "method") else float(value) for key, value in line.items()}
            for line in csv.DictReader(file)
        ]
