"""How well an audit finds errors that are known: plant a tenth of wrong labels, audit, and score ranking and
reasons.

    python tools/evaluate_audit.py corrupt DATASET_DIR BUNDLE WORK --share 0.1 --seed 0
    medseg audit BUNDLE --data DATASET_DIR --datalist WORK/datalist.json -o WORK/audit --folds 3 ...
    python tools/evaluate_audit.py score WORK/audit WORK/key.jsonl -o WORK/scores.json
    python tools/evaluate_audit.py correct DATASET_DIR BUNDLE WORK --worst 45
    python tools/evaluate_audit.py plant AUDIT_OUT -o plant.json --share 0.1 --seeds 10

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
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.audit.disagreement import box_of
from medseg.audit.evidence import Evidence, file_stem, load_evidence, save_evidence
from medseg.audit.ranking import Ranking, rank
from medseg.bundles.find import find_bundle
from medseg.errors import InputError, MedsegError
from medseg.files import atomic_path
from medseg.training.noisy.noise import Corruption, corrupt

KINDS = ("shift", "dilate", "erode", "cropped", "gap", "wrong_organ")
SHIFT_MM, MOVE_MM, MOST_DICE = (9.0, 24.0), (4.0, 9.0), 0.85


# ---- corrupt -----------------------------------------------------------------------------------------------


def draw(kind: str, channel: int, present: list[int], rng: np.random.Generator, axis: int) -> Corruption:
    """The parameters of one blunder; ``axis``: the one that runs along the patient."""
    if kind == "shift":
        direction = rng.normal(size=3)
        return Corruption(
            "shift", {"offset": (direction / np.linalg.norm(direction) * rng.uniform(*SHIFT_MM)).tolist()}
        )
    if kind in ("dilate", "erode"):
        return Corruption(kind, {"size": float(rng.uniform(*MOVE_MM))})
    if kind == "wrong_organ":
        others = [other for other in present if other != channel]
        return Corruption(kind, {"channel": channel, "other": int(rng.choice(others))})
    share = float(rng.uniform(0.3, 0.5))
    first = {"cropped": float(rng.choice([0.0, 1.0 - share])), "gap": float(rng.uniform(0.2, 0.8 - share))}[
        kind
    ]
    return Corruption(
        "drop_slices", {"channel": channel, "axis": axis, "first": first, "last": first + share}
    )


def corrupt_entry(
    case: str, kind: str, masks: np.ndarray, channel: int, rng: np.random.Generator, spacing, axis: int
) -> tuple:
    """(corrupted mask, record) of one structure that is neither empty nor much as before, or (None, None)."""
    present = [other for other, mask in enumerate(masks) if mask.any()]
    for _ in range(20):
        corruption = draw(kind, channel, present, rng, axis)
        alone = corruption.kind in ("shift", "dilate", "erode")
        if alone:
            after, record = corrupt(case, corruption, masks[channel : channel + 1], spacing)
            moved, dice = after[0], record.label_dice[0]
        else:
            after, record = corrupt(case, corruption, masks, spacing)
            moved, dice = after[channel], record.label_dice[channel]
        if moved.any() and dice < MOST_DICE:
            return moved, {"dice": dice, "record": json.loads(record.to_json())}
    return None, None


def first_that_works(
    case: str, kinds: list[str], masks: np.ndarray, channel: int, rng: np.random.Generator, grid: tuple
):
    """(kind, corrupted mask, record) of the first kind that this structure allows; ``grid``: spacing, and
    axis of slices."""
    for kind in kinds:
        mask, record = corrupt_entry(case, kind, masks, channel, rng, *grid)
        if mask is not None:
            return kind, mask, record
    raise InputError(f"{case}: no corruption leaves structure {channel} neither empty nor nearly as it was.")


def _truth(record: dict, names: list[str], affine_ras: np.ndarray | None = None) -> dict:
    """The record with what a reason has to say: ``vector`` (to cranial, posterior and left in mm), ``end`` or
    ``other``.

    ``affine_ras``: of (x, y, z) arrays; without one the axes run to cranial, posterior and left already.
    """
    parameters = record["record"]["corruption"]["parameters"]
    if "offset" in parameters:
        vector = list(parameters["offset"])
        if affine_ras is not None:
            directions = affine_ras[:3, :3] / np.linalg.norm(affine_ras[:3, :3], axis=0)
            right, anterior, superior = directions @ vector
            vector = [superior, -anterior, -right]
        return {**record, "vector": [float(part) for part in vector]}
    if "other" in parameters:
        return {**record, "other": names[parameters["other"]]}
    if "first" in parameters:
        return {**record, "end": "caudal" if parameters["first"] == 0 else "cranial"}
    return record


def corrupt_dataset(dataset_dir: Path, bundle_name: str, out: Path, share: float, seed: int) -> list[dict]:
    """Write OUT/labels, OUT/datalist.json and OUT/key.jsonl; returns the key."""
    import nibabel

    bundle = find_bundle(bundle_name)
    bits = json.loads((bundle.folder / "configs" / "train.json").read_text())["bits"]
    datalist = json.loads((bundle.folder / "configs" / "datalist.json").read_text())
    names, cases = list(bits), datalist["training"]
    entries = [(case["case_id"], name) for case in cases for name in case["present"]]
    rng = np.random.default_rng(seed)
    chosen = [
        entries[number]
        for number in sorted(rng.choice(len(entries), round(share * len(entries)), replace=False))
    ]
    (out / "labels").mkdir(parents=True, exist_ok=True)
    key, changed = [], []
    for case in cases:
        wanted = [name for owner, name in chosen if owner == case["case_id"]]
        image = nibabel.load(dataset_dir / case["label"])
        field = np.asarray(image.dataobj).astype(np.uint16)
        before = np.stack([np.bitwise_and(field, sum(1 << bit for bit in bits[name])) != 0 for name in names])
        before &= np.array([name in case["present"] for name in names])[:, None, None, None]
        for name in wanted:
            channel = names.index(name)
            kinds = [KINDS[len(key) % len(KINDS)], *KINDS]
            kind, mask, record = first_that_works(
                case["case_id"], kinds, before, channel, rng, (image.header.get_zooms(), 2)
            )
            field &= ~np.uint16(sum(1 << bit for bit in bits[name]))
            field[mask] |= np.uint16(1 << bits[name][-1])
            key.append(
                {
                    "case": case["case_id"],
                    "structure": name,
                    "kind": kind,
                    **_truth(record, names, image.affine),
                }
            )
        path = out / "labels" / f"{case['case_id']}.nii.gz"
        if wanted:
            nibabel.save(nibabel.Nifti1Image(field, image.affine, image.header), path)
        changed.append({**case, "label": str(path.resolve())} if wanted else case)
    write(
        out / "datalist.json",
        json.dumps({"training": changed, "validation": datalist["validation"]}, indent=1),
    )
    write(out / "key.jsonl", "".join(json.dumps(line) + "\n" for line in key))
    return key


def write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


# ---- correct -----------------------------------------------------------------------------------------------


def correct(dataset_dir: Path, bundle_name: str, work: Path, worst: int) -> tuple[int, int]:
    """Write WORK/corrected: of the `worst` labels of WORK/audit those that `corrupt` had changed are the true
    ones again.

    Returns (labels put right, labels of the key). Other wrong labels of the same case stay wrong.
    """
    import nibabel

    bundle = find_bundle(bundle_name)
    bits = json.loads((bundle.folder / "configs" / "train.json").read_text())["bits"]
    truth = json.loads((bundle.folder / "configs" / "datalist.json").read_text())["training"]
    path_of = {case["case_id"]: dataset_dir / case["label"] for case in truth}
    findings = json.loads((work / "audit" / "audit.json").read_text(encoding="utf-8"))["findings"][:worst]
    key = {(line["case"], line["structure"]) for line in read_key(work / "key.jsonl")}
    right = [(one["case"], one["structure"]) for one in findings if (one["case"], one["structure"]) in key]
    (work / "corrected").mkdir(exist_ok=True)
    for case in dict.fromkeys(case for case, _ in right):
        image = nibabel.load(work / "labels" / f"{case}.nii.gz")
        field = np.asarray(image.dataobj).astype(np.uint16)
        original = np.asarray(nibabel.load(path_of[case]).dataobj).astype(np.uint16)
        for name in (name for owner, name in right if owner == case):
            mask = np.uint16(sum(1 << bit for bit in bits[name]))
            field = (field & ~mask) | (original & mask)
        nibabel.save(
            nibabel.Nifti1Image(field, image.affine, image.header), work / "corrected" / f"{case}.nii.gz"
        )
    return len(right), len(key)


def read_key(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- plant into an audit that is finished ------------------------------------------------------------------


def plant(
    cases: list[Evidence], judged: set[str], folder: Path, share: float, seed: int
) -> tuple[list[Path], list[dict]]:
    """(files of the cases with some labels corrupted, key); of structures that the audit could judge."""
    rng, key, paths = np.random.default_rng(seed), [], []
    entries = [
        (number, structure)
        for number, case in enumerate(cases)
        for structure in range(len(case.names))
        if case.known[structure] and case.label[structure].any() and case.names[structure] in judged
    ]
    chosen = [
        entries[number]
        for number in sorted(rng.choice(len(entries), round(share * len(entries)), replace=False))
    ]
    for number, case in enumerate(cases):
        label = case.label.copy()
        for structure in (structure for owner, structure in chosen if owner == number):
            kinds = [KINDS[(len(key) + seed) % len(KINDS)], *KINDS]
            contoured = case.label & case.known[:, None, None, None]
            kind, mask, record = first_that_works(
                case.case, kinds, contoured, structure, rng, (case.spacing, 0)
            )
            label[structure] = mask
            key.append(
                {
                    "case": case.case,
                    "structure": case.names[structure],
                    "kind": kind,
                    **_truth(record, list(case.names)),
                }
            )
        paths.append(save_evidence(replace(case, label=label), folder))
    return paths, key


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
            runs.append(measured(rank(paths), key, paths))
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


# ---- score -------------------------------------------------------------------------------------------------


def measured(ranking: Ranking, key: list[dict], paths: list[Path]) -> dict:
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
        "rankings": {name: ranked(wrong, values) for name, values in suspicion.items()},
        "reasons": reasons,
    }


def ranked(wrong: np.ndarray, suspicion: np.ndarray) -> dict[str, float]:
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
            box = box_of([case.label[number] | (case.probability[number] > 0.05)], margin=2)
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
            scores = measured(rank(paths), read_key(given.key), paths)
    except (MedsegError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write(given.output, json.dumps(scores, indent=1) + "\n")
    print("\n".join(table(scores)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
