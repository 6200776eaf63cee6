"""Structures that nobody contoured give no loss and no score; a wrong list of contoured structures is
refused."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import DiceMetric
from monai.transforms import AsDiscreted, Spacingd

from medseg.errors import GeometryError, InputError, StructureError
from medseg.losses.per_sample import DiceBCEPerSample
from medseg.transforms.partial import BitFieldToChannelsd, ThresholdKnownd

BITS = {"Cord": [0], "Parotid_R": [1], "PTV": [2, 3]}


def field() -> MetaTensor:
    """4 x 1 x 1 voxels: cord, cord and the first target, the second target, nothing."""
    return MetaTensor(torch.tensor([1.0, 1 + 4, 8, 0]).reshape(1, 4, 1, 1))


def channels(present, label=None):
    sample = {"label": field() if label is None else label, "present": present}
    return BitFieldToChannelsd("label", BITS)(sample)["label"]


def test_bits_become_channels_and_a_structure_of_several_bits_is_their_union():
    result = channels(["Cord", "PTV"])
    assert result[0].flatten().tolist() == [1, 1, 0, 0]
    assert result[2].flatten().tolist() == [0, 1, 1, 0]


def test_a_structure_that_is_not_listed_is_nan_everywhere():
    assert torch.isnan(channels(["Cord", "PTV"])[1]).all()


def test_the_highest_bits_are_read_exactly():
    label = MetaTensor(torch.tensor([2.0**23 + 1, 1.0]).reshape(1, 2, 1, 1))
    result = BitFieldToChannelsd("label", {"Cord": [0], "Top": [23]})(
        {"label": label, "present": ["Cord", "Top"]}
    )["label"]
    assert result.flatten(1).tolist() == [[1, 1], [1, 0]]
    with pytest.raises(InputError, match="0 to 23"):
        BitFieldToChannelsd("label", {"Top": [24]})


def test_a_list_that_the_voxels_contradict_is_refused():
    with pytest.raises(StructureError, match="PTV has voxels but is not listed"):
        channels(["Cord"])
    with pytest.raises(StructureError, match="Parotid_R has no voxel but is listed"):
        channels(["Cord", "Parotid_R", "PTV"])
    with pytest.raises(StructureError, match="no bits for Heart"):
        channels(["Cord", "Heart", "PTV"])


def test_errors_name_the_case_and_a_label_has_the_size_of_its_image():
    sample = {"label": field(), "present": ["Cord"], "case_id": "pt 7", "image": torch.zeros(1, 4, 1, 2)}
    with pytest.raises(StructureError, match="pt 7: 'label': PTV has voxels but is not listed"):
        BitFieldToChannelsd("label", BITS)(sample)
    with pytest.raises(GeometryError, match="pt 7: 'label' has 4 x 1 x 1 pixels, its image 4 x 1 x 2"):
        BitFieldToChannelsd("label", BITS, image_key="image")(sample)
    with pytest.raises(InputError, match="pt 7: no list under 'present'"):
        BitFieldToChannelsd("label", BITS)({**sample, "present": "Cord"})


def test_a_label_that_has_channels_already_is_refused():
    with pytest.raises(InputError, match="2 channels; expected one"):
        channels(["Cord"], MetaTensor(torch.zeros(2, 4, 1, 1)))


def test_thresholding_keeps_what_is_not_known():
    values = MetaTensor(torch.tensor([[0.2, 0.5, torch.nan]]))
    known = ThresholdKnownd("label")({"label": values})["label"]
    assert known[0, :2].tolist() == [0, 1] and torch.isnan(known[0, 2])
    # MONAI's own would call it contoured and empty, which is what this transform is for.
    assert AsDiscreted("label", threshold=0.5)({"label": values})["label"][0, 2] == 0


def test_a_missing_structure_stays_missing_on_another_grid():
    label = channels(["Cord", "PTV"], MetaTensor(field().expand(1, 4, 4, 4).contiguous()))
    resampled = Spacingd("label", pixdim=(0.7, 0.7, 0.7), mode="bilinear")({"label": label})["label"]
    assert resampled.shape[1:] != label.shape[1:]
    assert torch.isnan(resampled[1]).all() and not torch.isnan(resampled[[0, 2]]).any()


def test_a_missing_structure_gives_no_loss_and_no_gradient_and_an_empty_one_does():
    logits = torch.zeros(1, 3, 4, 1, 1, requires_grad=True)
    label = torch.as_tensor(channels(["Cord", "PTV"]))[None]
    DiceBCEPerSample()(logits, label).sum().backward()
    assert logits.grad[0, 1].abs().sum() == 0 and logits.grad[0, 0].abs().sum() > 0
    logits.grad = None
    DiceBCEPerSample()(logits, torch.nan_to_num(label)).sum().backward()
    assert logits.grad[0, 1].abs().sum() > 0


def test_a_missing_structure_gives_no_score_whatever_is_predicted():
    label = torch.as_tensor(channels(["Cord", "PTV"]))[None]
    prediction = torch.zeros(1, 3, 4, 1, 1)
    prediction[0, 0, :2] = 1
    prediction[0, 1] = 1
    metric = DiceMetric(reduction="none")
    scores = metric(prediction, label)[0]
    assert scores[0] == 1 and torch.isnan(scores[1]) and scores[2] == 0
    metric = DiceMetric(reduction="mean")
    metric(prediction, label)
    assert metric.aggregate().item() == 0.5
