"""Turn JSRT radiographs and SCR masks, which you obtained from their owners, into the layout of the
radiograph benchmark.

    python tools/datasets/jsrt.py JSRT_DIR SCR_DIR OUT [--side 512]

Nothing of these data comes with medseg. The 247 films are the Japanese Society of Radiological Technology's
(Shiraishi et al., AJR 174:71-74, 2000), the masks van Ginneken et al.'s (Medical Image Analysis 10:19-40,
2006). Terms of the SCR database: research and education free of charge, both papers cited, redistribution and
commercial use prohibited. So keep OUT to yourself; weights trained on it are under the same terms.

JSRT_DIR (nested folders are searched) holds JPCLN001.IMG to JPCLN154.IMG, with a nodule, and JPCNN001.IMG to
JPCNN093.IMG, without: 2048 x 2048 big-endian 16-bit numbers of 12 bits without a header, 0.175 mm apart, high
where the film is dark. SCR_DIR holds fold1/masks and fold2/masks, each with "right lung", "left lung",
"heart", "right clavicle" and "left clavicle", and in them a .gif of 1024 x 1024 for every film; sides are the
patient's. All 247 are expected.

OUT gets images/<film>.png (8-bit grey, dark lungs), masks/<film>.png (bit field: bit 0 right lung, 1 left
lung, 2 heart, 3 right clavicle, 4 left clavicle), cases.csv, and splits.json with both published kinds of
split: the two folds of SCR (odd and even films; train on one, test on the other) and one random split of 165
and 82 films by --seed. OUT must not exist; it appears whole or not at all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from medseg.errors import InputError

SIDE, MASK_SIDE, SPACING_MM, HIGHEST = 2048, 1024, 0.175, 4095
FILMS = [f"JPCLN{n:03}" for n in range(1, 155)] + [f"JPCNN{n:03}" for n in range(1, 94)]
STRUCTURES = ("Right Lung", "Left Lung", "Heart", "Right Clavicle", "Left Clavicle")
"""Columns of cases.csv; bit n of a mask is the n-th of them, and its small letters are the name of SCR's
folder."""

FOLDS = ("fold1", "fold2")
TESTED = 82
LICENCE = "JSRT and SCR: research and education only, no redistribution, no commercial use"


def find_films(folder: Path, subset: bool) -> dict[str, Path]:
    """{film: file} in the order of FILMS. InputError for none, a film twice, and, unless ``subset``, films
    missing."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.stem.upper()
        if path.suffix.upper() == ".IMG" and re.fullmatch(r"JPC[LN]N\d{3}", name):
            if name in found:
                raise InputError(f"{name} is there twice: {found[name]} and {path}; keep one.")
            found[name] = path
    if not found:
        raise InputError(f"{folder}: no JPCLN….IMG or JPCNN….IMG file; give the folder of the JSRT films.")
    missing = [name for name in FILMS if name not in found]
    if missing and not subset:
        raise InputError(
            f"{folder}: {len(missing)} of 247 films are missing, the first {missing[0]}; or say --subset."
        )
    return {name: found[name] for name in FILMS if name in found}


def read_film(path: Path) -> np.ndarray:
    """float32 (2048, 2048), 0 black to 1 white. InputError for another size, and for values of more than 12
    bits."""
    expected = SIDE * SIDE * 2
    if path.stat().st_size != expected:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes; expected {expected} (2048 x 2048 of 16 bits, no header)."
        )
    values = np.fromfile(path, dtype=">u2").reshape(SIDE, SIDE)
    if values.max() > HIGHEST:
        raise InputError(
            f"{path}: values up to {values.max()}; expected 12 bits, at most {HIGHEST}, big-endian."
        )
    if values.min() == values.max():
        raise InputError(f"{path}: every pixel is {values.min()}; there is no picture.")
    return 1 - values.astype(np.float32) / HIGHEST


def find_masks(folder: Path, films: list[str]) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """({film: {structure: file}}, {film: fold}). InputError for masks missing, and for folds that mix odd and
    even films."""
    files: dict[str, dict[str, Path]] = {film: {} for film in films}
    folds: dict[str, str] = {}
    for fold in FOLDS:
        for structure in STRUCTURES:
            place = folder / fold / "masks" / structure.lower()
            for path in sorted(place.glob("*.gif")) if place.is_dir() else ():
                film = path.stem.upper()
                if film in files:
                    if folds.setdefault(film, fold) != fold:
                        raise InputError(
                            f"{film} has masks in both folds; restore the folders of the SCR database."
                        )
                    files[film][structure] = path
    missing = [(film, name) for film in films for name in STRUCTURES if name not in files[film]]
    if missing:
        film, name = missing[0]
        raise InputError(
            f"{folder}: {len(missing)} masks are missing, the first '{name.lower()}/{film}.gif'; expected "
            "them in fold1/masks and fold2/masks as the SCR database has them."
        )
    for fold in FOLDS:
        if len({int(film[-3:]) % 2 for film in films if folds[film] == fold}) > 1:
            raise InputError(
                f"{folder / fold}: odd and even films; SCR has all odd ones in one fold, all even in the "
                f"other."
            )
    return files, folds


def read_mask(path: Path) -> np.ndarray:
    """bool (1024, 1024). InputError for another size, more than two values, and an empty mask."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:100]}).") from error
    if values.shape != (MASK_SIDE, MASK_SIDE):
        raise InputError(f"{path}: {values.shape[1]} x {values.shape[0]} pixels; expected 1024 x 1024.")
    found = np.unique(values)
    if len(found) != 2 or found[0] != 0:
        raise InputError(
            f"{path}: {len(found)} values, the lowest {found[0]}; expected 0 outside and one other inside."
        )
    return values > 0


def shrunk(array: np.ndarray, side: int) -> np.ndarray:
    """float32 (side, side): the mean of every block; ``side`` divides the array's own."""
    step = array.shape[0] // side
    return array.astype(np.float32).reshape(side, step, side, step).mean(axis=(1, 3))


def bit_field(files: dict[str, Path], side: int, film: str) -> np.ndarray:
    """uint8 (side, side): a pixel belongs to a structure when at least half of it does."""
    masks = [shrunk(read_mask(files[name]), side) >= 0.5 for name in STRUCTURES]
    for right, left in ((0, 1), (3, 4)):
        columns = [np.nonzero(masks[n])[1].mean() for n in (right, left)]
        if not columns[0] < columns[1]:
            names = f"{STRUCTURES[right].lower()} lies on the viewer's right of {STRUCTURES[left].lower()}"
            raise InputError(
                f"{film}: {names}; sides are the patient's, so the masks of left and right were exchanged."
            )
    return sum(
        (mask.astype(np.uint8) << bit for bit, mask in enumerate(masks)), np.zeros((side, side), np.uint8)
    )


def splits(folds: dict[str, str], seed: int) -> dict:
    """Both published kinds of split, as lists of films in the order of FILMS."""
    films = list(folds)
    tested = set(random.Random(seed).sample(films, round(TESTED * len(films) / len(FILMS))))
    return {
        "scr_folds": {fold: [film for film in films if folds[film] == fold] for fold in FOLDS},
        "random_165_82": {
            "seed": seed,
            "train": [film for film in films if film not in tested],
            "test": [film for film in films if film in tested],
        },
    }


def write(options: argparse.Namespace, out: Path) -> int:
    """Fill the folder ``out``; returns how many films there are."""
    films = find_films(options.jsrt_dir, options.subset)
    masks, folds = find_masks(options.scr_dir, list(films))
    parts = splits({film: folds[film] for film in films}, options.seed)
    (out / "images").mkdir(parents=True)
    (out / "masks").mkdir()
    rows = []
    for film, path in films.items():
        grey = shrunk(read_film(path), options.side)
        Image.fromarray(np.rint(grey * 255).astype(np.uint8)).save(out / "images" / f"{film}.png")
        Image.fromarray(bit_field(masks[film], options.side, film)).save(out / "masks" / f"{film}.png")
        rows.append(
            {
                "case": film,
                "source_filename": path.name,
                "patientid": film,
                "view": "PA",
                "finding": "nodule" if film.startswith("JPCLN") else "none",
                "image_license": LICENCE,
                "orig_w": SIDE,
                "orig_h": SIDE,
                "w": options.side,
                "h": options.side,
                "spacing_mm": SPACING_MM * SIDE / options.side,
                "scr_fold": folds[film],
                "random_165_82": "test" if film in parts["random_165_82"]["test"] else "train",
                **dict.fromkeys(STRUCTURES, 1),
            }
        )
    with open(out / "cases.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    (out / "splits.json").write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    return len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jsrt_dir", type=Path)
    parser.add_argument("scr_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--side", type=int, default=512, choices=(128, 256, 512, 1024), help="pixels; default 512"
    )
    parser.add_argument("--seed", type=int, default=123, help="of the random split")
    parser.add_argument("--subset", action="store_true", help="take the films that are there")
    options = parser.parse_args()
    partial = options.out.with_name(f".{options.out.name}.{os.getpid()}.partial")
    try:
        for folder in (options.jsrt_dir, options.scr_dir):
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder.")
        if options.out.exists():
            raise InputError(f"{options.out} exists; name a new folder.")
        count = write(options, partial)
        partial.rename(options.out)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{count} films of {options.side} x {options.side} pixels -> {options.out}")
    print(f"Terms: {LICENCE}. Cite both papers (see --help).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
