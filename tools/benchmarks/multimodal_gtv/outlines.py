"""How far the patient's outline on PET and MR lies from that on the CT: as the images are, and with the PET
moved by 10 mm within the slices, in a direction drawn for each patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medseg.cases.body_outlines import MOST_MM, outline_shift
from medseg.cases.find import find_cases
from medseg.cases.multimodal import Companion
from medseg.cases.volume import Case, open_case

FILES = {"PET": ("sts_pet", "pet_suv.nii.gz"), "MR": ("sts_mr", "mr_t1.nii.gz")}
MOVED_MM = 10.0


def rows(dataset_dir: Path, test_dir: Path) -> Iterator[dict]:
    """A row for each patient and image; ``mm`` is None where the outlines tell nothing."""
    rng = np.random.default_rng(0)
    training = [(path.parent.name, str(path)) for path in sorted(dataset_dir.glob("sts_gtv/*/ct.nii.gz"))]
    folders = sorted(path for path in test_dir.iterdir() if (path / "CT").is_dir())
    test = [(folder.name, find_cases(folder / "CT", "CT")[0][0][1]) for folder in folders]
    for part, patients in (("33 training", training), ("8 test", test)):
        for name, source in patients:
            ct = open_case(source)
            angle = rng.uniform(0, 2 * np.pi)
            moved = np.eye(4)
            moved[:2, 3] = -MOVED_MM * np.array([np.cos(angle), np.sin(angle)])
            for image, (place, file) in FILES.items():
                case = open_case(str(dataset_dir / place / name / file))
                yield {"part": part, "patient": name, "image": image, "mm": _mm(ct, case, np.eye(4))}
            case = open_case(str(dataset_dir / "sts_pet" / name / "pet_suv.nii.gz"))
            far = _mm(ct, case, moved)
            yield {"part": part, "patient": name, "image": f"PET moved by {MOVED_MM:g} mm", "mm": far}


def _mm(ct: Case, case: Case, matrix: np.ndarray) -> float | None:
    found = outline_shift(ct, Companion(case, case.volume, matrix, "", ""))
    return None if found is None else found.length_mm


def table(found: Sequence[dict]) -> str:
    """In Markdown: how many are told, how far they lie, which are warned of."""
    lines = [
        f"| patients | image | outlines told | median mm | largest mm | above {MOST_MM:g} mm |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for part, image in dict.fromkeys((row["part"], row["image"]) for row in found):
        own = [row for row in found if (row["part"], row["image"]) == (part, image)]
        told = [row for row in own if row["mm"] is not None]
        mm = [row["mm"] for row in told]
        far = [f"{row['patient']} {row['mm']:.1f}" for row in told if row["mm"] > MOST_MM]
        which = f" ({', '.join(far)})" if "moved" not in image and far else ""
        lines.append(
            f"| {part} | {image} | {len(told)} of {len(own)} | {np.median(mm):.1f} | {max(mm):.1f} | "
            f"{len(far)}{which} |"
        )
    return "\n".join(lines)
