"""Numbers beside classes: learned in standard deviations, said in their unit with what follows from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from chest_files import write_dx

from medseg.errors import InputError
from medseg.losses import LabelCEPerSample
from medseg.transforms import AppendNumbersd, LoadRadiographd, ToLabelsd
from medseg.transforms.quantities import quantities_of

BMD = {"name": "BMD", "unit": "g/cm2", "mean": 0.858, "sd": 0.12, "standardised": "T-score"}


def test_a_number_is_appended_in_standard_deviations_and_a_missing_one_counts_nothing():
    append = AppendNumbersd("label", {"bmd": BMD})
    label = torch.tensor([0.0, 1.0])
    assert append({"label": label, "bmd": 0.558})["label"].tolist() == pytest.approx([0, 1, -2.5])
    assert math.isnan(append({"label": label})["label"][2])
    assert AppendNumbersd("label")({"label": label})["label"].tolist() == [0, 1]
    with pytest.raises(InputError, match="bmd is '0.6'; expected a finite number in g/cm2"):
        append({"label": label, "bmd": "0.6"})


def test_the_loss_of_a_number_is_added_to_that_of_the_classes():
    logits = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, 0.5], [0.0, 0.0, 7.0]])
    target = torch.tensor([[1.0, 0.0, -2.5], [0.0, 1.0, 2.5], [1.0, 0.0, float("nan")]])
    # Off by 0.5: 0.125; off by 2: 1.5; not known: nothing.
    loss = LabelCEPerSample(numbers=1, number_weight=2.0)(logits, target)
    assert loss.tolist() == pytest.approx([np.log(2) + 0.25, np.log(2) + 3.0, np.log(2)])
    no_class = torch.tensor([[float("nan"), float("nan"), -2.5]])
    assert LabelCEPerSample(numbers=1)(logits[:1], no_class).tolist() == pytest.approx([0.125])
    assert LabelCEPerSample([3.0, 1.0], 1)(logits[2:], target[2:]).tolist() == pytest.approx([3 * np.log(2)])


@pytest.fixture
def said(tmp_path):
    """What is said of a film whose network answered with logits and -2.5 SD."""

    def answer(**calibration):
        image = LoadRadiographd("image")({"image": str(write_dx(tmp_path / "film.dcm"))})["image"]
        path = tmp_path / "calibration.json"
        path.write_text(json.dumps({"temperature": 1, "scores": [-1, 1], "truth": [0, 1], **calibration}))
        to = ToLabelsd("pred", ("sound", "sick"), calibration=path, numbers={"bmd": BMD})
        return to({"image": image, "pred": torch.tensor([0.0, 0.0, -2.5])})["labels"]

    return answer


def test_bmd_is_said_in_its_unit_with_its_t_score(said):
    labels = said()
    assert labels.probabilities == {"sound": 0.5, "sick": 0.5}
    assert labels.values["BMD"] == (pytest.approx(0.558), "g/cm2")
    assert labels.values["T-score"] == (-2.5, "1")
    assert set(labels.intervals) == {"sick"}, "nothing is known of how far it is off"
    assert labels.record()["labels"]["values"]["BMD"] == {"value": 0.558, "unit": "g/cm2"}


def test_it_is_moved_and_gets_its_interval_by_what_validation_images_were_off(said):
    # It said 0.5 too much in the median, from 0.3 too little to 0.9 too much on all but one at each end.
    labels = said(off={"bmd": [-9.0, -0.3] + [0.5] * 76 + [0.9, 9.0]})
    assert labels.values["T-score"] == (-3.0, "1")
    assert labels.intervals["T-score"] == pytest.approx((-3.4, -2.2))
    assert labels.values["BMD"][0] == pytest.approx(0.858 - 3.0 * 0.12)
    assert labels.intervals["BMD"] == pytest.approx((0.45, 0.594))
    assert "BMD" not in said(off={"bmd": [0.5] * 38}).intervals, "38 images cannot promise 95 %"


def test_what_is_no_quantity_is_refused():
    with pytest.raises(InputError, match="expected name, unit, mean, sd"):
        quantities_of({"bmd": {"name": "BMD"}})
    with pytest.raises(InputError, match="the sd of bmd is 0; expected a number above 0"):
        quantities_of({"bmd": {**BMD, "sd": 0}})
