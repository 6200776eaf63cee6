"""Check the published split of ChestX-Det for patients on both sides, and write a datalist split by patient.

    python tools/datasets/chestx_det.py chestx_det.json.gz
    python tools/datasets/chestx_det.py chestx_det.json.gz --images NIH_IMAGES -o datalist.json --seed 123

The images are NIH's own (https://nihcc.app.box.com/v/ChestXray-NIHCC), at 1024 x 1024 pixels; of those that
NIH_IMAGES holds, a tenth of the patients validates, a fifth tests and the rest trains, each with all films.
The patient is the first 8 digits of the NIH name; the 35 images without one are left out.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from datalists import write_datalist

from medseg.cases.box_sources import boxes_of, read_chestx_det
from medseg.errors import InputError

NIH_NAME = re.compile(r"(\d{8})_\d{3}\.png")


def patients_of(sections: Mapping[str, str]) -> dict[str, set[str]]:
    """{section: patients} of {image: section}; an image without an NIH name has no known patient."""
    found: dict[str, set[str]] = {}
    for image, section in sections.items():
        known = NIH_NAME.fullmatch(image)
        if known:
            found.setdefault(section, set()).add(known[1])
    return found


def say_leak(sections: Mapping[str, str]) -> str:
    """One line about patients that stand on both sides of the published split."""
    patients = patients_of(sections)
    both = patients.get("train", set()) & patients.get("test", set())
    counts = {name: len(patients.get(name, ())) for name in ("train", "test")}
    return f"{len(both)} of {counts['test']} test patients are also in training ({counts['train']} patients)"


def split(path: Path, images: Path, seed: int) -> dict[str, list[dict]]:
    """{section: cases} of the images that are there, by the rule above."""
    findings, _ = read_chestx_det(path)
    by_image: dict[str, list] = {}
    for finding in findings:
        if NIH_NAME.fullmatch(finding.image) and (images / finding.image).is_file():
            by_image.setdefault(finding.image, []).append(finding)
    patients = sorted({image[:8] for image in by_image})
    if len(patients) < 10:
        raise InputError(
            f"{images}: {len(patients)} patients of ChestX-Det; expected NIH's images, 10 or more."
        )
    random.Random(seed).shuffle(patients)
    ends = len(patients) // 5, len(patients) // 5 + len(patients) // 10
    chosen = {
        "training": set(patients[ends[1] :]),
        "validation": set(patients[ends[0] : ends[1]]),
        "test": set(patients[: ends[0]]),
    }
    return {
        section: [
            {"image": image, "label": boxes_of(own), "case_id": image[:-4], "patient_id": image[:8]}
            for image, own in sorted(by_image.items())
            if image[:8] in ids
        ]
        for section, ids in chosen.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", type=Path, help="folder of NIH's images")
    parser.add_argument("-o", dest="out", type=Path, help="the datalist to write")
    parser.add_argument("--seed", type=int, default=123)
    options = parser.parse_args()
    try:
        print(say_leak(read_chestx_det(options.annotations)[1]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out is None or options.images is None:
        return 0
    words = "Patients shuffled with the seed: a fifth tests, a tenth validates, the rest trains."
    return write_datalist(
        lambda: (words, split(options.annotations, options.images, options.seed)),
        options.seed,
        options.out,
        "films",
    )


if __name__ == "__main__":
    sys.exit(main())
