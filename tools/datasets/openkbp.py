"""Write the datalist of the bundle ct_head_neck: which OpenKBP patient trains, validates and tests.

    python tools/datasets/openkbp.py DATASET_DIR monai_bundles/ct_head_neck/configs/datalist.json --seed 123

DATASET_DIR holds dataset.json and pt_N/ct.nii.gz, pt_N/structures.nii.gz (a bit field); one case per patient.
The rule, fixed before any training: patients in the order of their numbers are shuffled with the seed; the
first 20 test, the next 12 validate, the rest train. A shuffle that leaves a section fewer than 80 % of its
share of any structure is discarded and drawn again. Every case lists under ``present`` the structures that
were contoured in it; the others may be in the body all the same. Names follow TG-263; the planning targets of
all dose levels are one structure, PTV.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

NAMES = {
    "Brainstem": "Brainstem",
    "SpinalCord": "SpinalCord",
    "RightParotid": "Parotid_R",
    "LeftParotid": "Parotid_L",
    "Esophagus": "Esophagus",
    "Larynx": "Larynx",
    "Mandible": "Bone_Mandible",
    "PTV56": "PTV",
    "PTV63": "PTV",
    "PTV70": "PTV",
}
LEAST_SHARE = 0.8


def entry(case: dict) -> dict:
    """The datalist's case of one case of dataset.json."""
    present = list(dict.fromkeys(NAMES[name] for name in case["present"]))
    folder = case["id"]
    return {
        "image": f"{folder}/ct.nii.gz",
        "label": f"{folder}/structures.nii.gz",
        "case_id": folder,
        "present": present,
    }


def counts(cases: list[dict]) -> dict[str, int]:
    """{structure: cases in which it is contoured}, in the order of NAMES."""
    return {name: sum(name in case["present"] for case in cases) for name in dict.fromkeys(NAMES.values())}


def split(cases: list[dict], sizes: dict[str, int], seed: int) -> tuple[dict[str, list[dict]], int]:
    """({section: cases} and the number of shuffles drawn) by the rule above; ``sizes`` go to the front of the
    shuffle."""
    draw, whole = random.Random(seed), counts(cases)
    for drawn in range(1, 1001):
        rest = draw.sample(cases, len(cases))
        sections = {}
        for name, size in sizes.items():
            sections[name], rest = rest[:size], rest[size:]
        sections["training"] = rest
        if all(
            counts(part)[structure] >= LEAST_SHARE * number * len(part) / len(cases)
            for part in sections.values()
            for structure, number in whole.items()
        ):
            return {name: sorted(part, key=_number) for name, part in sections.items()}, drawn
    raise ValueError(
        "1000 shuffles and every one leaves a section too few of some structure; use larger sections"
    )


def _number(case: dict) -> int:
    return int(case["case_id"].removeprefix("pt_"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--test", type=int, default=20, help="number of test patients")
    parser.add_argument("--validation", type=int, default=12, help="number of validation patients")
    parser.add_argument("--seed", type=int, default=123)
    args = parser.parse_args()

    source = json.loads((args.dataset_dir / "dataset.json").read_text(encoding="utf-8"))
    cases = sorted(map(entry, source["training"]), key=_number)
    sections, drawn = split(cases, {"test": args.test, "validation": args.validation}, args.seed)
    datalist = {
        "description": f"One case per patient; shuffled with the seed, {args.test} test, {args.validation} "
        f"validate, the rest train; shuffle {drawn} is the first that leaves every section "
        f"{LEAST_SHARE:.0%} of its share of every structure.",
        "seed": args.seed,
        **{name: sections[name] for name in ("training", "validation", "test")},
    }
    lines = json.dumps(datalist, indent=4)
    args.out.write_text(lines + "\n", encoding="utf-8")
    for name in ("training", "validation", "test"):
        print(
            f"{name}: {len(sections[name])} cases; "
            f"{', '.join(f'{k} {v}' for k, v in counts(sections[name]).items())}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
