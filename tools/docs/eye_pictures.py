"""Write the pictures and the output of docs/how_to/fundus_photographs.md: phantoms, outlined by the bundle.

    python tools/docs/eye_pictures.py

Needs the weights of the bundle eye_lesion. Photographs and truth are phantoms (medseg.phantoms.fundus), so
that no patient's picture lies in the repository; the network has never seen any. `medseg segment` outlines
the first one, and `medseg score` all of them. Writes docs/pictures/eye_preview.jpg, eye_sheet.jpg and
eye_reliability.png, and what both commands print into the page.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from make_docs import ROOT, medseg
from page_section import put_section
from PIL import Image

from medseg.phantoms.fundus import make_fundus

PAGE = ROOT / "docs" / "how_to" / "fundus_photographs.md"
PICTURES = ROOT / "docs" / "pictures"
SIDE, WIDTH = 512, 1200
PATIENTS, HEALTHY = range(5), (4,)
"""The phantoms, and which of them have look-alikes only."""


def write_photographs(folder: Path) -> None:
    """photos/eye_N.png, masks/eye_N.png (1 exudate, 2 look-alike) and a datalist with a section test."""
    cases = []
    for patient in PATIENTS:
        name = f"eye_{patient}"
        photo = make_fundus(patient, 0, SIDE, lesions=patient not in HEALTHY)
        bits = photo.lesions + 2 * photo.look_alikes.astype(np.uint8)
        for kind, pixels in (("photos", np.rint(photo.image * 255)), ("masks", bits)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{name}.png")
        case = {"image": f"photos/{name}.png", "label": f"masks/{name}.png"}
        cases.append({**case, "case_id": name, "patient_id": name, "present": ["Exudate"]})
    (folder / "datalist.json").write_text(json.dumps({"test": cases}), encoding="utf-8")


def shrink(source: Path, out: Path) -> None:
    """A copy of at most WIDTH pixels across, as a page needs."""
    with Image.open(source) as picture:
        small = picture.convert("RGB")
    small.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.LANCZOS)
    small.save(out, quality=88, optimize=True)


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder)
        one = ["segment", "photos/eye_0.png", "--bundle", "eye_lesion", "-o", "OUT"]
        said = medseg(*one, cwd=folder)
        every = ["score", "eye_lesion", "--data", ".", "--datalist", "datalist.json", "-o", "SCORES"]
        scored = medseg(*every, cwd=folder)
        for source, out in (
            ("OUT/eye_0/preview.png", "eye_preview.jpg"),
            ("SCORES/Exudate_sheet.png", "eye_sheet.jpg"),
            ("SCORES/Exudate_reliability.png", "eye_reliability.png"),
        ):
            shrink(folder / source, PICTURES / out)
    text = f"```\n$ medseg {' '.join(one)}\n{said.rstrip()}\n```"
    put_section(
        PAGE, "segment output", f"{text}\n\n![The photograph and the outline](../pictures/eye_preview.jpg)"
    )
    pictures = (
        "![All phantoms, worst first](../pictures/eye_sheet.jpg)\n\n"
        "![What a probability is worth](../pictures/eye_reliability.png)"
    )
    put_section(PAGE, "score output", f"`medseg {' '.join(every)}`:\n\n{scored.rstrip()}\n\n{pictures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
