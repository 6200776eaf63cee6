"""The bundle of lung nodules: its configs agree, a CT goes through the same door to every file, both of its
networks train."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from referees import conformance_errors

from medseg.bundles.cohort import segment
from medseg.bundles.copies import with_weights
from medseg.bundles.datalist import check_datalist
from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request
from medseg.bundles.score_boxes import score_boxes
from medseg.bundles.score_request import ScoreRequest
from medseg.bundles.trust import trust
from medseg.errors import BundleError
from medseg.phantoms.nodules import make_chest_ct
from medseg.phantoms.series import write_series
from medseg.training.checkpoints import save_weights

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "monai_bundles" / "ct_nodule"
VARIANTS = ("mask_rcnn", "retinanet_small", "mask_rcnn_small")
SHARED = ("spacing_mm", "window_hu", "lung_margin_mm", "classes", "architecture", "backbone", "anchor_shapes")
NETWORK = (
    "first_stride",
    "window_size",
    "anchor_sides",
    "proposals",
    "rules",
    "retinanet_def",
    "mask_rcnn_def",
)
SMALL = (44, 52, 52)  # voxels of 3 mm
ALLOW = ("out_of_distribution",)  # they are coarser than what the gate was fitted on


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


@pytest.mark.parametrize("name", (*SHARED, *NETWORK, "network_def"))
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_a_ct_is_prepared_alike_in_training_and_at_the_door():
    training = config("train.json")["train"]["deterministic_transforms"]
    inference = config("inference.json")["preprocessing"]["transforms"]
    image = [step for step in training if step["keys"] == "image"]
    assert image[1:] == inference[3:], "behind reader, region and gate"
    assert [step["_target_"].split(".")[-1] for step in inference[:3]] == [
        "LoadCased",
        "CropWithind",
        "CheckInputd",
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_settings_that_there_are(variant):
    names = set(config(f"{variant}.json")) - {"_desc_", "_meta_"}
    assert names <= set(config("train.json")) and config(f"{variant}.json")["variant"] == variant


def test_the_default_is_the_public_recipe_and_mask_rcnn_the_source_s():
    train, source = config("train.json"), config("mask_rcnn.json")
    assert train["spacing_mm"] == [1, 1, 1] and train["window_hu"] == [-1200, 600]
    assert (train["architecture"], train["backbone"]) == ("retinanet", "resnet50")
    assert (source["architecture"], source["backbone"]) == ("mask_rcnn", "resnext101_32x8d")
    assert train["optimizer"]["_target_"] == "torch.optim.SGD" and train["optimizer"]["momentum"] == 0.9
    assert "Cosine" in train["lr_scheduler"]["_target_"]


def test_no_phantom_stands_on_two_sides_and_every_class_has_a_threshold():
    content = config("datalist.json")
    patients = [{c["patient_id"] for c in content[name]} for name in ("training", "validation", "test")]
    assert [len(own) for own in patients] == [240, 10, 20] and len(set.union(*patients)) == 270
    assert set(config("thresholds.json")["thresholds"]) == set(config("train.json")["classes"])


# ---- the door ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untaught(tmp_path_factory, trust_file) -> dict[str, Path]:
    """{variant: the bundle, which comes without weights, with those that its network begins with}."""
    found = {}
    for variant in ("retinanet_small", "mask_rcnn_small"):
        folder = tmp_path_factory.mktemp(variant)
        torch.manual_seed(0)
        parser = ConfigParser(config("inference.json"))
        parser.update({k: v for k, v in config(f"{variant}.json").items() if k in parser.config})
        weights = save_weights_of(parser, folder / "model.pt")
        found[variant] = with_weights(find_bundle(BUNDLE), weights, folder / "copy", variant).folder
        trust(find_bundle(found[variant]))
    return found


def save_weights_of(parser: ConfigParser, path: Path) -> Path:
    state = parser.get_parsed_content("network_def").state_dict()
    for name in (name for name in state if name.endswith("cls_logits.bias")):
        state[name] = torch.zeros_like(state[name])  # it begins by finding nothing anywhere
    for name in (name for name in state if name.endswith("mask_fcn_logits.bias")):
        state[name] = torch.ones_like(state[name])  # and with masks that may be empty
    save_weights(state, path)
    return path


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patient") / "CT"
    ct = make_chest_ct(1, SMALL, 3.0, count=2)
    write_series(np.rint(ct.volume_hu), ct.geometry, folder, BodyPartExamined="CHEST")
    return folder


def test_the_bundle_comes_without_weights_and_says_what_to_do(series, tmp_path):
    with pytest.raises(BundleError, match="no weights at .*train it"):
        segment(Request(series, "ct_nodule", tmp_path / "out", allow=ALLOW))


@pytest.mark.parametrize("variant", ["retinanet_small", "mask_rcnn_small"])
def test_a_ct_gets_every_file_and_others_accept_them(variant, untaught, series, program, tmp_path):
    settings = {"thresholds": 0.0, "mark": "POINT", "spacing_mm": [3.0, 3.0, 3.0]}
    formats = ("json", "csv", "sr", "rtstruct", "preview")
    request = Request(
        series, str(untaught[variant]), tmp_path / "out", allow=ALLOW, formats=formats, settings=settings
    )
    cohort = segment(request)
    assert [case["status"] for case in cohort["cases"]] == ["done"], cohort["cases"][0].get("error")
    folder = next((tmp_path / "out").glob("*/run.json")).parent
    boxes = json.loads((folder / "boxes.json").read_text())["boxes"]
    assert boxes["unit"] == "LPS mm" and "Not for diagnosis" in boxes["remark"] and boxes["found"]
    assert all(("volume_cc" in box) == (variant == "mask_rcnn_small") for box in boxes["found"])
    with open(folder / "boxes.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(boxes["found"]) and {"seriesuid", "coordX", "probability"} <= table[0].keys()
    assert conformance_errors(program, folder / "RS.dcm") == []
    assert (
        pydicom.dcmread(folder / "SR.dcm").Modality == "SR"
    )  # tests/transforms/test_saving_boxes.py asks others
    rois = pydicom.dcmread(folder / "RS.dcm").StructureSetROISequence
    assert len(rois) == len(boxes["found"]) and rois[0].ROIName == "nodule_1"
    assert (folder / "preview.png").stat().st_size > 10_000


def test_a_ct_without_lungs_and_one_of_another_part_are_refused_in_one_line(untaught, tmp_path):
    ct = make_chest_ct(1, SMALL, 3.0, count=0)
    solid = np.where(ct.lungs, 40.0, ct.volume_hu)
    write_series(np.rint(solid), ct.geometry, tmp_path / "solid", BodyPartExamined="CHEST")
    write_series(np.rint(ct.volume_hu), ct.geometry, tmp_path / "knee", BodyPartExamined="KNEE")
    for name, allow, words in (
        ("solid", ALLOW, "0 cc of lung on this CT, at least 200 cc expected"),
        ("knee", (), "BodyPartExamined KNEE, expected chest"),
    ):
        request = Request(tmp_path / name, str(untaught["retinanet_small"]), tmp_path / "out", allow=allow)
        error = segment(request)["cases"][0]["error"]
        assert words in error and "\n" not in error


def test_phantoms_are_scored_as_a_user_s_cts_go(untaught, phantoms, tmp_path):
    folder = untaught["retinanet_small"]
    weights = tmp_path / "other.pt"
    shutil.copyfile(folder / "models" / "model.pt", weights)
    request = ScoreRequest(
        find_bundle(folder),
        phantoms,
        tmp_path / "scores",
        section="validation",
        datalist=phantoms / "datalist.json",
        weights=weights,
    )
    scored = score_boxes(request)
    assert scored.images == 1 and scored.findings == len(validation_boxes(phantoms))
    assert 0 <= scored.figures["CPM"].value <= 1


def validation_boxes(folder: Path) -> list[dict]:
    (case,) = json.loads((folder / "datalist.json").read_text())["validation"]
    return case["label"]


# ---- training ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    made = load(ROOT / "tools" / "datasets" / "nodule_phantoms.py")
    options = ["--training", "2", "--validation", "1", "--test", "0", "--spacing-mm", "3"]
    assert made.main([str(folder), *options, "--shape", *map(str, SMALL)]) == 0
    return folder


@pytest.mark.parametrize(
    "variant",
    [
        "retinanet_small",
        "mask_rcnn_small",
        pytest.param("mask_rcnn", marks=pytest.mark.slow),  # ResNeXt-101: 107 million weights
        pytest.param(None, marks=pytest.mark.slow),  # the public recipe's ResNet-50
    ],
)
def test_it_trains_and_logs_every_loss_and_score_by_itself(variant, phantoms, tmp_path):
    check_datalist(phantoms / "datalist.json", phantoms)
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / f"{name}.json") for name in ("train", variant) if name],
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(BUNDLE),
        dataset_dir=str(phantoms),
        datalist=str(phantoms / "datalist.json"),
        ckpt_dir=str(tmp_path / "run"),
        output_dir=str(tmp_path / "run"),
        device="$torch.device('cpu')",
        spacing_mm=[3.0, 3.0, 3.0],
        patch_size=[32, 32, 32],
        patches=2,
        val_interval=1,
        epochs=1,
    )
    workflow.run_id = "training"
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    state = workflow.parser.get_parsed_content("train#trainer").state
    slices = workflow.parser.get_parsed_content("architecture") == "mask_rcnn"
    parts = {"mask", "RPN objectness", "RPN box"} if slices else set()
    logged = {name.removeprefix("loss, ") for name in state.metrics if name.startswith("loss, ")}
    assert logged == {"classification", "box regression"} | parts and torch.isfinite(state.output["loss"])
    scores = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    masks = {"val_mask_ap", "val_mask_ar"} if slices else set()
    assert set(scores) == {"val_ap", "val_ar"} | masks and all(0 <= score <= 1 for score in scores.values())
    assert (tmp_path / "run" / "last.pt").exists()
