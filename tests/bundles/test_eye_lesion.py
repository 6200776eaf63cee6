"""The bundle eye_lesion: its files agree, every variant trains in the ecosystem's own command, a resumed
training equals an uninterrupted one, and photographs come out as masks on their own pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from eye_files import write_dataset
from monai.bundle import run as run_bundle
from photo_files import colours, fundus_bytes, write_op
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.config import run_config
from medseg.bundles.find import Bundle, find_bundle
from medseg.bundles.request import Request
from medseg.bundles.trust import trust
from medseg.errors import InputError
from medseg.losses.pixels import PIXEL_LOSSES
from medseg.metrics import dice
from medseg.networks.segmenters import ARCHITECTURES
from medseg.training.checkpoints import save_weights

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "eye_lesion"
SMALL = {"epochs": 1, "val_interval": 1, "longest_side": 96, "patch_size": [64, 64]}
SOURCES = ("unet", "fcn_resnet101", "segnet", "deeplabv3", "deeplabv3plus")


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def trainable(tmp_path_factory) -> Bundle:
    """The bundle's own configs in a folder of their own."""
    folder = tmp_path_factory.mktemp("bundles") / "eye"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("*.pt"))
    trust(find_bundle(folder))
    return find_bundle(folder)


def train(bundle: Bundle, photos: Path, out: Path, *variants: str, **settings) -> None:
    places = {"dataset_dir": str(photos), "datalist": str(photos / "datalist.json")}
    own = {"ckpt_dir": str(out), "output_dir": str(out)}
    run_config(bundle, ["train", *variants], "training", {**SMALL, **places, **own, **settings})


# ---- its files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["architecture", "colours", "longest_side", "patch_size", "network_def"])
def test_training_and_inference_share_their_settings(name):
    assert config("train")[name] == config("inference")[name]


def test_training_evaluation_and_inference_prepare_the_photograph_alike():
    names = ("LoadPhotographd", "Resized", "NormaliseIlluminationd")

    def prepared(transforms: list) -> list[str]:
        steps = [t["_target_"].split(".")[-1] for t in transforms if isinstance(t, dict)]
        return [step for step in steps if step in names]

    train_steps = config("train")["train"]["deterministic_transforms"]
    assert prepared(config("inference")["preprocessing"]["transforms"]) == list(names)
    assert prepared(train_steps) == list(names)
    assert prepared(config("evaluate")["validate#preprocessing"]["transforms"]) == list(names)


def test_the_sources_recipes_are_those_of_its_table():
    found = {name: config(f"source_{name}") for name in SOURCES}
    table = {
        name: (
            c["loss"],
            c["optimizer"]["_target_"].split(".")[-1],
            c["learning_rate"],
            c["batch_size"],
            c["epochs"],
        )
        for name, c in found.items()
    }
    assert table == {
        "unet": ("bce", "RMSprop", 0.001, 1, 100),
        "fcn_resnet101": ("softmax_ce", "SGD", 0.001, 1, 150),
        "segnet": ("softmax_ce", "SGD", 0.0002, 5, 150),
        "deeplabv3": ("softmax_ce", "SGD", 0.001, 1, 50),
        "deeplabv3plus": ("softmax_ce", "SGD", 0.001, 5, 100),
    }
    assert all(c["architecture"] == name and c["loss"] in PIXEL_LOSSES for name, c in found.items())


def test_every_patient_is_in_one_section_and_the_test_set_is_a_fifth_of_each_group(shared_data, monkeypatch):
    monkeypatch.syspath_prepend(str(BUNDLE.parents[1] / "tools" / "datasets"))
    from hei_med import read_rows, split, split_by_time_point

    rows = read_rows(shared_data / "fundus" / "hei_med" / "cases.csv")
    found = split(rows, config("datalist")["seed"], 5, 0)
    assert found == {section: config("datalist")[section] for section in found}
    ids = {section: {case["patient_id"] for case in cases} for section, cases in found.items()}
    assert {section: len(names) for section, names in ids.items()} == {
        "training": 88,
        "validation": 22,
        "test": 25,
    }
    assert len(set.union(*ids.values())) == 135
    sick = {row["id"] for row in rows if int(row["exudate_lesions"])}
    assert {section: len(names & sick) for section, names in ids.items()} == {
        "training": 28,
        "validation": 7,
        "test": 8,
    }
    for folds in (5, 10):  # 4 : 1 and 9 : 1
        parts = [split(rows, 123, folds, fold) for fold in range(folds)]
        assert all(part["test"] == found["test"] for part in parts)
        validated = [case["case_id"] for part in parts for case in part["validation"]]
        assert len(validated) == len(set(validated)) == 110
    with pytest.raises(InputError, match="fold 5 of 5"):
        split(rows, 123, 5, 5)
    twice = [{**row, "patient_id": row["id"], "time_point": n} for row in rows[:6] for n in (1, 2)]
    leaking = split_by_time_point(twice, 2)
    sides = [{case["patient_id"] for case in leaking[name]} for name in ("training", "validation")]
    assert sides[0] == sides[1], "that is the leak"


def test_medseg_refuses_to_train_on_the_split_that_leaks(photos, trainable, tmp_path):
    content = json.loads((photos / "datalist.json").read_text())
    content["validation"][0]["patient_id"] = content["training"][0]["patient_id"]
    (tmp_path / "leak.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="in training and validation; keep all of a patient on one side"):
        train(trainable, photos, tmp_path, datalist=str(tmp_path / "leak.json"))


# ---- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_recipe_trains_with_monais_own_command(name, photos, tmp_path):
    folder = BUNDLE / "configs"
    recipe = json.loads((folder / f"source_{name}.json").read_text())
    narrow = f"{recipe['architecture']}_narrow"
    assert {narrow, recipe["architecture"]} <= set(ARCHITECTURES)
    run_bundle(
        run_id="training",
        config_file=[str(folder / "train.json"), str(folder / f"source_{name}.json")],
        meta_file=str(folder / "metadata.json"),
        logging_file=str(folder / "logging.conf"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(photos),
        datalist=str(photos / "datalist.json"),
        ckpt_dir=str(tmp_path),
        output_dir=str(tmp_path),
        **{**SMALL, "architecture": narrow, "batch_size": min(recipe["batch_size"], 2)},
    )
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["network"].values() if v.is_floating_point())
    assert state["settings"]["learning rate"] == recipe["learning_rate"]
    assert state["settings"]["variant"] == f"source_{name}"


def test_a_resumed_training_equals_an_uninterrupted_one(photos, trainable, tmp_path):
    recipe = {"architecture": "segnet_narrow", "lr_scheduler#total_steps": 3}
    train(trainable, photos, tmp_path / "whole", epochs=2, **recipe)
    train(trainable, photos, tmp_path / "parts", epochs=1, **recipe)
    assert not torch.equal(
        *(
            torch.load(tmp_path / n / "last.pt", weights_only=True)["network"]["network.head.bias"]
            for n in ("whole", "parts")
        )
    )
    train(trainable, photos, tmp_path / "parts", epochs=2, resume=True, **recipe)
    whole, parts = (torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("whole", "parts"))
    assert all(torch.equal(whole["network"][name], parts["network"][name]) for name in whole["network"])


def test_noisy_labels_may_be_weighted_and_the_loss_is_one_setting(photos, trainable, tmp_path):
    train(trainable, photos, tmp_path / "a", method="qam_ocm", loss="focal")
    train(trainable, photos, tmp_path / "b", loss="tversky", architecture="unet_narrow")
    train(trainable, photos, tmp_path / "c", loss="bce", architecture="unet_narrow")
    states = [torch.load(tmp_path / n / "last.pt", weights_only=True)["network"] for n in "bc"]
    name = "network.final_conv.weight"
    assert not torch.equal(states[0][name], states[1][name])


def test_a_validation_set_without_a_lesion_is_refused_before_the_first_step(trainable, tmp_path):
    write_dataset(tmp_path, lesions=False)
    with pytest.raises(InputError, match="no label of the validation set has a lesion"):
        train(trainable, tmp_path, tmp_path / "run")


def test_a_mask_of_another_size_is_named(photos, trainable, tmp_path):
    shutil.copytree(photos, tmp_path / "data")
    Image.new("L", (50, 50), 0).save(tmp_path / "data" / "masks" / "p0.png")
    with pytest.raises(Exception, match="50 x 50 pixels, its image 96 x 96"):
        train(trainable, tmp_path / "data", tmp_path / "run")


# ---- photographs in and out --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yellow_bundle(tmp_path_factory) -> Path:
    """The bundle's own configs around a one-pixel network: inside is where green rises 3 spreads above its
    background."""
    folder = tmp_path_factory.mktemp("bundles") / "yellow"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("*.pt"))
    network = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 1, "kernel_size": 1}
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps({**config("inference"), "network_def": network, "engine": "torch"}))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata.pop("weights_sha256", None)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    weight = torch.tensor([0.0, 8.0, 0.0]).reshape(1, 3, 1, 1)
    (folder / "models").mkdir(exist_ok=True)
    save_weights({"weight": weight, "bias": torch.tensor([-24.0])}, folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


def outlined(bundle: Path, source: Path, out: Path, **options) -> dict:
    settings = {"longest_side": None, "patch_size": [128, 128]}
    (record,) = segment(Request(source, str(bundle), out, settings=settings, **options))["cases"]
    return (
        record
        if record["status"] == "skipped"
        else json.loads((Path(record["folder"]) / "run.json").read_text())
    )


def test_a_photograph_becomes_masks_probabilities_and_a_preview_on_its_own_pixels(yellow_bundle, tmp_path):
    pixels = fundus_bytes(1, 0, 255)[:200]
    Image.fromarray(pixels).save(tmp_path / "eye.jpg", quality=95)
    record = outlined(yellow_bundle, tmp_path / "eye.jpg", tmp_path / "out")
    assert record["status"] == "done", record
    folder = tmp_path / "out" / "eye"
    assert [output["file"] for output in record["outputs"]] == [
        "Exudate.png",
        "Exudate_probability.png",
        "preview.png",
    ]
    mask = np.asarray(Image.open(folder / "Exudate.png")) > 0
    chances = np.asarray(Image.open(folder / "Exudate_probability.png"))
    assert mask.shape == chances.shape == (200, 255) and chances.dtype == np.uint16
    assert np.array_equal(mask, chances >= 32768) and mask.any()
    assert record["structures"][0]["area_pixels"] == mask.sum()
    assert record["geometry"] == {"shape_rows_columns": [200, 255], "pixel_spacing_mm": None}
    again = outlined(yellow_bundle, tmp_path / "eye.jpg", tmp_path / "out")
    assert again["status"] == "skipped"


def test_a_turned_photograph_gets_its_mask_upright(yellow_bundle, tmp_path):
    pixels = fundus_bytes(1)
    exif = Image.Exif()
    exif[0x0112] = 8  # shown rotated by 90 degrees against the clock
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    masks = []
    for name in ("turned", "plain"):
        outlined(yellow_bundle, tmp_path / f"{name}.png", tmp_path / "out")
        masks.append(np.asarray(Image.open(tmp_path / "out" / name / "Exudate.png")) > 0)
    assert dice(masks[0], np.rot90(masks[1])) > 0.95


def test_a_dicom_photograph_gets_a_segmentation_that_refers_to_it(yellow_bundle, tmp_path):
    path = write_op(tmp_path / "eye.dcm", fundus_bytes(1), PixelSpacing=[0.02, 0.02])
    record = outlined(yellow_bundle, path, tmp_path / "out", formats=("png", "seg"))
    assert record["status"] == "done", record
    mask = np.asarray(Image.open(tmp_path / "out" / "eye" / "Exudate.png")) > 0
    found = pydicom.dcmread(tmp_path / "out" / "eye" / "SEG.dcm")
    assert np.array_equal(found.pixel_array.reshape(mask.shape) > 0, mask)
    assert str(found.PatientName) == "Doe^Jane" and "Doe" not in json.dumps(record)
    item = found.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert item.ReferencedSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID
    assert record["structures"][0]["area_mm2"] == pytest.approx(mask.sum() * 0.0004, abs=1e-3)


def test_a_picture_that_is_no_fundus_a_grey_one_and_a_dicom_format_are_refused(yellow_bundle, tmp_path):
    Image.fromarray(colours(200, 300)).save(tmp_path / "ramp.png")
    record = outlined(yellow_bundle, tmp_path / "ramp.png", tmp_path / "out")
    assert record["status"] == "failed" and "unlike the photographs of the back of the eye" in record["error"]
    Image.fromarray(fundus_bytes()[..., 1]).save(tmp_path / "grey.png")
    record = outlined(yellow_bundle, tmp_path / "grey.png", tmp_path / "out")
    assert "the photograph is grey; this bundle learned from colour photographs" in record["error"]
    with pytest.raises(InputError, match="format seg: it refers to DICOM"):
        outlined(yellow_bundle, tmp_path / "grey.png", tmp_path / "out", formats=("seg",))
    with pytest.raises(InputError, match="a photograph is a picture without a place in the patient"):
        outlined(yellow_bundle, tmp_path / "grey.png", tmp_path / "out", formats=("rtstruct",))
