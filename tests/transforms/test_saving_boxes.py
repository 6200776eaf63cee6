"""Files of boxes: tables, places in a planning system, reports and pictures, read by others than medseg."""

from __future__ import annotations

import csv
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK
from chest_files import picture, write_dx
from PIL import Image
from referees import conformance_errors, stored_contours

from medseg.cases.box_sources import CORNERS, read_table
from medseg.cases.radiograph import open_radiograph
from medseg.cases.results import Boxes
from medseg.cases.volume import open_case
from medseg.dicom import read_rtstruct
from medseg.errors import InputError, MedsegWarning
from medseg.phantoms.series import stack_geometry, write_series
from medseg.transforms import SaveBoxPictured, SaveBoxRTStructd, SaveBoxTabled, SaveDicomSRd


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """(case, boxes) of a CT of 8 slices 3 mm apart with pixels of 2 x 1 mm: one box around the voxels 2 to 4,
    3 to 5 and 10 to 15 (slice, row, column), and a better one elsewhere."""
    folder = tmp_path_factory.mktemp("ct") / "CT"
    geometry = stack_geometry((8, 16, 24), gaps_mm=3.0, pixel_spacing_mm=(2.0, 1.0))
    write_series(np.zeros(geometry.shape), geometry, folder)
    case = open_case(str(folder))
    corners = [
        corner_lps_mm(case, low, high) for low, high in (((2, 3, 10), (4, 5, 15)), ((5, 8, 2), (6, 9, 3)))
    ]
    return case, Boxes(case, np.array(corners), np.array([0.4, 0.75]), ("nodule", "nodule"))


def corner_lps_mm(case, low, high):
    """Low and high corner in LPS mm around the voxels ``low`` to ``high``, by SimpleITK's own affine."""
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(case.source))
    ends = [[low[a] - 0.5 for a in (2, 1, 0)], [high[a] + 0.5 for a in (2, 1, 0)]]
    points = np.array([image.TransformContinuousIndexToPhysicalPoint(end) for end in ends])
    return [points.min(axis=0), points.max(axis=0)]


@pytest.fixture
def flat(tmp_path):
    case = open_radiograph(str(write_dx(tmp_path / "film.dcm")))
    corners = np.array([[[10, 20], [30, 60]], [[1, 2], [4, 8]]], dtype=float)
    return Boxes(case, corners, np.array([0.25, 0.75]), ("mass", "cardiomegaly"), remark="Learned little.")


def save(transform, boxes):
    transform({"boxes": boxes, "case_name": "case"})
    return transform.output_dir / "case"


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_volume_s_table_has_luna16_s_world_coordinates(volume, tmp_path):
    case, boxes = volume
    best, other = rows(save(SaveBoxTabled(output_dir=tmp_path), boxes) / "boxes.csv")
    assert best["seriesuid"] == case.series.series_instance_uid and best["probability"] == "0.75"
    middle = case.geometry.points_lps_mm(3, np.array([[4.0, 12.5]]))[0]
    assert [float(other[f"coord{axis}"]) for axis in "XYZ"] == pytest.approx(middle, abs=1e-3)
    assert float(other["diameter_mm"]) == pytest.approx((9 + 6 + 6) / 3, abs=1e-3)


def test_a_film_s_table_is_one_that_medseg_reads(flat, tmp_path):
    found = read_table(save(SaveBoxTabled(output_dir=tmp_path / "o"), flat) / "boxes.csv", CORNERS)
    assert [(f.name, f.low, f.high) for f in found] == [
        ("cardiomegaly", (1.0, 2.0), (4.0, 8.0)),
        ("mass", (10.0, 20.0), (30.0, 60.0)),
    ]


def test_points_lie_where_the_boxes_do(volume, tmp_path, program):
    case, boxes = volume
    path = save(SaveBoxRTStructd(output_dir=tmp_path), boxes) / "RS.dcm"
    found = stored_contours(path)
    assert set(found) == {"nodule_1", "nodule_2"} and conformance_errors(program, path) == []
    kind, points, uid = found["nodule_2"][0]
    assert kind == "POINT" and uid == case.series.sop_instance_uids[3]
    assert points[0] == pytest.approx(case.geometry.points_lps_mm(3, np.array([[4.0, 12.5]]))[0], abs=1e-3)


def test_circles_have_the_ellipsoid_s_volume(volume, tmp_path, program):
    _, boxes = volume
    path = save(SaveBoxRTStructd(output_dir=tmp_path, mark="circle"), boxes) / "RS.dcm"
    assert conformance_errors(program, path) == []
    uids = {uid for _, _, uid in stored_contours(path)["nodule_2"]}
    assert len(uids) == 3 and all(kind == "CLOSED_PLANAR" for kind, _, _ in stored_contours(path)["nodule_2"])


@pytest.mark.filterwarnings("error")
def test_the_circle_of_a_nodule_between_two_slices_is_the_nearest_voxel(volume, tmp_path):
    case, _ = volume
    middle = case.geometry.points_lps_mm(3, [(5, 9)])[0] + 1.35 * case.geometry.normal_lps  # slices: 3 mm
    thin = Boxes(case, np.array([[middle - 0.5, middle + 0.5]]), np.array([0.5]), ("nodule",))
    path = save(SaveBoxRTStructd(output_dir=tmp_path, mark="circle"), thin) / "RS.dcm"
    assert np.argwhere(read_rtstruct(path, case.series)["nodule_1"]).tolist() == [[3, 5, 9]]


def test_outlines_are_those_of_the_masks(volume, tmp_path, program):
    case, boxes = volume
    drawn = np.zeros((2, *case.shape), dtype=bool)
    drawn[0, 2:4, 3:6, 10:12], drawn[1, 5, 8:10, 2:4] = True, True
    masked = Boxes(case, boxes.corners, boxes.scores, boxes.classes, tuple(drawn))
    path = save(SaveBoxRTStructd(output_dir=tmp_path, mark="outline"), masked) / "RS.dcm"
    assert conformance_errors(program, path) == []
    found = read_rtstruct(path, case.series)
    assert np.array_equal(found["nodule_1"], drawn[1]) and np.array_equal(found["nodule_2"], drawn[0])
    with pytest.raises(InputError, match="mark outline: these boxes have no masks; choose POINT or circle"):
        save(SaveBoxRTStructd(output_dir=tmp_path / "other", mark="outline"), boxes)


def test_without_a_box_there_is_no_structure_set_and_other_marks_are_refused(volume, tmp_path):
    case, _ = volume
    nothing = Boxes(case, np.zeros((0, 2, 3)), np.zeros(0), ())
    with pytest.warns(MedsegWarning, match="no box was found"):
        folder = save(SaveBoxRTStructd(output_dir=tmp_path), nothing)
    assert list(folder.iterdir()) == []
    with pytest.raises(InputError, match="mark 'cross': expected one of POINT, circle"):
        SaveBoxRTStructd(mark="cross")


def polylines(path):
    """[(graphic data, SOP instance UID)] of every SCOORD, with pydicom alone."""
    found = []

    def walk(item):
        if item.get("ValueType") == "SCOORD":
            image = item.ContentSequence[0].ReferencedSOPSequence[0]
            found.append((np.array(item.GraphicData).reshape(-1, 2), image.ReferencedSOPInstanceUID))
        for child in item.get("ContentSequence", ()):
            walk(child)

    walk(pydicom.dcmread(path))
    return found


def check_report(program, path, words):
    said = subprocess.run([program("dsrdump"), "+Pl", str(path)], capture_output=True, text=True, check=True)
    assert all(word in said.stdout for word in words)
    judged = subprocess.run(
        [program("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False
    )
    lines = (judged.stdout + judged.stderr).splitlines()
    assert "ComprehensiveSR" in lines and not [line for line in lines if line.startswith("Error")]


def test_a_report_names_every_box_and_its_place(flat, tmp_path, program):
    path = save(SaveDicomSRd("boxes", tmp_path / "o", "cxr_findings", "0.1.0"), flat) / "SR.dcm"
    words = (
        'Score of mass")="0.25"',
        'Score of cardiomegaly")="0.75"',
        "Learned little.",
        "number of boxes called",
    )
    check_report(program, path, words)
    (best, uid), (other, _) = polylines(path)
    assert uid == flat.case.stored.header.SOPInstanceUID
    assert best.min(axis=0).tolist() == [2, 1] and best.max(axis=0).tolist() == [8, 4]  # (column, row)
    assert other.tolist() == [[20, 10], [60, 10], [60, 30], [20, 30], [20, 10]]


def test_a_report_of_a_volume_points_at_the_slice_in_the_middle(volume, tmp_path, program):
    case, boxes = volume
    path = save(SaveDicomSRd("boxes", tmp_path), boxes) / "SR.dcm"
    check_report(program, path, ('Score of nodule")="0.4"',))
    _, (other, uid) = polylines(path)
    assert uid == case.series.sop_instance_uids[3]
    assert other.min(axis=0) == pytest.approx([10, 3], abs=1e-3)
    assert other.max(axis=0) == pytest.approx([16, 6], abs=1e-3)


def test_a_report_of_nothing_says_nothing_was_found(flat, tmp_path, program):
    nothing = Boxes(flat.case, np.zeros((0, 2, 2)), np.zeros(0), ())
    path = save(SaveDicomSRd("boxes", tmp_path / "o"), nothing) / "SR.dcm"
    check_report(program, path, ('number of boxes called")="0',))


def test_a_picture_file_has_no_report(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "film.png")
    boxes = Boxes(open_radiograph(str(tmp_path / "film.png")), np.zeros((0, 2, 2)), np.zeros(0), ())
    with pytest.raises(InputError, match="DICOM SR needs DICOM images"):
        save(SaveDicomSRd("boxes", tmp_path / "o"), boxes)


def test_the_preview_shows_boxes_where_they_are_and_a_panel_for_each_map(flat, tmp_path):
    plain = save(SaveBoxPictured(output_dir=tmp_path / "a"), flat) / "preview.png"
    found = SaveBoxPictured(output_dir=tmp_path / "b")
    found({"boxes": flat, "case_name": "case", "map": np.ones((1, 80, 100)), "map_names": ("Grad-CAM",)})
    one, two = (
        np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (plain, tmp_path / "b/case/preview.png")
    )
    assert two.shape[1] == 2 * one.shape[1]
    coloured = np.abs(one - one.mean(axis=2, keepdims=True)).max(axis=2) > 40
    inches = one.shape[1] / 100  # pixels of the picture for one of the film
    edge = coloured[round(30 * inches) - 3 : round(30 * inches) + 3, round(25 * inches) : round(55 * inches)]
    assert edge.any(axis=0).mean() > 0.9
    assert not coloured[round(20 * inches), round(25 * inches) : round(55 * inches)].any()


def test_a_volume_has_a_montage_of_its_best_boxes(volume, tmp_path):
    case, boxes = volume
    two = np.asarray(Image.open(save(SaveBoxPictured(output_dir=tmp_path / "a"), boxes) / "preview.png"))
    nothing = Boxes(case, np.zeros((0, 2, 3)), np.zeros(0), ())
    none = np.asarray(Image.open(save(SaveBoxPictured(output_dir=tmp_path / "b"), nothing) / "preview.png"))
    assert two.ndim == none.ndim == 3 and two.std() > 0
