"""The files of the ct_head_neck bundle agree with each other, with MONAI's specification and with the rules
of the data."""

import json
import os
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from medseg.structures.structure import fixed_colour_rgb
from medseg.structures.tg263 import check_name

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "ct_head_neck"
ORGANS = ["Brainstem", "SpinalCord", "Parotid_R", "Parotid_L", "Esophagus", "Larynx", "Bone_Mandible"]
SECTIONS = {"training": 72, "validation": 12, "test": 20}


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


def inference_steps(kind: str) -> list[dict]:
    return config("inference.json")[kind]["transforms"]


def prepared(transforms: list) -> list[dict]:
    """What makes the network's image out of the opened one, without the label's part in it."""
    names = ("Orientationd", "Spacingd", "ScaleIntensityRanged")
    steps = [{**t, "keys": "image"} for t in transforms if isinstance(t, dict) and t["_target_"] in names]
    for step in steps:
        if isinstance(step.get("mode"), list):
            step["mode"] = step["mode"][0]
    return steps


@pytest.mark.parametrize("name", ["spacing_mm", "window_hu", "window_size", "network_def"])
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_validation_looks_through_the_windows_of_inference():
    train, inference = config("train.json"), config("inference.json")
    assert train["validate"]["inferer"]["inferer"]["roi_size"] == inference["inferer"]["roi_size"]
    assert train["validate"]["inferer"]["inferer"]["overlap"] == inference["inferer"]["overlap"]


def test_training_evaluation_and_inference_prepare_the_image_alike():
    inference = prepared(inference_steps("preprocessing"))
    assert [step["_target_"] for step in inference] == ["Orientationd", "Spacingd", "ScaleIntensityRanged"]
    assert prepared(config("train.json")["train"]["deterministic_transforms"]) == inference
    assert prepared(config("evaluate.json")["validate#preprocessing"]["transforms"]) == inference


def test_the_structures_are_the_channels_in_order_with_tg_263_names():
    structures = next(
        step["structures"] for step in inference_steps("postprocessing") if "structures" in step
    )
    names = [structure["name"] for structure in structures]
    assert names == [*ORGANS, "PTV"] == list(config("train.json")["bits"])
    assert (
        list(config("metadata.json")["network_data_format"]["outputs"]["pred"]["channel_def"].values())
        == names
    )
    for structure in structures:
        assert check_name(structure["name"]).problems == ()
        assert structure["interpreted_type"] == ("PTV" if structure["name"] == "PTV" else "ORGAN")
        assert tuple(structure["colour_rgb"]) == fixed_colour_rgb(structure["name"])
    assert len({tuple(structure["colour_rgb"]) for structure in structures}) == 8


def test_every_organ_is_kept_in_one_piece_and_the_target_in_those_that_lie_together():
    steps = [
        step for step in inference_steps("postprocessing") if step["_target_"].endswith("KeepComponentsd")
    ]
    assert [step.get("names") for step in steps if step.get("largest_only")] == [ORGANS]
    assert [step["names"] for step in steps if step.get("max_gap_mm") == "@max_gap_mm"] == [["PTV"]]


def test_bits_and_sides_are_those_of_the_data(shared_data):
    source = json.loads((shared_data / "training" / "openkbp" / "dataset.json").read_text())
    own = {"Parotid_R": "RightParotid", "Parotid_L": "LeftParotid", "Bone_Mandible": "Mandible"}
    for name, numbers in config("train.json")["bits"].items():
        rois = ["PTV56", "PTV63", "PTV70"] if name == "PTV" else [own.get(name, name)]
        assert sum(1 << n for n in numbers) == sum(source["bits"][roi] for roi in rois), name
    names = list(config("train.json")["bits"])
    assert [[names[a], names[b]] for a, b in config("train.json")["side_pairs"]] == [
        ["Parotid_R", "Parotid_L"]
    ]


def test_every_case_is_in_one_section_with_the_structures_that_were_contoured(shared_data):
    source = json.loads((shared_data / "training" / "openkbp" / "dataset.json").read_text())
    contoured = {case["id"]: case["present"] for case in source["training"]}
    datalist = config("datalist.json")
    listed = [case["case_id"] for section in SECTIONS for case in datalist[section]]
    assert sorted(listed) == sorted(contoured), "each of the patients once"
    own = {"RightParotid": "Parotid_R", "LeftParotid": "Parotid_L", "Mandible": "Bone_Mandible"}
    for section in SECTIONS:
        for case in datalist[section]:
            names = {
                "PTV" if name.startswith("PTV") else own.get(name, name)
                for name in contoured[case["case_id"]]
            }
            assert set(case["present"]) == names


def test_no_patient_is_on_two_sides_and_every_structure_occurs_on_each():
    datalist = config("datalist.json")
    patients = {section: {case["case_id"] for case in datalist[section]} for section in SECTIONS}
    assert {section: len(ids) for section, ids in patients.items()} == SECTIONS
    assert len(set.union(*patients.values())) == sum(SECTIONS.values())
    for section in SECTIONS:
        for case in datalist[section]:
            assert case.keys() == {"image", "label", "case_id", "present"}
            assert case["image"] == f"{case['case_id']}/ct.nii.gz" and not os.path.isabs(case["label"])
        assert set().union(*(case["present"] for case in datalist[section])) == {*ORGANS, "PTV"}


def test_run_and_training_are_the_same():
    train = config("train.json")
    assert train["training"] == "%run"
    assert train["run"] == ["$@train#trainer.run()"]


def test_fine_tuning_starts_from_the_stored_weights_and_keeps_its_own_elsewhere():
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.json", "finetune.json")])
    parser["bundle_root"] = str(BUNDLE)
    parser["device"] = "cpu"
    parser.get_parsed_content("initialize")
    weights = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    network = parser.get_parsed_content("network")
    assert all(torch.equal(value, weights[name].float()) for name, value in network.state_dict().items())
    assert parser.get_parsed_content("ckpt_dir") != parser.get_parsed_content("bundle_root") + "/models"
    parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.json", "finetune.json")])
    parser["bundle_root"], parser["start_weights"] = str(BUNDLE), str(BUNDLE / "nowhere.pt")
    with pytest.raises(RuntimeError):
        parser.get_parsed_content("initialize")


def test_metadata_describes_the_network():
    network = ConfigParser(config("inference.json")).get_parsed_content("network_def").eval()
    formats = config("metadata.json")["network_data_format"]
    assert formats["inputs"]["image"]["spatial_shape"] == [f"{m}*n" for m in network.size_multiple]
    assert all(
        size % m == 0
        for size, m in zip(config("train.json")["window_size"], network.size_multiple, strict=True)
    )
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 32, 32)).shape == (
            1,
            formats["outputs"]["pred"]["num_channels"],
            32,
            32,
            32,
        )
