"""The bundle of findings on chest films: its configs agree, films go through the same door, it trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from chest_files import write_dx
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.datalist import check_datalist
from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request
from medseg.bundles.trust import trust
from medseg.errors import BundleError, InputError
from medseg.phantoms.chest_film import make_radiograph
from medseg.training.checkpoints import save_weights

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "cxr_findings"
SHARED = ("image_size", "views", "classes", "architecture", "backbone", "anchor_sides", "proposals")
LOOK = ("clip_percentiles", "window", "log_gain", "network_def")


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


@pytest.mark.parametrize("name", SHARED + LOOK)
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_a_film_is_prepared_alike_in_training_and_at_the_door():
    training = config("train.json")["train"]["deterministic_transforms"]
    inference = config("inference.json")["preprocessing"]["transforms"]
    assert training[-1]["_target_"] == "medseg.transforms.BoxTargetd"
    assert training[:-1] == [step for step in inference if "CheckInput" not in step["_target_"]]


def test_the_gate_is_that_of_the_other_bundle_of_frontal_chest_films():
    other = BUNDLE.parent / "cxr_anatomy" / "configs" / "gate.json"
    assert config("gate.json") == json.loads(other.read_text())


def test_no_patient_stands_on_two_sides_and_every_class_has_a_threshold():
    content = config("datalist.json")
    patients = [{c["patient_id"] for c in content[name]} for name in ("training", "validation", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 32
    assert set(config("thresholds.json")["thresholds"]) == set(config("train.json")["classes"])
    # What every file says holds of any training's weights.
    assert config("inference.json")["postprocessing"]["transforms"][0]["remark"] == "Not for diagnosis."


def film(path, number=3, **changes):
    pixels = np.rint(make_radiograph(number, 160).image * 4095).astype(np.uint16)
    return write_dx(path, pixels, **{"ViewPosition": "PA", "BodyPartExamined": "CHEST", **changes})


ALLOW = ("out_of_distribution",)  # a phantom is no film


@pytest.fixture(scope="module")
def untaught(tmp_path_factory, trust_file) -> Path:
    """The bundle, which comes without weights, with those that a network begins with."""
    folder = tmp_path_factory.mktemp("bundles") / "cxr_findings"
    shutil.copytree(BUNDLE, folder)
    torch.manual_seed(0)
    parser = ConfigParser(config("inference.json"))
    (folder / "models").mkdir(exist_ok=True)
    save_weights(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


def test_the_bundle_comes_without_weights_and_says_what_to_do(tmp_path):
    film(tmp_path / "film.dcm")
    with pytest.raises(BundleError, match="no weights at .*train it"):
        segment(Request(tmp_path / "film.dcm", "cxr_findings", tmp_path / "out", allow=ALLOW))


def test_a_film_gets_boxes_a_table_a_report_and_a_picture(untaught, tmp_path):
    film(tmp_path / "film.dcm")
    request = Request(
        tmp_path / "film.dcm",
        str(untaught),
        tmp_path / "out",
        allow=ALLOW,
        formats=("json", "csv", "sr", "preview"),
        settings={"thresholds": 0.0, "map_methods": ["EigenCAM"]},
    )
    cohort = segment(request)
    assert [case["status"] for case in cohort["cases"]] == ["done"], cohort["cases"][0].get("error")
    folder = tmp_path / "out" / "film"
    boxes = json.loads((folder / "boxes.json").read_text())["boxes"]
    assert boxes["unit"] == "pixels (row, column)" and "Not for diagnosis" in boxes["remark"]
    corners = np.array([[box["low"], box["high"]] for box in boxes["found"]]).reshape(-1, 2, 2)
    assert corners.min(initial=0) >= 0 and corners.max(initial=0) <= 160
    record = json.loads((folder / "run.json").read_text())
    assert {row["file"] for row in record["outputs"]} == {"boxes.json", "boxes.csv", "SR.dcm", "preview.png"}
    assert Image.open(folder / "preview.png").width > 900  # the film, and the film under its map


def test_a_lateral_film_given_as_frontal_is_refused_in_one_line(untaught, tmp_path):
    film(tmp_path / "film.dcm", ViewPosition="LL")
    cohort = segment(Request(tmp_path / "film.dcm", str(untaught), tmp_path / "out", allow=ALLOW))
    error = cohort["cases"][0]["error"]
    assert "view LL; this bundle learned from AP and PA views" in error and "\n" not in error


def small_set(folder: Path) -> dict:
    """Four films with a box each and a normal one, as a datalist's sections."""
    folder.mkdir()
    cases = []
    for number in range(5):
        pixels = np.rint(make_radiograph(number, 64).image * 200).astype(np.uint8)
        pixels[20:36, 10 + 8 * number : 22 + 8 * number] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        box = {"class": "mass", "low": [20, 10 + 8 * number], "high": [36, 22 + 8 * number]}
        names = {"image": f"{number}.png", "case_id": str(number), "patient_id": str(number)}
        cases.append({**names, "label": [box] if number < 4 else []})
    sections = {"training": [*cases[:2], cases[4]], "validation": cases[2:4]}
    (folder / "datalist.json").write_text(json.dumps(sections))
    return sections


@pytest.mark.parametrize("variant", ["faster_rcnn", "fcos"])
def test_it_trains_and_logs_every_loss_by_itself(variant, tmp_path):
    small_set(tmp_path / "data")
    check_datalist(tmp_path / "data" / "datalist.json", tmp_path / "data")
    configs = [str(BUNDLE / "configs" / "train.json")]
    configs += [str(BUNDLE / "configs" / f"{variant}.json")] if variant == "fcos" else []
    workflow = ConfigWorkflow(
        config_file=configs,
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(BUNDLE),
        dataset_dir=str(tmp_path / "data"),
        datalist=str(tmp_path / "data" / "datalist.json"),
        ckpt_dir=str(tmp_path / "run"),
        output_dir=str(tmp_path / "run"),
        device="$torch.device('cpu')",
        image_size=[64, 64],
        anchor_sides=[8, 16, 32, 64, 128],
        proposals=20,
        epochs=1,
    )
    workflow.run_id = "training"
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    state = workflow.parser.get_parsed_content("train#trainer").state
    parts = {"faster_rcnn": {"RPN objectness", "RPN box"}, "fcos": {"centre-ness"}}[variant]
    logged = {name.removeprefix("loss, ") for name in state.metrics if name.startswith("loss, ")}
    assert logged == {"classification", "box regression"} | parts
    scores = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert 0 <= scores["val_ap"] <= 1 and 0 <= scores["val_ar"] <= 1
    assert (tmp_path / "run" / "last.pt").exists()
    assert torch.isfinite(state.output["loss"])


def test_a_label_that_is_no_list_of_boxes_is_refused(tmp_path):
    sections = small_set(tmp_path / "data")
    sections["training"][0]["label"] = {"class": "mass"}
    (tmp_path / "data" / "datalist.json").write_text(json.dumps(sections))
    with pytest.raises(InputError, match="case 0 of training has no text under label"):
        check_datalist(tmp_path / "data" / "datalist.json", tmp_path / "data")
