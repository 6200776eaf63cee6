"""tools/benchmarks/cxr_findings/lung_crop.py: boxes move with the crop of their film."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "benchmarks" / "cxr_findings"))
    import lung_crop

    yield lung_crop
    sys.modules.pop("lung_crop", None)


def row(*corners: int) -> dict[str, str]:
    names = ("xmin", "ymin", "xmax", "ymax")
    return {"image": "a.png", "label": "Mass", **dict(zip(names, map(str, corners), strict=True))}


def test_a_box_inside_counts_from_the_crop_s_corner(tool):
    box, share = tool.moved(row(120, 90, 140, 130), (100, 50, 300, 400))
    assert share == 1.0 and box["label"] == "Mass"
    assert [box[name] for name in tool.CORNERS] == [20.0, 40.0, 40.0, 80.0]


def test_a_box_is_cut_at_the_border_and_lost_where_less_than_half_is_left(tool):
    box, share = tool.moved(row(90, 60, 120, 80), (100, 50, 300, 400))
    assert share == pytest.approx(2 / 3) and [box[name] for name in tool.CORNERS] == [0.0, 10.0, 20.0, 30.0]
    assert tool.moved(row(60, 60, 120, 80), (100, 50, 300, 400)) == (None, pytest.approx(1 / 3))
