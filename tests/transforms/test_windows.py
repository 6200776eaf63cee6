"""Windows cut from whole volumes: voxels, sides and labels stay where they belong."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import FgBgToIndicesd
from scipy.ndimage import affine_transform

from medseg.errors import GeometryError, InputError
from medseg.transforms import PackChannelsd, RandWindowd

nan = float("nan")


def sample_of(shape=(20, 16, 12), channels=3) -> dict:
    """An image that says each voxel's index, and cubes of 4 voxels at different places."""
    index = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    label = np.zeros((channels, *shape), np.float32)
    for channel in range(channels):
        label[channel, 2 + 5 * channel : 6 + 5 * channel, 4:8, 4:8] = 1
    affine = torch.diag(torch.tensor([4.0, 4.0, 3.0, 1.0], dtype=torch.float64))
    return {"image": MetaTensor(index, affine=affine), "label": MetaTensor(label, affine=affine)}


def test_eight_channels_come_back_from_one_byte_and_what_nobody_contoured_stays_unknown():
    sample = sample_of()
    before = sample["label"].clone()
    sample["label"][1] = nan
    packed = PackChannelsd("label")(sample)
    assert packed["label"].dtype == torch.uint8 and packed["label"].shape == (1, 20, 16, 12)
    assert packed["known"].tolist() == [True, False, True]
    window = RandWindowd(("image", "label"), (20, 16, 12), indices_key="none")
    window._middle = lambda sample, shape: tuple((n - 1) / 2 for n in shape)
    out = window(packed)
    assert torch.isnan(out["label"][1]).all()
    np.testing.assert_array_equal(out["label"][[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(out["image"], sample["image"], atol=1e-3)


def test_a_window_shows_the_voxels_around_its_middle_and_says_where_it_lies():
    packed = FgBgToIndicesd("label")(PackChannelsd("label")(sample_of(channels=1)))
    window = RandWindowd(("image", "label"), (5, 5, 5), foreground_share=1.0).set_random_state(3)
    for _ in range(5):
        out = window(packed)
        place = np.unravel_index(int(out["image"][0, 2, 2, 2].round()), (20, 16, 12))
        assert 2 <= place[0] < 6 and 4 <= place[1] < 8 and 4 <= place[2] < 8, "the middle lies in the cube"
        np.testing.assert_allclose(
            np.asarray(out["image"].affine) @ [2, 2, 2, 1],
            [4 * place[0], 4 * place[1], 3 * place[2], 1],
            atol=1e-4,
        )


def test_turning_and_scaling_agree_with_scipy():
    sample = FgBgToIndicesd("label")(PackChannelsd("label")(sample_of(channels=1)))
    window = RandWindowd(
        ("image", "label"), (14, 9, 7), foreground_share=1.0, move=(2, 2, 2), turn_deg=(20, 10, 30), scale=0.2
    )
    to_index, _ = window.set_random_state(5)._drawn(sample, sample["image"])
    out = window.set_random_state(5)(sample)
    for volume, order, found in (
        (sample["image"][0], 1, out["image"][0]),
        (sample["label"][0], 0, out["label"][0]),
    ):
        peer = affine_transform(
            np.asarray(volume),
            to_index[:3, :3],
            to_index[:3, 3],
            (14, 9, 7),
            order=order,
            mode="grid-constant",
        )
        assert (peer > 0).sum() > 20
        np.testing.assert_allclose(np.asarray(found), peer, atol=0.2)


def test_a_mirrored_patient_has_his_sides_swapped():
    sample = sample_of()
    window = RandWindowd(
        ("image", "label"), (20, 16, 12), indices_key="none", mirror=1.0, side_pairs=((0, 2),)
    )
    window._middle = lambda sample, shape: tuple((n - 1) / 2 for n in shape)
    out = window(PackChannelsd("label")(dict(sample)))
    np.testing.assert_allclose(out["image"], sample["image"].flip(1), atol=1e-3)
    np.testing.assert_array_equal(out["label"], sample["label"][[2, 1, 0]].flip(1))
    np.testing.assert_allclose(np.asarray(out["image"].affine), np.asarray(sample["image"].affine), atol=1e-6)


def test_wrong_calls_say_what_is_wrong():
    with pytest.raises(InputError, match="9 channels; a byte holds 8"):
        PackChannelsd("label")({"label": torch.zeros(9, 2, 2, 2)})
    half = torch.zeros(1, 2, 2, 2)
    half[0, 0] = nan
    with pytest.raises(InputError, match="NaN in part"):
        PackChannelsd("label")({"label": half})
    with pytest.raises(InputError, match="scale is 1.5"):
        RandWindowd(("image", "label"), (4, 4, 4), scale=1.5)
    packed = PackChannelsd("label")(sample_of())
    with pytest.raises(InputError, match="channel 7; 'label' has 3"):
        RandWindowd(("image", "label"), (4, 4, 4), mirror=1.0, side_pairs=((0, 7),))(packed)
    packed["image"] = packed["image"][:, :10]
    with pytest.raises(InputError, match=r"\(10, 16, 12\), 'label' has \(20, 16, 12\)"):
        RandWindowd(("image", "label"), (4, 4, 4))(packed)
    turned = PackChannelsd("label")(sample_of())
    turned["image"].affine = turned["image"].affine[[1, 0, 2, 3]]
    with pytest.raises(GeometryError, match="left-right"):
        RandWindowd(("image", "label"), (4, 4, 4), mirror=1.0)(turned)
