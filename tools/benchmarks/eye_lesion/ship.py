"""Put the best architecture of a finished grid into the bundle, and its scores into the bundle's card."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cell import BASELINE, FOLDS, SPLIT_SEED, read_record
from hei_med import read_rows, split, words_of
from report import best_first, finished, pooled_aupr

from medseg.bundles.find import read_json
from medseg.bundles.score_photographs import PhotographScore
from medseg.errors import InputError
from medseg.files import atomic_path, write_json
from medseg.metrics.intervals import Interval
from medseg.metrics.pixels import average_precision, pooled_interval, roc_auc
from medseg.training.checkpoints import load_checkpoint, save_weights

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))

MOST_BYTES = 10_000_000
"""What a bundle may add to a checkout."""

WEIGHTS, TEST = "weights", "test scores"
"""Sections of the card that are written here."""


@dataclass(frozen=True)
class Shipment:
    """What is put where. ``fold``: whose weights; ``folds``: those that the choice is made on, None for all;
    ``architecture``: instead of the one with the highest pooled AUPR whose weights are small enough."""

    out: Path
    data: Path
    bundle: Path
    fold: int = 0
    folds: list[int] | None = None
    architecture: str | None = None


def ship(wanted: Shipment) -> int:
    """Write weights in half precision with their digest, the settings they were trained with, the fold's
    datalist and the card's section. InputError when a cell is missing or nothing fits."""
    from page_section import put_section

    scores = scores_of_the_grid(wanted.out, wanted.folds)
    name, weights = chosen(wanted, scores)
    record = read_record(wanted.out / "cells" / f"{name}_fold{wanted.fold}.json")
    model = wanted.bundle / "models" / "model.pt"
    model.parent.mkdir(exist_ok=True)
    save_weights(weights, model)
    parts = split(read_rows(wanted.data / "cases.csv"), SPLIT_SEED, FOLDS, wanted.fold)
    datalist = {"description": words_of(wanted.fold, FOLDS), "seed": SPLIT_SEED, **parts}
    write_json(datalist, wanted.bundle / "configs" / "datalist.json")
    set_recipe(wanted.bundle, record)
    text = weights_section(record, scores, model.stat().st_size)
    put_section(wanted.bundle / "docs" / "README.md", WEIGHTS, text)
    print(text)
    return 0


def chosen(wanted: Shipment, scores: dict[str, list[PhotographScore]]) -> tuple[str, dict[str, torch.Tensor]]:
    """The best architecture that is small enough, or the one that is named, and its weights."""
    ranked = [name for name in scores if name != BASELINE]
    for name in [wanted.architecture] if wanted.architecture else ranked:
        weights = half(wanted.out / "runs" / f"{name}_fold{wanted.fold}" / "last.pt")
        size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        if size < MOST_BYTES:
            return name, weights
        print(f"{name}: {size / 1e6:.1f} MB in half precision; at most {MOST_BYTES / 1e6:g} are shipped")
    raise InputError(f"{wanted.out}: no architecture is small enough to ship; train a narrow one.")


def scores_of_the_grid(out: Path, folds_wanted: list[int] | None) -> dict[str, list[PhotographScore]]:
    """{architecture: scores of all validation photographs of all folds}, best first. InputError unless every
    architecture has the same folds under one budget: others cannot be compared."""
    records = finished(out, folds_wanted)
    folds: dict[str, set[int]] = {}
    budgets = set()
    for _, record in records:
        folds.setdefault(record["architecture"], set()).add(record["fold"])
        budgets.add(str(sorted(record["budget"].items())))
    if len(budgets) != 1 or len({tuple(sorted(found)) for found in folds.values()}) != 1:
        had = "; ".join(f"{name} {sorted(found)}" for name, found in folds.items())
        raise InputError(f"{out}: {len(budgets)} budgets, folds {had}; finish the grid first (run train).")
    by_name: dict[str, list] = {}
    for path, record in records:
        by_name.setdefault(record["architecture"], []).append((path, record))
    return best_first(by_name)


def half(last: Path) -> dict[str, torch.Tensor]:
    """The network of a training's last.pt, floating-point numbers of 16 bits. InputError for one that half
    precision cannot hold."""
    weights = load_checkpoint(last)["network"]
    small = {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
    lost = [name for name, w in small.items() if w.is_floating_point() and not w.isfinite().all()]
    if lost:
        raise InputError(f"{last}: {lost[0]} holds numbers that half precision cannot; ship another fold.")
    return small


def set_recipe(bundle: Path, record: dict[str, Any]) -> None:
    """What the cell was trained with becomes the bundle's own: architecture, sizes, and, in metadata.json, in
    words."""
    budget, name = record["budget"], record["architecture"]
    side = budget["patch_pixels"]
    changes = {
        "architecture": name,
        "longest_side": budget["longest_side"],
        "patch_size": [side, side],
    }
    for config in ("train", "inference"):
        _rewrite(bundle / "configs" / f"{config}.json", changes)
    metadata = read_json(bundle / "configs" / "metadata.json")
    words = f"{name}, {budget['epochs']} epochs on fold {record['fold']} of {FOLDS}; the five architectures"
    described = re.sub(r"; [^;]* by default$", f"; {name} by default", metadata["description"])
    log = {**metadata["changelog"], metadata["version"]: words}
    _rewrite(bundle / "configs" / "metadata.json", {"changelog": log, "description": described})


def _rewrite(path: Path, changes: dict[str, Any]) -> None:
    content = read_json(path)
    missing = [key for key in changes if key not in content]
    if missing:
        raise InputError(f"{path} has no {missing[0]}, which the cell was trained with; restore it.")
    with atomic_path(path) as temporary:
        text = json.dumps({**content, **changes}, indent=4, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def weights_section(record: dict[str, Any], scores: dict[str, list[PhotographScore]], size: int) -> str:
    """What the card says of a cell's weights, of ``size`` bytes, and of how they were chosen."""
    cost, budget, name, fold = record["cost"], record["budget"], record["architecture"], record["fold"]
    own = [score for score in scores[name] if score.patient in set(record["cases"])]
    auc = pooled_interval(roc_auc, [s.pixels for s in own], [s.patient for s in own])
    rivals = "; ".join(
        f"{other} {pooled_aupr(found):.3f}" for other, found in scores.items() if other != name
    )
    return "\n".join(
        [
            f"**The weights**: `{name}`, {cost['parameters']:,} parameters, {size / 1e6:.1f} MB in half "
            f"precision. Trained on the training patients of fold {fold} (`configs/datalist.json`) for "
            f"{budget['epochs']} epochs, {cost['training_minutes']:.0f} minutes of one processor core: they "
            "show that the way works and are not yet a good model.",
            "",
            f"Chosen by pooled AUPR over the {len(scores[name])} validation patients of the benchmark's "
            f"folds: {_words(_aupr(scores[name]))}; {rivals}. On the {len(own)} validation patients of its "
            f"own fold: AUPR {_words(_aupr(own))}, ROC AUC {_words(auc)}.",
        ]
    )


def _aupr(scores: list[PhotographScore]) -> Interval:
    return pooled_interval(average_precision, [s.pixels for s in scores], [s.patient for s in scores])


def _words(found: Interval) -> str:
    return f"{found.value:.3f} (95 % {found.low:.3f} to {found.high:.3f})"


# ---- what medseg score printed, in the card and in README --------------------------------------------------


def card(scored: Path, bundle: Path, readme: Path | None) -> int:
    """Put the tables of a folder of ``medseg score`` into the card, and its figures into the bundle's row of
    README. InputError when there are none."""
    from page_section import put_section

    if not (scored / "scores.json").is_file():
        raise InputError(f"{scored}: no scores.json; run medseg score {bundle.name} -o {scored} first.")
    put_section(
        bundle / "docs" / "README.md", TEST, (scored / "scores.md").read_text(encoding="utf-8").strip()
    )
    if readme is not None:
        found = json.loads((scored / "scores.json").read_text(encoding="utf-8"))["pooled"]["Exudate"]
        text = readme.read_text(encoding="utf-8")
        row = re.compile(rf"(?m)^(\| `{bundle.name}` \|[^|]*\|[^|]*\|)[^|]*\|")
        if not row.search(text):
            raise InputError(f"{readme}: no row of `{bundle.name}` in its table of tasks.")
        with atomic_path(readme) as temporary:
            temporary.write_text(row.sub(lambda m: f"{m[1]} {row_words(found)} |", text), encoding="utf-8")
    return 0


def row_words(found: dict[str, Any]) -> str:
    """The figures of README's table, of the pooled figures in scores.json."""

    def words(figure: dict[str, float]) -> str:
        return f"{figure['value']:.3f} (95 % {figure['low']:.3f} to {figure['high']:.3f})"

    return (
        f"pooled AUPR {words(found['AUPR'])}, ROC AUC {words(found['ROC AUC'])} on {found['images']} "
        f"patients, {found['with lesions']} with exudates"
    )
