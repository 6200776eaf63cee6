"""The hip bundle: its configs agree, and a film goes through the same door as every other case."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from chest_files import write_dx
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from medseg.bundles.cohort import segment
from medseg.bundles.config import load_config, load_network, run_config
from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request
from medseg.cases.volume import open_case
from medseg.errors import InputError
from medseg.networks import Classifier
from medseg.phantoms.chest_film import make_radiograph
from medseg.phantoms.hip import DEVICES, make_hip
from medseg.transforms import ActivationMapd

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "hip_osteoporosis"


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / name).read_text())


@pytest.mark.parametrize(
    "name",
    [
        "image_size",
        "soften_pixels",
        "classes",
        "backbone",
        "covariates",
        "numbers",
        "neck_boxes",
        "network_def",
    ],
)
def test_training_and_inference_share_their_settings(name):
    assert config("train.json")[name] == config("inference.json")[name]


def test_a_film_is_prepared_alike_in_training_and_at_the_door():
    def steps(transforms):
        besides = ("CheckInputd", "ToClassd", "AppendNumbersd", "AddCovariatesd")
        return [step for step in transforms if step["_target_"].rpartition(".")[2] not in besides]

    training = steps(config("train.json")["train"]["deterministic_transforms"])
    assert training == steps(config("inference.json")["preprocessing"]["transforms"])
    assert len(training) == 7


def test_no_patient_stands_on_two_sides_and_the_last_year_is_the_test():
    content = config("datalist.json")
    sections = {name: content[name] for name in ("training", "validation", "test")}
    patients = [{case["patient_id"] for case in cases} for cases in sections.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 300
    assert all(
        (case["image_date"] >= "2022") == (name == "test") for name in sections for case in sections[name]
    )
    assert all(cases.count for cases in sections.values())


def write_hip(path, number, t_score, side):
    pixels = np.rint(make_hip(number, t_score, side, pixels=160).image * 4095).astype(np.uint16)
    return write_dx(path, pixels, ImageLaterality=side, BodyPartExamined="HIP")


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """(cohort, folder) of three hips that no training saw."""
    folder = tmp_path_factory.mktemp("hips")
    (folder / "in").mkdir()
    for name, t_score, side in (("sick_R", -4.0, "R"), ("sick_L", -4.0, "L"), ("sound_R", 0.0, "R")):
        write_hip(folder / "in" / f"{name}.dcm", 5001, t_score, side)
    request = Request(folder / "in", "hip_osteoporosis", folder / "out", formats=("json", "preview", "sr"))
    return segment(request), folder / "out"


def test_sick_and_sound_bones_are_told_apart_with_an_interval(answered):
    cohort, out = answered
    assert [case["status"] for case in cohort["cases"]] == ["done"] * 3
    labels = {
        name: json.loads((out / name / "labels.json").read_text())["labels"]
        for name in ("sick_R", "sick_L", "sound_R")
    }
    chance = {name: said["probabilities"]["osteoporosis"] for name, said in labels.items()}
    assert chance["sick_R"] > 0.9 and chance["sick_L"] > 0.9 and chance["sound_R"] < 0.1
    for name, said in labels.items():
        low, high = said["intervals"]["osteoporosis"]
        assert low - 0.1 < chance[name] < high + 0.1, "temperature and offset agree with the interval"
    low, high = labels["sick_R"]["intervals"]["osteoporosis"]
    assert 0.5 < low <= high <= 1
    assert "Not for diagnosis" in labels["sound_R"]["remark"]


def test_the_structured_report_says_what_labels_json_says(answered):
    _, out = answered
    said = json.loads((out / "sick_R" / "labels.json").read_text())["labels"]
    report = pydicom.dcmread(out / "sick_R" / "SR.dcm")
    assert report.PatientID == "7" and report.VerificationFlag == "UNVERIFIED"
    group = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER").ContentSequence[0]
    numbers = {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    low, high = said["intervals"]["osteoporosis"]
    assert numbers == pytest.approx(
        {
            **{f"Probability of {name}": chance for name, chance in said["probabilities"].items()},
            "Probability of osteoporosis, lower end": low,
            "Probability of osteoporosis, upper end": high,
        },
        abs=1e-4,
    )
    assert "Learned from phantoms" in group.ContentSequence[-1].TextValue


def test_a_picture_file_has_no_image_that_a_report_could_refer_to(tmp_path):
    hip = np.rint(make_hip(5002, -1.0, pixels=160).image * 255).astype(np.uint8)
    Image.fromarray(hip).save(tmp_path / "hip.png")
    with pytest.raises(InputError, match="format sr: it refers to DICOM images"):
        segment(Request(tmp_path / "hip.png", "hip_osteoporosis", tmp_path / "out", formats=("sr",)))


def test_the_picture_shows_film_and_map_side_by_side(answered):
    _, out = answered
    picture = np.asarray(Image.open(out / "sick_R" / "preview.png").convert("RGB")).astype(int)
    width = picture.shape[1] // 2
    film, with_map = picture[100:-200, :width], picture[100:-200, width : 2 * width]
    assert np.abs(film[..., 0] - film[..., 2]).mean() < 1  # grey
    assert np.abs(with_map[..., 0] - with_map[..., 2]).mean() > 10  # coloured


def spoilt(folder):
    """Films of the same hip that no answer may be given to, each for its own reason: {name: words of it}."""
    film = make_hip(5002, -1.0, pixels=160).image
    rows, columns = np.mgrid[:160, :160]
    nail = np.where((np.abs(columns - rows * 0.8 - 32) < 5) & (rows > 40) & (rows < 110), 1.0, film)
    words = Image.fromarray((film * 255).astype(np.uint8))
    ImageDraw.Draw(words).text((50, 70), "SUPINE 42", fill=255)
    chest = make_radiograph(3).image
    films = {
        "implant": (nail, "like a metal implant", {}),
        "blurred": (gaussian_filter(film, 3), "it is blurred", {}),
        "words": (np.asarray(words) / 255, "like burnt-in text", {}),
        "lateral": (film, "view LL; this bundle learned from AP and PA views", {"ViewPosition": "LL"}),
        "turned": (np.rot90(film), "it looks turned by", {}),
        "upside_down": (np.rot90(film, 2), "it looks turned by 180 degrees", {}),
        "other_side": (film[:, ::-1], "it looks like a right one, and L is stated", {}),
        "chest": (chest, "it looks different", {}),
        "chest_by_tag": (film, "BodyPartExamined CHEST", {"BodyPartExamined": "CHEST"}),
    }
    folder.mkdir()
    for name, (pixels, _, changes) in films.items():
        stored = np.rint(np.ascontiguousarray(pixels) * 4095).astype(np.uint16)
        write_dx(folder / f"{name}.dcm", stored, ImageLaterality="L", **changes)
    return {name: words for name, (_, words, _) in films.items()}


def test_every_spoilt_film_is_refused_with_its_own_reason(tmp_path):
    reasons = spoilt(tmp_path / "in")
    cohort = segment(Request(tmp_path / "in", "hip_osteoporosis", tmp_path / "out", formats=("json",)))
    errors = {case["case"]: case["error"] for case in cohort["cases"]}
    assert set(errors) == set(reasons)
    for name, words in reasons.items():
        assert words in errors[name], name
    assert not list((tmp_path / "out").rglob("labels.json"))


def wrong_images(shared_data, folder):
    """Two chest films, two slices of CTs and two fundus photographs, as pictures that say nothing."""
    folder.mkdir()
    films = sorted((shared_data / "cxr" / "nih_mass_nodule" / "images").glob("*"))[:2]
    eyes = sorted((shared_data / "fundus" / "hei_med" / "images").glob("*"))[:2]
    for kind, files in (("chest", films), ("eye", eyes)):
        for number, file in enumerate(files):
            Image.open(file).convert("L").save(folder / f"{kind}{number}.png")
    volume = open_case(str(shared_data / "rt" / "ibsi1_lung_gtv" / "dicom" / "image")).volume
    for number in (20, 40):
        window = np.clip((volume[number] + 160) / 400, 0, 1)
        Image.fromarray((window * 255).astype(np.uint8)).save(folder / f"ct{number}.png")


def test_real_images_of_something_else_are_refused(shared_data, tmp_path):
    wrong_images(shared_data, tmp_path / "in")
    request = Request(
        tmp_path / "in", "hip_osteoporosis", tmp_path / "out", formats=("json",), settings={"side": "L"}
    )
    cases = segment(request)["cases"]
    assert len(cases) == 6 and {case["status"] for case in cases} == {"failed"}
    assert all("unlike the phantoms of hip radiographs" in case["error"] for case in cases)


@pytest.fixture
def few_films(tmp_path):
    """(folder, datalist) of twelve small films, by two machines, sound and sick."""
    cases = []
    for number in range(12):
        sick, device = number % 2 == 0, DEVICES[number // 2 % 2]
        film = make_hip(number, -4.0 if sick else 0.5, pixels=64, device=device).image
        Image.fromarray(np.rint(film * 65535).astype(np.uint16)).save(tmp_path / f"{number}.png")
        case = {"image": f"{number}.png", "case_id": str(number), "side": "L", "label": int(sick)}
        person = {"age": 60.0 + number, "sex": "FM"[sick], "height_cm": 160.0, "weight_kg": 60.0}
        cases.append({**case, "device": device, **person})
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"training": cases[:8], "validation": cases[8:]}))
    return tmp_path, datalist


def trained(few_films, name, **settings):
    """The weights that a tiny training ends with."""
    data, datalist = few_films
    out = data / name
    out.mkdir(exist_ok=True)
    settings = {"image_size": [64, 64], "batch_size": 4, "seed": 5, "epochs": 2, **settings}
    paths = {
        "dataset_dir": str(data),
        "datalist": str(datalist),
        "ckpt_dir": str(out),
        "output_dir": str(out),
    }
    run_config(find_bundle("hip_osteoporosis"), ["train"], "training", paths | settings)
    return torch.load(out / "last.pt", weights_only=True)["network"]


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(few_films):
    recipe = {"lr_scheduler#T_max": 3}  # the same schedule, whatever the number of epochs
    whole = trained(few_films, "whole", **recipe)
    first = trained(few_films, "parts", epochs=1, **recipe)
    resumed = trained(few_films, "parts", resume=True, **recipe)
    assert not torch.equal(whole["head.bias"], first["head.bias"])
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_it_trains_by_monais_own_command(few_films):
    data, datalist = few_films
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "train.json"),
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(BUNDLE),
        dataset_dir=str(data),
        datalist=str(datalist),
        ckpt_dir=str(data / "run"),
        output_dir=str(data / "run"),
        device="$torch.device('cpu')",
        image_size=[64, 64],
        batch_size=4,
        epochs=1,
    )
    workflow.run_id = "training"
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    scores = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert 0 <= scores["val_auc"] <= 1
    assert (data / "run" / "last.pt").exists() and (data / "run" / "model.pt").exists()


@pytest.mark.slow
def test_every_setting_of_the_recipe_changes_what_is_learned(few_films):
    plain = trained(few_films, "plain", epochs=1)

    def differs(name, **settings):
        other = trained(few_films, name, epochs=1, **settings)
        return any(name not in other or not torch.equal(plain[name], other[name]) for name in plain)

    assert differs("weights", class_weights=[1.0, 3.0])
    assert differs("as_it_comes", balance_by=[])
    assert differs("sharp", soften_pixels=0.1)


def test_covariates_join_and_a_machine_that_is_not_known_is_an_error(few_films):
    variant = config("covariates.json")["covariates"]
    weights = trained(few_films, "with_patient", epochs=1, covariates=variant)
    assert weights["head.weight"].shape == (2, 128 + 4)
    data, datalist = few_films
    content = json.loads(datalist.read_text())
    for case in content["training"]:
        del case["device"]
    datalist.write_text(json.dumps(content))
    with pytest.raises(Exception, match="has no 'device', by which groups are balanced"):
        trained(few_films, "unknown", epochs=1)


@pytest.mark.parametrize("method", ["grad_cam", "eigen_cam"])
def test_the_map_is_of_what_was_learned_and_not_of_the_image_alone(method):
    """The randomised-weights check (Adebayo et al., NeurIPS 2018): a map that stays as it is when the weights
    are drawn anew would show the film's edges and nothing of the network."""
    parser = load_config(find_bundle("hip_osteoporosis"), "inference", {"device": "cpu"})
    learned = load_network(find_bundle("hip_osteoporosis"), parser, torch.device("cpu"))
    torch.manual_seed(0)
    drawn = Classifier("resnet18_narrow").eval()
    likeness = []
    for number in range(4):
        film = make_hip(6000 + number, -4.0, pixels=128).image
        item = {"image": MetaTensor(torch.from_numpy(film)[None])}
        maps = [
            ActivationMapd("image", network, method=method)(item)["map"].numpy().ravel()
            for network in (learned, drawn)
        ]
        assert all(0 <= found.min() and found.max() <= 1 + 1e-6 for found in maps)
        likeness.append(np.corrcoef(*maps)[0, 1])
    assert np.nanmean(likeness) < 0.8


def test_an_unknown_kind_of_map_is_refused():
    with pytest.raises(InputError, match="map method 'lime': expected grad_cam or eigen_cam"):
        ActivationMapd("image", Classifier("resnet18_narrow"), method="lime")


def test_a_film_that_is_no_hip_or_does_not_say_its_side_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    chest = np.rint(make_radiograph(3).image * 4095).astype(np.uint16)
    write_dx(tmp_path / "in" / "chest.dcm", chest, ImageLaterality="L")
    hip = np.rint(make_hip(5002, -1.0, "R", pixels=160).image * 255).astype(np.uint8)
    Image.fromarray(hip).save(tmp_path / "in" / "hip.png")
    cohort = segment(Request(tmp_path / "in", "hip_osteoporosis", tmp_path / "out"))
    errors = {case["case"]: case["error"] for case in cohort["cases"]}
    assert "unlike the phantoms of hip radiographs" in errors["chest"]
    assert "nobody says which side this is" in errors["hip"]
    told = segment(
        Request(tmp_path / "in" / "hip.png", "hip_osteoporosis", tmp_path / "told", settings={"side": "R"})
    )
    assert told["cases"][0]["status"] == "done"
