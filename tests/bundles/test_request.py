"""Requests that cannot be meant are refused in one line before anything is written."""

from __future__ import annotations

import pytest
from chiral_cases import chiral_series

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.errors import BundleError, InputError, MedsegError


def test_what_concerns_the_whole_run_is_refused_at_once(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    with pytest.raises(BundleError, match="no bundle 'nonsense'.*mm_gtv"):
        segment(Request(tmp_path / "CT", "nonsense", tmp_path / "out"))
    with pytest.raises(BundleError, match="no setting 'min_volume'.*min_volume_cc"):
        segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", settings={"min_volume": 3}))
    with pytest.raises(InputError, match="format 'pdf': expected some of rtstruct"):
        Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", formats=("pdf",))
    with pytest.raises(InputError, match="fault 'holes': expected some of missing_slice"):
        Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", allow=("holes",))
    with pytest.raises(InputError, match="no such file or folder"):
        segment(Request(tmp_path / "absent", str(bright_bundle), tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no CT series and no NIfTI"):
        segment(Request(tmp_path / "empty", str(bright_bundle), tmp_path / "out"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": 5}, "no setting"),
        ({"spacing_mm": 5}, "expected a list of 3 numbers"),
        ({"spacing_mm": [1, 2]}, "expected a list of 3 numbers"),
        ({"min_volume_cc": "abc"}, "expected a number"),
        ({"min_volume_cc": float("nan")}, "expected a number"),
        ({"min_volume_cc": True}, "expected a number"),
        ({"min_volume_cc": -1}, "expected 0"),
        ({"ctv_margin_mm": -3.0}, "-3.0 mm; expected 0"),
        ({"simplify_mm": -0.1}, "expected 0"),
        ({"holes": 5}, "expected text"),
        ({"network_def": 5}, "expected a definition"),
        ({"output_dir": "elsewhere"}, "use `output_dir`"),
        ({"within": [1, 2, 3, 4, 5, 6]}, "use `within`"),
        ({"run": []}, "no effect"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_is_written(
    settings, words, bright_bundle, tmp_path
):
    chiral_series(tmp_path / "CT")
    with pytest.raises(MedsegError, match=words) as caught:
        segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", settings=settings))
    assert "Failed to instantiate" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_engines_that_a_request_may_name_are_those_that_there_are():
    from medseg.bundles.request import ENGINES
    from medseg.inference.engines import ENGINE_NAMES

    assert ENGINES == ENGINE_NAMES
