"""Radiographs through a bundle: results lie on their own pixels, in formats that a projection can have."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from chest_files import picture, write_dx
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.record import is_result
from medseg.bundles.request import Request
from medseg.bundles.trust import trust
from medseg.cases.find import find_radiographs
from medseg.errors import InputError
from medseg.training.checkpoints import save_weights

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "cxr_anatomy"


@pytest.fixture(scope="module")
def bright_bundle(tmp_path_factory):
    """cxr_anatomy's own configs around a one-pixel network: Lung_R is what is brighter than 0.6, Lung_L what
    is darker."""
    folder = tmp_path_factory.mktemp("bundles") / "bright"
    shutil.copytree(BUNDLE, folder, ignore=shutil.ignore_patterns("*.pt"))
    network = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 1}
    path = folder / "configs" / "inference.json"
    config = {**json.loads(path.read_text()), "network_def": network, "engine": "torch"}
    steps = config["preprocessing"]["transforms"]
    # Pictures of two blocks are no chest films, and not what is tested here.
    steps[:] = [step for step in steps if step["_target_"] != "medseg.transforms.CheckInputd"]
    path.write_text(json.dumps(config))
    weight = torch.tensor([200.0, -200.0, 0.0, 0.0]).reshape(4, 1, 1, 1)
    (folder / "models").mkdir(exist_ok=True)
    save_weights(
        {"weight": weight, "bias": torch.tensor([-120.0, 120.0, -9.0, -9.0])}, folder / "models" / "model.pt"
    )
    trust(find_bundle(folder))
    return folder


def two_pieces():
    """A dark picture, 300 rows x 200 columns, with a large bright block at the top left and a small one at
    the bottom."""
    pixels = np.tile(np.linspace(0, 900, 200), (300, 1)).astype(np.uint16)
    pixels[30:90, 20:140] = 4000
    pixels[250:260, 100:110] = 4000
    return pixels


def test_a_dx_file_goes_through_the_bundle_to_masks_on_its_own_pixels(tmp_path, bright_bundle, program):
    write_dx(tmp_path / "chest.dcm", two_pieces(), ImagerPixelSpacing=[0.4, 0.4])
    request = Request(
        tmp_path / "chest.dcm",
        str(bright_bundle),
        tmp_path / "out",
        formats=("png", "nifti", "seg", "preview"),
    )
    assert segment(request)["cases"][0]["status"] == "done"
    folder = tmp_path / "out" / "chest"
    mask = np.asarray(Image.open(folder / "Lung_R.png"))
    assert mask.shape == (300, 200) and set(np.unique(mask)) == {0, 255}
    rows, columns = np.nonzero(mask)
    # Only the larger piece is kept; the network saw the picture at 256 / 300 of its size, so edges move by a
    # pixel at most.
    assert abs(rows.min() - 30) <= 1 and abs(rows.max() - 89) <= 1
    assert abs(columns.min() - 20) <= 1 and abs(columns.max() - 139) <= 1
    record = json.loads((folder / "run.json").read_text())
    assert record["geometry"]["spacing_from"] == "ImagerPixelSpacing, at the detector"
    assert record["structures"][0]["area_cm2"] == pytest.approx(np.count_nonzero(mask) * 0.16 / 100, abs=0.01)
    assert record["input"]["shown"] == "whole range of values" and "Doe" not in json.dumps(record)
    assert Image.open(folder / "preview.png").size[0] == 990
    found = pydicom.dcmread(folder / "SEG.dcm")
    source = pydicom.dcmread(tmp_path / "chest.dcm", stop_before_pixels=True)
    assert str(found.PatientName) == "Doe^Jane" and found.StudyInstanceUID == source.StudyInstanceUID
    item = found.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "PlanePositionSequence" not in found.PerFrameFunctionalGroupsSequence[0], "no place is invented"
    assert (found.pixel_array[0] > 0).tolist() == (mask > 0).tolist()
    result = subprocess.run(
        [program("dciodvfy"), str(folder / "SEG.dcm")], capture_output=True, text=True, check=False
    )
    lines = (result.stdout + result.stderr).splitlines()
    assert "Segmentation" in lines and not [line for line in lines if line.startswith("Error")]


def test_a_picture_gets_pixels_and_no_centimetres_and_no_dicom(tmp_path, bright_bundle):
    (tmp_path / "in").mkdir()
    Image.fromarray((two_pieces() // 16).astype(np.uint8)).save(tmp_path / "in" / "chest.png")
    segment(Request(tmp_path / "in", str(bright_bundle), tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "chest" / "run.json").read_text())
    assert [output["file"] for output in record["outputs"]] == [
        "AirWay_Prox.png",
        "Lung_L.png",
        "Lung_R.png",
        "Mediastinum.png",
        "preview.png",
    ]
    assert record["structures"][0]["area_cm2"] is None and record["structures"][0]["area_pixels"] > 6000
    assert record["geometry"] == {
        "shape_rows_columns": [300, 200],
        "pixel_spacing_mm": None,
        "spacing_from": "not known",
    }
    assert find_radiographs(tmp_path, is_result)[1] == [
        f"5 files, e.g. {tmp_path}/out/chest/AirWay_Prox.png: a file that medseg wrote: results are no cases"
    ]


def test_a_dicom_format_of_pictures_is_refused_once_and_of_some_of_the_cases_case_by_case(
    tmp_path, bright_bundle
):
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / "in" / f"{number}.png")
    request = Request(tmp_path / "in", str(bright_bundle), tmp_path / "out", formats=("png", "seg"))
    with pytest.raises(InputError, match="format seg: it refers to DICOM .*0.png and 2 more are not"):
        segment(request)
    assert not (tmp_path / "out").exists()
    write_dx(tmp_path / "in" / "9.dcm", two_pieces(), ImagerPixelSpacing=[0.4, 0.4])
    cases = segment(request)["cases"]
    assert [case["status"] for case in cases] == ["failed", "failed", "failed", "done"]
    assert "needs a DICOM image to refer to" in cases[0]["error"]


def test_rtstruct_regions_and_png_masks_of_volumes_are_refused_before_anything_is_read(
    tmp_path, bright_bundle
):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="projection without a place in the patient"):
        segment(Request(tmp_path / "a.png", str(bright_bundle), tmp_path / "out", formats=("rtstruct",)))
    with pytest.raises(Exception, match="no setting 'within'"):
        segment(Request(tmp_path / "a.png", str(bright_bundle), tmp_path / "out", within="0,1,0,1,0,1"))
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="format png: mm_gtv answers with structures on a volume"):
        segment(Request(tmp_path / "ct.nii.gz", "mm_gtv", tmp_path / "out", formats=("png",)))
