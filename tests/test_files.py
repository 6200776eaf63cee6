"""Files appear whole or not at all, hold plain values, and unfinished ones do not outlive their process."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from medseg.errors import InputError
from medseg.files import (
    atomic_path,
    no_empty_folders,
    plain,
    staged_elsewhere,
    staging_folder,
    write_csv,
    write_json,
)


def test_a_staging_folder_vanishes_with_its_block_whatever_happens(tmp_path):
    with pytest.raises(ZeroDivisionError), staging_folder(tmp_path / "out") as staging:
        (staging / "CT").mkdir()
        raise ZeroDivisionError
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with staging_folder(tmp_path) as own:
        left = own.with_name(own.name.replace(f"-{os.getpid()}", f"-{dead.pid}"))
        living = own.with_name(own.name.replace(f"-{os.getpid()}", f"-{os.getppid()}"))
        elsewhere = tmp_path / ".partial-another.computer-1"
        for folder in (left, living, elsewhere):
            (folder / "CT").mkdir(parents=True)
    with staging_folder(tmp_path) as own:
        assert {path.name for path in tmp_path.iterdir()} == {own.name, living.name, elsewhere.name}
        assert staged_elsewhere(own, "CT") and not staged_elsewhere(own, "MR")


def test_an_output_folder_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be used.*choose another"), staging_folder(tmp_path / "out"):
        pass


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    out = tmp_path / "a.json"
    write_json({"before": 1}, out)
    with pytest.raises(ZeroDivisionError), atomic_path(out) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert json.loads(out.read_text()) == {"before": 1}
    assert list(tmp_path.iterdir()) == [out]


def test_what_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path):
    out = tmp_path / "a.json"
    write_json({"name": "Kopf"}, out)
    for bad, error in (({"dsc": float("nan")}, ValueError), ({"path": tmp_path}, TypeError)):
        with pytest.raises(error):
            write_json(bad, out)
    assert out.read_text(encoding="utf-8") == '{\n "name": "Kopf"\n}\n'


def test_numpys_numbers_become_plain_ones_and_what_is_not_finite_becomes_nothing(tmp_path):
    given = {"dsc": np.float32(0.5), "n": np.int64(3), "mm": (1.23456789, np.inf), "shape": np.array([2, 3])}
    assert plain(given) == {"dsc": 0.5, "n": 3, "mm": [1.234568, None], "shape": [2, 3]}
    assert plain("text") == "text" and plain(True) is True and plain(None) is None
    write_json(plain(given), tmp_path / "a.json")


def test_a_table_has_every_column_rounded_figures_and_no_formulas(tmp_path):
    rows = [
        {"name": "=SUM(A1)", "dsc": np.float64(1 / 3), "n": np.int64(-2)},
        {"name": "肺", "dsc": float("nan")},
        {"name": None, "dsc": -float("inf"), "n": 1},
    ]
    write_csv(rows, ["name", "dsc", "n"], tmp_path / "t.csv")
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "dsc", "n"],
            ["'=SUM(A1)", "0.333333", "-2"],
            ["肺", "nan", ""],
            ["", "-inf", "1"],
        ]
    with pytest.raises(ValueError, match="extra"):
        write_csv([{"extra": 1}], ["name"], tmp_path / "t.csv")


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="none does not exist; make it first"):
        write_csv([], ["name"], tmp_path / "none" / "t.csv")


def test_folders_that_a_block_made_and_left_empty_are_gone_and_others_stay(tmp_path):
    there, new, full = (tmp_path / name for name in ("there", "new", "full"))
    there.mkdir()
    never = tmp_path / "never"
    with pytest.raises(KeyboardInterrupt), no_empty_folders(new / "inner", new, full, there, never):
        (new / "inner").mkdir(parents=True)
        full.mkdir()
        (full / "a.txt").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "there"]
