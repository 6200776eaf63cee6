"""What the gate of every bundle makes of every image under a folder, as the table of docs/reference/gates.md.

    python tools/gates/table.py DATA -o docs/reference/gates.md
    python tools/gates/table.py DATA --bundle eye_lesion     only this one's table; several may be named
    python tools/gates/table.py DATA --each cases.csv        also each image on a line, with the whole reason

DATA is searched for DICOM series, NIfTI files, pictures and DICOM radiographs. Every one goes through the
first steps of a bundle's own inference.json, up to the gate; no network runs. mm_gtv is shown each volume
whole, and regions around structures that lie beside it (10 mm around). The bundles of radiographs and
eye_lesion are shown every picture, and pictures made of what is there: fundus photographs made grey, slices
of CTs, films inverted or turned, phantoms of hips, and noise; photographs with exchanged or inverted colours,
tinted films, and fundus phantoms.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from medseg.bundles.config import build, load_config
from medseg.bundles.find import bundle_folders, find_bundle
from medseg.bundles.kinds import case_kind
from medseg.cases.find import find_cases, find_photographs, find_radiographs
from medseg.cases.nifti import is_nifti, load_image
from medseg.cases.photograph import open_photograph
from medseg.cases.radiograph import open_radiograph
from medseg.cases.volume import open_case, source_path
from medseg.dicom import read_rtstruct
from medseg.errors import GeometryError, InputError, MedsegError, MedsegWarning
from medseg.phantoms.fundus import make_fundus
from medseg.phantoms.hip import DEVICES, make_hip
from medseg.transforms import CheckInputd, CropWithind
from medseg.transforms.film_faults import RULES

MARGIN_MM = 10.0
TARGETS = ("GTV-1", "GTV_Mass_CT", "Lung L", "Spinal cord")
"""ROIs of structure sets beside a series that mm_gtv is asked to look around."""

OPENKBP_BITS = {"PTV70": 9, "Parotid": 2}
WHY = ("tag", "values", "size", "metal", "blur", "text", "look", "posture")
EVERY_SLICE, EVERY_PHOTOGRAPH, FILMS_TINTED = 6, 4, 40
HIPS, FIRST_HIP, GRAINS = 100, 9000, 20
"""How many phantoms of hips, the number of the first patient, whom no training saw, and how many sizes of
noise."""

TINT = np.array([0.9, 0.5, 0.2])
"""Red, green and blue of a retina."""


@dataclass(frozen=True)
class Answer:
    """What a bundle said of one image: ``why``, every rule that refused it; none where it is taken."""

    bundle: str
    group: str
    name: str
    why: tuple[str, ...]
    reason: str = ""


class Door:
    """A bundle's preprocessing up to the gate, built once."""

    def __init__(self, name: str):
        bundle = find_bundle(name)
        self.name, self.takes = name, case_kind(bundle)
        steps = build(bundle, load_config(bundle, "inference", {"device": "cpu"}), "preprocessing").transforms
        last = next(n for n, step in enumerate(steps) if isinstance(step, CheckInputd))
        self.steps = steps[: last + 1]

    def answer(
        self, group: str, name: str, source: str, within: str | None = None, side: str | None = None
    ) -> Answer:
        item = {"image": source, "side": side}
        for step in self.steps:
            if isinstance(step, CropWithind):
                step.within = within
            try:
                item = step(item)
            except (InputError, GeometryError) as error:
                said = str(error).removeprefix(f"{source}: ")
                why = ("reader",) if step is self.steps[0] else ("region",)
                why = _rules(said) if isinstance(step, CheckInputd) else why
                return Answer(self.name, group, name, why, said)
        return Answer(self.name, group, name, ())


def _rules(said: str) -> tuple[str, ...]:
    """Which rules of the gate refused, by their words."""
    clauses = said.split("learned from: ", 1)[-1].split("; ")
    marks = {
        "tag": ("modality", "BodyPartExamined"),
        "values": ("only", "its values"),
        "size": tuple("123456789"),
        "posture": ("it looks like", "it looks turned"),
        **{name: (rule.fault,) for name, rule in RULES.items()},
    }
    return tuple(
        dict.fromkeys(
            next((rule for rule, words in marks.items() if clause.startswith(words)), "look")
            for clause in clauses
        )
    )


# ---- what is shown -----------------------------------------------------------------------------------------


def volumes(data: Path, doors: list[Door]) -> Iterator[Answer]:
    """Every series and NIfTI file: whole to every bundle, and in regions to those that want one."""
    cases = find_cases(data)[0]
    names = Counter(source_path(source).name for _, source in cases)
    for name, source in cases:
        path = source_path(source).relative_to(data)
        group = "/".join(path.parts[:2])
        if is_nifti(path):  # a name that many patients have says what it is, else the folder does
            group += f", {path.name if names[path.name] > 2 else path.parent.name}"
        for door in doors:
            wanted = any(isinstance(step, CropWithind) and step.largest_mm for step in door.steps)
            yield door.answer(f"{group}; whole" if wanted else group, name, source)
            if wanted:
                for roi, box in regions(data, source):
                    yield door.answer(f"{group}; region {roi}", f"{name} {roi}", source, box)


def regions(data: Path, source: str) -> Iterator[tuple[str, str]]:
    """(structure, box in LPS mm) of what lies beside a volume: labels of NIfTI, ROIs of a structure set."""
    path = source_path(source)
    if path.name == "ct.nii.gz":
        for label in ("gtv", "structures"):
            file = path.with_name(f"{label}.nii.gz")
            if not file.is_file():
                continue
            values = np.asarray(load_image(file)[1]).transpose(2, 1, 0)
            bits = {"GTV": values > 0}
            if label == "structures":
                bits = {roi: (values.astype(int) >> bit & 1) > 0 for roi, bit in OPENKBP_BITS.items()}
            yield from ((roi, box_of(mask, open_case(source))) for roi, mask in bits.items() if mask.any())
    elif path.is_dir():
        try:
            case = open_case(source)
        except MedsegError:
            return
        for file in sorted(path.parent.rglob("*.dcm")):
            if path not in file.parents:
                try:
                    masks = read_rtstruct(file, case.series)
                except MedsegError:
                    continue
                for roi in TARGETS:
                    if roi in masks and masks[roi].any():
                        yield roi, box_of(masks[roi], case)


def box_of(mask: np.ndarray, case) -> str:
    """A planner's box around a mask, as `within` takes it."""
    found = np.argwhere(mask)
    corners = np.array([found.min(0), found.max(0)])
    points = np.concatenate(
        [case.geometry.points_lps_mm(int(z), corners[:, 1:].astype(float)) for z in corners[:, 0]]
    )
    low, high = points.min(0) - MARGIN_MM, points.max(0) + MARGIN_MM
    return ",".join(f"{value:.1f}" for pair in zip(low, high, strict=True) for value in pair)


def pictures(data: Path, doors: list[Door]) -> Iterator[Answer]:
    """Every picture and DICOM radiograph, and pictures made of what is there."""
    films = []
    for name, source in find_radiographs(data)[0]:
        group = str(Path(source).relative_to(data).parent)
        for door in doors:
            answer = door.answer(group, name, source)
            films += [source] if not answer.why and max(open_radiograph(source).shape) > 100 else []
            yield answer
    with tempfile.TemporaryDirectory() as folder:
        made = ((*picture, None) for picture in made_pictures(data, films))
        for number, (group, name, grey, side) in enumerate(itertools.chain(made, hips())):
            file = Path(folder) / f"{number}.png"
            Image.fromarray((np.clip(grey, 0, 1) * 255).astype(np.uint8)).save(file)
            for door in doors:
                yield door.answer(f"made: {group}", name, str(file), side=side)


def made_pictures(data: Path, films: list[str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(group, name, grey values 0 to 1 [row, column]) of pictures that are no upright frontal chest films."""
    for file in sorted(data.glob("fundus/*/images/*")):
        yield "fundus photographs in grey", file.name, np.asarray(Image.open(file).convert("L")) / 255
    for name, source in find_cases(data, "CT")[0]:
        try:
            volume = None if is_nifti(source) else open_case(source).volume
        except MedsegError:
            volume = None
        if volume is None:
            continue
        for index in range(0, len(volume), EVERY_SLICE):
            for window, (low, high) in {"soft": (-160, 240), "lung": (-1350, 150)}.items():
                yield "slices of CTs", f"{name} {index} {window}", (volume[index] - low) / (high - low)
    for film in films:
        pixels = open_radiograph(film).pixels
        yield "films inverted", film, 1 - pixels
        yield "films turned by 90 degrees", film, np.rot90(pixels)
        yield "films upside down", film, np.rot90(pixels, 2)
    rng = np.random.default_rng(0)
    for number in range(GRAINS):
        noise = ndimage.gaussian_filter(rng.random((256, 256)), number)
        yield f"noise of {GRAINS} grains", str(number), (noise - noise.min()) / np.ptp(noise)


def hips() -> Iterator[tuple[str, str, np.ndarray, str]]:
    """(group, name, grey values, stated side) of phantoms of hips as they stand, turned, and said to be of
    the other side."""
    for number in range(HIPS):
        side, other = ("L", "R") if number % 2 else ("R", "L")
        film = make_hip(FIRST_HIP + number, -2.0, side, pixels=160, device=DEVICES[number // 2 % 2]).image
        yield "hip phantoms", str(number), film, side
        yield "hip phantoms turned by 90 degrees", str(number), np.rot90(film), side
        yield "hip phantoms upside down", str(number), np.rot90(film, 2), side
        yield "hip phantoms, the other side stated", str(number), film, other


def photographs(data: Path, doors: list[Door]) -> Iterator[Answer]:
    """Every picture and DICOM photograph, and coloured pictures that are none of a fundus, or no camera's."""
    photos, films = [], []
    for name, source in find_photographs(data)[0]:
        group = str(Path(source).relative_to(data).parent)
        for door in doors:
            answer = door.answer(group, name, source)
            photos += [] if answer.why else [source]
            films += [source] if answer.why == ("reader",) and group.endswith("images") else []
            yield answer
    with tempfile.TemporaryDirectory() as folder:
        for number, (group, name, colours) in enumerate(made_photographs(photos, films)):
            file = Path(folder) / f"{number}.png"
            Image.fromarray((np.clip(colours, 0, 1) * 255).astype(np.uint8)).save(file)
            for door in doors:
                yield door.answer(f"made: {group}", name, str(file))


def made_photographs(photos: list[str], films: list[str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """(group, name, colours 0 to 1 [row, column, 3])."""
    for photo in photos[::EVERY_PHOTOGRAPH]:
        pixels = open_photograph(photo).pixels
        yield "photographs, red and blue exchanged", photo, pixels[..., ::-1]
        yield "photographs, colours inverted", photo, 1 - pixels
    for film in films[:: max(1, len(films) // FILMS_TINTED)]:
        yield "films, tinted like an eye", film, open_radiograph(film).pixels[..., None] * TINT
    rng = np.random.default_rng(0)
    for number in range(GRAINS):
        noise = ndimage.gaussian_filter(rng.random((256, 256, 3)), (number, number, 0))
        yield f"noise of {GRAINS} grains, coloured", str(number), (noise - noise.min()) / np.ptp(noise)
        yield "fundus phantoms", str(number), make_fundus(number, 0, 512).image


# ---- the table ---------------------------------------------------------------------------------------------


def table(answers: list[Answer]) -> str:
    """A table for each bundle, a row for each group of images."""
    lines = []
    for bundle in dict.fromkeys(answer.bundle for answer in answers):
        lines += [f"### {bundle}", "", f"| images | shown | accepted | reader | region | {' | '.join(WHY)} |"]
        lines += ["|---|--:|--:|--:|--:|" + "--:|" * len(WHY)]
        groups: dict[str, Counter] = {}
        for answer in answers:
            if answer.bundle == bundle:
                groups.setdefault(answer.group, Counter()).update(["shown", *(answer.why or ["accepted"])])
        for group, counts in sorted(groups.items()):
            cells = [counts[why] or "" for why in ("reader", "region", *WHY)]
            lines.append(
                f"| {group} | {counts['shown']} | {counts['accepted']} | {' | '.join(map(str, cells))} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip()


def main(arguments: list[str] | None = None) -> int:
    """Read the command line; 0 on success, 2 for a folder without images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument(
        "-o", dest="out", type=Path, metavar="PAGE.md", help="the page whose tables are replaced"
    )
    parser.add_argument(
        "--bundle", action="append", choices=tuple(bundle_folders()), help="default: all with a gate"
    )
    parser.add_argument("--each", type=Path, metavar="FILE.csv", help="each image on a line, with the reason")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", MedsegWarning)
    gated = [name for name, folder in bundle_folders().items() if (folder / "configs" / "gate.json").exists()]
    doors = [Door(name) for name in options.bundle or gated]
    answers = []
    shows = {"volume": volumes, "radiograph": pictures, "photograph": photographs}
    for takes, show in shows.items():
        shown = [door for door in doors if door.takes == takes]
        try:
            answers += show(options.data, shown) if shown else ()
        except InputError as error:
            print(f"no {takes}: {error}", file=sys.stderr)
    if not answers:
        return 2
    text = table(answers)
    print(text)
    if options.each:
        with options.each.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("bundle", "images", "image", "refused by", "reason"))
            rows.writerows((a.bundle, a.group, a.name, " ".join(a.why), a.reason) for a in answers)
    if options.out:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))
        from page_section import put_section

        for bundle in dict.fromkeys(answer.bundle for answer in answers):
            own = [answer for answer in answers if answer.bundle == bundle]
            put_section(options.out, f"gate of {bundle}", table(own))
    return 0


if __name__ == "__main__":
    sys.exit(main())
