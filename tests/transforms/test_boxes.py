"""Training boxes that are turned, bent and resized at once."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import map_coordinates

from medseg.errors import InputError
from medseg.transforms import RandBoxGridd

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))


def sample(channels=1):
    label = torch.zeros(1, 40, 44, 30)
    label[:, 12:22, 16:26, 10:18] = 1  # 20 x 20 x 24 mm
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(channels, 40, 44, 30)).astype(np.float32))
    return {"image": MetaTensor(image, affine=AFFINE), "label": MetaTensor(label, affine=AFFINE)}


def test_without_chance_it_is_the_widened_box_resampled_linearly():
    # 6 mm on each side: voxels 9..25, 13..29 and 8..20, 32 x 32 x 36 mm, on 8 x 16 x 12 voxels.
    boxed = RandBoxGridd(("image", "label"), size=(8, 16, 12), margin_mm=(6, 6))(sample(2))
    at = [
        9 - 0.5 + (np.arange(8) + 0.5) * 16 / 8,
        13 - 0.5 + (np.arange(16) + 0.5),
        8 - 0.5 + (np.arange(12) + 0.5),
    ]
    grid = np.stack(np.meshgrid(*at, indexing="ij"))
    for channel in (0, 1):
        expected = map_coordinates(sample(2)["image"].numpy()[channel], grid, order=1)
        np.testing.assert_allclose(boxed["image"].numpy()[channel], expected, atol=1e-4)
    # Along the axes that keep their voxels, 10 and 8 of them after margins of 3 and 2 voxels.
    inside = np.argwhere(boxed["label"].numpy()[0])[:, 1:]
    assert inside.min(0).tolist() == [3, 2]
    assert inside.max(0).tolist() == [12, 9]


@pytest.mark.parametrize("flip", [False, True])
def test_the_affine_says_where_the_voxels_of_a_turned_box_lie(flip):
    # Along a slope the grey value of a voxel is its own place, whatever was done to the box.
    place = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in (40, 44, 30)], indexing="ij"))
    mm = MetaTensor(place * AFFINE.diagonal()[:3, None, None, None].float(), affine=AFFINE)
    transform = RandBoxGridd(("image", "label"), (6, 7, 5), (2, 5), turn_deg=(5, 5, 10), flip=flip)
    boxed = transform.set_random_state(4)({**sample(), "image": mm})["image"]
    index = np.stack(np.meshgrid(*map(np.arange, (6, 7, 5)), indexing="ij"))
    told = np.einsum("ij,jxyz->ixyz", boxed.affine[:3, :3].numpy(), index)
    told += boxed.affine[:3, 3].numpy()[:, None, None, None]
    np.testing.assert_allclose(boxed.numpy(), told, atol=1e-3)


def test_the_same_seed_gives_the_same_box_and_another_gives_another():
    transform = RandBoxGridd(
        ("image", "label"), (16, 16, 16), (5, 20), turn_deg=(15, 15, 30), bend_mm=4, flip=True
    )
    drawn = [transform.set_random_state(seed)(sample())["image"].as_tensor() for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0], drawn[2])


def test_every_side_keeps_its_margin_however_the_patient_is_turned():
    transform = RandBoxGridd(("image", "label"), (24, 24, 24), (5, 20), turn_deg=(0, 0, 45), flip=True)
    transform.set_random_state(0)
    for _ in range(12):
        label = transform(sample())["label"].numpy()[0]
        inside = np.argwhere(label)
        assert label.any() and inside.min() > 0 and inside.max() < 23
        # 20 x 20 x 24 mm and at most 40 mm of margins: along each axis a third of the box or more.
        assert (inside.max(0) - inside.min(0) + 1 >= 24 * 20 / 60 - 1).all()


def test_a_full_turn_of_a_ball_leaves_its_volume():
    # A ball is 21 voxels wide however it is turned, so its box is 21 mm and two margins of 5 mm.
    label = torch.zeros(1, 60, 60, 60)
    places = torch.stack(torch.meshgrid(*[torch.arange(60.0)] * 3, indexing="ij"))
    label[0] = ((places - 29.5) ** 2).sum(0) <= 10**2
    ball = {"label": MetaTensor(label, affine=torch.eye(4, dtype=torch.float64))}
    transform = RandBoxGridd("label", (40, 40, 40), (5, 5), turn_deg=(180, 180, 180)).set_random_state(3)
    share = float(transform(ball)["label"].mean())
    assert share == pytest.approx(float(label.sum()) / 31**3, rel=0.06)


def test_bending_moves_no_voxel_further_than_it_says():
    ramp = torch.arange(40.0)[None, :, None, None].expand(1, 40, 44, 30) * 2  # mm along the first axis
    data = {**sample(), "image": MetaTensor(ramp.clone(), affine=AFFINE)}
    straight = RandBoxGridd(("image", "label"), (8, 8, 8), (6, 6))(data)["image"].numpy()
    bent = RandBoxGridd(("image", "label"), (8, 8, 8), (6, 6), bend_mm=3).set_random_state(0)(data)["image"]
    moved = np.abs(bent.numpy() - straight)
    assert 0.5 < moved.max() <= 3 + 1e-3


def test_sizes_that_differ_an_empty_label_and_margins_out_of_order_are_refused():
    with pytest.raises(InputError, match=r"margin_mm is \(9, 5\)"):
        RandBoxGridd("label", (8, 8, 8), (9, 5))
    transform = RandBoxGridd(("image", "label"), (8, 8, 8), (5, 5))
    with pytest.raises(InputError, match=r"'image' has size \(40, 44, 29\), 'label' has \(40, 44, 30\)"):
        transform({**sample(), "image": sample()["image"][..., :29]})
    with pytest.raises(InputError, match="no voxel to draw a box around"):
        transform({**sample(), "label": sample()["label"] * 0})
