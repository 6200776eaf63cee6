"""Clinic exports become a raw data set of nnU-Net, on the images' own voxels, whole patients in one fold."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from medseg.bundles.importers.nnunet_dataset import DatasetRequest, _check_labels, export_dataset
from medseg.cli.main import main
from medseg.dicom import read_series, write_rtstruct
from medseg.errors import InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import write_series

pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """(the datalist, the folder of exports, the phantom) of three patients, the first of whom has two CTs."""
    folder, phantom = tmp_path_factory.mktemp("clinic"), chiral_phantom()
    items = []
    for number, patient in enumerate(("P1", "P1", "P2", "P3"), start=1):
        case = folder / f"case{number}"
        write_series(phantom.volume_hu, phantom.geometry, case, seed=number, PatientID=patient)
        rois = {"gtv": phantom.masks["Marker"], "ell": phantom.masks["L"]}
        write_rtstruct(rois, read_series(case), case / "RS.dcm")
        item = {"image": f"case{number}", "label": f"case{number}/RS.dcm", "case_id": f"case{number}"}
        items.append({**item, "rois": {"GTV": "gtv", "Ell": "ell"}, "patient_id": patient})
    structures = {"GTV": ["gtv"], "Ell": ["ell"]}
    content = {"structures": structures, "training": items[:3], "validation": items[3:]}
    (folder / "list.json").write_text(json.dumps(content))
    return folder / "list.json", folder, phantom


def test_images_and_labels_lie_on_the_series_own_voxels(clinic, tmp_path):
    datalist, data, phantom = clinic
    lines = export_dataset(DatasetRequest(datalist, data, tmp_path / "Dataset501_Ell", folds=3))
    assert "4 cases, 3 folds" in lines[0] and "nnUNetv2_plan_and_preprocess -d 501" in lines[-1]
    description = json.loads((tmp_path / "Dataset501_Ell" / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "GTV": 1, "Ell": 2}
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == 4
    image = nibabel.load(tmp_path / "Dataset501_Ell" / "imagesTr" / "case_001_0000.nii.gz")
    label = nibabel.load(tmp_path / "Dataset501_Ell" / "labelsTr" / "case_001.nii.gz")
    assert np.allclose(image.affine, phantom.geometry.affine_ras, atol=1e-3)
    assert np.allclose(label.affine, image.affine)
    assert np.allclose(image.get_fdata().transpose(2, 1, 0), phantom.volume_hu, atol=1)
    found = np.asarray(label.dataobj).transpose(2, 1, 0)
    assert ((found == 1) == phantom.masks["Marker"]).mean() > 0.999
    assert (found == 2).sum() > 0.9 * (phantom.masks["L"] & ~phantom.masks["Marker"]).sum()


def test_no_fold_divides_a_patient_and_every_case_validates_once(clinic, tmp_path):
    datalist, data, _ = clinic
    words = ["bundles", "export", "nnunet-dataset", str(datalist), "--data", str(data), "--folds", "2"]
    assert main([*words, "-o", str(tmp_path / "Dataset502_Ell")]) == 0
    splits = json.loads((tmp_path / "Dataset502_Ell" / "splits_final.json").read_text())
    assert len(splits) == 2 and sorted(splits[0]["val"] + splits[1]["val"]) == [
        "case_001",
        "case_002",
        "case_003",
        "case_004",
    ]
    for split in splits:
        assert not set(split["train"]) & set(split["val"])
        assert ("case_001" in split["val"]) == ("case_002" in split["val"])  # one patient


@pytest.mark.parametrize(
    ("name", "folds", "message"),
    [("Ell", 3, "Dataset501_Pelvis"), ("Dataset503_Ell", 4, "expected 2 to 3, as many as patients")],
)
def test_a_name_or_number_of_folds_that_cannot_be_is_refused(name, folds, message, clinic, tmp_path):
    datalist, data, _ = clinic
    with pytest.raises(InputError, match=message):
        export_dataset(DatasetRequest(datalist, data, tmp_path / name, folds=folds))
    assert not (tmp_path / name).exists()


def test_a_structure_that_nobody_contoured_is_not_called_absent(clinic, tmp_path):
    datalist, data, _ = clinic
    content = json.loads(datalist.read_text())
    content["validation"][0]["rois"]["Ell"] = None
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="case4: Ell is not contoured"):
        export_dataset(DatasetRequest(tmp_path / "list.json", data, tmp_path / "Dataset504_Ell", folds=2))
    assert not list(tmp_path.glob("*Dataset504*"))


@pytest.mark.parametrize(
    ("structures", "rois", "message"),
    [
        (["GTV", "Background"], {}, "'Background': nnU-Net means something else"),
        (["ignore"], {}, "'ignore': nnU-Net means something else"),
        ([f"Node_{n}" for n in range(256)], {}, "256 structures; a label map has room for 255"),
        (
            ["Lung_L", "Lung_R"],
            {"Lung_L": "lung right", "Lung_R": "left lung"},
            "case1: ROI 'lung right'",
        ),
    ],
    ids=["background", "ignore", "256 structures", "sides"],
)
def test_structures_that_are_no_labels_and_rois_of_the_other_side_are_refused(
    structures, rois, message, clinic, tmp_path
):
    datalist, data, _ = clinic
    content = json.loads(datalist.read_text())
    content["structures"] = {name: [name] for name in structures}
    for item in (*content["training"], *content["validation"]):
        item["rois"] = rois
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        export_dataset(DatasetRequest(tmp_path / "list.json", data, tmp_path / "Dataset505_Ell", folds=3))
    assert not list(tmp_path.glob("*Dataset505*"))


def test_255_structures_are_as_many_as_a_label_map_holds():
    structures = {f"Node_{n}": [] for n in range(255)}
    _check_labels(structures, [{"case_id": "a", "rois": {"Node_1": "node 1, left", "Node_2": None}}])
