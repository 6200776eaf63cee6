"""The main job: a series in, structures in the patient's own coordinates out, through every door and
format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK
from chiral_cases import MARKER_CC, case_at, chiral_series, contoured, image_centroid
from shapely.geometry import Polygon

from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request
from medseg.bundles.trust import trust
from medseg.errors import GeometryError, InputError
from medseg.inference import SlidingWindow
from medseg.inference.engines import processor_formats
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import AXIAL
from medseg.transforms import LoadCased

ORIENTATIONS = {
    "head first": AXIAL,
    "feet first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "rows negated": (1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.9, 0.3, -0.1, -0.2, 0.8, 0.4),
}


def rtstruct_centroid_and_cc(path, roi="GTV"):
    """Volume and centroid from the points in the file alone: polygon areas by shapely, heights from the
    points' planes."""
    dataset = pydicom.dcmread(path)
    number = next(row.ROINumber for row in dataset.StructureSetROISequence if row.ROIName == roi)
    contours = next(
        row for row in dataset.ROIContourSequence if row.ReferencedROINumber == number
    ).ContourSequence
    centroids, areas, heights = [], [], []
    for contour in contours:
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        first = (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
        normal = np.cross(first, points[len(points) // 2] - points[0])
        normal /= np.linalg.norm(normal)
        second = np.cross(normal, first)
        flat = Polygon(np.stack([(points - points[0]) @ first, (points - points[0]) @ second], axis=1))
        areas.append(flat.area)
        centroids.append(points[0] + flat.centroid.x * first + flat.centroid.y * second)
        heights.append(abs(points[0] @ normal))
    gap_mm = float(np.median(np.diff(np.unique(np.round(heights, 3)))))
    return np.average(centroids, axis=0, weights=areas), sum(areas) * gap_mm / 1000


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_marker_on_the_patients_left_stays_there_in_every_format(orientation, bright_bundle, tmp_path):
    phantom = chiral_series(tmp_path / "CT", orientation=ORIENTATIONS[orientation])
    folder = contoured(
        bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct", "seg", "nifti", "preview")
    )
    expected = phantom.points_lps_mm["Marker"]

    centroid, volume_cc = rtstruct_centroid_and_cc(folder / "RS.dcm")
    assert np.abs(centroid - expected).max() < 0.6
    assert volume_cc == pytest.approx(MARKER_CC, rel=0.12)
    for name in ("GTV.nii.gz", "SEG.dcm"):
        assert np.abs(image_centroid(folder / name) - expected).max() < 0.6, name
    assert (folder / "preview.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "stack", [{"gaps_mm": [2.5] * 16 + [1.0] + [4.0] * 16}, {"tilt_degrees": 15.0}], ids=["uneven", "tilted"]
)
def test_contours_of_uneven_and_tilted_stacks_lie_on_the_real_slices(stack, bright_bundle, tmp_path):
    phantom = chiral_series(tmp_path / "CT", **stack)
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out")
    dataset = pydicom.dcmread(folder / "RS.dcm")
    truth = phantom.masks["Marker"]
    slices = {
        str(h.SOPInstanceUID): np.array(h.ImagePositionPatient, float)
        for h in map(pydicom.dcmread, (tmp_path / "CT").iterdir())
    }
    areas = {}
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        origin = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert np.abs(points[:, 2] - origin[2]).max() < 2e-3
        index = int(np.abs(phantom.geometry.origins_lps_mm[:, 2] - origin[2]).argmin())
        centre = Polygon(points[:, :2]).centroid
        middle = phantom.geometry.rows_columns(index, [[centre.x, centre.y, origin[2]]])[0]
        areas[index] = middle
    for index, middle in areas.items():
        if truth[index].sum() > 20:
            assert np.abs(middle - np.argwhere(truth[index]).mean(0)).max() < 1.0
    assert set(np.flatnonzero(truth.sum((1, 2)) > 20)) <= set(areas)


def test_the_bundle_run_by_monai_alone_writes_the_same_contours(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "ours")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            str(bright_bundle / "configs/inference.json"),
            "--bundle_root",
            str(bright_bundle),
            "--dataset_dir",
            str(tmp_path / "CT"),
            "--output_dir",
            str(tmp_path / "monai"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    ours, monai = (pydicom.dcmread(path / "RS.dcm") for path in (folder, tmp_path / "monai" / "CT"))
    points = [
        [contour.ContourData for contour in dataset.ROIContourSequence[0].ContourSequence]
        for dataset in (ours, monai)
    ]
    assert points[0] == points[1]


def test_margins_add_ctv_and_ptv_of_the_right_size(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    out = tmp_path / "out"
    folder = contoured(
        bright_bundle,
        tmp_path / "CT",
        out,
        settings={"ctv_margin_mm": 5.0, "ptv_margin_mm": 3.0, "crop_to_body_mm": None},
    )
    structures = {s["name"]: s for s in json.loads((folder / "run.json").read_text())["structures"]}
    assert [s["interpreted_type"] for s in structures.values()] == ["GTV", "CTV", "PTV"]
    for name, radius_cm in (("GTV", 0.7), ("CTV", 1.2), ("PTV", 1.5)):
        assert structures[name]["volume_cc"] == pytest.approx(4 / 3 * np.pi * radius_cm**3, rel=0.12)


def test_a_nifti_case_gives_nifti_on_exactly_its_own_grid(bright_bundle, tmp_path):
    phantom = chiral_phantom()
    volume = phantom.volume_hu
    image = SimpleITK.GetImageFromArray(volume[::-1].copy())  # slices descend: a left-handed stack
    image.SetSpacing((1.25, 1.5, 3.0))
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
    image.SetOrigin(phantom.geometry.origins_lps_mm[-1].tolist())
    SimpleITK.WriteImage(image, str(tmp_path / "case.nii.gz"))
    cohort = segment(Request(tmp_path / "case.nii.gz", str(bright_bundle), tmp_path / "out"))
    assert cohort["cases"][0]["status"] == "done", cohort
    result = SimpleITK.ReadImage(str(tmp_path / "out" / "case" / "GTV.nii.gz"))
    assert result.GetSize() == image.GetSize()
    assert np.allclose(result.GetOrigin(), image.GetOrigin(), atol=1e-3)
    assert np.allclose(result.GetDirection(), image.GetDirection(), atol=1e-6)
    centroid = image_centroid(tmp_path / "out" / "case" / "GTV.nii.gz")
    assert np.abs(centroid - phantom.points_lps_mm["Marker"]).max() < 0.6


def test_a_prediction_off_the_cases_grid_is_refused(bright_bundle, tmp_path):
    import torch

    from medseg.transforms import LoadCased, ToStructuresd

    chiral_series(tmp_path / "CT")
    item = LoadCased("image")({"image": str(tmp_path / "CT")})
    item["pred"] = item["image"].clone()
    item["pred"].affine = item["pred"].affine + torch.tensor([[0, 0, 0, 2.0], [0] * 4, [0] * 4, [0] * 4])
    with pytest.raises(GeometryError, match="does not lie on the image's grid"):
        ToStructuresd("pred", structures=[{"name": "GTV"}])(item)


def engines_here() -> list[str]:
    return ["torch", "openvino", *(["openvino-bf16"] if "BF16" in processor_formats() else [])]


@pytest.fixture
def bfloat16_bundle(bright_bundle, tmp_path):
    """The bright bundle, whose config says that it computes in bfloat16."""
    folder = tmp_path / "bfloat16"
    shutil.copytree(bright_bundle, folder)
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "engine": "openvino-bf16"}))
    trust(find_bundle(folder))
    return folder


@pytest.mark.skipif("openvino-bf16" not in engines_here(), reason="the processor has no bfloat16")
def test_run_json_says_the_number_format_of_a_bundle_that_is_overruled_or_not(bfloat16_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    request = Request(tmp_path / "CT", str(bfloat16_bundle), tmp_path / "out", formats=("nifti",))
    for asked, status, used, said in (
        ("auto", "done", "openvino-bf16", "bfloat16"),
        ("openvino-bf16", "skipped", "openvino-bf16", "bfloat16"),
        ("openvino", "done", "openvino", None),
        ("torch", "skipped", "openvino", None),
        ("auto", "done", "openvino-bf16", "bfloat16"),
    ):
        assert segment(replace(request, engine=asked, device="cpu"))["cases"][0]["status"] == status, asked
        case = case_at(tmp_path / "out")
        assert (case["engine"], case["number_format"]) == (used, said), asked


def test_a_bundle_in_bfloat16_is_refused_where_the_processor_has_none_unless_overruled(
    bfloat16_bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr("medseg.inference.engines.processor_formats", lambda: ("FP32",))
    chiral_series(tmp_path / "CT")
    request = Request(
        tmp_path / "CT", str(bfloat16_bundle), tmp_path / "out", formats=("nifti",), device="cpu"
    )
    with pytest.raises(InputError, match="this processor has no bfloat16 instructions .* use `engine=openv"):
        segment(request)
    assert segment(replace(request, engine="torch"))["cases"][0]["status"] == "done"
    case = case_at(tmp_path / "out")
    assert (case["engine"], case["number_format"]) == ("torch", None)


def test_the_network_is_made_ready_while_the_case_is_read(bright_bundle, tmp_path, monkeypatch):
    order = []
    loads = LoadCased.__call__
    monkeypatch.setattr(
        SlidingWindow, "begin", lambda self, _, channels, device: order.append((channels, str(device)))
    )
    monkeypatch.setattr(LoadCased, "__call__", lambda self, data: order.append("read") or loads(self, data))
    chiral_series(tmp_path / "CT")
    contoured(bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("nifti",), device="cpu")
    assert order == [(1, "cpu"), "read"]


def test_the_engine_is_recorded_and_another_one_does_not_contour_a_finished_case_anew(
    bright_bundle, tmp_path
):
    chiral_series(tmp_path / "CT")
    folders = {
        engine: contoured(
            bright_bundle, tmp_path / "CT", tmp_path / engine, engine=engine, formats=("nifti",)
        )
        for engine in engines_here()
    }
    masks = [
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f / "GTV.nii.gz"))) for f in folders.values()
    ]
    assert all((masks[0] != other).mean() < 1e-3 for other in masks[1:]) and masks[0].any()
    records = {engine: case_at(tmp_path / engine) for engine in folders}
    assert [record["engine"] for record in records.values()] == engines_here()
    assert "openvino" in records["openvino"]["versions"]
    again = Request(
        tmp_path / "CT", str(bright_bundle), tmp_path / "torch", engine="openvino", formats=("nifti",)
    )
    assert segment(again)["cases"][0]["status"] == "skipped"
    if "openvino-bf16" in folders:  # its contours are others, so it is contoured anew, there and back
        for engine in ("openvino-bf16", "openvino"):
            assert segment(replace(again, engine=engine))["cases"][0]["status"] == "done"
            assert case_at(tmp_path / "torch")["engine"] == engine
    with pytest.raises(InputError, match="engine 'tpu': expected one of auto, torch, openvino, op"):
        Request(tmp_path, str(bright_bundle), tmp_path / "out", engine="tpu")
    with pytest.raises(InputError, match="use `engine"):
        Request(tmp_path, str(bright_bundle), tmp_path / "out", settings={"engine": "torch"})
