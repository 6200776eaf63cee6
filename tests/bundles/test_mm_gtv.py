"""The files of the mm_gtv bundle agree with each other, and CT alone and every set with it get an answer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.cases.nifti import write_mask, write_volume
from medseg.phantoms.series import stack_geometry

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "mm_gtv"


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


def steps(transforms: list, first: str) -> list[str]:
    names = [t["_target_"] for t in transforms if isinstance(t, dict) and "image" in t.get("keys", "image")]
    return names[names.index(first) :]


@pytest.mark.parametrize("name", ["spacing_mm", "window_hu", "grid_size", "network_def"])
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_training_evaluation_and_inference_prepare_the_image_alike():
    stacked = "medseg.transforms.StackSeriesd"
    expected = [stacked, "Orientationd", "Spacingd", "Resized"]
    assert steps(config("inference.json")["preprocessing"]["transforms"], stacked) == expected
    evaluate = steps(config("evaluate.json")["validate#preprocessing"]["transforms"], stacked)
    assert [name for name in evaluate if name in expected] == expected
    # In training one transform cuts the box and resizes it.
    train = config("train.json")["train"]
    assert steps(train["deterministic_transforms"], stacked)[:3] == expected[:3]
    assert train["random_transforms"][0]["_target_"] == "medseg.transforms.RandBoxGridd"
    assert train["random_transforms"][0]["size"] == "@grid_size"


def test_the_last_epoch_is_kept_and_validation_chooses_nothing():
    train = config("train.json")
    assert train["val_interval"] == "@epochs"
    assert train["training"] == "%run"


def test_no_patient_trains_and_validates_and_each_has_its_series():
    datalist = config("datalist.json")
    groups = {part: [case["case_id"] for case in datalist[part]] for part in ("training", "validation")}
    assert len(set(groups["training"])) == len(groups["training"]) == 26
    assert len(set(groups["validation"])) == len(groups["validation"]) == 7
    assert not set(groups["training"]) & set(groups["validation"])
    for case in datalist["training"] + datalist["validation"]:
        patient = case["case_id"]
        assert case == {
            "image": f"sts_gtv/{patient}/ct.nii.gz",
            "label": f"sts_gtv/{patient}/gtv.nii.gz",
            "pt": f"sts_pet/{patient}/pet_suv.nii.gz",
            "mr": f"sts_mr/{patient}/mr_t1.nii.gz",
            "case_id": patient,
        }


def test_metadata_describes_the_network_and_the_series():
    meta = config("metadata.json")
    network = ConfigParser(config("inference.json")).get_parsed_content("network_def").eval()
    image = meta["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == len(image["channel_def"]) == 5
    assert image["spatial_shape"] == ["8*n"] * 3
    with torch.no_grad():
        assert network(torch.zeros(1, 5, 8, 16, 24)).shape == (1, 1, 8, 16, 24)
    assert meta["modalities"] == {"image": "CT", "pt": "PT", "mr": "MR"}
    assert meta["optional_modalities"] == ["pt", "mr"]
    assert (BUNDLE / "models" / "model.pt").stat().st_size < 10e6


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Two patients of 24 x 40 x 40 voxels with a ball that is bright on PET, and their datalist."""
    folder = tmp_path_factory.mktemp("patients")
    grid = stack_geometry((24, 40, 40), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0))
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1) - [12, 20, 20]
    ball = ((places * [3, 2, 2]) ** 2).sum(-1) <= 14**2
    cases = []
    for name in ("P1", "P2"):
        volumes = {"image": 40, "pt": 0.5 + 4 * ball, "mr": 300 + 200 * ball}
        case = {"case_id": name, "label": f"{name}_label.nii.gz"}
        for key, volume in volumes.items():
            case[key] = f"{name}_{key}.nii.gz"
            write_volume(
                (volume + rng.normal(0, 0.1, grid.shape)).astype(np.float32), grid, folder / case[key]
            )
        write_mask(ball, grid, folder / case["label"])
        cases.append(case)
    (folder / "list.json").write_text(json.dumps({"training": cases, "validation": cases[:1]}))
    return folder


def workflow(files: list[str], folder: Path, kind: str, **settings) -> ConfigWorkflow:
    made = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / name) for name in files],
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type=kind,
        bundle_root=str(BUNDLE),
        **settings,
    )
    made.initialize()
    return made


def test_training_then_evaluation_with_ct_alone_and_with_all(patients, tmp_path):
    settings = {
        "dataset_dir": str(patients),
        "datalist": str(patients / "list.json"),
        "ckpt_dir": str(tmp_path),
        "output_dir": str(tmp_path),
        "grid_size": [16, 16, 16],
    }
    training = workflow(["train.json"], patients, "train", epochs=1, **settings)
    assert training.check_properties() == []
    training.run()
    assert (tmp_path / "model.pt").is_file()
    seen = {}
    for name, shares in (("CT", [1.0, 0.0, 0.0]), ("all", [0.0, 0.0, 0.0])):
        evaluation = workflow(
            ["train.json", "evaluate.json"], patients, "train", val_series_shares=shares, **settings
        )
        evaluation.run()
        (batch,) = evaluation.parser.get_parsed_content("validate#dataloader")
        seen[name] = batch["image"][0, 3:].mean((1, 2, 3)).tolist()
    assert seen == {"CT": [0.0, 0.0], "all": [1.0, 1.0]}
    assert (tmp_path / "val_dice_raw.csv").read_text().count("P1") == 1
