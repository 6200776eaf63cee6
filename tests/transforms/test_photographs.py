"""Photographs reach the network in their own colours and an even light, and refusals name the colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from photo_files import colours
from PIL import Image

from medseg.errors import InputError, StructureError
from medseg.phantoms.fundus import make_fundus
from medseg.transforms import (
    BitFieldToChannelsd,
    LoadPhotographd,
    NormaliseIlluminationd,
    SavePhotographd,
    ToPhotographStructuresd,
)


@pytest.fixture
def grey(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(colours()[..., 0] // 2 + colours()[..., 1] // 2).save(path)
    return str(path)


@pytest.fixture
def coloured(tmp_path):
    path = tmp_path / "colour.png"
    Image.fromarray(colours()).save(path)
    return str(path)


def test_colours_become_channels_rows_and_columns(coloured):
    image = LoadPhotographd("image")({"image": coloured})["image"]
    assert image.shape == (3, 40, 60) and image.dtype == torch.float32
    assert np.array_equal(np.rint(image.numpy() * 255), colours().transpose(2, 0, 1))


def test_a_bundle_takes_the_colours_that_it_learned_from(coloured, grey):
    with pytest.raises(InputError, match="is grey; this bundle learned from colour photographs"):
        LoadPhotographd("image")({"image": grey})
    with pytest.raises(InputError, match="is coloured; this bundle learned from grey photographs"):
        LoadPhotographd("image", "grey")({"image": coloured})
    assert LoadPhotographd("image", "grey")({"image": grey})["image"].shape == (3, 40, 60)
    assert LoadPhotographd("image", "any")({"image": coloured})["image"].shape == (3, 40, 60)
    with pytest.raises(InputError, match="expected one of colour, grey, any"):
        LoadPhotographd("image", "red")


def test_two_exposures_of_one_eye_look_alike_once_their_light_is_even():
    eye = make_fundus(3, 0, 192)
    across = np.linspace(0.5, 1.0, 192)[None, :, None]
    other = (eye.image * across * 0.8).astype(np.float32)
    evened = [NormaliseIlluminationd("image").even(i.transpose(2, 0, 1)) for i in (eye.image, other)]
    inner = np.hypot(*(np.mgrid[0:192, 0:192] - 96)) < 75
    before = np.corrcoef(eye.image[inner][:, 1], other[inner][:, 1])[0, 1]
    after = np.corrcoef(evened[0][1][inner], evened[1][1][inner])[0, 1]
    assert after > 0.95 > before
    assert not evened[0][:, ~eye.field].any(), "the frame stays 0"


def test_small_lesions_stand_out_and_the_overall_spread_is_one():
    eye = make_fundus(3, 0, 192)
    evened = NormaliseIlluminationd("image").even(eye.image.transpose(2, 0, 1))
    assert evened[1][eye.lesions].mean() > 1.0
    assert evened[1][eye.field].std() == pytest.approx(1, abs=0.15)
    assert np.abs(evened).max() <= 8


def test_the_width_of_the_background_matters_and_nonsense_is_refused():
    eye = make_fundus(3, 0, 192).image.transpose(2, 0, 1)
    wide, narrow = (NormaliseIlluminationd("image", share).even(eye) for share in (0.2, 0.02))
    assert not np.allclose(wide, narrow, atol=0.1)
    with pytest.raises(InputError, match="both above 0"):
        NormaliseIlluminationd("image", background_share=0)


def test_a_patient_without_lesions_is_a_negative_only_where_that_was_asked_for():
    item = {"label": torch.zeros(1, 4, 4), "present": ["Exudate"]}
    found = BitFieldToChannelsd("label", {"Exudate": [0]}, may_be_empty=True)(item)["label"]
    assert found.shape == (1, 4, 4) and not found.any()
    with pytest.raises(StructureError, match="no voxel but is listed"):
        BitFieldToChannelsd("label", {"Exudate": [0]})(item)
    look_alike = {"label": torch.full((1, 4, 4), 2.0), "present": ["Exudate"]}
    assert not BitFieldToChannelsd("label", {"Exudate": [0]}, may_be_empty=True)(look_alike)["label"].any()


def test_probabilities_are_kept_and_the_frame_has_none(tmp_path):
    eye = make_fundus(1, 0, 96)
    Image.fromarray(np.rint(eye.image * 255).astype(np.uint8)).save(tmp_path / "eye.png")
    pred = MetaTensor(torch.full((1, 96, 96), 0.7), meta={"filename_or_obj": str(tmp_path / "eye.png")})
    step = ToPhotographStructuresd(structures=[{"name": "Exudate"}])
    (chances,) = step({"pred": pred})["structures"].masks.values()
    assert chances[48, 48] == pytest.approx(0.7) and chances[0, 0] == 0
    with pytest.raises(StructureError, match="1 predicted channels for 2 named structures"):
        ToPhotographStructuresd(structures=[{"name": "A"}, {"name": "B"}])({"pred": pred})
    with pytest.raises(InputError, match="expected some of png, probability, seg, preview"):
        SavePhotographd(formats=["rtstruct"])
