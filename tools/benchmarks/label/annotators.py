"""Simulated annotators: how many labels, and how many second looks, each strategy of the label server takes.

    python tools/benchmarks/label/annotators.py run OUT
    python tools/benchmarks/label/annotators.py report OUT -o docs/reference/label

`run` draws a hospital of film phantoms for each of three seeds and works off cells, one JSON file each
under OUT; what is there is not done again. Cells `labels`: an annotator who never errs labels films, chosen
by the server's own strategies with the server's own scores; between rounds a small network is trained from
nothing and scored on films that nobody labels. Cells `looks`: a quarter of all films hold a blunder, an audit
of out-of-fold predictions ranks the labels, and a reviewer looks at them in the order of `suspect`, or in any
order, and corrects what is wrong. `report` writes a figure and tables. One thread; about half an hour.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from films import FIRST_TEST_PATIENT, STRUCTURES, Budget, Films, dice, films, logits_of, trained
from PIL import Image

from medseg.audit.run import AuditRequest, audit
from medseg.files import make_folder, write_json
from medseg.serve.monai_label.scoring import entropy, features
from medseg.serve.monai_label.strategies import Situation, choose
from medseg.training.noisy.generators import Noise, plan
from medseg.training.noisy.noise import corrupt

SEEDS = (1, 2, 3)
POOL, TEST = 160, 80
LABELS = (8, 16, 24, 32, 48)
"""How many films are labelled when the network is trained again."""

CHOOSERS = ("first", "random", "uncertain", "diverse")
LABELLED_HASTILY, BLUNDERS, FOLDS = 96, 0.25, 3
LOOKS = (32, 96)
"""How many labels (of a film and a structure) were looked at when the network is trained again."""

SAME = 0.995
"""Two labels with at least this Dice are the same to a reviewer."""


def hospital(seed: int, budget: Budget) -> tuple[Films, Films]:
    """The films of a seed, and those for scoring, which all seeds share."""
    return films(10_000 * seed, POOL, budget.side), films(FIRST_TEST_PATIENT, TEST, budget.side)


# ---- labels needed -----------------------------------------------------------------------------------------


def labels_needed(strategy: str, seed: int, budget: Budget) -> dict:
    """Mean DSC by the number of labels, when films are chosen by a strategy."""
    pool, test = hospital(seed, budget)
    place = {name: number for number, name in enumerate(pool.ids)}
    looks = {name: {"features": features(pool.images[i])} for name, i in place.items()}
    done: list[str] = []
    points, network = [], None
    for count in LABELS:
        scores = looks if network is None else _with_entropy(looks, pool, network)
        while len(done) < count:
            # Before anything is learned no network can be unsure: the first round is any films, and the same.
            now = "random" if strategy == "uncertain" and network is None else strategy
            situation = Situation(pool.ids, frozenset(done), scores, seed=1000 * seed + len(done))
            done.append(choose(now, situation)["id"])
        network = trained(*_labelled(pool, done, place), budget, seed)
        points.append(_point(count, network, test))
        points[-1]["bedside"] = int(pool.bedside[[place[name] for name in done]].sum())
    return {"points": points, "order": done}


def everything(seed: int, budget: Budget) -> dict:
    """The same with every film labelled: what there is to reach."""
    pool, test = hospital(seed, budget)
    return {"points": [_point(POOL, trained(pool.images, pool.masks, budget, seed), test)]}


def _labelled(pool: Films, done: list[str], place: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    index = [place[name] for name in done]
    return pool.images[index], pool.masks[index]


def _with_entropy(looks: dict, pool: Films, network) -> dict:
    logits = logits_of(network, pool.images)
    return {name: {**looks[name], "entropy": entropy(logits[i])} for i, name in enumerate(pool.ids)}


def _point(count: int, network, test: Films) -> dict:
    scores = dice(network, test)
    parts = {"dsc": scores, "dsc_room": scores[~test.bedside], "dsc_bedside": scores[test.bedside]}
    return {"count": count, **{name: float(part.mean()) for name, part in parts.items()}}


# ---- second looks ------------------------------------------------------------------------------------------


def second_looks(order: str, seed: int, budget: Budget) -> dict:
    """Errors found and mean DSC by the number of labels that a reviewer looked at again."""
    pool, test = hospital(seed, budget)
    index = np.random.default_rng([seed, 5]).permutation(POOL)[:LABELLED_HASTILY]
    own = pool.rows(np.sort(index))
    hasty, wrong = blundered(own, seed, budget)
    with TemporaryDirectory() as folder:
        looks = _looks(order, own, hasty, seed, budget, Path(folder))
    labels, found, points = hasty.copy(), [], []
    points.append({"looks": 0, **_point(len(own.ids), trained(own.images, labels, budget, seed), test)})
    for number, (film, structure) in enumerate(looks, 1):
        found.append(bool(wrong[film, structure]))
        labels[film, structure] = own.masks[film, structure]
        if number in LOOKS:
            network = trained(own.images, labels, budget, seed)
            points.append({"looks": number, **_point(len(own.ids), network, test)})
    return {"points": points, "found": found, "errors": int(wrong.sum()), "labels": int(wrong.size)}


def without_errors(seed: int, budget: Budget) -> dict:
    """The same films with right labels."""
    pool, test = hospital(seed, budget)
    index = np.sort(np.random.default_rng([seed, 5]).permutation(POOL)[:LABELLED_HASTILY])
    network = trained(pool.images[index], pool.masks[index], budget, seed)
    return {"points": [_point(LABELLED_HASTILY, network, test)]}


def blundered(own: Films, seed: int, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a quarter of the films hold a blunder, and which label of which structure is wrong."""
    sizes = (1.0 * budget.side / 64, 4.0 * budget.side / 64)
    noise = Noise("gross", BLUNDERS, sizes, channels=len(STRUCTURES), seed=seed)
    corruptions, labels, wrong = plan(noise, own.ids), [], []
    for name, mask in zip(own.ids, own.masks, strict=True):
        label, record = corrupt(name, corruptions[name], mask, (1.0, 1.0))
        labels.append(label)
        wrong.append([not score >= SAME for score in record.label_dice])
    return np.stack(labels), np.array(wrong)


def _looks(order: str, own: Films, labels: np.ndarray, seed: int, budget: Budget, folder: Path) -> list:
    """[(film, structure)], each once, in the order that the reviewer looks at them."""
    every = [(film, structure) for film in range(len(own.ids)) for structure in range(len(STRUCTURES))]
    if order == "random":
        return [every[i] for i in np.random.default_rng([seed, 6]).permutation(len(every))]
    _write_for_audit(own, labels, seed, budget, folder)
    audit(
        AuditRequest(folder / "data", folder / "audit", predictions=folder / "predictions", worst=0),
        report=lambda _: None,
    )
    looked: list[tuple[str, str]] = []
    while True:
        situation = Situation(
            own.ids, frozenset(), audit=folder / "audit", reviewed=frozenset(looked), seed=seed
        )
        chosen = choose("suspect", situation)
        if not chosen:
            break
        looked.append((chosen["id"], chosen["structure"]))
    place = {name: number for number, name in enumerate(own.ids)}
    return [(place[film], STRUCTURES.index(structure)) for film, structure in looked]


def _write_for_audit(own: Films, labels: np.ndarray, seed: int, budget: Budget, folder: Path) -> None:
    """Labels, and probabilities of networks that never saw them, as `medseg audit` takes both."""
    fold = np.arange(len(own.ids)) % FOLDS
    for number in range(FOLDS):
        other = fold != number
        network = trained(own.images[other], labels[other], budget, seed)
        mine = np.flatnonzero(~other)
        probability = 1 / (1 + np.exp(-logits_of(network, own.images[mine])))
        for film, channels in zip(mine, probability, strict=True):
            data, predictions = folder / "data" / own.ids[film], folder / "predictions" / own.ids[film]
            make_folder(data)
            make_folder(predictions)
            _save(own.images[film, 0], data / "image.png")
            for name, label, values in zip(STRUCTURES, labels[film], channels, strict=True):
                _save(label, data / f"{name}.png")
                _save(values, predictions / f"{name}.png")


def _save(values: np.ndarray, path: Path) -> None:
    Image.fromarray(np.rint(255 * values.astype(np.float32)).astype(np.uint8)).save(path)


# ---- all of it ---------------------------------------------------------------------------------------------


def cells() -> dict[str, tuple]:
    """{name: (function, its arguments before the budget)}, a seed after the other."""
    found: dict[str, tuple] = {}
    for seed in SEEDS:
        found |= {f"labels_{name}_seed{seed}": (labels_needed, name, seed) for name in CHOOSERS}
        found[f"labels_all_seed{seed}"] = (everything, seed)
        found |= {f"looks_{name}_seed{seed}": (second_looks, name, seed) for name in ("suspect", "random")}
        found[f"looks_right_seed{seed}"] = (without_errors, seed)
    return found


def run(out: Path, budget: Budget, only: str) -> None:
    import torch

    torch.set_num_threads(1)
    make_folder(out)
    for name, (function, *arguments) in cells().items():
        file = out / f"{name}.json"
        if only not in name or file.exists():
            continue
        began = time.perf_counter()
        result = function(*arguments, budget)
        minutes = (time.perf_counter() - began) / 60
        write_json({**result, "budget": asdict(budget), "minutes": round(minutes, 2)}, file)
        print(f"{name}: {minutes:.1f} minutes", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="work off the cells that are not there")
    one.add_argument("out", type=Path)
    one.add_argument("--only", default="", help="only cells whose name contains this")
    one.add_argument("--side", type=int, default=Budget.side)
    one.add_argument("--steps", type=int, default=Budget.steps)
    two = commands.add_parser("report", help="a figure and tables of what is there")
    two.add_argument("out", type=Path)
    two.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.command == "run":
        run(options.out, Budget(side=options.side, steps=options.steps), options.only)
    else:
        from annotators_report import report

        report(options.out, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
