"""The first thing one would try against exudates: a white top-hat of the green channel, and a threshold.

    python tools/baselines/tophat.py DATASET_DIR [--folds 5]
    python tools/baselines/tophat.py DATASET_DIR --test

The top-hat keeps what is brighter than its surroundings and narrower than a square; the optic disc's rim and
reflexes come along. The threshold is the one with the best pooled Dice on the training patients of each fold
of tools/datasets/hei_med.py; scored are its validation patients. --test opens the locked test set, for one
comparison at the end: the threshold is then that of all other patients. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medseg.bundles.score_photographs import PhotographScore, in_words, pooled_scores, score_photograph
from medseg.cases.photograph import field_of_view, open_photograph
from medseg.metrics.pixels import LevelCounts, as_levels, count_levels, dice_at, pooled

WIDTH_SHARE = 0.025
"""Side of the square, as a share of the picture's longer side: somewhat more than most exudates are wide."""

EDGE_SHARE = 0.01
"""So much at the rim of the field of view is left out, where the frame makes an edge."""

BITS = (1, {"other bright lesion": 2})
CANDIDATES = np.linspace(0.02, 0.98, 97)


def tophat(pixels: np.ndarray, field: np.ndarray) -> np.ndarray:
    """float32 [row, column] in 0..1 of a photograph [row, column, 3] and its field of view: how far green
    rises above its surroundings, over the median of green; 0 outside."""
    longer = max(field.shape)
    green = ndimage.median_filter(pixels[..., 1], 3)
    usual = float(np.median(green[field])) + 1e-6
    filled = np.where(field, green, usual)
    rises = ndimage.white_tophat(filled, size=max(3, round(WIDTH_SHARE * longer)))
    inner = ndimage.minimum_filter(field, size=max(3, 2 * round(EDGE_SHARE * longer) + 1))
    return np.clip(rises / usual * inner, 0, 1).astype(np.float32)


def as_probability(rises: np.ndarray, threshold: float) -> np.ndarray:
    """The same order, with 0.5 at the threshold."""
    return rises / (rises + threshold)


def read(case: dict, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(top-hat, bit field, field of view) of a case of the datalist."""
    pixels = open_photograph(data / case["image"]).pixels
    field = field_of_view(pixels)
    return tophat(pixels, field), np.asarray(Image.open(data / case["label"])), field


def counts_of(case: dict, data: Path) -> LevelCounts:
    """How often each height of the top-hat is exudate and is not."""
    rises, bits, field = read(case, data)
    return count_levels(as_levels(rises), (bits & BITS[0]) != 0, field)


def best_threshold(training: list[LevelCounts]) -> float:
    """The candidate with the best pooled Dice."""
    counts = pooled(training)
    return float(max(CANDIDATES, key=lambda threshold: dice_at(counts, threshold)))


def score_cases(cases: list[dict], threshold: float, data: Path) -> dict[str, PhotographScore]:
    """{case: scores}."""
    scores = {}
    for case in cases:
        rises, bits, field = read(case, data)
        chances = as_probability(rises, threshold)
        scores[case["case_id"]] = score_photograph(as_levels(chances), bits, field, BITS, case["patient_id"])
    return scores


def main() -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "datasets"))
    from hei_med import read_rows, split

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--test", action="store_true", help="score the locked test patients instead")
    options = parser.parse_args()
    rows = read_rows(options.dataset_dir / "cases.csv")
    if options.test:
        parts = split(rows, options.seed, options.folds, 0)
        known = parts["training"] + parts["validation"]
        threshold = best_threshold([counts_of(case, options.dataset_dir) for case in known])
        scores = score_cases(parts["test"], threshold, options.dataset_dir)
        print(f"threshold {threshold:.2f} of {len(known)} photographs; the locked test patients:\n")
        print(in_words("Exudate", pooled_scores(list(scores.values()))))
        return 0
    every: list[PhotographScore] = []
    known: dict[str, LevelCounts] = {}
    for fold in range(options.folds):
        parts = split(rows, options.seed, options.folds, fold)
        for case in parts["training"]:
            if case["case_id"] not in known:
                known[case["case_id"]] = counts_of(case, options.dataset_dir)
        threshold = best_threshold([known[case["case_id"]] for case in parts["training"]])
        scores = score_cases(parts["validation"], threshold, options.dataset_dir)
        found = pooled_scores(list(scores.values()))
        print(f"fold {fold}: threshold {threshold:.2f}, pooled AUPR {found['AUPR'].value:.3f}", flush=True)
        every += scores.values()
    print(in_words("Exudate", pooled_scores(every)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
