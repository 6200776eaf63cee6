"""The box of the patient, on images of air with a block of tissue."""

from __future__ import annotations

import numpy as np

from medseg.shapes.body import body_box

VOXEL_MM = (2.0, 2.0, 5.0)


def block_in_air() -> np.ndarray:
    """60 x 50 x 12 voxels of air, with water at 20-39, 10-29 and on slices 3-8."""
    image_hu = np.full((60, 50, 12), -1000.0, dtype=np.float32)
    image_hu[20:40, 10:30, 3:9] = 0.0
    return image_hu


def test_the_box_reaches_the_margin_and_one_step_beyond_the_patient():
    # Looked at every 2, 2 and 1 voxels (4, 4 and 5 mm); a margin of 20 mm is 10, 10 and 4 voxels.
    assert body_box(block_in_air(), VOXEL_MM, -500.0, 20.0) == (slice(8, 51), slice(0, 41), slice(0, 12))
    assert body_box(block_in_air(), VOXEL_MM, -500.0, 0.0)[2] == slice(2, 10)


def test_a_smaller_thing_beside_the_patient_does_not_widen_the_box():
    image_hu = block_in_air()
    image_hu[50:56, 44:48] = 300.0
    assert body_box(image_hu, VOXEL_MM, -500.0, 0.0) == body_box(block_in_air(), VOXEL_MM, -500.0, 0.0)


def test_the_threshold_decides_what_counts_as_the_patient():
    image_hu = block_in_air()
    image_hu[image_hu == 0.0] = -400.0
    assert body_box(image_hu, VOXEL_MM, -500.0, 0.0)[0] == slice(18, 41)
    assert body_box(image_hu, VOXEL_MM, -300.0, 0.0)[0] == slice(0, 60)


def test_an_image_of_air_stays_whole():
    air = np.full((6, 7, 8), -1000.0, dtype=np.float32)
    assert body_box(air, VOXEL_MM, -500.0, 20.0) == (slice(0, 6), slice(0, 7), slice(0, 8))
