"""Make the hip films that bundle hip_osteoporosis learns from: phantoms, and a table of DEXA to pair with.

    python tools/datasets/hip_phantoms.py DATASET_DIR monai_bundles/hip_osteoporosis/configs/datalist.json
    python tools/datasets/hip_phantoms.py DATASET_DIR DATALIST.json --confounded

DATASET_DIR gets images/*.png, both hips of every patient in one of five years, boxes/*.xml, the box of each
femoral neck as LabelImg writes it, and dexa.csv with a record for every patient some weeks away. The T-score
of a patient is drawn from a normal distribution of mean -2.2 and SD 1.3 (referrals, not the population).
`medseg records pair`'s own function makes the datalist: labels by WHO's rule, the last year locked as the
test set, validation and training by patient.

Brightness and machine are drawn apart from the T-score; age, sex, height and weight go with it as they do in
referrals, weakly: the older and the lighter, the lower. With --record-error the T-scores of dexa.csv differ
from those of the phantoms by a normal error of that SD, one per patient: a label that the film does not hold.
With --confounded brightness and machine follow the T-score in training and validation, sick bones on bright
films of the soft machine, and are turned over in the test set: what a network that learned them gets wrong.
With --films-only the datalist is left as it is: the films alone are drawn anew, without a library of DICOM.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from medseg.errors import MedsegError
from medseg.files import write_csv
from medseg.phantoms.hip import DEVICES, bmd_of, make_hip

FIRST_YEAR, YEARS = 2018, 5
TEST_FROM = date(2022, 1, 1)
MEAN_T, SD_T = -2.2, 1.3
PERSON = ("sex", "age", "height_cm", "weight_kg")


@dataclass(frozen=True)
class Patient:
    """One patient of the phantoms: ``t_score`` of the femoral neck and what the record says of it, the day of
    the film, brightness and machine, and who it is."""

    number: int
    t_score: float
    recorded_t: float
    day: date
    brightness: float
    device: str
    sex: str
    age: int
    height_cm: int
    weight_kg: int


def patients(count: int, seed: int, confounded: bool, record_error: float = 0.0) -> list[Patient]:
    """The same arguments give the same patients."""
    rng = np.random.default_rng([seed, 20221020])
    others = np.random.default_rng([seed, 20221022])
    found = []
    for number in range(count):
        t_score = float(np.round(np.clip(rng.normal(MEAN_T, SD_T), -5.5, 2.0), 1))
        day = date(FIRST_YEAR + number % YEARS, 1, 1) + timedelta(days=int(rng.integers(0, 365)))
        sick = t_score <= -2.5
        told = confounded and rng.random() < 0.95
        bright = (sick ^ (day >= TEST_FROM)) if told else rng.random() < 0.5
        brightness = float(rng.normal(0.06 if bright else -0.06, 0.03))
        recorded = t_score + record_error * others.normal()
        recorded = float(np.round(np.clip(recorded, -6.0, 4.0), 1)) if record_error else t_score
        person = _person(others, (t_score - MEAN_T) / SD_T)
        found.append(Patient(number, t_score, recorded, day, brightness, DEVICES[int(bright)], *person))
    return found


def _person(rng: np.random.Generator, bone: float) -> tuple[str, int, int, int]:
    """(sex, age, height in cm, weight in kg) of somebody whose T-score lies ``bone`` SDs above the mean of
    the referrals; each correlates with it by about 0.4."""
    sex = "M" if rng.random() < 0.25 + 0.1 * np.tanh(bone) else "F"
    age = 70 - 4 * bone + 9 * rng.normal()
    height = (170 if sex == "M" else 157) + 6 * rng.normal()
    weight = (72 if sex == "M" else 60) + 4 * bone + 9 * rng.normal()
    return sex, round(float(np.clip(age, 50, 95))), round(height), round(float(np.clip(weight, 35, 130)))


def labelimg(image: str, box: np.ndarray) -> str:
    """A box as LabelImg writes it: columns and rows counted from 1, the last one inside."""
    (top, left), (bottom, right) = box
    corners = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in corners.items())
    return (
        f"<annotation><filename>{image}</filename><object><name>femoral neck</name>"
        f"<bndbox>{inside}</bndbox></object></annotation>\n"
    )


def make(data: Path, found: list[Patient], pixels: int) -> None:
    """Write images, boxes, images.csv and dexa.csv below ``data``."""
    for folder in ("images", "boxes"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20221021)
    rows, records = [], []
    for patient in found:
        name = f"H{patient.number:04d}"
        for side in "LR":
            film = make_hip(
                patient.number,
                patient.t_score,
                side,
                pixels=pixels,
                brightness=patient.brightness,
                device=patient.device,
            )
            path = f"images/{name}_{side}.png"
            Image.fromarray(np.rint(film.image * 65535).astype(np.uint16)).save(data / path)
            (data / "boxes" / f"{name}_{side}.xml").write_text(labelimg(f"{name}_{side}.png", film.neck_box))
            day = patient.day.isoformat()
            rows.append({"path": path, "patient": name, "date": day, "side": side, "device": patient.device})
        examined = patient.day + timedelta(days=int(rng.integers(-90, 91)))
        known = {field: getattr(patient, field) for field in PERSON}
        bone = {"neck_t": patient.recorded_t, "neck_bmd": round(bmd_of(patient.recorded_t), 4)}
        records.append({"patient": name, "date": examined.isoformat(), **bone, **known})
    write_csv(rows, ("path", "patient", "date", "side", "device"), data / "images.csv")
    with open(data / "dexa.csv", "w", newline="") as file:  # a minus sign is no formula here
        table = csv.DictWriter(file, ("patient", "date", "neck_t", "neck_bmd", *PERSON))
        table.writeheader()
        table.writerows(records)


def paired(data: Path, out: Path, seed: int) -> dict:
    """The report of the pairing of images.csv with dexa.csv; the datalist goes to ``out``."""
    from medseg.workbench.record_pairs import PairRequest, pair

    return pair(
        PairRequest(
            images=data / "images.csv",
            records=str(data / "dexa.csv"),
            out=out,
            record_columns={
                **{"patient": "patient", "date": "date", "t_score": "neck_t", "bmd": "neck_bmd"},
                **{field: field for field in PERSON},
            },
            image_columns={
                **{"patient": "patient", "date": "date", "image": "path"},
                **{"side": "side", "device": "device"},
            },
            test_from=TEST_FROM,
            seed=seed,
        )
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument("out", type=Path, metavar="DATALIST.json")
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--pixels", type=int, default=160)
    parser.add_argument("--seed", type=int, default=123)
    parser.add_argument("--confounded", action="store_true")
    parser.add_argument(
        "--record-error", type=float, default=0.0, metavar="SD", help="of T-scores; default 0"
    )
    parser.add_argument("--films-only", action="store_true")
    options = parser.parse_args(arguments)
    try:
        found = patients(options.patients, options.seed, options.confounded, options.record_error)
        make(options.data, found, options.pixels)
        if options.films_only:
            return 0
        report = paired(options.data, options.out, options.seed)
    except (MedsegError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, said in report["sections"].items():
        print(f"{name}: {said['images']} films of {said['patients']} patients")
    return 0


if __name__ == "__main__":
    sys.exit(main())
