"""Plant wrong labels whose truth is known: in a dataset before its audit, or in an audit that is finished;
and put them back as a reviewer would. Used by evaluate.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.audit.evidence import Evidence, save_evidence
from medseg.bundles.find import find_bundle
from medseg.errors import InputError
from medseg.files import atomic_path
from medseg.training.noisy.noise import Corruption, corrupt

KINDS = ("shift", "dilate", "erode", "cropped", "gap", "wrong_organ")
SHIFT_MM, MOVE_MM, MOST_DICE = (9.0, 24.0), (4.0, 9.0), 0.85


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


def truth_of(record: dict, names: list[str], affine_ras: np.ndarray | None = None) -> dict:
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
                    **truth_of(record, names, image.affine),
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
                    **truth_of(record, list(case.names)),
                }
            )
        paths.append(save_evidence(replace(case, label=label), folder))
    return paths, key
