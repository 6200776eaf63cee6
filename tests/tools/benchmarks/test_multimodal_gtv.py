"""The multimodal benchmark: folds, boxes, rules and tables, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.geometry import Geometry
from medseg.phantoms.series import stack_geometry

pytest.importorskip("sklearn")
TOOLS = Path(__file__).resolve().parents[3] / "tools" / "benchmarks" / "multimodal_gtv"
sys.path.insert(0, str(TOOLS))
import baselines  # noqa: E402
import cases  # noqa: E402
import contour_scores  # noqa: E402
import tables  # noqa: E402

sys.path.remove(str(TOOLS))


def patient(name="P") -> cases.Patient:
    """A block of 20 x 20 x 18 mm in 40 x 40 x 30 mm, SUV 8 in one half and 2 in the other, 0.5 outside."""
    grid = stack_geometry((10, 20, 20), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0))
    truth = np.zeros(grid.shape, bool)
    truth[2:8, 5:15, 5:15] = True
    suv = np.where(truth, 2.0, 0.5)
    suv[2:8, 5:15, 5:10] = 8.0
    channels = np.zeros((5, *grid.shape), np.float32)
    channels[1], channels[3] = np.log1p(suv) / np.log1p(20), 1
    image = MetaTensor(torch.from_numpy(channels.transpose(0, 3, 2, 1).copy()), affine=grid.affine_ras)
    box = (slice(0, 10), slice(2, 18), slice(2, 18))
    return cases.Patient(name, {"image": image, "case_id": name}, truth, grid, box)


def test_every_fold_has_small_and_large_tumours_and_every_patient_one_fold():
    folds = cases.folds_of({f"P{n:02}": float(n) for n in range(33)})
    assert len(folds) == 33
    assert sorted(np.bincount(list(folds.values()))) == [6, 6, 7, 7, 7]
    for first in range(0, 30, 5):  # of five neighbours in volume one goes to each fold
        assert sorted(folds[f"P{n:02}"] for n in range(first, first + 5)) == [0, 1, 2, 3, 4]


def test_a_box_keeps_its_margins_and_a_patient_its_box():
    truth = np.zeros((40, 60, 60), bool)
    truth[15:25, 20:40, 20:40] = True
    box = cases.drawn_box(truth, (3.0, 2.0, 2.0), "STS_004")
    assert box == cases.drawn_box(truth, (3.0, 2.0, 2.0), "STS_004")
    assert box != cases.drawn_box(truth, (3.0, 2.0, 2.0), "STS_006")
    for side, low, high, mm in zip(box, (15, 20, 20), (25, 40, 40), (3, 2, 2), strict=True):
        assert 5 - mm / 2 <= (low - side.start) * mm <= 20 + mm / 2
        assert 5 - mm / 2 <= (side.stop - high) * mm <= 20 + mm / 2


def test_the_grid_of_a_box_lies_where_the_box_was_cut():
    grid = stack_geometry((10, 20, 20), gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0))
    part = cases.part_of(grid, (slice(2, 5), slice(3, 9), slice(4, 6)))
    assert part.shape == (3, 6, 2)
    expected = grid.points_lps_mm(3, np.array([[4.0, 5.0]]))  # voxel (1, 1, 1) of the part
    np.testing.assert_allclose(part.points_lps_mm(1, np.array([[1.0, 1.0]])), expected)


def test_a_sampled_box_has_the_edges_of_the_box():
    one = patient()
    image, small = one.sampled((8, 8, 5))
    assert image.shape == (5, 8, 8, 5)
    assert isinstance(small, Geometry) and small.shape == (5, 8, 8)
    # Voxels of 4 x 4 x 6 mm: the first centre is 1 mm and 1.5 mm further in than that of the box.
    moved = small.origins_lps_mm[0] - one.box_grid.origins_lps_mm[0]
    np.testing.assert_allclose(np.abs(moved), [1, 1, 1.5], atol=1e-9)
    assert small.pixel_spacing_mm == pytest.approx((4, 4))


def test_the_ellipsoid_of_the_exact_box_fills_a_block_by_a_sixth_of_pi():
    mask = baselines.ellipsoid(patient(), exact=True)
    assert mask.sum() / 600 == pytest.approx(np.pi / 6, abs=0.03)
    assert not (mask & ~patient().truth[patient().box]).any()
    assert baselines.ellipsoid(patient(), exact=False).sum() > 0


def test_the_pet_comes_back_as_suv_and_the_best_threshold_parts_tumour_and_rest():
    one = patient()
    pet = baselines.suv(one)
    assert pet[5, 8, 5] == pytest.approx(8, rel=0.02)
    assert 0.5 < baselines.best_threshold_suv([one]) <= 2.0


def test_a_row_counts_the_answer_on_the_cts_own_grid():
    one = patient()
    truth = one.truth[one.box]
    row = contour_scores.row(one, 2, "CT", truth)
    assert (row["dsc"], row["sdsc_3mm"], row["hd95_mm"]) == (1, 1, 0)
    assert row["gtv_cc"] == row["answer_cc"] == pytest.approx(600 * 12 / 1000)
    half = truth.copy()
    half[:, :, 8:] = False  # 5 of 10 columns are left: DSC 2 * 300 / 900
    assert contour_scores.row(one, 2, "CT", half)["dsc"] == pytest.approx(2 / 3, abs=1e-4)


def test_rows_come_back_from_their_file_and_make_the_tables(tmp_path):
    rows = [
        {
            "patient": f"P{n}",
            "fold": n % 5,
            "method": method,
            "gtv_cc": 10.0 * n,
            "answer_cc": 9.0,
            "dsc": dsc + 0.01 * n,
            "sdsc_3mm": 0.5,
            "hd95_mm": 4.0,
        }
        for n in range(6)
        for method, dsc in (("ellipsoid in the box", 0.7), ("CT", 0.75), ("CT+PET+MR", 0.8))
    ]
    contour_scores.write(rows, tmp_path / "scores.csv")
    assert contour_scores.read(tmp_path / "scores.csv") == rows
    said = tables.text(rows)
    assert "| CT | 6 | 0.775 (" in said
    assert "| CT less ellipsoid in the box | +0.050 (+0.050 to +0.050) | +0.000 (" in said
    assert "| 6 of 6 |" in said
    assert said.index("| P0 |") < said.index("| P5 |")  # the worst come first
    assert "gradient boosting" not in said
