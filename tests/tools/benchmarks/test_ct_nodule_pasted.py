"""tools/benchmarks/ct_nodule/pasted.py: real nodules stand in other lungs, whole, where their box says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from medseg.phantoms.series import stack_geometry

ROOT = Path(__file__).resolve().parents[3]
MODULES = ("crop_data", "pasted")


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "benchmarks" / "ct_nodule"))
    import crop_data
    import pasted

    yield crop_data, pasted
    for name in MODULES:
        sys.modules.pop(name, None)


def ball(shape, middle, radius) -> np.ndarray:
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)) <= radius**2


def host_and_crops(parts):
    """A lung of 60 x 50 x 40 mm in tissue, and three nodules of 255, which is 600 HU, of 4, 6 and 8 mm; the
    largest does not fit."""
    data, pasted = parts
    grid = stack_geometry((48, 58, 68), gaps_mm=1.0, centre_lps_mm=(30.0, -20.0, 100.0))
    lungs = np.zeros(grid.shape, bool)
    lungs[4:44, 4:54, 4:64] = True
    volume = np.where(lungs, -850.0, 40.0).astype(np.float32)
    host = pasted.Host("a", "A", volume, lungs, grid)
    masks = [ball((n, n, n), [(n - 1) / 2] * 3, radius) for n, radius in ((13, 2.0), (15, 3.0), (61, 25.0))]
    images = tuple(np.where(mask, 255, 50).astype(np.uint8) for mask in masks)
    names, sizes = ("n0", "n1", "n2"), np.array([4.0, 6.0, 50.0])
    crops = data.Crops(names, ("p",) * 3, sizes, sizes, images, tuple(masks), ((3,),) * 3)
    return host, crops


def test_a_nodule_stands_in_the_lung_where_its_box_says(parts):
    _, pasted = parts
    host, crops = host_and_crops(parts)
    made = pasted.paste(host, crops, [0, 1, 2], seed=1)
    assert made.nodules == ("n1", "n0")  # the largest found no place
    bright = made.volume_hu > 550
    assert bright.sum() == crops.masks[0].sum() + crops.masks[1].sum() and host.lungs[bright].all()
    assert np.array_equal(made.volume_hu[~host.lungs], host.volume_hu[~host.lungs])
    for box, diameter in zip(made.label, (7.0, 5.0), strict=True):
        assert np.subtract(box["high"], box["low"]).tolist() == [diameter] * 3
        low = host.geometry.rows_columns(0, np.array([box["low"]]))[0] + 0.5
        z = int(np.round(box["low"][2] - host.geometry.origins_lps_mm[0, 2] + 0.5))
        row, column = (int(round(number)) for number in low)
        size = int(diameter)
        part = bright[z : z + size, row : row + size, column : column + size]
        assert part.sum() == ball((size,) * 3, [(size - 1) / 2] * 3, (diameter - 1) / 2).sum()


def test_the_same_seed_gives_the_same_and_no_nodule_is_used_twice(parts):
    _, pasted = parts
    host, crops = host_and_crops(parts)
    first, again = (list(pasted.cases([host], crops, 2, seed=3, most=1)) for _ in range(2))
    assert all(np.array_equal(a.volume_hu, b.volume_hu) for a, b in zip(first, again, strict=True))
    used = [name for one in first for name in one.nodules]
    assert len(used) == len(set(used))


def test_what_is_written_is_a_datalist(parts, tmp_path):
    import nibabel

    _, pasted = parts
    host, crops = host_and_crops(parts)
    rows = pasted.write(iter([pasted.paste(host, crops, [1], seed=0)]), tmp_path)
    image = nibabel.load(tmp_path / rows[0]["image"])
    (box,) = rows[0]["label"]
    # LPS to RAS, and the middle of the box as an index.
    middle = np.array([-1, -1, 1]) * np.add(box["low"], box["high"]) / 2
    index = np.linalg.inv(image.affine) @ [*middle, 1]
    assert image.get_fdata()[tuple(np.rint(index[:3]).astype(int))] == 600
    assert rows[0]["nodules"] == ["n1"] and rows[0]["ignored"] == []
