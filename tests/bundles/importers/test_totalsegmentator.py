"""TotalSegmentator's models as one bundle: merged in its order, named after TG-263, sides as documented."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunet_models import configuration, dataset_of, plans_of, predicted_by_nnunet, write_model
from scipy.ndimage import gaussian_filter

from medseg.bundles.cohort import segment
from medseg.bundles.importers.names import side_of
from medseg.bundles.importers.totalsegmentator import TotalSegmentatorRequest, import_totalsegmentator
from medseg.bundles.importers.totalsegmentator_names import LICENSED, TASKS, TOTAL
from medseg.bundles.request import Request
from medseg.bundles.verify import verify
from medseg.errors import BundleError, InputError
from medseg.structures import tg263

pytest.importorskip("dynamic_network_architectures", reason="pip install 'medseg[nnunet]'")
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")

LABELS = list(TOTAL)
PARTS = {291: LABELS[:24], 292: LABELS[24:50], 293: LABELS[50:68], 294: LABELS[68:91], 295: LABELS[91:]}
BUILT = {"Cyst_Kidney_L", "Cyst_Kidney_R", "AtrialAppend_L", "V_PortalSplenic", "Sternum", "Cartlg_Costal"}
"""Names that the worksheet of 2017 has not, beside those of muscles."""


@pytest.fixture(autouse=True)
def own_trust_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_TRUST_FILE", str(tmp_path / "trusted.json"))


def write_weights(folder: Path, number: int, labels, mm=3.0) -> Path:
    """A model folder of the data set ``number`` with random weights, as TotalSegmentator keeps it."""
    numbered = {"background": 0, **{label: n for n, label in enumerate(labels, start=1)}}
    plans = plans_of({"3d_fullres": configuration([mm] * 3, [8, 8, 8], ["CTNormalization"])})
    return write_model(folder / f"Dataset{number:03d}_part", plans, dataset_of(numbered))


@pytest.fixture
def weights(tmp_path):
    for number, labels in PARTS.items():
        write_weights(tmp_path / "results", number, labels)
    return tmp_path / "results"


# ---- names -------------------------------------------------------------------------------------------------


def test_the_117_labels_have_names_of_their_own_with_their_own_sides():
    assert len(TOTAL) == 117 and len({name.lower() for name in TOTAL.values()}) == 117
    for label, name in TOTAL.items():
        assert tg263.check_name(name).problems == (), name
        lobe = name[5] if name.startswith("Lung_") else ""  # LUL, RML …
        assert (side_of(name) or lobe) == side_of(label), label
    assert LABELS[1] == "kidney_right" and LABELS[51] == "aorta" and LABELS[116] == "costal_cartilages"


def test_the_names_are_those_of_the_tg263_worksheet(shared_data):
    worksheet = shared_data / "tg263" / "TG263_Nomenclature_Worksheet_20170815.csv"
    with worksheet.open(encoding="latin-1") as file:
        known = {row[5] for row in csv.reader(file)}
    built = {name for name in TOTAL.values() if name not in known}
    assert {name for name in built if not name.startswith("Musc_")} <= BUILT


def test_left_structures_lie_on_the_left_of_totalsegmentators_own_example(shared_data):
    image = nibabel.load(shared_data / "misc" / "totalseg_example" / "example_seg.nii.gz")
    found = np.asarray(image.dataobj).astype(int)
    table = image.header.extensions[0].get_content().decode()
    assert re.findall(r'Key="\d+".*?CDATA\[(\w+)\]', table) == LABELS
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")  # x grows to the patient's right
    pairs = 0
    for number, (label, name) in enumerate(TOTAL.items(), start=1):
        partner = label.replace("left", "right")
        if side_of(label) != "L" or partner not in TOTAL:
            continue
        other = LABELS.index(partner) + 1
        if (found == number).any() and (found == other).any():
            left, right = (np.argwhere(found == n)[:, 0].mean() for n in (number, other))
            assert left < right, name
            pairs += 1
    assert pairs >= 4


# ---- import ------------------------------------------------------------------------------------------------


def test_five_models_are_merged_in_the_order_that_totalsegmentator_documents(weights, tmp_path):
    pytest.importorskip("nnunetv2", reason="nnunetv2, the referee, is not installed")
    bundle = import_totalsegmentator(TotalSegmentatorRequest(weights, tmp_path / "total"))
    assert [what for what, problem in verify(bundle) if problem] == []
    volume = (gaussian_filter(np.random.default_rng(3).normal(size=(9, 10, 11)), 1) * 900).astype(np.float32)
    flipped = np.diag([-3.0, -3.0, 3.0, 1.0])  # LPS, as DICOM is; TotalSegmentator turns it to RAS
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), flipped), tmp_path / "ct.nii.gz")
    request = Request(tmp_path / "ct.nii.gz", bundle, tmp_path / "out", formats=("nifti",), device="cpu")
    (case,) = segment(request)["cases"]
    turned = volume[:, ::-1, ::-1]
    wanted = np.zeros(volume.shape, int)
    for number, labels in PARTS.items():
        (model,) = (weights / f"Dataset{number}_part").iterdir()
        part = predicted_by_nnunet(model, turned[None], (3, 3, 3), mirror=False)
        first = LABELS.index(labels[0])
        wanted[part > 0] = part[part > 0] + first
    wanted = wanted[:, ::-1, ::-1]
    assert len(np.unique(wanted)) > 10
    for number, name in enumerate(TOTAL.values(), start=1):
        mask = np.asarray(nibabel.load(Path(case["folder"]) / f"{name}.nii.gz").dataobj).transpose(2, 1, 0)
        assert ((mask > 0) == (wanted == number)).all(), name


def test_the_3_mm_model_alone_gives_all_117(tmp_path):
    write_weights(tmp_path, 297, LABELS)
    bundle = import_totalsegmentator(TotalSegmentatorRequest(tmp_path, tmp_path / "b", resolution="3mm"))
    config = json.loads((bundle.folder / "configs" / "inference.json").read_text())
    (stage,) = config["inferer"]["stages"]
    assert stage["classes"] == 118 and stage["mirror_axes"] == [] and stage["merge"]["117"] == 117
    assert len(config["postprocessing"]["transforms"][0]["structures"]) == 117
    assert "whole vertebrae" in " ".join(bundle.metadata["imported"]["remarks"])


def test_a_task_that_looks_around_the_lungs_takes_the_rough_model_first(tmp_path):
    write_weights(tmp_path, 298, LABELS, mm=6.0)
    write_weights(tmp_path, 258, ["lung_vessels", "lung_trachea_bronchia"])
    request = TotalSegmentatorRequest(tmp_path, tmp_path / "b", task="lung_vessels")
    bundle = import_totalsegmentator(request)
    stages = json.loads((bundle.folder / "configs" / "inference.json").read_text())["inferer"]["stages"]
    assert [stage.get("result", True) for stage in stages] == [False, True]
    assert stages[1]["around"] == {"stage": 0, "labels": [10, 11, 12, 13, 14], "margin_mm": 20.0}
    volume = np.full((12, 12, 12), -900, np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([6.0, 6, 6, 1])), tmp_path / "ct.nii.gz")
    (case,) = segment(Request(tmp_path / "ct.nii.gz", bundle, tmp_path / "out", device="cpu"))["cases"]
    assert case["status"] == "done"


# ---- what is refused ---------------------------------------------------------------------------------------


def test_labels_whose_sides_were_exchanged_are_refused(weights, tmp_path):
    (path,) = (weights / "Dataset291_part").glob("*/dataset.json")
    content = json.loads(path.read_text())
    numbers = content["labels"]
    numbers["kidney_left"], numbers["kidney_right"] = numbers["kidney_right"], numbers["kidney_left"]
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="sides or organs would be exchanged"):
        import_totalsegmentator(TotalSegmentatorRequest(weights, tmp_path / "b"))


@pytest.mark.parametrize("task", LICENSED)
def test_tasks_that_need_a_licence_are_named(task, tmp_path):
    with pytest.raises(InputError, match="need a licence"):
        import_totalsegmentator(TotalSegmentatorRequest(tmp_path, tmp_path / "b", task=task))
    assert task not in TASKS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "everything"}, "expected one of total"),
        ({"resolution": "2mm"}, "expected one of 1.5mm, 3mm, 6mm"),
        ({"resolution": "3mm"}, "no Dataset297_"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(fields, message, weights, tmp_path):
    with pytest.raises((InputError, BundleError), match=message):
        import_totalsegmentator(TotalSegmentatorRequest(weights, tmp_path / "b", **fields))


def test_a_set_of_models_that_lacks_labels_is_refused(weights, tmp_path):
    (path,) = (weights / "Dataset295_part").glob("*/dataset.json")
    content = json.loads(path.read_text())
    content["labels"].pop("costal_cartilages")
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError):
        import_totalsegmentator(TotalSegmentatorRequest(weights, tmp_path / "b"))
