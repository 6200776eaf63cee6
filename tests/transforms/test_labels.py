"""Labels of whole images: classes, calibration, sides."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from chest_files import picture, write_dx
from monai.transforms import Compose, Invertd
from PIL import Image

from medseg.errors import BundleError, InputError
from medseg.losses import LabelCEPerSample
from medseg.metrics.classification import venn_abers
from medseg.transforms import LoadRadiographd, MirrorRightd, ToClassd, ToLabelsd


@pytest.mark.parametrize("label, expected", [(0, [1, 0]), (1, [0, 1]), (1.0, [0, 1])])
def test_a_class_number_becomes_one_of_its_channels(label, expected):
    assert ToClassd(classes=2)({"label": label})["label"].tolist() == expected


def test_a_class_may_be_named_and_nothing_else_is_one():
    named = ToClassd(classes=("sound", "sick"))
    assert named({"label": "sick"})["label"].tolist() == [0, 1]
    for label in (2, -1, 0.5, "ill", float("nan")):
        with pytest.raises((InputError, ValueError)):
            named({"label": label})


def test_the_loss_of_labels_by_hand():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [float("nan")] * 2])
    expected = [np.log(2), np.log(1 + np.exp(-2)), 0.0]
    assert LabelCEPerSample()(logits, target).tolist() == pytest.approx(expected)
    weighed = LabelCEPerSample([3.0, 1.0])(logits, target).tolist()
    assert weighed == pytest.approx([3 * expected[0], 3 * expected[1], 0.0])
    with pytest.raises(InputError, match=r"shape \(3, 2\) and labels of shape \(3,\)"):
        LabelCEPerSample()(logits, target[:, 0])
    with pytest.raises(InputError, match=r"expected \(B, 3\) both"):
        LabelCEPerSample([1.0, 1.0, 1.0])(logits, target)


def film(tmp_path, **changes):
    return str(write_dx(tmp_path / "film.dcm", **changes))


def test_right_films_are_mirrored_and_turned_back(tmp_path):
    chain = Compose([LoadRadiographd("image"), MirrorRightd("image")])
    source = film(tmp_path, ImageLaterality="R")
    seen = chain({"image": source})
    plain = LoadRadiographd("image")({"image": source})["image"]
    assert torch.equal(seen["image"], plain.flip(2))
    back = Invertd("map", chain, orig_keys="image")({**seen, "map": seen["image"].clone()})
    assert torch.equal(back["map"].as_tensor(), plain.as_tensor())


@pytest.mark.parametrize(
    "changes, item, side, mirrored",
    [
        ({"ImageLaterality": "L"}, {}, None, False),
        ({"Laterality": "R"}, {}, None, True),
        ({"Laterality": "R"}, {"side": "L"}, None, False),  # the datalist knows better than the file
        ({"Laterality": "L"}, {"side": "L"}, "R", True),  # and the user better than both
    ],
)
def test_who_says_the_side(tmp_path, changes, item, side, mirrored):
    source = film(tmp_path, **changes)
    plain = LoadRadiographd("image")({"image": source})
    found = MirrorRightd("image", side=side)({**plain, **item})["image"]
    assert torch.equal(found, plain["image"].flip(2)) == mirrored


def test_a_side_that_nobody_says_is_not_guessed(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "film.png")
    item = LoadRadiographd("image")({"image": str(tmp_path / "film.png")})
    with pytest.raises(InputError, match="nobody says which side this is .seen: nothing"):
        MirrorRightd("image")(item)
    with pytest.raises(InputError, match="seen: B"):
        MirrorRightd("image")({**item, "side": "B"})
    with pytest.raises(InputError, match="side 'left'"):
        MirrorRightd("image", side="left")


def test_venn_abers_by_hand():
    scores, truth = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([False, False, True, True])
    # Between both: as wrong it is the last of three wrong, as right the first of three right.
    assert venn_abers(scores, truth, 0.0) == (0.0, 1.0)
    # Beside the sure ones: put in as wrong it drags 1, 2 and itself to 2/3.
    low, high = venn_abers(scores, truth, 3.0)
    assert (low, high) == (pytest.approx(2 / 3), 1.0)
    with pytest.raises(InputError, match="at least 1"):
        venn_abers(scores[:0], truth[:0], 0.0)


def test_calibration_turns_logits_and_gives_an_interval(tmp_path):
    content = {"temperature": 2.0, "scores": [-2.0, -1.0, 1.0, 2.0], "truth": [0, 0, 1, 1]}
    (tmp_path / "c.json").write_text(json.dumps(content))
    item = LoadRadiographd("image")({"image": film(tmp_path)})
    to = ToLabelsd(names=("no", "yes"), calibration=tmp_path / "c.json", remark="Say so.")
    found = to({**item, "pred": torch.tensor([0.0, 6.0])})["labels"]
    assert found.probabilities["yes"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert found.intervals["yes"] == (pytest.approx(2 / 3), 1.0)
    assert found.remark == "Say so."
    (tmp_path / "c.json").write_text(json.dumps({**content, "offset": -1.0}))
    moved = ToLabelsd(names=("no", "yes"), calibration=tmp_path / "c.json")
    found = moved({**item, "pred": torch.tensor([0.0, 6.0])})["labels"]
    assert found.probabilities["yes"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert found.intervals["yes"] == (pytest.approx(2 / 3), 1.0), "the scores are those before the offset"


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"scores": [1, 2]},
        {"offset": float("inf")},
        {"off": {"bmd": []}},
        {"off": [0.1]},
        {"truth": [0, 0, 0, 0]},
        {"scores": [0, 1, 2, "x"]},
        {"truth": None},
    ],
)
def test_a_calibration_that_is_none_is_refused(tmp_path, change):
    content = {"temperature": 2.0, "scores": [-2.0, -1.0, 1.0, 2.0], "truth": [0, 0, 1, 1], **change}
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="calibration|temperature above 0"):
        ToLabelsd(names=("no", "yes"), calibration=tmp_path / "c.json")
