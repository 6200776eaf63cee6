"""How well an audit finds errors that are known: plant a tenth of wrong labels, audit, and score ranking and
reasons.

    python tools/benchmarks/audit/evaluate.py corrupt DATASET_DIR BUNDLE WORK --share 0.1 --seed 0
    medseg audit BUNDLE --data DATASET_DIR --datalist WORK/datalist.json -o WORK/audit --folds 3 ...
    python tools/benchmarks/audit/evaluate.py score WORK/audit WORK/key.jsonl -o WORK/scores.json
    python tools/benchmarks/audit/evaluate.py correct DATASET_DIR BUNDLE WORK --worst 45
    python tools/benchmarks/audit/evaluate.py plant AUDIT_OUT -o plant.json --share 0.1 --seeds 10

`corrupt` works on bit-field labels, as the bundle's train.json reads them: of all contours of the training
cases (a case and a structure) it corrupts a share: shifted, dilated, eroded, cut short, with a gap, or
another structure's contour. The key holds each as medseg.training.noisy.noise records it, so it can be made
again. The networks learn from the wrong labels too.

`correct` plays the reviewer who looks at the worst so many labels and puts the true contour back where it had
been changed: WORK/corrected is what `medseg audit --fix` takes.

`plant` does the same as `corrupt` to the labels of an audit that is finished, on the network's grid, so that
many draws cost no training; there the networks did not learn from the wrong labels.

Both print the ranking beside that of cleanlab's segmentation score (softmin) on the same predictions, and
count a reason as right when it names what was done: a shift to 30 degrees and 6 mm or 30 %, the right end,
the right other structure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from label_blunders import correct, corrupt_dataset, plant, read_key, write

from medseg.audit.evidence import file_stem, load_evidence
from medseg.audit.ranking import Ranking, rank
from medseg.errors import MedsegError
from medseg.shapes.boxes import box_of


def plant_often(audit_dir: Path, share: float, seeds: int) -> dict:
    """Scores of each seed, and their means; all labels of all seeds together for the reasons."""
    content = json.loads((audit_dir / "audit.json").read_text(encoding="utf-8"))
    rows = content["findings"]
    judged = {row["structure"] for row in rows} - {
        row["structure"] for row in rows if row["reason"] == "not judged"
    }
    names = dict.fromkeys(row["case"] for row in rows)
    cases = [load_evidence(audit_dir / "cases" / f"{file_stem(name)}.npz") for name in names]
    runs = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            paths, key = plant(cases, judged, Path(folder), share, seed)
            runs.append(measure(rank(paths), key, paths))
            print(
                f"seed {seed}: "
                f"{json.dumps({name: values['auroc'] for name, values in runs[-1]['rankings'].items()})}",
                flush=True,
            )
    means = {
        name: {
            number: round(float(np.mean([run["rankings"][name][number] for run in runs])), 3)
            for number in values
        }
        for name, values in runs[0]["rankings"].items()
    }
    return {
        "seeds": seeds,
        "labels": runs[0]["labels"],
        "corrupted": sum(run["corrupted"] for run in runs),
        "rankings": means,
        "reasons": _add_up([run["reasons"] for run in runs]),
        "runs": runs,
    }


def _add_up(counts: list[dict]) -> dict:
    kinds = sorted({kind for one in counts for kind in one})
    return {
        kind: {word: sum(one.get(kind, {}).get(word, 0) for one in counts) for word in ("right", "of")}
        for kind in kinds
    }


def measure(ranking: Ranking, key: list[dict], paths: list[Path]) -> dict:
    """AUROC, average precision and precision at k of the audit's score and of cleanlab's, and how many
    reasons are right."""
    planted = {(line["case"], line["structure"]): line for line in key}
    findings = [one for one in ranking.findings if one.reason.kind != "not judged"]
    wrong = np.array([(one.case, one.structure) in planted for one in findings])
    suspicion = {"medseg audit": np.array([one.score for one in findings])}
    for name, values in cleanlab_scores(paths).items():
        suspicion[name] = np.array([1 - values[one.case, one.structure] for one in findings])
    name = "cleanlab softmin in the box"
    suspicion["cleanlab, robust z of each structure"] = _z_of_each(
        suspicion[name], [one.structure for one in findings]
    )
    reasons: dict[str, dict[str, int]] = {}
    for one in findings:
        line = planted.get((one.case, one.structure))
        if line:
            count = reasons.setdefault(line["kind"], {"right": 0, "of": 0})
            count["right"] += int(is_right(line, one.reason))
            count["of"] += 1
    return {
        "labels": len(findings),
        "corrupted": int(wrong.sum()),
        "not_judged": len(planted) - int(wrong.sum()),
        "rankings": {name: measure_ranking(wrong, values) for name, values in suspicion.items()},
        "reasons": reasons,
    }


def measure_ranking(wrong: np.ndarray, suspicion: np.ndarray) -> dict[str, float]:
    """Of a ranking: AUROC, average precision, and the share of wrong labels among as many as there are, and
    half of them."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    order, count = np.argsort(-suspicion, kind="stable"), int(wrong.sum())
    return {
        "auroc": round(float(roc_auc_score(wrong, suspicion)), 3),
        "ap": round(float(average_precision_score(wrong, suspicion)), 3),
        "precision_at_half": round(float(wrong[order[: max(count // 2, 1)]].mean()), 3),
        "precision_at_all": round(float(wrong[order[:count]].mean()), 3),
    }


def _z_of_each(values: np.ndarray, names: list[str]) -> np.ndarray:
    result = np.zeros(len(values))
    for name in set(names):
        own = np.array([other == name for other in names])
        middle = np.median(values[own])
        result[own] = (values[own] - middle) / max(float(np.median(np.abs(values[own] - middle))), 1e-4)
    return result


def cleanlab_scores(paths: list[Path]) -> dict[str, dict[tuple[str, str], float]]:
    """cleanlab.segmentation.rank of each label as a two-class picture: over the whole grid, and in the box
    around both."""
    from cleanlab.segmentation.rank import get_label_quality_scores

    found: dict[str, dict] = {"cleanlab softmin": {}, "cleanlab softmin in the box": {}}
    for path in paths:
        case = load_evidence(path)
        for number in np.flatnonzero(case.known).tolist():
            box = box_of(case.label[number] | (case.probability[number] > 0.05), margin=2)
            for name, part in zip(found, ((slice(None),) * 3, box), strict=True):
                label, chance = case.label[number][part], np.clip(case.probability[number][part], 0, 1)
                if not label.size:
                    label, chance = case.label[number], np.clip(case.probability[number], 0, 1)
                flat, p = label.reshape(1, -1, label.shape[-1]), chance.reshape(1, -1, label.shape[-1])
                scores, _ = get_label_quality_scores(
                    flat.astype(int), np.stack([1 - p, p], axis=1), batch_size=10**7, verbose=False
                )
                found[name][case.case, case.names[number]] = float(scores[0])
    return found


def is_right(line: dict, reason) -> bool:
    """Whether a reason names what was done; a label that the network's grid lost altogether is rightly called
    empty."""
    kind = line["kind"]
    if reason.kind == "empty label":
        return kind == "erode"
    if kind == "shift":
        planted, said = np.array(line["vector"]), np.array(reason.vector or (0.0, 0.0, 0.0))
        size, told = np.linalg.norm(planted), np.linalg.norm(said)
        angle = planted @ said / max(size * told, 1e-9)
        return (
            reason.kind == "shifted"
            and angle > np.cos(np.pi / 6)
            and abs(size - told) <= max(6.0, 0.3 * size)
        )
    if kind == "wrong_organ":
        return reason.kind in ("wrong structure", "sides swapped") and reason.words.endswith(line["other"])
    if kind == "cropped":
        return reason.kind == "cropped" and f"{line['end']} end" in reason.words
    return reason.kind == {"dilate": "expanded", "erode": "contracted", "gap": "slices dropped"}[kind]


def table(scores: dict) -> list[str]:
    """The scores as lines of a table."""
    lines = [
        "| ranking | AUROC | average precision | precision, worst half of k | precision at k |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, values in scores["rankings"].items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values.values()) + " |")
    lines += ["", "| planted | reason right |", "|---|--:|"]
    return [
        *lines,
        *(
            f"| {kind} | {count['right']} of {count['of']} |"
            for kind, count in sorted(scores["reasons"].items())
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("corrupt")
    make.add_argument("dataset_dir", type=Path)
    make.add_argument("bundle")
    make.add_argument("out", type=Path)
    make.add_argument("--seed", type=int, default=0)
    repair = commands.add_parser("correct")
    repair.add_argument("dataset_dir", type=Path)
    repair.add_argument("bundle")
    repair.add_argument("work", type=Path, help="where corrupt wrote, with the audit in its folder audit/")
    repair.add_argument("--worst", type=int, required=True, help="so many labels are looked at")
    score = commands.add_parser("score")
    score.add_argument("audit_dir", type=Path)
    score.add_argument("key", type=Path)
    again = commands.add_parser("plant")
    again.add_argument("audit_dir", type=Path)
    again.add_argument("--seeds", type=int, default=10)
    for command in (make, again):
        command.add_argument(
            "--share", type=float, default=0.1, help="of all labels that become wrong; default 0.1"
        )
    for command in (score, again):
        command.add_argument("-o", "--output", type=Path, required=True, help="the scores as JSON")
    given = parser.parse_args(arguments)
    if not 0 < getattr(given, "share", 0.1) < 1:
        parser.error("--share is above 0 and below 1")
    try:
        if given.command == "corrupt":
            key = corrupt_dataset(given.dataset_dir, given.bundle, given.out, given.share, given.seed)
            print(f"{len(key)} labels corrupted")
            return 0
        if given.command == "correct":
            right, wrong = correct(given.dataset_dir, given.bundle, given.work, given.worst)
            print(f"{right} of {wrong} wrong labels found and put right")
            return 0
        if given.command == "plant":
            scores = plant_often(given.audit_dir, given.share, given.seeds)
        else:
            rows = json.loads((given.audit_dir / "audit.json").read_text(encoding="utf-8"))["findings"]
            paths = [
                given.audit_dir / "cases" / f"{file_stem(case)}.npz"
                for case in dict.fromkeys(row["case"] for row in rows)
            ]
            scores = measure(rank(paths), read_key(given.key), paths)
    except (MedsegError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write(given.output, json.dumps(scores, indent=1) + "\n")
    print("\n".join(table(scores)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
