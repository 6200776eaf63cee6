"""tools/benchmarks/ct_nodule/slices.py: cuts by their diameter, by hand; linking that loses nothing of what
is seen."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

TOOLS = Path(__file__).resolve().parents[3] / "tools" / "benchmarks" / "ct_nodule"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location("slices", TOOLS / "slices.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("run", None)


def patient() -> dict:
    """Two nodules on four slices 2 mm apart: 4 x 4 pixels of 1 mm on slices 1 and 2, one pixel on slice 3."""
    labels = torch.zeros(1, 10, 12, 4)
    labels[0, 2:6, 2:6, 1:3], labels[0, 8, 9, 3] = 3, 5
    affine = torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0]))
    return {
        "image": MetaTensor(labels > 0, affine=affine).float(),
        "mask": MetaTensor(labels, affine=affine),
        "label": torch.tensor([[2.0, 2, 1, 6, 6, 3, 0], [8, 9, 3, 9, 10, 4, 0], [np.nan] * 7]),
        "sizes_mm": np.array([4.0, 1.5]),
    }


class LeftHalf(torch.nn.Module):
    """Outlines the first four rows of what is bright at 0.6, and a corner where nothing is at 0.4."""

    def forward(self, x):
        seen, corner = torch.zeros(2, *x.shape[2:], dtype=torch.bool)
        seen[:4], corner[-1, -1] = x[0, 1, :4] > 0, True
        chosen = [(mask, score) for mask, score in ((seen, 0.6), (corner, 0.4)) if mask.any()]
        rows = torch.tensor([[0, 0, 1, 1, score, 0.0] for _, score in chosen])
        return [{"rows": rows, "masks": torch.stack([mask for mask, _ in chosen])}]


def test_true_masks_are_linked_to_candidates_in_the_nodules(tool):
    found = tool.ceiling(patient())
    assert found.hits.tolist() == [[True, False], [False, True]]
    assert found.scores.tolist() == pytest.approx([1.0, 0.5]), "what is on one slice alone counts half"


def test_cuts_have_the_diameter_of_their_circle_and_the_best_score_on_them(tool):
    seen, false, count = tool.found_on_slices(patient(), LeftHalf())
    large = 2 * np.sqrt(16 / np.pi)
    assert seen == [(pytest.approx(large), pytest.approx(0.6))] * 2 + [(pytest.approx(1.128, abs=1e-3), 0.0)]
    assert false == pytest.approx([0.4] * 4) and count == 4


def test_the_table_counts_by_diameter_and_score(tool, capsys):
    tool.report_slices(iter([patient()]), LeftHalf())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| cuts of 4 slices | number | found at 0.05 |")
    assert lines[2] == "| 0 to 4 mm | 1 | 0.00 | 0.00 | 0.00 | 0.00 |"
    assert lines[3] == "| 4 to 8 mm | 2 | 1.00 | 1.00 | 1.00 | 0.00 |"
    assert lines[-1] == "| false findings on a slice | | 1.00 | 1.00 | 0.00 | 0.00 |"
