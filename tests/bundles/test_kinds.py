"""The table of result kinds: every writer it names exists, and a bundle may answer with labels instead of
masks."""

from __future__ import annotations

import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from plain_bundle import plain_bundle

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.kinds import KINDS, formats_of
from medseg.bundles.request import Request
from medseg.bundles.trust import trust
from medseg.errors import BundleError, InputError
from medseg.phantoms.series import stack_geometry, write_series
from medseg.training.checkpoints import save_weights


def named(address: str):
    room, _, name = address.rpartition(".")
    return getattr(importlib.import_module(room), name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_writer_and_scorer_of_the_table_exists(kind):
    row = KINDS[kind]
    assert {"volume", "radiograph", "photograph"} == set(row.writers) == set(row.usual)
    for case, writers in row.writers.items():
        assert all(callable(named(address)) for address in writers.values())
        assert set(row.usual[case]) <= set(writers)
    if row.scorer is not None:
        tables = importlib.import_module(row.scorer[1])
        assert callable(named(row.scorer[0])) and callable(tables.in_words) and callable(tables.as_json)


@pytest.mark.parametrize(
    ("bundle", "wanted", "source", "formats"),
    [
        ("mm_gtv", (), "CT", ("rtstruct", "preview")),
        ("mm_gtv", (), "ct.nii.gz", ("nifti", "preview")),
        ("mm_gtv", ("seg", "seg"), "CT", ("seg",)),
        ("cxr_anatomy", (), "film.png", ("png", "preview")),
    ],
)
def test_what_is_usual_is_written_unless_the_user_says_otherwise(bundle, wanted, source, formats):
    assert formats_of(find_bundle(bundle), wanted, source) == formats


@pytest.mark.parametrize(
    ("bundle", "format_", "words"),
    [
        ("mm_gtv", "png", "structures on a volume; expected some of rtstruct, seg, nifti, preview"),
        ("cxr_anatomy", "rtstruct", "projection without a place in the patient"),
        ("mm_gtv", "json", "structures on a volume"),
    ],
)
def test_a_format_that_a_result_cannot_have_is_refused(bundle, format_, words):
    with pytest.raises(InputError, match=words):
        formats_of(find_bundle(bundle), (format_,), "case")


@pytest.fixture(scope="module")
def label_bundle(tmp_path_factory):
    """A bundle of CT alone, but its network answers for the whole image: the mean of the window and its
    opposite."""
    folder = plain_bundle(tmp_path_factory.mktemp("bundles") / "label")
    path = folder / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "result_kind": "labels"}))
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    pooled = "torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten()"
    config["network_def"] = f"$torch.nn.Sequential({pooled}, torch.nn.Linear(1, 2))"
    config["inferer"] = {"_target_": "SimpleInferer"}
    config["formats"] = ["json"]
    config["postprocessing"] = {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "medseg.transforms.ToLabelsd", "keys": "pred", "names": ["bright", "dark"]},
            {"_target_": "medseg.transforms.SaveRecordd", "keys": "labels", "output_dir": "@output_dir"},
        ],
    }
    path.write_text(json.dumps(config))
    weights = {"2.weight": torch.tensor([[8.0], [-8.0]]), "2.bias": torch.tensor([-4.0, 4.0])}
    save_weights(weights, folder / "models" / "model.pt")
    trust(find_bundle(folder))
    return folder


@pytest.mark.parametrize(("hu", "bright"), [(240.0, 0.9997), (-160.0, 0.0003), (40.0, 0.5)])
def test_a_bundle_that_answers_with_labels_goes_through_the_same_door(hu, bright, label_bundle, tmp_path):
    # The window -160 to 240 HU becomes 0 to 1; logits are 8 x - 4 and its opposite: softmax(±4) = 0.9997,
    # 0.5.
    geometry = stack_geometry((6, 20, 20), gaps_mm=3.0)
    write_series(np.full(geometry.shape, hu), geometry, tmp_path / "CT")
    allow = ("out_of_distribution",)  # an image of one value is no patient
    cohort = segment(Request(tmp_path / "CT", str(label_bundle), tmp_path / "out", allow=allow))
    assert cohort["cases"][0]["status"] == "done"
    record = json.loads((tmp_path / "out" / "CT" / "run.json").read_text())
    assert record["labels"]["probabilities"]["bright"] == pytest.approx(bright, abs=1e-4)
    assert [output["file"] for output in record["outputs"]] == ["labels.json"]
    written = json.loads((tmp_path / "out" / "CT" / "labels.json").read_text())
    assert written["labels"]["remark"].startswith("Accepted out_of_distribution")
    assert written["labels"] == record["labels"] and "PHANTOM^MEDSEG" not in json.dumps(record)


def test_a_kind_or_format_that_does_not_exist_is_refused(label_bundle, every_bundle_trusted, tmp_path):
    geometry = stack_geometry((4, 8, 8), gaps_mm=3.0)
    write_series(np.zeros(geometry.shape), geometry, tmp_path / "CT")
    with pytest.raises(InputError, match="labels on a volume; expected some of json, sr"):
        segment(Request(tmp_path / "CT", str(label_bundle), tmp_path / "out", formats=("rtstruct",)))
    odd = tmp_path / "odd"
    shutil.copytree(label_bundle, odd)
    path = odd / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "result_kind": "verdicts"}))
    with pytest.raises(
        BundleError, match="result_kind 'verdicts'; expected one of structures, boxes, labels"
    ):
        segment(Request(tmp_path / "CT", str(odd), tmp_path / "out"))


def test_another_number_of_logits_is_a_failure_of_the_case_and_not_a_label(
    label_bundle, every_bundle_trusted, tmp_path
):
    path = tmp_path / "three"
    shutil.copytree(label_bundle, path)
    config = json.loads((path / "configs" / "inference.json").read_text())
    config["postprocessing"]["transforms"][0]["names"] = ["a", "b", "c"]
    (path / "configs" / "inference.json").write_text(json.dumps(config))
    geometry = stack_geometry((4, 8, 8), gaps_mm=3.0)
    write_series(np.zeros(geometry.shape), geometry, tmp_path / "CT")
    cohort = segment(Request(tmp_path / "CT", str(path), tmp_path / "out", allow=("out_of_distribution",)))
    assert cohort["cases"][0]["error"] == "2 channels for 3 named classes and 0 numbers."
