"""Fixtures that every test file shares."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and contours, which is not part of the repository; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MEDSEG_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("real data not found: set MEDSEG_SHARED_DATA to the folder that holds rt/, odd_dicom/ and training/")
    return folder


@pytest.fixture(scope="session")
def program():
    """A function that finds an independent command-line program, or skips the test that needs it."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"the independent program {name} is not installed (Debian: dicom3tools, plastimatch, dcmtk)")
        return path

    return find
