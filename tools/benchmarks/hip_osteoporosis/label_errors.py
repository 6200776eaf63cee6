"""Are wrong class labels found by networks that never saw them? On hip phantoms with errors made on purpose.

    python tools/benchmarks/hip_osteoporosis/label_errors.py WORK

Both hips of a tenth of the patients get the other class, as a record of somebody else would give it to them;
films whose bone lies near the limit are as hard as they are. `medseg audit hip_osteoporosis` trains three
folds and ranks the labels by the loss of each. cleanlab (Northcutt et al., JAIR 2021) ranks and flags the
same out-of-fold probabilities: by its score, adjusted by the classes' thresholds, and its confident joint.
Prints the AUROC of wrong against sound labels with a 95 % interval over patients, of all films and of those
whose T-score lies further than 0.5 from -2.5, how many of those that each flags are wrong, and the difference
of the two, for every seed. WORK keeps the trainings; the same command again does none twice.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from medseg.audit.run import AuditRequest, audit
from medseg.bundles.find import read_json
from medseg.files import write_json
from medseg.metrics.intervals import interval
from medseg.metrics.pixels import count_levels, roc_auc

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))
import hip_phantoms

SHARE, PIXELS, SEEDS, DRAWS, FAR = 0.1, 64, (1, 2, 3), 1000, 0.5
SECTIONS = ("training", "validation", "test")


def films(folder: Path, patients: int, seed: int) -> list[dict]:
    """The cases of all films, made when they are not there; ``wrong`` says whose class was changed."""
    datalist = folder / "datalist.json"
    if not datalist.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--patients", str(patients), "--pixels", str(PIXELS), "--seed", str(seed)]
        with contextlib.redirect_stdout(sys.stderr):  # a table alone goes to standard output
            if hip_phantoms.main([str(folder), str(folder / "pairs.json"), *options]):
                raise SystemExit(2)
        pairs = read_json(folder / "pairs.json")
        cases = [case for section in SECTIONS for case in pairs[section]]
        names = sorted({case["patient_id"] for case in cases})
        count = round(SHARE * len(names))
        wrong = set(np.random.default_rng([seed, 18]).choice(names, count, replace=False))
        for case in cases:
            case["wrong"] = case["patient_id"] in wrong
            case["label"] = 1 - case["label"] if case["wrong"] else case["label"]
        write_json({"training": cases}, datalist)
    return read_json(datalist)["training"]


def is_far(folder: Path, cases: list[dict]) -> np.ndarray:
    """bool (N,): whose T-score lies far from the limit of the classes, by the phantoms' own table."""
    with open(folder / "dexa.csv", newline="") as file:
        t_scores = {row["patient"]: float(row["neck_t"]) for row in csv.DictReader(file)}
    return np.array([abs(t_scores[case["patient_id"]] + 2.5) > FAR for case in cases])


def auroc(suspicion: np.ndarray, wrong: np.ndarray, rows: np.ndarray) -> float:
    """How well wrong labels come before sound ones among some rows of all."""
    ranks = suspicion.argsort().argsort() / len(suspicion)
    return roc_auc(count_levels(ranks[rows], wrong[rows]))


def words(figure: Callable[[np.ndarray], float], cases: list[dict], far: np.ndarray) -> str:
    """ "0.912 (0.850 to 0.960) | 0.952 …", over patients, of all films and of those far from the limit."""
    said = []
    for chosen in (np.arange(len(cases)), np.flatnonzero(far)):
        theirs = [cases[number]["patient_id"] for number in chosen]
        value, low, high = interval(lambda n, c=chosen: figure(c[n]), theirs, draws=DRAWS)
        said.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
    return " | ".join(said)


def rows(seed: int, findings: list[dict], cases: list[dict], far: np.ndarray) -> list[str]:
    """The lines of a seed: the audit's, cleanlab's of the same probabilities, and the difference."""
    said = {finding["case"]: finding for finding in findings}
    chances = np.array([list(said[case["case_id"]]["probabilities"].values()) for case in cases])
    losses, scores = (np.array([said[case["case_id"]][key] for case in cases]) for key in ("loss", "score"))
    labels = np.array([case["label"] for case in cases])
    quality = get_label_quality_scores(labels, chances, adjust_pred_probs=True)
    joint = find_label_issues(labels, chances, filter_by="confident_learning", n_jobs=1)
    wrong = np.array([case["wrong"] for case in cases])

    def line(name: str, suspicion: np.ndarray, flagged: np.ndarray) -> str:
        right = f"{int((flagged & wrong).sum())} of {int(flagged.sum())}"
        found = words(lambda n: auroc(suspicion, wrong, n), cases, far)
        return f"| {seed} | {name} | {found} | {right} | {int(wrong.sum())} |"

    more = words(lambda n: auroc(losses, wrong, n) - auroc(-quality, wrong, n), cases, far)
    return [
        line("medseg audit, loss out of fold", losses, scores >= 0.5),
        line("cleanlab, adjusted; confident joint", -quality, joint),
        f"| {seed} | the first less the second | {more} | | |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| seed | ranked by | AUROC (95 %) | far from -2.5 | wrong of those flagged | wrong labels |\n"
        "|--:|---|--:|--:|--:|--:|"
    )
    for seed in SEEDS:
        folder = (options.work / f"seed_{seed}").resolve()
        cases = films(folder / "data", options.patients, seed)
        settings = {"image_size": [PIXELS] * 2, "epochs": options.epochs, "seed": seed, "device": "cpu"}
        request = AuditRequest(
            folder / "data",
            folder / "audit",
            "hip_osteoporosis",
            datalist=folder / "data" / "datalist.json",
            seed=seed,
            settings=settings,
        )
        content = audit(request, lambda line: print(line, file=sys.stderr, flush=True))
        print("\n".join(rows(seed, content["findings"], cases, is_far(folder / "data", cases))), flush=True)


if __name__ == "__main__":
    main()
