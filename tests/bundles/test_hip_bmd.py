"""The variant of the hip bundle that says BMD beside the classes, from training to the report."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from chest_files import write_dx
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.config import run_config
from medseg.bundles.copies import copy_bundle
from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request
from medseg.bundles.score_labels import score_labels
from medseg.bundles.score_request import ScoreRequest
from medseg.phantoms.hip import DEVICES, bmd_of, make_hip

HIP_RUN = Path(__file__).resolve().parents[2] / "tools" / "benchmarks" / "hip_osteoporosis" / "run.py"
NAME = "BMD of the femoral neck"


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Twelve small films with list.json, of which one does not say its BMD."""
    folder, cases = tmp_path_factory.mktemp("films"), []
    for number in range(12):
        t_score = (-4.0, 0.5)[number % 2]
        film = make_hip(number, t_score, pixels=64, device=DEVICES[number // 2 % 2]).image
        Image.fromarray(np.rint(film * 65535).astype(np.uint16)).save(folder / f"{number}.png")
        case = {"image": f"{number}.png", "case_id": str(number), "side": "L", "label": int(t_score < -2.5)}
        cases.append({**case, "device": DEVICES[number // 2 % 2], "bmd": bmd_of(t_score)})
    del cases[3]["bmd"]
    (folder / "list.json").write_text(json.dumps({"training": cases[:8], "validation": cases[8:]}))
    return folder


@pytest.fixture(scope="module")
def weights(films) -> Path:
    run = films / "run"
    run.mkdir()
    paths = {"dataset_dir": films, "ckpt_dir": run, "output_dir": run, "datalist": films / "list.json"}
    small = {"image_size": [64, 64], "batch_size": 4, "epochs": 2, "seed": 5}
    settings = small | {name: str(path) for name, path in paths.items()}
    run_config(find_bundle("hip_osteoporosis"), ["train", "bmd"], "training", settings)
    return run / "last.pt"


def test_the_variant_learns_one_number_more(weights):
    network = torch.load(weights, weights_only=True)["network"]
    assert network["head.weight"].shape == (3, 128)


def test_it_is_scored_with_agreement_and_intervals(films, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.bundles.score_labels.DRAWS", 20)
    model = tmp_path / "model.pt"
    torch.save(torch.load(weights, weights_only=True)["network"], model)
    scored = score_labels(
        ScoreRequest(
            "hip_osteoporosis",
            films,
            tmp_path / "out",
            section="validation",
            datalist=films / "list.json",
            weights=model,
            variant="bmd",
        )
    )
    found = scored.numbers[f"{NAME}, g/cm2"]
    said = [
        json.loads((tmp_path / "out" / str(number) / "labels.json").read_text())["labels"]["values"]
        for number in range(8, 12)
    ]
    off = np.array([one[NAME]["value"] for one in said]) - [bmd_of(-4.0), bmd_of(0.5)] * 2
    assert found["mean absolute error"].value == pytest.approx(np.abs(off).mean(), abs=1e-5)
    assert found["bias"].value == pytest.approx(off.mean(), abs=1e-5)
    assert found["R2"].value < 1 and "share within its interval" not in found
    t_score = (said[0][NAME]["value"] - 0.858) / 0.12
    assert said[0]["T-score"]["value"] == pytest.approx(t_score, abs=1e-3)


@pytest.fixture
def own_bundle(weights, tmp_path) -> Path:
    """The bundle as a user makes it of the variant: copied with its weights, then calibrated."""
    spec = importlib.util.spec_from_file_location("hip_run", HIP_RUN)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    own, shipped = tmp_path / "own.pt", find_bundle("hip_osteoporosis")
    torch.save(torch.load(weights, weights_only=True)["network"], own)
    folder = copy_bundle(shipped, tmp_path / "my_hips", own, "bmd").folder
    calibration = json.loads((shipped.folder / "configs" / "calibration.json").read_text())
    run.write_calibration(folder, {**calibration, "off": {"bmd": [-0.5, 0.5] * 39}})
    return folder


def test_bmd_and_t_score_stand_in_json_report_and_picture(own_bundle, tmp_path):
    pixels = np.rint(make_hip(5001, -4.0, pixels=160).image * 4095).astype(np.uint16)
    film = write_dx(tmp_path / "film.dcm", pixels, ImageLaterality="L", BodyPartExamined="HIP")
    formats = ("json", "preview", "sr")
    request = Request(film, f"{own_bundle}/", tmp_path / "out", formats=formats, trust_bundle=True)
    (case,) = segment(request)["cases"]
    assert case["status"] == "done"
    said = json.loads((tmp_path / "out" / "film" / "labels.json").read_text())["labels"]
    bmd, t_score = said["values"][NAME]["value"], said["values"]["T-score"]["value"]
    assert t_score == pytest.approx((bmd - 0.858) / 0.12, abs=1e-3)
    assert said["intervals"]["T-score"] == pytest.approx([t_score - 0.5, t_score + 0.5], abs=1e-3)
    report = pydicom.dcmread(tmp_path / "out" / "film" / "SR.dcm")
    group = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER").ContentSequence[0]
    measured = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.MeasuredValueSequence[0]
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }
    assert float(measured[NAME].NumericValue) == pytest.approx(bmd, abs=1e-4)
    assert measured[NAME].MeasurementUnitsCodeSequence[0].CodeValue == "g/cm2"
    upper = measured[f"{NAME}, upper end"]
    assert float(upper.NumericValue) == pytest.approx(bmd + 0.06, abs=1e-3)
    assert (tmp_path / "out" / "film" / "preview.png").stat().st_size > 10_000
