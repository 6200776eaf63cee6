"""Twenty seconds of the fuzzer over every kind of file: no exception but ours, no dead process, no hang."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fuzz.py"

INPUTS = 250
"""About 20 s of one idle core, most of it to start the readers; a busy machine tries as many."""


@pytest.mark.slow
def test_hundreds_of_damaged_files_give_answers_or_one_error_each():
    command = [sys.executable, str(TOOL), "--inputs", str(INPUTS), "--seed", "0"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    (total,) = re.findall(r"^\| all \| (\d+) \| (\d+) \| (\d+) ", run.stdout, re.MULTILINE)
    inputs, refused, read = map(int, total)
    assert inputs == INPUTS and refused > 0 and read > 0


def test_a_reader_that_raises_or_reads_something_else_without_a_word_is_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOL.parent / "fuzzing")
    spec = importlib.util.spec_from_file_location("fuzz", TOOL)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    from kinds import Kind

    file = tmp_path / "x"
    file.write_bytes(b"sound")
    damage = lambda raw, chance: (b"damaged", "all of it")  # noqa: E731

    def attempt(read) -> tuple[str, str]:
        return fuzz.attempt(Kind((file,), damage, read), 0, str(random.random()))

    def raising(path: Path) -> tuple[str, list[str]]:
        if path.read_bytes() == b"damaged":
            raise KeyError("a fault of the reader")
        return "sound", []

    assert attempt(lambda path: (path.read_text(), [])) == ("other", "all of it")
    outcome, words = attempt(raising)
    assert outcome == "exception" and "a fault of the reader" in words
    assert file.read_bytes() == b"sound"


def test_every_run_damages_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TOOL.parent / "fuzzing")
    from kinds import prepare

    runs = [prepare(tmp_path / run, names) for run, names in (("a", ["rtstruct", "seg"]), ("b", ["seg"]))]
    (first,), (second,) = (run["seg"].originals for run in runs)
    assert first.read_bytes() == second.read_bytes()
