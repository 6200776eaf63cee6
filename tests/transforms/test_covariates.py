"""Numbers about the patient as planes beside the image."""

from __future__ import annotations

import pytest
import torch
from chest_files import picture, write_dx
from PIL import Image

from medseg.errors import InputError
from medseg.transforms import AddCovariatesd, LoadRadiographd

ENDS = {"age": (50, 90), "sex": (0, 1), "height_cm": (140, 190), "weight_kg": (40, 100)}


def loaded(path):
    return LoadRadiographd("image")({"image": str(path)})


def test_each_covariate_is_a_plane_between_its_ends(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "film.png")
    item = {**loaded(tmp_path / "film.png"), "age": 80.0, "sex": "M", "height_cm": 165.0, "weight_kg": 25.0}
    found = AddCovariatesd("image", ENDS)(item)["image"]
    assert found.shape == (5, 80, 100) and torch.equal(found[:1].as_tensor(), item["image"].as_tensor())
    assert [float(plane.unique()) for plane in found[1:]] == [0.5, 1.0, 0.0, -1.5]
    assert found.meta["filename_or_obj"] == item["image"].meta["filename_or_obj"]


def test_what_the_item_does_not_say_the_dicom_header_may(tmp_path):
    said = {"PatientAge": "070Y", "PatientSex": "F", "PatientSize": 1.65, "PatientWeight": 70}
    item = loaded(write_dx(tmp_path / "film.dcm", **said))
    planes = AddCovariatesd("image", ENDS)(item)["image"][1:]
    assert [float(plane.mean()) for plane in planes] == pytest.approx([0.0, -1.0, 0.0, 0.0], abs=1e-5)
    younger = AddCovariatesd("image", ENDS)({**item, "age": 50.0})["image"]
    assert float(younger[1].mean()) == -1.0  # the datalist counts before the header


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "covariate age: nothing; expected a number"),
        ({"age": "old"}, "covariate age: 'old'"),
        ({"age": True}, "covariate age: True"),
    ],
)
def test_a_covariate_that_nobody_says_is_not_guessed(tmp_path, changes, words):
    Image.fromarray(picture()).save(tmp_path / "film.png")
    with pytest.raises(InputError, match=words):
        AddCovariatesd("image", {"age": (50, 90)})({**loaded(tmp_path / "film.png"), **changes})


def test_without_covariates_the_image_stays_and_ends_must_rise(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "film.png")
    item = loaded(tmp_path / "film.png")
    assert torch.equal(AddCovariatesd("image", {})(item)["image"].as_tensor(), item["image"].as_tensor())
    with pytest.raises(InputError, match="expected a low below its high"):
        AddCovariatesd("image", {"age": (90, 50)})
