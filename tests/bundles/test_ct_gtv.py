"""The files of the ct_gtv bundle agree with each other and with MONAI's bundle specification."""

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "ct_gtv"


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


def steps_after_loading(transforms: list) -> list[dict]:
    """What is done to the image once it is open (inference also reads DICOM and crops), without the other
    keys."""
    on_image = [{**t, "keys": "image"} for t in transforms if isinstance(t, dict) and "image" in t["keys"]]
    names = [t["_target_"] for t in on_image]
    return on_image[names.index("Orientationd") :]


@pytest.mark.parametrize("name", ["spacing_mm", "window_hu", "grid_size", "network_def"])
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_training_evaluation_and_inference_prepare_the_image_alike():
    inference = steps_after_loading(config("inference.json")["preprocessing"]["transforms"])
    assert [t["_target_"] for t in inference] == [
        "Orientationd",
        "Spacingd",
        "ScaleIntensityRanged",
        "Resized",
    ]
    assert steps_after_loading(config("evaluate.json")["validate#preprocessing"]["transforms"]) == inference
    train = config("train.json")["train"]
    resize = {**train["resize"], "keys": "image", "mode": train["resize"]["mode"][0]}
    assert [*steps_after_loading(train["deterministic_transforms"]), resize] == inference


def test_inference_window_is_the_whole_grid_as_in_training():
    assert config("inference.json")["inferer"]["roi_size"] == "@grid_size"
    assert config("train.json")["validate"]["inferer"]["_target_"] == "medseg.training.AutocastInferer"


def test_run_and_training_are_the_same():
    train = config("train.json")
    assert train["training"] == "%run"
    assert train["run"] == ["$@train#trainer.run()"]


def test_no_patient_trains_and_validates_and_paths_are_relative():
    datalist = config("datalist.json")
    groups = {part: [case["case_id"] for case in datalist[part]] for part in ("training", "validation")}
    assert len(set(groups["training"])) == len(groups["training"]) == 27
    assert len(set(groups["validation"])) == len(groups["validation"]) == 6
    assert not set(groups["training"]) & set(groups["validation"])
    for case in datalist["training"] + datalist["validation"]:
        assert case.keys() == {"image", "label", "case_id"}  # other keys that begin so break MONAI's Spacingd
        assert case["image"] == f"{case['case_id']}/ct.nii.gz"
        assert case["label"] == f"{case['case_id']}/gtv.nii.gz"


def test_metadata_holds_what_the_schema_of_2024_07_25_requires():
    meta = config("metadata.json")
    assert meta["schema"].endswith("meta_schema_20240725.json")
    texts = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description")
    for key in (*texts, "authors", "copyright"):
        assert isinstance(meta[key], str) and meta[key], key
    assert isinstance(meta["required_packages_version"], dict)
    assert meta["version"] in meta["changelog"]
    for direction, name in (("inputs", "image"), ("outputs", "pred")):
        spec = meta["network_data_format"][direction][name]
        assert spec.keys() >= {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"}
        assert isinstance(spec["num_channels"], int)
        assert all(isinstance(value, (int, float)) for value in spec["value_range"])


def test_metadata_describes_the_network():
    parser = ConfigParser(config("inference.json"))
    network = parser.get_parsed_content("network_def").eval()
    formats = config("metadata.json")["network_data_format"]
    assert formats["inputs"]["image"]["spatial_shape"] == [f"{m}*n" for m in network.size_multiple]
    assert all(
        size % m == 0
        for size, m in zip(config("train.json")["grid_size"], network.size_multiple, strict=True)
    )
    n_in, n_out = formats["inputs"]["image"]["num_channels"], formats["outputs"]["pred"]["num_channels"]
    assert list(formats["outputs"]["pred"]["channel_def"]) == [str(channel) for channel in range(n_out)]
    with torch.no_grad():
        assert network(torch.zeros(1, n_in, 32, 32, 32)).shape == (1, n_out, 32, 32, 32)
