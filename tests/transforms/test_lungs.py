"""A chest is cut to its lungs where they lie; a CT without lungs is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import InputError
from medseg.transforms import CropLungsd


def ct(inside_hu: float) -> MetaTensor:
    """40 x 30 x 20 voxels of 10 mm: air, tissue at 4-35 and 3-26, and from 8-15 and 8-19 on slices 5-14
    whatever is given."""
    image = np.full((40, 30, 20), -1000.0, dtype=np.float32)
    image[4:36, 3:27] = 40.0
    image[8:16, 8:20, 5:15] = inside_hu
    affine = np.diag([10.0, 10.0, 10.0, 1.0])
    affine[:3, 3] = (-200, -150, 30)
    return MetaTensor(torch.from_numpy(image)[None], affine=affine, meta={"filename_or_obj": "CT/PAT_1"})


def test_the_box_has_the_margin_and_says_where_it_lies():
    cut = CropLungsd("image", margin_mm=20.0)({"image": ct(-850.0)})["image"]
    low = [int(round(float(place))) for place in (cut.affine[:3, 3] - ct(0.0).affine[:3, 3]) / 10]
    assert low == [6, 6, 3] and cut.shape == (1, 12, 16, 14)
    assert torch.equal(cut[0], ct(-850.0)[0, 6:18, 6:22, 3:17])


def test_the_inverse_puts_the_box_back():
    step = CropLungsd("image", margin_mm=0.0)
    back = step.inverse(step({"image": ct(-850.0)}))["image"]
    assert back.shape == (1, 40, 30, 20)
    assert torch.equal(back[0, 8:16, 8:20, 5:15], ct(-850.0)[0, 8:16, 8:20, 5:15]) and back[0, 0, 0, 0] == 0


@pytest.mark.parametrize("inside", (40.0, -1000.0))
def test_a_ct_without_lungs_is_refused_by_name(inside):
    with pytest.raises(InputError, match=r"CT/PAT_1: 0 cc of lung on this CT, at least 200 cc expected"):
        CropLungsd("image")({"image": ct(inside)})


def test_too_little_lung_is_refused_by_the_limit_that_was_set():
    # 8 x 12 x 10 voxels of 1 cc.
    assert CropLungsd("image", least_cc=900.0)({"image": ct(-850.0)})["image"].numel()
    with pytest.raises(InputError, match="960 cc of lung"):
        CropLungsd("image", least_cc=1000.0)({"image": ct(-850.0)})


def test_a_negative_margin_is_refused():
    with pytest.raises(InputError, match="margin_mm is -1"):
        CropLungsd("image", margin_mm=-1)
