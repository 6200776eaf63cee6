"""The files of the cxr_anatomy bundle agree with each other, with MONAI's specification and with the
radiographs' masks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from medseg.errors import InputError
from medseg.structures.structure import fixed_colour_rgb
from medseg.structures.tg263 import check_name
from medseg.training.noisy.trainer import METHODS, NoisyLabelTrainer

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "cxr_anatomy"
NAMES = {
    "Lung_R": "Right Lung",
    "Lung_L": "Left Lung",
    "Mediastinum": "Cardiomediastinum",
    "AirWay_Prox": "Airways",
}
SECTIONS = {"training": (25, 24), "validation": (7, 5), "test": (12, 8)}
"""Images and patients."""


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


def prepared(transforms: list) -> list[dict]:
    """What makes the network's image out of the opened one, without the label's part in it."""
    names = (
        "medseg.transforms.LoadRadiographd",
        "ScaleIntensityRangePercentilesd",
        "Resized",
        "ResizeWithPadOrCropd",
    )
    steps = [{**t, "keys": "image"} for t in transforms if isinstance(t, dict) and t["_target_"] in names]
    for step in steps:
        for setting in ("mode", "anti_aliasing"):
            if isinstance(step.get(setting), list):
                step[setting] = step[setting][0]
    return steps


@pytest.mark.parametrize("name", ["image_size", "views", "network_def"])
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_training_evaluation_and_inference_prepare_the_image_alike():
    inference = prepared(config("inference.json")["preprocessing"]["transforms"])
    assert len(inference) == 4
    assert prepared(config("train.json")["train"]["deterministic_transforms"]) == inference
    assert prepared(config("evaluate.json")["validate#preprocessing"]["transforms"]) == inference


def test_no_augmentation_mirrors_the_patient():
    steps = [step["_target_"] for step in config("train.json")["train"]["random_transforms"]]
    assert steps and not [
        step for step in steps if "Flip" in step or "Rotate90" in step or "AxisFlip" in step
    ]


def test_the_structures_are_the_channels_in_order_with_tg_263_names():
    step = next(t for t in config("inference.json")["postprocessing"]["transforms"] if "structures" in t)
    names = [structure["name"] for structure in step["structures"]]
    assert names == list(NAMES) == list(config("train.json")["bits"])
    assert (
        list(config("metadata.json")["network_data_format"]["outputs"]["pred"]["channel_def"].values())
        == names
    )
    for structure in step["structures"]:
        assert check_name(structure["name"]).problems == ()
        assert tuple(structure["colour_rgb"]) == fixed_colour_rgb(structure["name"])
    assert step["one_piece"] == names[:3]


def test_sides_are_the_patients(shared_data):
    folder = shared_data / "cxr" / "chest_masks_cc" / "masks"
    bits = config("train.json")["bits"]
    for path in sorted(folder.glob("*.png"))[:10]:
        field = np.asarray(Image.open(path))
        columns = {name: np.nonzero(field >> bits[name][0] & 1)[1] for name in ("Lung_R", "Lung_L")}
        if all(len(found) for found in columns.values()):
            assert columns["Lung_R"].mean() < columns["Lung_L"].mean(), (
                f"{path.name}: right is on the viewer's left"
            )


def test_every_image_is_in_one_section_with_its_masks(shared_data):
    with open(shared_data / "cxr" / "chest_masks_cc" / "cases.csv", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    datalist = config("datalist.json")
    listed = [case for section in SECTIONS for case in datalist[section]]
    assert sorted(case["case_id"] for case in listed) == sorted(rows)
    for case in listed:
        row = rows[case["case_id"]]
        assert case["patient_id"] == row["patientid"]
        assert case["present"] == [name for name, column in NAMES.items() if row[column] == "1"]
    partly = {
        case["case_id"]: set(NAMES) - set(case["present"]) for case in listed if len(case["present"]) < 4
    }
    assert partly == {"gb031": {"Lung_R"}, "gb045": {"Lung_L"}}


def test_no_patient_is_on_two_sides():
    datalist = config("datalist.json")
    patients = {section: {case["patient_id"] for case in datalist[section]} for section in SECTIONS}
    assert {section: (len(datalist[section]), len(ids)) for section, ids in patients.items()} == SECTIONS
    assert len(set.union(*patients.values())) == sum(count for _, count in SECTIONS.values())


def test_the_split_is_the_one_that_the_tool_draws(shared_data, monkeypatch):
    monkeypatch.syspath_prepend(str(BUNDLE.parents[1] / "tools" / "datasets"))
    from cxr import split

    with open(shared_data / "cxr" / "chest_masks_cc" / "cases.csv", newline="") as file:
        sections = split(list(csv.DictReader(file)), config("datalist.json")["seed"], test=8, validate=5)
    assert sections == {section: config("datalist.json")[section] for section in SECTIONS}


@pytest.mark.parametrize(("test", "validate"), [(-1, 5), (8, -1), (3, 1)])
def test_a_split_that_leaves_nobody_to_train_or_draws_a_patient_twice_is_refused(test, validate, monkeypatch):
    monkeypatch.syspath_prepend(str(BUNDLE.parents[1] / "tools" / "datasets"))
    from cxr import split

    rows = [{"case": str(n), "patientid": str(n), **dict.fromkeys(NAMES.values(), "1")} for n in range(4)]
    with pytest.raises(InputError, match="none is left to train"):
        split(rows, 0, test, validate)


@pytest.mark.parametrize("method", ["ce", "qam_ocm"])
def test_one_setting_chooses_how_labels_are_weighted(method, tmp_path):
    assert config("train.json")["method"] in METHODS
    parser = ConfigParser(
        {**config("train.json"), "imports": ["$import torch", "$import monai", "$import os"]}
    )
    parser["method"], parser["ckpt_dir"], parser["output_dir"] = method, str(tmp_path), str(tmp_path)
    parser["train#dataset"] = {"_target_": "Dataset", "data": [], "_desc_": "no image is read here"}
    parser["train#dataloader"] = [1]
    parser["train#handlers"] = []
    trainer = parser.get_parsed_content("train#trainer")
    assert isinstance(trainer, NoisyLabelTrainer) and trainer.method == method
    assert ("quality" in trainer.learner.modules) == (method == "qam_ocm")


def test_metadata_describes_the_network_at_both_sizes():
    formats = config("metadata.json")["network_data_format"]
    assert formats["inputs"]["image"]["modality"] == "DX"
    network = ConfigParser(config("inference.json")).get_parsed_content("network_def").eval()
    assert formats["inputs"]["image"]["spatial_shape"] == [f"{m}*n" for m in network.size_multiple]
    for side in (256, 512):
        assert all(side % m == 0 for m in network.size_multiple)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 4, 64, 64)


def test_the_baseline_is_the_same_network_without_its_extras():
    changes = {key: value for key, value in config("unet.json").items() if key not in ("_desc_", "variant")}
    assert changes == {"network_def#residual": False, "network_def#squeeze_excitation": False}


def test_the_licence_of_the_data_is_stated_as_non_commercial():
    assert "non-commercial" in (BUNDLE / "docs" / "data_license.txt").read_text().lower()
