"""A small data set of fundus phantoms as the bundle eye_lesion reads it: pictures, bit fields, a datalist."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from medseg.phantoms.fundus import make_fundus

LESION, LOOK_ALIKE = 1, 2


def write_photo(folder: Path, name: str, patient: int, side: int = 96, lesions: bool = True) -> dict:
    """images/<name>.png and masks/<name>.png below ``folder``; the datalist's case of them."""
    photo = make_fundus(patient, 0, side, lesions)
    field = photo.lesions * LESION + photo.look_alikes * LOOK_ALIKE
    for kind, pixels in (("images", np.rint(photo.image * 255)), ("masks", field)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{name}.png")
    return {
        "image": f"images/{name}.png",
        "label": f"masks/{name}.png",
        "case_id": name,
        "patient_id": name,
        "time_point": 1,
        "present": ["Exudate"],
    }


def write_dataset(folder: Path, train: int = 4, validate: int = 2, test: int = 2, **options) -> Path:
    """The datalist's path. The last case of each section has no lesion, if the section has several."""
    sections, number = {}, 0
    for section, count in (("training", train), ("validation", validate), ("test", test)):
        cases = []
        for place in range(count):
            clean = count > 1 and place == count - 1
            own = {**options, "lesions": options.get("lesions", not clean)}
            cases.append(write_photo(folder, f"p{number}", number, **own))
            number += 1
        sections[section] = cases
    (folder / "datalist.json").write_text(json.dumps(sections))
    return folder / "datalist.json"
