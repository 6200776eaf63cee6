"""Unfinished files lie in a hidden folder of their own process and do not outlive it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from medseg.errors import InputError
from medseg.files import staged_elsewhere, staging_folder


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
