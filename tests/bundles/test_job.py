"""The main job: a series in, structures in the patient's own coordinates out, through every door and
format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from shapely.geometry import Polygon

from medseg.bundles.cohort import segment
from medseg.bundles.job import Request
from medseg.errors import BundleError, GeometryError, InputError, MedsegError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import AXIAL, stack_geometry, write_series

MARKER_CC = 4 / 3 * np.pi * 0.7**3

ORIENTATIONS = {
    "head first": AXIAL,
    "feet first": (-1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "rows negated": (1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.9, 0.3, -0.1, -0.2, 0.8, 0.4),
}


def chiral_series(folder, seed=0, **geometry):
    """64 x 72 pixels fill whole bytes of a bit-packed SEG; SimpleITK reads bits of a last, partial byte from
    free memory."""
    phantom = chiral_phantom(
        stack_geometry(
            (34, 64, 72),
            **{"gaps_mm": 2.5, "pixel_spacing_mm": (1.5, 1.25), "centre_lps_mm": (7, -20, 110), **geometry},
        )
    )
    write_series(phantom.volume_hu, phantom.geometry, folder, seed=seed)
    return phantom


def contoured(bundle, source, out, **options):
    cohort = segment(Request(source, str(bundle), out, **options))
    record = cohort["cases"][0]
    assert record["status"] == "done", record
    return out / "CT"


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


def image_centroid(path):
    """LPS mm of the mean foreground voxel, by SimpleITK."""
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    indices = np.argwhere(array > 0).mean(0)[::-1]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(indices.tolist()))


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
        bright_bundle, tmp_path / "CT", out, settings={"ctv_margin_mm": 5.0, "ptv_margin_mm": 3.0}
    )
    structures = {s["name"]: s for s in json.loads((folder / "run.json").read_text())["structures"]}
    assert [s["interpreted_type"] for s in structures.values()] == ["GTV", "CTV", "PTV"]
    for name, radius_cm in (("GTV", 0.7), ("CTV", 1.2), ("PTV", 1.5)):
        assert structures[name]["volume_cc"] == pytest.approx(4 / 3 * np.pi * radius_cm**3, rel=0.12)


def test_within_a_box_only_what_lies_there_is_contoured(bright_bundle, tmp_path):
    phantom = chiral_series(tmp_path / "CT")
    x, y, z = phantom.points_lps_mm["Marker"]
    half = f"{x},{x + 20},{y - 20},{y + 20},{z - 20},{z + 20}"
    folder = contoured(
        bright_bundle, tmp_path / "CT", tmp_path / "out", within=half, settings={"min_volume_cc": 0.0}
    )
    record = json.loads((folder / "run.json").read_text())
    assert record["options"]["within"] == half
    assert record["structures"][0]["volume_cc"] == pytest.approx(MARKER_CC / 2, rel=0.2)
    assert image_free_of_points_left_of(folder / "RS.dcm", x - 1.0)


def image_free_of_points_left_of(path, x_mm):
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    return all(min(float(v) for v in contour.ContourData[::3]) >= x_mm for contour in contours)


def test_within_an_roi_of_a_structure_set_beside_the_series(bright_bundle, tmp_path):
    from medseg.dicom import read_series, write_rtstruct

    phantom = chiral_series(tmp_path / "CT")
    series = read_series(tmp_path / "CT")
    region = phantom.masks["Marker"].copy()
    region[:, :, : region.shape[2] // 2] = False
    write_rtstruct({"Region": region, "Elsewhere": phantom.masks["Foot"]}, series, tmp_path / "RS.dcm")
    folder = contoured(
        bright_bundle,
        tmp_path / "CT",
        tmp_path / "out",
        within="RS.dcm:Region",
        settings={"min_volume_cc": 0.0},
    )
    assert json.loads((folder / "run.json").read_text())["structures"][0]["volume_cc"] > 0.5
    empty = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out2", within="RS.dcm:Elsewhere")
    assert json.loads((empty / "run.json").read_text())["structures"][0]["empty"]


@pytest.mark.parametrize(
    ("within", "words"),
    [
        ("1,2,3", "six|expected"),
        ("5,1,0,9,0,9", "ascend"),
        ("900,901,0,1,0,1", "no voxel centre"),
        ("RS.dcm:GTV", "no such structure set"),
    ],
)
def test_a_region_that_makes_no_sense_is_refused(within, words, bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    cohort = segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", within=within))
    case = cohort["cases"][0]
    assert case["status"] == "failed" and case["fault"] == "input"
    assert any(word in case["error"] for word in words.split("|"))
    assert not (tmp_path / "out" / "CT" / "RS.dcm").exists()


def test_one_broken_case_does_not_stop_the_cohort_and_a_rerun_continues(bright_bundle, tmp_path):
    cohort_dir = tmp_path / "cohort"
    chiral_series(cohort_dir / "patient_1" / "CT", seed=1)
    chiral_series(cohort_dir / "patient_2" / "CT", seed=2)
    (cohort_dir / "patient_2" / "CT" / "CT_0012.dcm").unlink()  # a hole in the stack
    chiral_series(cohort_dir / "patient_3" / "deeper" / "CT", seed=3)
    request = Request(cohort_dir, str(bright_bundle), tmp_path / "out")

    statuses = {case["case"]: case["status"] for case in segment(request)["cases"]}
    assert statuses == {"patient_1_CT": "done", "patient_2_CT": "failed", "patient_3_deeper_CT": "done"}
    failed = json.loads((tmp_path / "out" / "patient_2_CT" / "run.json").read_text())
    assert "missing" in failed["error"] and failed["status"] == "failed"
    assert [p.name for p in (tmp_path / "out" / "patient_2_CT").iterdir()] == ["run.json"]

    statuses = {case["case"]: case["status"] for case in segment(request)["cases"]}
    assert statuses == {"patient_1_CT": "skipped", "patient_2_CT": "failed", "patient_3_deeper_CT": "skipped"}

    accepted = Request(cohort_dir, str(bright_bundle), tmp_path / "out", allow=("missing_slice",))
    assert {case["status"] for case in segment(accepted)["cases"]} == {"done"}
    record = json.loads((tmp_path / "out" / "patient_2_CT" / "run.json").read_text())
    assert any("missing_slice" in warning for warning in record["warnings"])


def test_files_exported_anew_are_contoured_anew(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    request = Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out")
    assert segment(request)["cases"][0]["status"] == "done"
    assert segment(request)["cases"][0]["status"] == "skipped"
    chiral_series(tmp_path / "CT", centre_lps_mm=(0, 0, 0))
    assert segment(request)["cases"][0]["status"] == "done"


def test_old_files_do_not_stay_beside_new_ones(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(
        bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("nifti",), settings={"ctv_margin_mm": 5}
    )
    assert {p.name for p in folder.iterdir()} == {"GTV.nii.gz", "CTV.nii.gz", "run.json"}
    contoured(bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",))
    assert {p.name for p in folder.iterdir()} == {"RS.dcm", "run.json"}
    assert not list((tmp_path / "out").glob(".partial*"))


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


def test_what_concerns_the_whole_run_is_refused_at_once(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    with pytest.raises(BundleError, match="no bundle 'nonsense'.*ct_gtv"):
        segment(Request(tmp_path / "CT", "nonsense", tmp_path / "out"))
    with pytest.raises(BundleError, match="no setting 'min_volume'.*min_volume_cc"):
        segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", settings={"min_volume": 3}))
    with pytest.raises(InputError, match="format 'pdf': expected some of rtstruct"):
        Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", formats=("pdf",))
    with pytest.raises(InputError, match="fault 'holes': expected some of missing_slice"):
        Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", allow=("holes",))
    with pytest.raises(InputError, match="no such file or folder"):
        segment(Request(tmp_path / "absent", str(bright_bundle), tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image series and no NIfTI"):
        segment(Request(tmp_path / "empty", str(bright_bundle), tmp_path / "out"))


def test_a_prediction_off_the_cases_grid_is_refused(bright_bundle, tmp_path):
    import torch

    from medseg.transforms import LoadCased, ToStructuresd

    chiral_series(tmp_path / "CT")
    item = LoadCased("image")({"image": str(tmp_path / "CT")})
    item["pred"] = item["image"].clone()
    item["pred"].affine = item["pred"].affine + torch.tensor([[0, 0, 0, 2.0], [0] * 4, [0] * 4, [0] * 4])
    with pytest.raises(GeometryError, match="does not lie on the image's grid"):
        ToStructuresd("pred", structures=[{"name": "GTV"}])(item)


def case_at(out, name="CT"):
    return json.loads((out / name / "run.json").read_text())


def test_cases_whose_names_differ_only_in_odd_characters_do_not_replace_each_other(bright_bundle, tmp_path):
    for seed, name in enumerate(("a b", "a_b", "A_B")):
        chiral_series(tmp_path / "cohort" / name, seed=seed)
    cohort = segment(
        Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    )
    assert len({case["folder"] for case in cohort["cases"]}) == 3
    read = {pydicom.dcmread(Path(case["folder"]) / "RS.dcm").PatientID for case in cohort["cases"]}
    assert len(read) == 3


def test_two_patients_whose_folders_are_both_called_ct_do_not_share_an_output_folder(bright_bundle, tmp_path):
    out = tmp_path / "out"
    for seed in (1, 2):
        chiral_series(tmp_path / f"patient_{seed}" / "CT", seed=seed)
    contoured(bright_bundle, tmp_path / "patient_1" / "CT", out)
    before = (out / "CT" / "RS.dcm").read_bytes()
    second = segment(Request(tmp_path / "patient_2" / "CT", str(bright_bundle), out))["cases"][0]
    assert second["status"] == "failed" and "holds the result of" in second["error"]
    assert (out / "CT" / "RS.dcm").read_bytes() == before and case_at(out)["status"] == "done"


def test_a_structure_set_that_medseg_did_not_write_is_never_replaced(bright_bundle, tmp_path):
    chiral_series(tmp_path / "patient" / "CT")
    clinical = tmp_path / "patient" / "CT" / "RS.dcm"
    clinical.write_bytes(b"approved by a physician")
    among = segment(Request(tmp_path / "patient" / "CT", str(bright_bundle), tmp_path / "patient"))["cases"][
        0
    ]
    assert among["status"] == "failed" and "among the images" in among["error"]
    assert clinical.read_bytes() == b"approved by a physician"

    clinical.rename(tmp_path / "patient" / "clinical")
    (tmp_path / "out" / "CT").mkdir(parents=True)
    other = tmp_path / "out" / "CT" / "RS.dcm"
    other.write_bytes(b"somebody's")
    beside = segment(Request(tmp_path / "patient" / "CT", str(bright_bundle), tmp_path / "out"))["cases"][0]
    assert beside["status"] == "failed" and "was not written by medseg" in beside["error"]
    assert other.read_bytes() == b"somebody's"
    assert not (tmp_path / "out" / "CT" / "preview.png").exists()


def test_a_result_that_somebody_edited_is_not_removed_by_a_run_with_other_options(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out", formats=("nifti",))
    (folder / "GTV.nii.gz").write_bytes(b"corrected by hand")
    request = Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    case = segment(request)["cases"][0]
    assert case["status"] == "failed" and "was changed after medseg wrote it" in case["error"]
    assert (folder / "GTV.nii.gz").read_bytes() == b"corrected by hand"


def test_a_region_drawn_anew_is_contoured_anew(bright_bundle, tmp_path):
    from medseg.dicom import read_series, write_rtstruct

    phantom = chiral_series(tmp_path / "patient" / "CT")
    series = read_series(tmp_path / "patient" / "CT")
    request = Request(
        tmp_path / "patient" / "CT", str(bright_bundle), tmp_path / "out", within="RS.dcm:Region"
    )
    for name in ("Marker", "Foot"):
        (tmp_path / "patient" / "RS.dcm").unlink(missing_ok=True)
        write_rtstruct({"Region": phantom.masks[name]}, series, tmp_path / "patient" / "RS.dcm")
        assert segment(request)["cases"][0]["status"] == "done"
    assert segment(request)["cases"][0]["status"] == "skipped"


def test_a_changed_step_of_the_bundle_is_contoured_anew(bright_bundle, tmp_path):
    bundle = tmp_path / "bright"
    shutil.copytree(bright_bundle, bundle)
    chiral_series(tmp_path / "CT")
    contoured(bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",))
    config = bundle / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "min_volume_cc": 50.0}))
    contoured(bundle, tmp_path / "CT", tmp_path / "out", formats=("rtstruct",))
    assert case_at(tmp_path / "out")["structures"][0]["empty"]


def test_results_inside_the_input_folder_are_no_cases_at_the_next_run(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    request = Request(
        tmp_path / "CT", str(bright_bundle), tmp_path / "CT" / "out", formats=("rtstruct", "nifti")
    )
    assert [case["status"] for case in segment(request)["cases"]] == ["done"]
    again = segment(request)
    assert [case["status"] for case in again["cases"]] == ["skipped"]
    assert "NIfTI files that medseg wrote" in again["passed_over"][0]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"source": 5, "outputs": []}',
        '{"source": "x", "outputs": [{}]}',
        '{"source": "x", "outputs": 5}',
    ],
)
def test_a_damaged_run_record_fails_its_case_and_not_the_cohort(text, bright_bundle, tmp_path):
    for seed in (1, 2):
        chiral_series(tmp_path / "cohort" / f"p{seed}", seed=seed)
    (tmp_path / "out" / "p1").mkdir(parents=True)
    (tmp_path / "out" / "p1" / "run.json").write_text(text)
    cases = segment(
        Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    )["cases"]
    assert [(case["status"], case.get("fault")) for case in cases] == [("failed", "input"), ("done", None)]
    assert "move it away" in cases[0]["error"]
    assert (tmp_path / "out" / "p1" / "run.json").read_text() == text


def test_files_left_by_a_run_killed_half_way_are_replaced_by_the_next(bright_bundle, tmp_path):
    chiral_series(tmp_path / "CT")
    folder = contoured(bright_bundle, tmp_path / "CT", tmp_path / "out")
    record = case_at(tmp_path / "out")
    (folder / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    (folder / "preview.png").unlink()
    contoured(bright_bundle, tmp_path / "CT", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"RS.dcm", "preview.png", "run.json"}


def test_a_cohort_of_series_and_nifti_files_gets_the_formats_that_each_can_have(bright_bundle, tmp_path):
    phantom = chiral_series(tmp_path / "cohort" / "CT")
    image = SimpleITK.GetImageFromArray(phantom.volume_hu)
    SimpleITK.WriteImage(image, str(tmp_path / "cohort" / "flat.nii.gz"))
    cohort = segment(Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out"))
    assert [case["status"] for case in cohort["cases"]] == ["done", "done"]
    assert (tmp_path / "out" / "CT" / "RS.dcm").is_file() and (
        tmp_path / "out" / "flat" / "GTV.nii.gz"
    ).is_file()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": 5}, "no setting"),
        ({"spacing_mm": 5}, "expected a list of 3 numbers"),
        ({"spacing_mm": [1, 2]}, "expected a list of 3 numbers"),
        ({"min_volume_cc": "abc"}, "expected a number"),
        ({"min_volume_cc": float("nan")}, "expected a number"),
        ({"min_volume_cc": True}, "expected a number"),
        ({"min_volume_cc": -1}, "expected 0"),
        ({"ctv_margin_mm": -3.0}, "-3.0 mm; expected 0"),
        ({"simplify_mm": -0.1}, "expected 0"),
        ({"holes": 5}, "expected text"),
        ({"network_def": 5}, "expected a definition"),
        ({"output_dir": "elsewhere"}, "use `output_dir`"),
        ({"within": [1, 2, 3, 4, 5, 6]}, "use `within`"),
        ({"run": []}, "no effect"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_is_written(
    settings, words, bright_bundle, tmp_path
):
    chiral_series(tmp_path / "CT")
    with pytest.raises(MedsegError, match=words) as caught:
        segment(Request(tmp_path / "CT", str(bright_bundle), tmp_path / "out", settings=settings))
    assert "Failed to instantiate" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_empty_region_is_not_taken_for_the_whole_image(bright_bundle, tmp_path):
    with pytest.raises(InputError, match="within is empty"):
        Request(tmp_path, str(bright_bundle), tmp_path / "out", within="")


def test_the_engine_is_recorded_and_another_one_does_not_contour_a_finished_case_anew(
    bright_bundle, tmp_path
):
    chiral_series(tmp_path / "CT")
    folders = {
        engine: contoured(
            bright_bundle, tmp_path / "CT", tmp_path / engine, engine=engine, formats=("nifti",)
        )
        for engine in ("torch", "openvino")
    }
    masks = [
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f / "GTV.nii.gz"))) for f in folders.values()
    ]
    assert (masks[0] != masks[1]).mean() < 1e-3 and masks[0].any()
    records = {engine: case_at(tmp_path / engine) for engine in folders}
    assert {engine: record["engine"] for engine, record in records.items()} == {
        "torch": "torch",
        "openvino": "openvino",
    }
    assert "openvino" in records["openvino"]["versions"]
    again = Request(
        tmp_path / "CT", str(bright_bundle), tmp_path / "torch", engine="openvino", formats=("nifti",)
    )
    assert segment(again)["cases"][0]["status"] == "skipped"
    with pytest.raises(InputError, match="engine 'tpu': expected one of auto, torch, openvino"):
        Request(tmp_path, str(bright_bundle), tmp_path / "out", engine="tpu")
    with pytest.raises(InputError, match="use `engine"):
        Request(tmp_path, str(bright_bundle), tmp_path / "out", settings={"engine": "torch"})


def five_cases(folder, faulty=()):
    for number in range(5):
        chiral_series(folder / f"p{number}", seed=number)
        if number in faulty:
            (folder / f"p{number}" / "CT_0012.dcm").unlink()


def test_warnings_of_cases_in_flight_together_stay_with_their_own_case(bright_bundle, tmp_path):
    five_cases(tmp_path / "cohort", faulty=(1, 3))
    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", allow=("missing_slice",))
    cases = segment(request)["cases"]
    assert [case["case"] for case in cases] == [f"p{number}" for number in range(5)]
    warned = [any("missing_slice" in warning for warning in case["warnings"]) for case in cases]
    assert warned == [False, True, False, True, False]


def test_a_case_is_read_while_the_one_before_is_in_the_network_and_written_while_the_next_is(
    bright_bundle, tmp_path
):
    from threading import Event

    from medseg.bundles.job import Pipeline

    five_cases(tmp_path / "cohort")
    begun = {(step, f"p{n}"): Event() for step in ("prepare", "predict", "finish") for n in range(5)}
    ended, original = [], {step: getattr(Pipeline, step) for step in ("prepare", "predict", "finish")}

    def waiting(step, other, distance):
        """The step as it is, but it does not begin before ``other`` of the case ``distance`` places on has
        begun."""

        def run(self, item, stage):
            begun[step, item["case_name"]].set()
            met = begun.get((other, f"p{int(item['case_name'][1:]) + distance}"))
            assert met is None or met.wait(60), f"{step} of {item['case_name']} ran alone"
            result = original[step](self, item, stage)
            ended.append((step, item["case_name"]))
            return result

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "prepare", waiting("prepare", "none", 0))
        patch.setattr(Pipeline, "predict", waiting("predict", "prepare", 1))
        patch.setattr(Pipeline, "finish", waiting("finish", "predict", 1))
        cohort = segment(
            Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
        )
    assert [(case["case"], case["status"]) for case in cohort["cases"]] == [
        (f"p{n}", "done") for n in range(5)
    ]
    for number in range(3):  # and no case is read further ahead than one
        assert ended.index(("predict", f"p{number}")) < ended.index(("prepare", f"p{number + 2}"))


def test_a_disk_that_is_full_for_one_case_does_not_stop_the_cohort_and_a_rerun_finishes(
    bright_bundle, tmp_path
):
    import medseg.bundles.job

    for number in range(3):
        chiral_series(tmp_path / "cohort" / f"p{number}", seed=number)
    publish = medseg.bundles.job.publish

    def full(record, staged, folder):
        if record["case"] == "p1":
            raise OSError(28, "No space left on device", str(folder / "run.json"))
        publish(record, staged, folder)

    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medseg.bundles.job, "publish", full)
        cases = segment(request)["cases"]
    assert [case["status"] for case in cases] == ["done", "failed", "done"]
    assert cases[1]["error"].endswith("run.json: No space left on device")
    assert not list((tmp_path / "out" / "p1").iterdir()) and not list((tmp_path / "out").glob(".partial*"))
    assert [case["status"] for case in segment(request)["cases"]] == ["skipped", "done", "skipped"]


def test_after_ctrl_c_finished_cases_are_whole_and_nothing_else_lies_about(bright_bundle, tmp_path):
    five_cases(tmp_path / "cohort")
    from medseg.bundles.job import Pipeline

    original, seen = Pipeline.predict, []

    def interrupted(self, item, stage):
        seen.append(item["case_name"])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(self, item, stage)

    request = Request(tmp_path / "cohort", str(bright_bundle), tmp_path / "out", formats=("rtstruct",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            segment(request)
    left = sorted(
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    )
    assert left == ["p0/RS.dcm", "p0/run.json", "p1/RS.dcm", "p1/run.json"]
    assert [case["status"] for case in segment(request)["cases"]] == ["skipped"] * 2 + ["done"] * 3
