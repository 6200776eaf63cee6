"""The series that the tests of reading images change."""

from __future__ import annotations

from pathlib import Path

import pytest
from ramp_series import ramp_hu, stack

from medseg.phantoms.series import write_series


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(ramp_hu(), stack(frame_of_reference_uid="1.2.3"), tmp_path / "ct")
