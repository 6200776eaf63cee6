"""Interpolation along each axis: by hand, the same for narrow and wide rows, and nothing where the network
saw nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.inference import sampling
from medseg.inference.sampling import Sampling


def along(shape, *positions):
    known = tuple((at >= -1.0) & (at <= n) for at, n in zip(positions, shape, strict=True))
    return Sampling((0, 1, 2), positions, known)


@pytest.mark.parametrize("narrow", [0, 256], ids=["wide rows", "narrow rows"])
def test_a_row_is_mixed_by_distance_holds_its_ends_and_is_nothing_beyond(narrow, monkeypatch):
    monkeypatch.setattr(sampling, "NARROW", narrow)
    row = torch.tensor([[[1.0, 0.0, 0.5]]])
    here, columns = np.zeros(1), np.array([-1.5, -0.5, 0.0, 0.25, 1.5, 2.0, 2.8, 3.5])
    found, corner = along(row.shape, here, here, columns).restored(row, whole=True)
    assert corner == (0, 0, 0) and found.dtype == np.float32
    assert found.ravel().tolist() == [0.0, 1.0, 1.0, 0.75, 0.25, 0.5, 0.5, 0.0]


def test_wide_and_narrow_rows_give_the_same_to_the_last_digits(monkeypatch):
    torch.manual_seed(0)
    values = torch.rand(20, 30, 60)
    positions = [np.linspace(-1.2, n + 0.6, m) for n, m in zip(values.shape, (33, 41, 150), strict=True)]
    narrow = along(values.shape, *positions).restored(values, whole=True)[0]
    monkeypatch.setattr(sampling, "NARROW", 0)
    wide = along(values.shape, *positions).restored(values, whole=True)[0]
    assert narrow.shape == (33, 41, 150) and np.abs(narrow - wide).max() < 1e-6


def test_where_nothing_reaches_a_half_nothing_comes_back():
    found, corner = along((2, 2, 2), *[np.linspace(0, 1, 5)] * 3).restored(torch.full((2, 2, 2), 0.49))
    assert found.shape == (0, 0, 0) and corner == (0, 0, 0)
