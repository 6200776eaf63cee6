"""Fit the gate of a bundle to what it learned from, and say how often it refuses what it should take.

    python tools/gates/fit.py ct_head_neck DATASET_DIR
    python tools/gates/fit.py mm_gtv DATASET_DIR
    python tools/gates/fit.py ct_nodule DATASET_DIR
    python tools/gates/fit.py cxr_anatomy DATASET_DIR --also CXR/nih_mass_nodule/images
    python tools/gates/fit.py eye_lesion DATASET_DIR
    python tools/gates/fit.py hip_osteoporosis DATASET_DIR
    python tools/gates/fit.py hip_osteoporosis DATASET_DIR --into MY_BUNDLE --datalist LIST \\
        --learned-from "radiographs of hips of our clinic"

DATASET_DIR is what the bundle's datalist counts from. The last gives a copy of a bundle (`medseg bundles
copy`) the gate of its own images; the copy asks for --trust-bundle once more after that.

Mean and covariance of the look's numbers come from the training patients. The limit is the greatest
distance of a validation patient, and of all but 5 % of the images of ``--also``, times the bundle's slack:
1.1, but 1.5 where the training images are blanked outside the body and whole scans are not, and where all
are of one camera. The bands of HU reach from a quarter of the lowest to four times the highest share in
training, since they only have to tell Hounsfield units from other numbers. The rules of a film (metal,
blur, text) and the least margin of its posture leave room beyond the furthest training or validation film.
Every random region is drawn with a seed. Writes configs/gate.json of the bundle and prints the rates of the
model card.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from medseg.bundles.find import find_bundle, read_json
from medseg.cases.nifti import load_image
from medseg.cases.photograph import open_photograph
from medseg.cases.radiograph import open_radiograph
from medseg.cases.volume import open_case
from medseg.errors import InputError
from medseg.transforms.film_faults import RULES
from medseg.transforms.gate import Band
from medseg.transforms.likeness import LOOKS, coarse_ct, distances, small_film
from medseg.transforms.posture import posture_likenesses, posture_margin
from medseg.transforms.readers import CaseReader

ANY_HU = (-100000, 100000)
BANDS = (
    ("of air or fat", (-100000, -50), ANY_HU, "least"),
    ("of all above air like soft tissue", (-200, 200), (-500, 100000), "least"),
    ("of all above air like dense bone or metal", (900, 100000), (-500, 100000), "most"),
)
"""What, in which HU, of which HU, and which end of its share a sound image keeps to."""

FEWEST_VALUES = 64
REGIONS, REGION_MARGINS_MM = 8, (5.0, 40.0)
SHRINKAGE = 0.1
LEAST_VARIANCE = 1e-4
"""Of a number that is the same in all training images, as the black corners of a phantom are."""

RULE_ROOM = {"metal": (2.0, 0.002), "blur": (1.0, -0.4), "text": (1.5, 0.0005)}
"""{rule: what the furthest sound film's number is taken times, and what is added}."""

POSTURE_ROOM = 0.01
"""Taken from the least margin by which a sound film looks to lie as it is said to."""

FOLDS = 8
LARGEST_REFUSED = 0.05


@dataclass(frozen=True)
class Kind:
    """What a bundle's gate says that no image tells: words, tags, look and how much slack its limit has."""

    learned_from: str
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    look: str
    slack: float
    shrinkage: float = SHRINKAGE
    film_rules: tuple[str, ...] = ()
    one_side: bool = False


KINDS = {
    "ct_head_neck": Kind("planning CTs of the head and neck", ("CT",), ("head", "neck"), "neck", 1.5),
    "mm_gtv": Kind("regions around sarcomas of the limbs on CT", ("CT",), ("limb", "pelvis"), "tissue", 1.1),
    "ct_nodule": Kind("phantoms of chest CTs", ("CT",), ("chest",), "tissue", 1.5),
    "cxr_anatomy": Kind(
        "frontal radiographs of the chest", ("CR", "DX", "RG"), ("chest",), "film", 1.1, shrinkage=0.3
    ),
    "hip_osteoporosis": Kind(
        "phantoms of hip radiographs",
        ("CR", "DX", "RG"),
        ("limb", "pelvis"),
        "film",
        1.1,
        shrinkage=0.3,
        film_rules=("metal", "blur", "text"),
        one_side=True,
    ),
    "eye_lesion": Kind("photographs of the back of the eye", ("OP", "XC"), ("eye", "head"), "fundus", 1.5),
}


@dataclass(frozen=True)
class Sample:
    """One patient's image: ``rows`` of numbers of each view of it, and the sizes of those in mm."""

    name: str
    rows: tuple[np.ndarray, ...]
    sides_mm: tuple[tuple[float, ...], ...] = ()
    shares: tuple[float, ...] = ()


# ---- numbers of images -------------------------------------------------------------------------------------


def ct_sample(entry: dict, data: Path, kind: Kind) -> Sample:
    """The whole image, or, for a bundle that wants a region, boxes around the label's mask as well."""
    case = open_case(str(data / entry["image"]))
    array, meta = CaseReader().get_data(case)
    affine = np.asarray(meta["affine"])
    voxel_mm = np.linalg.norm(affine[:3, :3], axis=0)
    boxes = [tuple(slice(0, n) for n in array.shape)]
    if kind.look == "tissue" and isinstance(entry["label"], str):
        label = np.asarray(load_image(data / entry["label"])[1]) > 0
        rng = np.random.default_rng(sum(entry["case_id"].encode()))
        boxes += list(regions(label, voxel_mm, rng))
    views = [array[box] for box in boxes]
    look = LOOKS[kind.look].numbers
    rows = tuple(look(*coarse_ct(torch.from_numpy(np.ascontiguousarray(v)), affine)) for v in views)
    sides = tuple(tuple(np.array(view.shape) * voxel_mm) for view in views)
    values = case.volume.ravel()
    shares = tuple(share(values, Band("", hu, of_hu, (0, 1))) for _, hu, of_hu, _ in BANDS)
    return Sample(entry["case_id"], rows, sides, shares)


def regions(label: np.ndarray, voxel_mm: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[slice, ...]]:
    """Boxes around a label, each side moved out by a margin of its own, as a planner would mark it."""
    found = np.argwhere(label)
    low, high = found.min(0), found.max(0) + 1
    for _ in range(REGIONS):
        out = np.round(rng.uniform(*REGION_MARGINS_MM, (2, 3)) / voxel_mm).astype(int)
        yield tuple(slice(max(a, 0), b) for a, b in zip(low - out[0], high + out[1], strict=True))


def share(values: np.ndarray, band: Band) -> float:
    among = (values >= band.of_hu[0]) & (values < band.of_hu[1])
    return float((among & (values >= band.hu[0]) & (values < band.hu[1])).sum() / max(among.sum(), 1))


def film_samples(paths: list[tuple[str, Path]], template: np.ndarray) -> list[Sample]:
    numbers = LOOKS["film"].numbers
    return [
        Sample(name, (numbers(torch.from_numpy(open_radiograph(path).pixels), template),))
        for name, path in paths
    ]


def photograph_samples(paths: list[tuple[str, Path]]) -> list[Sample]:
    pixels = ((name, open_photograph(path).pixels.transpose(2, 0, 1)) for name, path in paths)
    numbers = LOOKS["fundus"].numbers
    return [Sample(name, (numbers(torch.from_numpy(np.ascontiguousarray(p)), None),)) for name, p in pixels]


def mean_film(paths: list[tuple[str, Path]]) -> np.ndarray:
    """The mean of the training films and of their mirror images."""
    films = [small_film(torch.from_numpy(open_radiograph(path).pixels)) for _, path in paths]
    mean = np.mean(films, axis=0)
    return np.round((mean + mean[:, ::-1]) / 2, 3)


def rule_limits(names: tuple[str, ...], paths: list[Path]) -> dict[str, float]:
    """{rule: limit}, from the furthest of sound films; see RULE_ROOM."""
    films = [open_radiograph(path).pixels for path in paths]
    limits = {}
    for name in names:
        numbers = [RULES[name].number(film) for film in films]
        furthest_of_all = max(numbers) if RULES[name].end == "most" else min(numbers)
        times, more = RULE_ROOM[name]
        limits[name] = float(f"{times * furthest_of_all + more:.3g}")
    return limits


def posture(cases: dict[str, list[dict]], data: Path) -> dict[str, list | float]:
    """The mean of the training films, all as left ones, and the least margin of posture of training and
    validation films."""

    def as_left(case: dict) -> np.ndarray:
        film = open_radiograph(data / case["image"])
        header = {} if film.stored is None else film.stored.header
        side = case.get("side") or header.get("ImageLaterality") or header.get("Laterality")
        if side not in ("L", "R"):
            raise InputError(f"{case['image']}: neither the datalist nor the image says which side it is.")
        small = small_film(torch.from_numpy(film.pixels))
        return small[:, ::-1] if side == "R" else small

    films = {section: [as_left(case) for case in cases[section]] for section in ("training", "validation")}
    template = np.round(np.mean(films["training"], axis=0), 3)
    margins = [
        posture_margin(posture_likenesses(film, template), "L") for some in films.values() for film in some
    ]
    return {
        "left_template": template.tolist(),
        "least_posture_margin": float(f"{min(margins) - POSTURE_ROOM:.3g}"),
    }


# ---- the fit -----------------------------------------------------------------------------------------------


def first_guess(rows: np.ndarray, look: str) -> np.ndarray:
    """The row to begin with: of a neck the height that is narrowest beside those below and above."""
    return rows[int((rows[:, 2] - (rows[:, 0] + rows[:, 4]) / 2).argmin())] if look == "neck" else rows[0]


def fit(samples: list[Sample], kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """(mean, covariance) over the best row of every view, in three rounds, since they decide what is best."""
    views = [rows for sample in samples for rows in sample.rows if len(rows)]
    chosen = np.array([first_guess(rows, kind.look) for rows in views])
    for _ in range(3):
        mean, covariance = chosen.mean(0), np.cov(chosen.T)
        alone = np.diag(np.maximum(np.diag(covariance), LEAST_VARIANCE))
        covariance = (1 - kind.shrinkage) * covariance + kind.shrinkage * alone
        chosen = np.array([rows[distances(rows, mean, covariance).argmin()] for rows in views])
    return mean, covariance


def furthest(sample: Sample, mean: np.ndarray, covariance: np.ndarray) -> float:
    """The distance of a patient's least likely view; infinite where a view has no row."""
    return max(distances(rows, mean, covariance).min() if len(rows) else np.inf for rows in sample.rows)


def held_out(samples: list[Sample], kind: Kind) -> list[float]:
    """Each training patient's distance from a fit without an eighth of the patients, that one among them."""
    found = []
    for fold in range(FOLDS):
        rest = fit([s for n, s in enumerate(samples) if n % FOLDS != fold], kind)
        found += [furthest(s, *rest) for n, s in enumerate(samples) if n % FOLDS == fold]
    return found


def rate(far: list[float], limit: float) -> str:
    refused = sum(value > limit for value in far)
    finite = [value for value in far if np.isfinite(value)]
    return f"{refused} of {len(far)} refused ({100 * refused / len(far):.1f} %), furthest {max(finite):.2f}"


def bands(samples: list[Sample]) -> list[dict]:
    shares = np.array([sample.shares for sample in samples])
    rows = []
    for column, (what, hu, of_hu, end) in enumerate(BANDS):
        low = shares[:, column].min() / 4 if end == "least" else 0.0
        high = min(4 * shares[:, column].max(), 1.0) if end == "most" else 1.0
        rows.append({"what": what, "hu": hu, "of_hu": of_hu, "share": [round(low, 4), round(high, 4)]})
    return rows


def sizes(samples: list[Sample], kind: Kind) -> dict[str, list[float]]:
    """Of a region: no side shorter than half the shortest in training. Of a head and neck: room for the look,
    and half as long again as the longest in training."""
    sides = np.array([side for sample in samples for side in sample.sides_mm])
    if kind.look == "tissue":
        return {"shortest_mm": [float(np.floor(sides.min() / 2))] * 3}
    return {
        "shortest_mm": [100.0, 100.0, 135.0],
        "longest_mm": [1000.0, 1000.0, float(np.ceil(1.5 * sides[:, 2].max()))],
    }


def fit_gate(kind: Kind, datalist: Path, data: Path, also: list[Path], report: Callable[[str], None]) -> dict:
    """The content of gate.json but for the command; ``report`` gets the rates, a line for each set of
    images. InputError for a datalist without training or validation."""
    listed = read_json(datalist)
    for section, least in (("training", 2), ("validation", 1)):
        if not isinstance(listed, dict) or len(listed.get(section) or []) < least:
            raise InputError(f"{datalist}: fewer than {least} cases under {section!r}; the fit needs both.")
    sections = [section for section in ("training", "validation", "test") if listed.get(section)]
    extra: dict[str, np.ndarray | list] = {}
    others: dict[str, list[Sample]] = {}
    if kind.look == "film":
        paths = {s: [(row["case_id"], data / row["image"]) for row in listed[s]] for s in sections}
        template = mean_film(paths["training"])
        sets = {section: film_samples(rows, template) for section, rows in paths.items()}
        for place in also:
            films = [(path.stem, path) for path in sorted(place.iterdir())]
            others[place.parent.name] = film_samples(films, template)
        extra["template"] = template.tolist()
        sound = [path for section in ("training", "validation") for _, path in paths[section]]
        extra |= {"film_rules": rule_limits(kind.film_rules, sound)} if kind.film_rules else {}
        extra |= posture(listed, data) if kind.one_side else {}
    elif kind.look == "fundus":
        paths = {s: [(row["case_id"], data / row["image"]) for row in listed[s]] for s in sections}
        sets = {section: photograph_samples(rows) for section, rows in paths.items()}
    else:
        sets = {section: [ct_sample(row, data, kind) for row in listed[section]] for section in sections}
        extra = {"fewest_values": FEWEST_VALUES, "bands": bands(sets["training"])}
        extra |= sizes(sets["training"], kind)
    mean, covariance = fit(sets["training"], kind)
    far = {
        section: [furthest(s, mean, covariance) for s in rows] for section, rows in (sets | others).items()
    }
    calibrating = [max(far["validation"])]
    calibrating += [float(np.quantile(far[key], 1 - LARGEST_REFUSED, method="higher")) for key in others]
    limit = round(kind.slack * max(calibrating), 1)
    far["training, held out of the fit in turn"] = held_out(sets["training"], kind)
    for section, values in far.items():
        report(f"{section}: {rate(values, limit)}")
    return {
        "learned_from": kind.learned_from,
        "modalities": kind.modalities,
        "body_parts": kind.body_parts,
        **extra,
        "look": kind.look,
        "limit": limit,
        "mean": [float(f"{value:.5g}") for value in mean],
        "covariance": [[float(f"{value:.5g}") for value in row] for row in covariance],
        "fitted": {
            "numbers": LOOKS[kind.look].names,
            "slack": kind.slack,
            **{section: rate(values, limit) for section, values in far.items()},
        },
    }


def lines(content: dict) -> str:
    """JSON with a row of numbers on one line each, for people to read."""
    parts = []
    for key, value in content.items():
        if key in ("covariance", "template", "left_template", "bands"):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f' "{key}": [\n{rows}\n ]')
        elif key == "fitted":
            rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            parts.append(f' "{key}": {{\n{rows}\n }}')
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; 0 on success, 2 for input that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", choices=tuple(KINDS))
    parser.add_argument("data", type=Path, metavar="DATASET_DIR")
    parser.add_argument(
        "--also", type=Path, action="append", default=[], help="whole films that must be taken too"
    )
    parser.add_argument("--into", type=Path, metavar="BUNDLE", help="a copy of the bundle that gets the gate")
    parser.add_argument(
        "--datalist", type=Path, metavar="LIST", help="with --into: what the copy learned from"
    )
    parser.add_argument(
        "--learned-from", metavar="WORDS", help="with --into: the same in words, for refusals"
    )
    options = parser.parse_args(arguments)
    own = (options.into, options.datalist, options.learned_from)
    if any(own) and not all(own):
        parser.error("--into, --datalist and --learned-from go together")
    kind, command = KINDS[options.bundle], f"python tools/gates/fit.py {options.bundle} DATASET_DIR"
    command += "".join(f" --also {place.parent.name}/{place.name}" for place in options.also)
    folder = options.into or find_bundle(options.bundle).folder
    datalist = options.datalist or folder / "configs" / "datalist.json"
    if options.into:
        kind = replace(kind, learned_from=options.learned_from)
        command += f" --into {folder.name} --datalist {datalist.name} --learned-from {options.learned_from!r}"
    out = folder / "configs" / "gate.json"
    try:
        if not out.is_file():
            raise InputError(f"{folder}: no configs/gate.json; expected a copy of {options.bundle}.")
        content = fit_gate(kind, datalist, options.data, options.also, print)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content["fitted"] = {"command": command, **content["fitted"]}
    out.write_text(lines(content), encoding="utf-8")
    print(f"{out}: limit {content['limit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
