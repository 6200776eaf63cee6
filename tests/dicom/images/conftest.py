"""The small CT that tests of series change."""

from __future__ import annotations

from pathlib import Path

import pytest
from ct_files import ramp_hu, stack

from medseg.phantoms.series import write_series


@pytest.fixture
def files(tmp_path) -> list[Path]:
    return write_series(ramp_hu(), stack(frame_of_reference_uid="1.2.3"), tmp_path / "ct")
