"""Corrected labels come back: a new datalist, a training before and one after, and what changed on a locked
gold set.

Both trainings are the bundle's own ``train.json`` at equal length and seed; gold cases are in neither. The
gold set is locked by a checksum at its first use: one that is changed after seeing a result proves nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.audit.disagreement import dice_of
from medseg.audit.evidence import file_stem, load_evidence
from medseg.audit.folds import Fold, run_fold
from medseg.audit.patients import patient_of, read_cases
from medseg.audit.worklist import read_worklist
from medseg.bundles.find import Bundle
from medseg.bundles.trust import trusted_bundle
from medseg.errors import InputError
from medseg.files import load_json, make_folder, no_empty_folders, own_folder, plain, write_csv, write_json
from medseg.metrics.intervals import DRAWS, mean_interval

LOCK = "gold.lock.json"
COLUMNS = ("structure", "cases", "before", "after", "change", "low", "high")


@dataclass(frozen=True)
class FixRequest:
    """``corrected``: a folder with labels of the same names as in the datalist. ``gold``: a datalist whose
    list "gold" holds cases that are never trained on. ``output_dir``: the audit's, with its worklist; the
    rest as in its AuditRequest.
    """

    bundle: str
    data_dir: Path
    output_dir: Path
    corrected: Path
    gold: Path
    datalist: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    trust_bundle: bool = False


def fix(request: FixRequest, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Write OUT/fix/datalist.json, train before/ and after/, and write gold.csv and gold.json; returns the
    latter's content.

    Cases that the worklist rejects are left out of the new list. InputError when no label comes back, when a
    corrected file belongs to no case, when a gold patient is among the training cases, and when the gold set
    is not the locked one.
    """
    bundle = trusted_bundle(request.bundle, request.trust_bundle)
    if bundle.result_kind != "structures":
        raise InputError(
            f"{bundle.name} answers with {bundle.result_kind}, which a datalist holds; correct it there, "
            "train on it and compare by `medseg score`."
        )
    out = request.output_dir / "fix"
    made = [out / name / cases for name in ("before", "after") for cases in ("cases", "")]
    with own_folder(request.output_dir), no_empty_folders(*made, out):
        return _fix(request, bundle, report)


def _fix(request: FixRequest, bundle: Bundle, report: Callable[[str], None]) -> dict[str, Any]:
    items = read_cases(request.datalist or bundle.folder / "configs" / "datalist.json")
    gold = read_cases(request.gold, "gold")
    both = {patient_of(case) for case in gold} & {patient_of(case) for case in items}
    if both:
        raise InputError(
            f"{request.gold}: {', '.join(sorted(both)[:5])} in gold and training; gold is never trained on."
        )
    new, corrected, rejected = corrected_list(request, items)
    _lock(request, gold)
    out = request.output_dir / "fix"
    make_folder(out)
    write_json({"training": new, "validation": gold}, out / "datalist.json")
    scores = []
    for name, cases in (("before", items), ("after", new)):
        folder = out / name
        run_fold(
            Fold(
                bundle,
                request.data_dir,
                tuple(cases),
                tuple(gold),
                folder,
                folder / "cases",
                request.settings,
            ),
            report,
        )
        scores.append(
            {case["case_id"]: _dice(folder / "cases" / f"{file_stem(case['case_id'])}.npz") for case in gold}
        )
    rows = compare_gold(*scores, {case["case_id"]: patient_of(case) for case in gold})
    write_csv(rows, COLUMNS, out / "gold.csv")
    content = {
        "corrected": corrected,
        "rejected": rejected,
        "gold_cases": len(gold),
        "settings": dict(request.settings),
        "dice": plain(rows),
        "interval": f"95 % of {DRAWS} draws of the gold patients, both trainings on the same draw",
    }
    write_json(content, out / "gold.json")
    return content


def corrected_list(request: FixRequest, items: Sequence[dict]) -> tuple[list[dict], list[str], list[str]]:
    """(the cases with the corrected labels in place of theirs, names of the corrected, names of the
    rejected)."""
    if not request.corrected.is_dir():
        raise InputError(f"{request.corrected}: no such folder of corrected labels.")
    worklist = read_worklist(request.output_dir / "worklist.csv")
    unknown = sorted({case for case, _ in worklist} - {item["case_id"] for item in items})
    if unknown:
        raise InputError(
            f"{request.output_dir / 'worklist.csv'}: no case {', '.join(unknown[:5])} in the datalist."
        )
    rejected = sorted({case for (case, _), row in worklist.items() if row["status"] == "rejected"})
    new, corrected, used = [], [], set()
    for item in items:
        name = Path(item["label"])
        path = request.corrected / (name.name if name.is_absolute() else name)
        used.add(path)
        if item["case_id"] in rejected:
            continue
        if path.exists():
            corrected.append(item["case_id"])
            new.append({**item, "label": str(path.resolve())})
        else:
            new.append(item)
    stray = [
        path
        for path in sorted(request.corrected.rglob("*"))
        if path.is_file() and not used & {path, *path.parents}
    ]
    if stray:
        raise InputError(
            f"{stray[0]}: not the label of any case; corrected labels have the names of the datalist's."
        )
    if not corrected and not rejected:
        raise InputError(
            f"{request.corrected}: no label has the name of one in the datalist, such as {items[0]['label']}."
        )
    return new, corrected, rejected


def _lock(request: FixRequest, gold: Sequence[dict]) -> None:
    """Note the gold set's checksum at its first use; InputError when it is another one later."""
    words = hashlib.sha256(json.dumps(gold, sort_keys=True).encode())
    for case in gold:
        path = request.data_dir / case["label"]
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            words.update(file.read_bytes() if file.is_file() else b"")
    lock = request.output_dir / LOCK
    if not lock.exists():
        request.output_dir.mkdir(parents=True, exist_ok=True)
        write_json({"sha256": words.hexdigest(), "cases": [case["case_id"] for case in gold]}, lock)
    elif load_json(lock).get("sha256") != words.hexdigest():
        raise InputError(
            f"{request.gold}: not the gold set that was locked in {lock}; a result on another set would not "
            f"compare."
        )


def _dice(path: Path) -> dict[str, float]:
    """{structure: Dice of its label with the prediction cut at 0.5} of the contoured structures of a case."""
    evidence = load_evidence(path)
    return {
        name: dice_of(evidence.label[number], evidence.probability[number] >= 0.5)
        for number, name in enumerate(evidence.names)
        if evidence.known[number]
    }


def compare_gold(
    before: Mapping[str, Mapping[str, float]],
    after: Mapping[str, Mapping[str, float]],
    patients: Mapping[str, str],
) -> list[dict]:
    """For each structure, and for "mean": gold cases, mean Dice before and after, and the change with its 95
    % interval.

    ``before`` and ``after``: {case: {structure: Dice}}; ``patients``: {case: patient}. "mean": each case's
    mean over its structures. Without nan; of one patient there is no interval.
    """
    names = list(dict.fromkeys(name for scores in before.values() for name in scores))
    pairs = {
        name: [(before[case].get(name, math.nan), after[case].get(name, math.nan)) for case in before]
        for name in names
    }
    pairs["mean"] = [
        tuple(
            float(np.nanmean(list(scores[case].values()))) if scores[case] else math.nan
            for scores in (before, after)
        )
        for case in before
    ]
    owners, rows = [patients[case] for case in before], []
    for name, values in pairs.items():
        scores = np.array(values, dtype=float)
        known = ~np.isnan(scores).any(axis=1)
        if not known.any():
            continue
        change = mean_interval(np.where(known, scores[:, 1] - scores[:, 0], np.nan), owners)
        means = scores[known].mean(axis=0).tolist()
        rows.append(dict(zip(COLUMNS, (name, int(known.sum()), *means, *change), strict=True)))
    return rows
