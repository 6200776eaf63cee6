"""Training crops around the tumour."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import InputError
from medseg.transforms.regions import RandRegionCropd

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0], dtype=torch.float64))  # 2 x 2 x 5 mm


def sample() -> dict[str, MetaTensor]:
    label = torch.zeros(1, 60, 60, 40)
    label[:, 25:35, 28:31, 18:20] = 1
    image = torch.arange(label.numel(), dtype=torch.float32).reshape(label.shape)
    return {"image": MetaTensor(image, affine=AFFINE), "label": MetaTensor(label, affine=AFFINE)}


def test_equal_margins_give_the_box_worked_out_by_hand():
    cropped = RandRegionCropd(("image", "label"), margin_mm=(10, 10))(sample())
    # 10 mm are 5 voxels in plane and 2 slices: 20..40, 23..36, 16..22.
    assert torch.equal(cropped["image"].as_tensor(), sample()["image"].as_tensor()[:, 20:40, 23:36, 16:22])
    assert cropped["image"].affine[:3, 3].tolist() == [20 * 2, 23 * 2, 16 * 5]


def test_every_side_has_its_own_margin_within_the_limits_and_the_tumour_stays_whole():
    transform = RandRegionCropd(("image", "label"), margin_mm=(4, 40))
    transform.set_random_state(seed=0)
    margins = []
    for _ in range(40):
        label = transform(sample())["label"].as_tensor()[0].numpy()
        assert label.sum() == 10 * 3 * 2
        inside = np.argwhere(label)
        before = inside.min(0) * [2, 2, 5]
        after = (np.array(label.shape) - 1 - inside.max(0)) * [2, 2, 5]
        margins.append([*before, *after])
    margins = np.array(margins)
    assert margins.min() >= 4 - 2.5 and margins.max() <= 40 + 2.5  # rounded to whole voxels of 5 mm
    assert (margins.min(0) < 12).all() and (margins.max(0) > 32).all()  # each side uses the whole range
    assert (np.abs(np.corrcoef(margins.T) - np.eye(6)) < 0.5).all()  # no side follows another


def test_margins_end_at_the_border_of_the_image():
    cropped = RandRegionCropd(("image", "label"), margin_mm=(1000, 1000))(sample())
    assert cropped["image"].shape == sample()["image"].shape


def test_empty_label_leaves_the_image_whole():
    data = sample()
    data["label"] = data["label"] * 0
    assert torch.equal(RandRegionCropd(("image", "label"))(data)["image"], data["image"])


def test_same_random_state_gives_the_same_crop():
    def draw(seed: int) -> tuple[int, ...]:
        transform = RandRegionCropd(("image", "label")).set_random_state(seed=seed)
        return tuple(transform(sample())["image"].shape)

    assert draw(1) == draw(1) != draw(2)


def test_keys_of_different_size_are_refused():
    data = sample()
    data["image"] = data["image"][:, :-1]
    with pytest.raises(InputError, match="'image' has size"):
        RandRegionCropd(("image", "label"))(data)


def test_margin_limits_in_the_wrong_order_are_refused():
    with pytest.raises(InputError, match="margin_mm"):
        RandRegionCropd("image", margin_mm=(40, 5))
