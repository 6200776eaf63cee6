"""The lungs are found in a chest of ellipsoids and in a real one; gas, trachea and outer air are none."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.shapes.lungs import lung_mask

VOXEL_MM = (4.0, 4.0, 4.0)
SHAPE = (88, 64, 56)


def ellipsoid(centre: tuple[float, ...], half_axes: tuple[float, ...]) -> np.ndarray:
    """bool of SHAPE, both in voxels."""
    grid = np.ogrid[tuple(slice(n) for n in SHAPE)]
    return sum(((g - c) / h) ** 2 for g, c, h in zip(grid, centre, half_axes, strict=True)) <= 1


LUNGS = (((28, 32, 30), (13, 18, 22)), ((60, 32, 30), (12, 18, 22)))


def chest(lung_hu: float = -850.0) -> tuple[np.ndarray, np.ndarray]:
    """(HU, bool truth) of a cylinder of tissue in air, with two lungs of ``lung_hu`` and noise of 30 HU."""
    image = np.full(SHAPE, -1000.0)
    image[ellipsoid((44, 32, 28), (40, 26, 1e6))] = 40.0
    truth = ellipsoid(*LUNGS[0]) | ellipsoid(*LUNGS[1])
    image[truth] = lung_hu
    return image + np.random.default_rng(0).normal(0, 30, SHAPE), truth


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_both_lungs_are_found_and_nothing_else():
    image, truth = chest()
    image[:, 60:, :] = 200.0  # a couch under the patient
    image[43:46, 30:33, 20:] = -1000.0  # a trachea of 12 mm
    image[ellipsoid((44, 20, 4), (6, 5, 4))] = -1000.0  # gas in the stomach, 32 cc
    assert dice(lung_mask(image, VOXEL_MM), truth) > 0.95


def test_a_vessel_of_8_mm_belongs_to_the_lung():
    image, truth = chest()
    image[27:29, 31:33, 12:48] = 50.0
    found = lung_mask(image, VOXEL_MM)
    assert found[27:29, 31:33, 14:46].all() and dice(found, truth) > 0.95


@pytest.mark.parametrize("inside", (-1000.0, 40.0), ids=("gas", "tissue"))
def test_a_body_full_of_gas_or_tissue_has_no_lungs(inside):
    image, _ = chest(lung_hu=inside)
    assert not lung_mask(image, VOXEL_MM).any()


def test_air_and_an_empty_volume_have_no_lungs():
    assert not lung_mask(np.full((20, 20, 20), -1000.0), VOXEL_MM).any()


def test_a_chest_cut_through_the_lungs_keeps_them_up_to_the_last_slice():
    image, truth = chest()
    found = lung_mask(image[:, :, 16:40], VOXEL_MM)
    assert dice(found, truth[:, :, 16:40]) > 0.95 and found[:, :, 0].any() and found[:, :, -1].any()


def test_fine_voxels_are_looked_at_in_steps_and_answered_on_the_image_s_own_grid():
    image, truth = chest()
    fine_image, fine_truth = (np.repeat(np.repeat(a, 4, axis=0), 3, axis=1) for a in (image, truth))
    found = lung_mask(fine_image, (1.0, 4 / 3, 4.0))
    assert found.shape == fine_truth.shape and dice(found, fine_truth) > 0.93


@pytest.mark.slow  # 7 s, most of them to read 134 slices and to fill the contours
def test_a_real_planning_ct_against_its_contours(shared_data):
    from medseg.dicom import read_rtstruct, read_series

    series = read_series(shared_data / "rt/lung1_001/CT")
    masks = read_rtstruct(shared_data / "rt/lung1_001/RTSTRUCT.dcm", series)
    found = lung_mask(series.volume().transpose(2, 1, 0), series.geometry.spacing_mm[::-1])
    assert dice(found, (masks["Lung L"] | masks["Lung R"]).transpose(2, 1, 0)) > 0.93
