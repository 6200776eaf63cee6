"""Scores of photographs: how the written probabilities rank pixels, image by image and pooled, which lesions
are found, what look-alikes are taken for, and a sheet of all images, worst first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.photograph import field_of_view, open_photograph
from medseg.cases.pictures import read_bit_field
from medseg.metrics.intervals import Interval
from medseg.metrics.lesions import (
    FALSE_FINDS,
    LesionCounts,
    count_lesions,
    mean_sensitivity,
    sensitivity_at_false_finds,
)
from medseg.metrics.pixels import (
    LevelCounts,
    average_precision,
    calibration_error,
    count_levels,
    dice_at,
    pooled,
    pooled_interval,
    reliability,
    roc_auc,
    sensitivity_at,
    specificity_at,
)

SPECIFICITY = 0.99
"""At which sensitivity is told: lesions are half a percent of a photograph, so at 0.95 ten times their area
would be wrong."""

COLUMNS = ("DSC", "AUPR", "ROC AUC", f"sens. at spec. {SPECIFICITY:g}")


@dataclass(frozen=True)
class PhotographScore:
    """What is kept of one image for pooling. ``look_alikes``: {kind: (pixels, of which taken for the lesion,
    from a probability of 0.5)}. ``apart``: the counts without the pixels of any look-alike, None where they
    were not kept."""

    patient: str
    pixels: LevelCounts
    lesions: LesionCounts
    look_alikes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    apart: LevelCounts | None = None


def score_photograph(
    probability: np.ndarray,
    bit_field: np.ndarray,
    field: np.ndarray,
    bits: tuple[int, Mapping[str, int]],
    patient: str,
) -> PhotographScore:
    """Scores of one image. ``probability``: levels (uint16) or 0..1 [row, column]; ``bit_field``: integers;
    ``field``: of view, outside of which nothing counts; ``bits``: the lesion's bits as one number, and those
    of each kind of look-alike. Finds on look-alikes are false."""
    truth = (bit_field & bits[0]) != 0
    seen = {name: ((bit_field & number) != 0) & ~truth for name, number in bits[1].items()}
    counts = count_levels(probability, truth, field)
    alike = np.any([np.zeros(truth.shape, dtype=bool), *seen.values()], axis=0)
    apart = count_levels(probability, truth, field & ~alike) if alike.any() else counts
    inside = probability >= (32768 if probability.dtype == np.uint16 else 0.5)
    taken = {name: (int(part.sum()), int((part & inside).sum())) for name, part in seen.items()}
    return PhotographScore(patient, counts, count_lesions(probability * field, truth & field), taken, apart)


def row_of(score: PhotographScore) -> dict[str, float]:
    """The image's row of the table; nan throughout where it has no lesion, which the last column counts."""
    counts = score.pixels
    inside = counts.levels >= 0.5 * 65535
    answered = int((counts.positive + counts.negative)[inside].sum())
    values = [
        dice_at(counts),
        average_precision(counts),
        roc_auc(counts),
        sensitivity_at(counts, SPECIFICITY),
    ]
    if not counts.positives:
        values = [float("nan")] * len(values)
    sizes = {"true": float(counts.positives), "contoured": float(answered)}
    return {**dict(zip(COLUMNS, values, strict=True)), **sizes}


def tile_words(row: Mapping[str, float]) -> str:
    """What stands over the photograph on the sheet: its scores, or what was outlined though nothing is
    there."""
    if not row["true"]:
        return f"no lesion, {row['contoured']:.0f} pixels outlined"
    return f"AUPR {row['AUPR']:.2f}  AUC {row['ROC AUC']:.3f}"


def pooled_scores(scores: list[PhotographScore]) -> dict[str, Any]:
    """Figures over all pixels and lesions of all images, with 95 % intervals over patients where one is
    given."""
    counts, patients = [s.pixels for s in scores], [s.patient for s in scores]
    lesions = [s.lesions for s in scores]
    clean = pooled([c for c in counts if not c.positives])
    whole = pooled(counts)
    kinds: dict[str, list[int]] = {}
    for score in scores:
        for name, (pixels, taken) in score.look_alikes.items():
            found = kinds.setdefault(name, [0, 0])
            found[0], found[1] = found[0] + pixels, found[1] + taken
    apart = [s.apart for s in scores if s.apart is not None]
    without = {}
    if len(apart) == len(scores):
        without["AUPR, look-alikes left out"] = pooled_interval(average_precision, apart, patients)
    return {
        "images": len(scores),
        "with lesions": sum(c.positives > 0 for c in counts),
        "AUPR": pooled_interval(average_precision, counts, patients),
        **without,
        "ROC AUC": pooled_interval(roc_auc, counts, patients),
        "Dice at 0.5": pooled_interval(dice_at, counts, patients),
        f"sensitivity at specificity {SPECIFICITY:g}": sensitivity_at(whole, SPECIFICITY),
        "specificity at 0.5, images without lesions": specificity_at(clean),
        "lesion share of pixels": whole.positives / max(whole.positives + whole.negatives, 1),
        "ECE": calibration_error(whole),
        "lesions": sum(lesion.lesions for lesion in lesions),
        "lesions found at false finds per image": {
            f"{finds:g}": sensitivity_at_false_finds(lesions, finds) for finds in FALSE_FINDS
        },
        "mean of these": mean_sensitivity(lesions),
        "taken for the lesion at 0.5, share of pixels": {
            name: taken / pixels if pixels else float("nan") for name, (pixels, taken) in kinds.items()
        },
    }


def in_words(structure: str, found: Mapping[str, Any]) -> str:
    """The pooled figures as a Markdown table."""
    lines = [f"Pixels and lesions of all images pooled, {structure}:", "", "| figure | |", "|---|--:|"]
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines += [f"| {name}: {key} | {part:.3f} |" for key, part in value.items()]
        elif isinstance(value, Interval):
            lines.append(f"| {name} | {value.value:.3f} ({value.low:.3f} to {value.high:.3f}) |")
        else:
            lines.append(f"| {name} | {value if isinstance(value, int) else f'{value:.4f}'} |")
    return "\n".join(lines)


def read_score(
    case: Mapping[str, Any], structure: str, folder: Path, data: Path, bits: tuple[int, Mapping[str, int]]
) -> tuple[PhotographScore, np.ndarray, np.ndarray]:
    """(score, probabilities, truth) of one case from the files that were written."""
    from PIL import Image

    photo = open_photograph(data / case["image"])
    probability = np.asarray(Image.open(folder / f"{structure}_probability.png")).astype(np.uint16)
    bit_field = read_bit_field(data / case["label"], probability.shape)
    patient = str(case.get("patient_id", case["case_id"]))
    score = score_photograph(probability, bit_field, field_of_view(photo.pixels), bits, patient)
    return score, probability, (bit_field & bits[0]) != 0


def reliability_points(scores: list[PhotographScore]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What :func:`medseg.metrics.pixels.reliability` says of all images."""
    return reliability(pooled([score.pixels for score in scores]))
