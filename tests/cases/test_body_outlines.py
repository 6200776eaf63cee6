"""The outline on PET and MR is found where it lies, and nothing is said where there is none to compare."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.cases.body_outlines import OutlineShift, outline_shift
from medseg.cases.multimodal import open_multimodal
from medseg.phantoms.registration import write_registration
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm, write_series
from medseg.phantoms.several import write_companions

FRAME = "1.2.826.2"
MOVED_MM = np.array([9.0, -7.0, 0.0])


def grid(rows: int, columns: int):
    shape, pixels_mm = (20, rows, columns), (2.0, 2.0)
    return stack_geometry(shape, gaps_mm=3.0, pixel_spacing_mm=pixels_mm, frame_of_reference_uid=FRAME)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A limb of 100 x 80 mm with a hot tumour near its skin, as CT, PET (blurred, voxels of 4 mm) and MR."""
    folder = tmp_path_factory.mktemp("limb")
    geometry = stack_geometry(
        (20, 76, 80), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0), frame_of_reference_uid=FRAME
    )
    points = np.stack([voxel_points_lps_mm(geometry, k) for k in range(20)])
    limb = (points[..., 0] / 50) ** 2 + (points[..., 1] / 40) ** 2 <= 1
    tumour = np.linalg.norm(points - [30, 10, 0], axis=-1) <= 12
    noise = np.random.default_rng(0).normal(0, 0.1, geometry.shape)
    write_series(np.where(limb, 40.0, -1000.0), geometry, folder / "CT")
    suv = np.clip(np.where(tumour, 8.0, np.where(limb, 0.6, 0.0)) + noise * limb, 0, None)
    write_companions(folder, geometry, suv, np.where(limb, 500.0, 0.0))
    return folder


def moved(folder, by_mm, tmp_path):
    """A copy of a series whose every slice lies elsewhere, in the same frame."""
    out = tmp_path / f"moved {folder.name}"
    out.mkdir()
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = list(np.array(dataset.ImagePositionPatient, float) + by_mm)
        dataset.save_as(out / path.name)
    return out


def shift_of(ct, **others) -> OutlineShift | None:
    registrations = [str(ct.parent / "REG.dcm")]
    case = open_multimodal(str(ct), {key: str(path) for key, path in others.items()}, registrations)
    (companion,) = case.companions.values()
    return outline_shift(case, companion)


def test_outlines_that_lie_together_are_told_to_within_a_millimetre(written):
    for others in ({"pt": written / "PET"}, {"mr": written / "MR"}):
        found = shift_of(written / "CT", **others)
        assert found.length_mm < 1 and found.likeness > 0.7


def test_a_pet_that_was_moved_is_found_where_it_lies(written, tmp_path):
    found = shift_of(written / "CT", pt=moved(written / "PET", MOVED_MM, tmp_path))
    np.testing.assert_allclose(found.lps_mm, MOVED_MM, atol=1.5)  # half a pixel of the comparison
    assert found.words == "8 mm to left and 6 mm to anterior"


def test_an_mr_whose_registration_is_off_is_found_where_it_lies(written, tmp_path):
    from medseg.dicom import read_series
    from medseg.phantoms.several import MR_TO_CT

    off = np.eye(4)
    off[:3, 3] = MOVED_MM
    mr_frame = read_series(written / "MR").geometry.frame_of_reference_uid
    wrong = write_registration(tmp_path / "REG.dcm", FRAME, {mr_frame: off @ MR_TO_CT})
    case = open_multimodal(str(written / "CT"), {"mr": str(written / "MR")}, [str(wrong)])
    np.testing.assert_allclose(outline_shift(case, case.companions["mr"]).lps_mm, MOVED_MM, atol=1)


def test_where_there_is_no_outline_nothing_is_told(written, tmp_path):
    geometry = stack_geometry(
        (20, 40, 40), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0), frame_of_reference_uid=FRAME
    )
    write_series(
        np.full(geometry.shape, 40.0), geometry, tmp_path / "inside" / "CT"
    )  # the skin is farther out
    case = open_multimodal(str(tmp_path / "inside" / "CT"), {"pt": str(written / "PET")})
    assert outline_shift(case, case.companions["pt"]) is None
    noise = ndimage.gaussian_filter(np.random.default_rng(1).random((20, 76, 80)), (0, 3, 3)) * 2
    grid = stack_geometry(
        (20, 76, 80), gaps_mm=3.0, pixel_spacing_mm=(2.0, 2.0), frame_of_reference_uid=FRAME
    )
    write_companions(tmp_path / "noise", grid, noise, noise)
    assert shift_of(written / "CT", pt=tmp_path / "noise" / "PET") is None


def test_segment_warns_of_a_pet_beside_the_patient_and_of_no_other(written, several_bundle, tmp_path):
    said = {}
    for name, pet in (("in place", written / "PET"), ("moved", moved(written / "PET", MOVED_MM, tmp_path))):
        series = (("CT", str(written / "CT")), ("PT", str(pet)))
        report = []
        segment(
            Request(None, several_bundle, tmp_path / name, formats=("nifti",), series=series), report.append
        )
        said[name] = [note for note in report[0]["warnings"] if "outline" in note]
    assert said["in place"] == []
    (warning,) = said["moved"]
    assert "lies 8 mm to left and 6 mm to anterior of that on the CT" in warning
