"""The patient is kept whole, with his airway, skin and ears; what he lies on and wears is blanked."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor

from medseg.shapes.body import body_mask
from medseg.transforms.body import BlankOutsideBodyd

VOXEL_MM = (4.0, 4.0, 3.0)


def neck() -> dict[str, np.ndarray]:
    """bool (x, y, z) parts on a grid of 60 x 60 x 10: a neck 160 mm wide with airway and ears, couch, block,
    mask."""
    x, y = np.ogrid[:60, :60]
    grid = np.zeros((60, 60, 10), bool)
    parts = {name: grid.copy() for name in ("neck", "airway", "ears", "couch", "block", "mask")}
    parts["neck"][((x - 30) / 20) ** 2 + ((y - 25) / 15) ** 2 <= 1] = True
    parts["airway"][28:32, 17:20] = True
    parts["ears"][8:10, 25, 3:6] = True
    parts["couch"][5:55, 50] = True
    parts["block"][2:9, 42:49] = True
    parts["mask"][12:48, 5] = True
    parts["neck"] &= ~parts["airway"]
    parts["ears"] &= ~parts["neck"]
    return parts


def ct(parts) -> np.ndarray:
    image = np.full((60, 60, 10), -1000.0, np.float32)
    for name, hu in {"neck": 40, "airway": -950, "ears": 20, "couch": 300, "block": 200, "mask": 100}.items():
        image[parts[name]] = hu
    return image


def test_neck_airway_and_ears_are_the_patient_and_couch_block_and_mask_are_not():
    parts = neck()
    body = body_mask(ct(parts), VOXEL_MM)
    for name in ("neck", "airway", "ears"):
        assert body[parts[name]].all(), name
    for name in ("couch", "block", "mask"):
        assert not body[parts[name]].any(), name


def test_only_what_lies_outside_changes_and_the_affine_stays():
    parts = neck()
    image = MetaTensor(torch.from_numpy(ct(parts))[None], affine=np.diag([*VOXEL_MM, 1.0]))
    blanked = BlankOutsideBodyd("image")({"image": image.clone()})["image"]
    body = torch.from_numpy(body_mask(ct(parts), VOXEL_MM))[None]
    assert torch.equal(blanked[body], image[body]) and (blanked[~body] == -1024).all()
    assert torch.equal(blanked.affine, image.affine) and blanked.shape == image.shape


def test_an_image_of_air_has_no_body_and_becomes_blank():
    air = np.full((20, 20, 5), -1000.0, np.float32)
    assert not body_mask(air, VOXEL_MM).any()
    image = MetaTensor(torch.from_numpy(air)[None], affine=np.diag([*VOXEL_MM, 1.0]))
    assert (BlankOutsideBodyd("image")({"image": image})["image"] == -1024).all()


def test_a_patient_who_fills_the_image_is_left_alone():
    image = np.full((20, 20, 5), 40.0, np.float32)
    assert body_mask(image, VOXEL_MM).all()
