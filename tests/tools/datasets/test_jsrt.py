"""Files of the formats of JSRT and SCR, made here, become the benchmark's layout; everything odd is refused
in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
FILMS = ("JPCLN001", "JPCLN002", "JPCNN093")
BOXES = {
    "right lung": (200, 700, 100, 400),
    "left lung": (200, 700, 600, 900),
    "heart": (500, 800, 400, 700),
    "right clavicle": (150, 170, 150, 450),
    "left clavicle": (150, 170, 550, 850),
}
"""Rows and columns in a mask of 1024 x 1024; the patient's right is on the viewer's left."""


def film_values() -> np.ndarray:
    """Raw numbers: high where the film is dark. Air and lungs are dark, the rest is grey."""
    values = np.full((2048, 2048), 1000, dtype=np.uint16)
    values[400:1400, 200:800] = 4095
    values[:8, :8] = 0
    return values


@pytest.fixture
def owned(tmp_path):
    """(JSRT folder, SCR folder) of three films: odd ones in fold 1, even ones in fold 2."""
    jsrt, scr = tmp_path / "JSRT", tmp_path / "scratch"
    (jsrt / "All247images").mkdir(parents=True)
    for film in FILMS:
        film_values().astype(">u2").tofile(jsrt / "All247images" / f"{film}.IMG")
        fold = "fold1" if int(film[-1]) % 2 else "fold2"
        for name, (top, bottom, left, right) in BOXES.items():
            folder = scr / fold / "masks" / name
            folder.mkdir(parents=True, exist_ok=True)
            mask = np.zeros((1024, 1024), dtype=np.uint8)
            mask[top:bottom, left:right] = 255
            Image.fromarray(mask).save(folder / f"{film}.gif")
    return jsrt, scr


@pytest.fixture
def prepare(owned, monkeypatch, capsys):
    """A function that runs the tool on the files of ``owned``: (exit code, standard output, standard
    error)."""
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "datasets"))
    import jsrt as tool

    def run(out, *more):
        monkeypatch.setattr("sys.argv", ["jsrt.py", *map(str, owned), str(out), *more])
        code = tool.main()
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refusal(prepare, tmp_path):
    """A function that runs the tool where it must refuse, and gives its one line."""

    def run(*more):
        code, output, error = prepare(tmp_path / "out", *(more or ("--subset",)))
        assert code == 2 and output == ""
        assert len(error.splitlines()) == 1 and error.startswith("error: ")
        assert not [path for path in tmp_path.iterdir() if "out" in path.name], "nothing half-written"
        return error

    return run


def test_films_and_masks_become_pictures_bit_fields_a_table_and_both_splits(prepare, tmp_path):
    out = tmp_path / "out"
    code, output, error = prepare(out, "--subset", "--side", "512")
    assert (code, error) == (0, "")
    assert "no redistribution" in output
    image = np.asarray(Image.open(out / "images" / "JPCLN001.png"))
    assert image.shape == (512, 512) and image.dtype == np.uint8
    assert image[200, 100] == 0, "a lung is dark: 4095 is the darkest of the film"
    assert image[500, 500] == round(255 * (1 - 1000 / 4095))
    assert image[0, 0] == 255
    field = np.asarray(Image.open(out / "masks" / "JPCLN001.png"))
    assert field[200, 100] == 1 and field[200, 400] == 2 and field[260, 250] == 4
    assert field[260, 320] == 2 | 4, "the heart overlaps the left lung"
    assert field[80, 100] == 8 and field[80, 300] == 16
    assert np.count_nonzero(field & 8) == 10 * 150, "20 x 300 pixels at 1024, halved"
    rows = list(csv.DictReader(open(out / "cases.csv", newline="")))
    assert [row["case"] for row in rows] == list(FILMS)
    assert [row["scr_fold"] for row in rows] == ["fold1", "fold2", "fold1"]
    assert rows[0]["spacing_mm"] == "0.7" and rows[0]["finding"] == "nodule" and rows[2]["finding"] == "none"
    splits = json.loads((out / "splits.json").read_text())
    assert splits["scr_folds"] == {"fold1": ["JPCLN001", "JPCNN093"], "fold2": ["JPCLN002"]}
    shared = splits["random_165_82"]
    assert sorted(shared["train"] + shared["test"]) == sorted(FILMS) and len(shared["test"]) == 1
    assert "exists" in prepare(out, "--subset")[2]


def test_the_random_split_of_all_films_has_165_and_82(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "datasets"))
    from jsrt import FILMS as ALL
    from jsrt import splits

    assert len(ALL) == 247
    folds = {film: "fold1" if int(film[-3:]) % 2 else "fold2" for film in ALL}
    parts = splits(folds, 123)
    assert {name: len(films) for name, films in parts["scr_folds"].items()} == {"fold1": 124, "fold2": 123}
    assert (len(parts["random_165_82"]["train"]), len(parts["random_165_82"]["test"])) == (165, 82)
    assert parts == splits(folds, 123) != splits(folds, 124)


def test_films_that_are_missing_are_counted(refusal):
    assert "244 of 247 films are missing, the first JPCLN003" in refusal("--seed", "1")


def test_another_size_of_film_is_refused(owned, refusal):
    np.zeros((1024, 1024), ">u2").tofile(owned[0] / "All247images" / "JPCLN001.IMG")
    assert "2097152 bytes; expected 8388608" in refusal()


def test_another_order_of_bytes_is_refused(owned, refusal):
    film_values().astype("<u2").tofile(owned[0] / "All247images" / "JPCLN001.IMG")
    assert "big-endian" in refusal()


def test_missing_masks_are_counted(owned, refusal):
    (owned[1] / "fold2" / "masks" / "heart" / "JPCLN002.gif").unlink()
    assert "1 masks are missing, the first 'heart/JPCLN002.gif'" in refusal()


def test_masks_of_another_size_and_grey_masks_are_refused(owned, refusal):
    path = owned[1] / "fold1" / "masks" / "heart" / "JPCLN001.gif"
    Image.fromarray(np.zeros((512, 512), np.uint8)).save(path)
    assert "512 x 512 pixels; expected 1024 x 1024" in refusal()
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (1024, 4))).save(path)
    assert "256 values" in refusal()


def test_exchanged_sides_are_noticed(owned, refusal, tmp_path):
    masks = owned[1] / "fold1" / "masks"
    right, left = (masks / f"{side} lung" / "JPCLN001.gif" for side in ("right", "left"))
    right.rename(tmp_path / "kept.gif")
    left.rename(right)
    (tmp_path / "kept.gif").rename(left)
    assert "were exchanged" in refusal()


def test_folds_that_mix_odd_and_even_films_are_refused(owned, refusal):
    for name in BOXES:
        (owned[1] / "fold2" / "masks" / name / "JPCLN002.gif").rename(
            owned[1] / "fold1" / "masks" / name / "JPCLN002.gif"
        )
    assert "odd and even films" in refusal()
