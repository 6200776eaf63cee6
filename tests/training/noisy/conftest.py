"""What several processes of one training find together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def _run_in_two_processes(test_module: str, folder: Path) -> None:
    start = [sys.executable, test_module]
    processes = [subprocess.Popen([*start, str(rank), str(folder)]) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=800) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="session")
def run_in_two_processes():
    """``run_in_two_processes(__file__, folder)``: a test module as ``python FILE RANK FOLDER``, ranks 0 and 1
    at once, until both ended well.

    The file runs itself, since a test module has no name that a new process could import.
    """
    return _run_in_two_processes
