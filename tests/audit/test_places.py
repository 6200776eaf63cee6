"""Slice numbers of an audit are those of the series itself, though what is kept of a case is a part of it."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
from audit.drawing import silent

from medseg.audit.evidence import load_evidence
from medseg.audit.folds import own_slices
from medseg.audit.places import Place, worst_place
from medseg.audit.run import AuditRequest, audit
from medseg.dicom import read_series, write_rtstruct
from medseg.phantoms.series import stack_geometry, write_series
from medseg.transforms import LoadCased

SHAPE = (66, 20, 22)


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """A label in slices 41 to 52, counted from 0, and a prediction that is twice as wide in slice 44."""
    label = np.zeros(SHAPE, bool)
    label[41:53, 6:12, 7:13] = True
    prediction = label.copy()
    prediction[44, 6:12, 7:19] = True
    return label, prediction


def audited(root, geometry) -> tuple[dict, dict, str]:
    """The first finding of audit.json, the first row of audit.csv, and audit.html, of one CT with a structure
    set and a prediction on its grid."""
    label, prediction = boxes()
    folder = root / "labels" / "p1"
    write_series(np.where(label, 60, -80), geometry, folder)
    series = read_series(folder)
    write_rtstruct({"Larynx": label}, series, folder / "RS.dcm")
    out = root / "pred" / "p1" / "Larynx.nii.gz"
    out.parent.mkdir(parents=True)
    image = nibabel.Nifti1Image(prediction.transpose(2, 1, 0).astype(np.uint8), series.geometry.affine_ras)
    nibabel.save(image, out)
    audit(AuditRequest(root / "labels", root / "out", predictions=root / "pred"), silent)
    found = json.loads((root / "out" / "audit.json").read_text(encoding="utf-8"))["findings"][0]
    with (root / "out" / "audit.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    return found, row, (root / "out" / "audit.html").read_text(encoding="utf-8")


def test_a_cropped_case_counts_the_slices_of_its_series_and_says_z(tmp_path):
    # 66 slices, 2 mm apart, with the middle of the stack at z = 10: slice 45 lies at 10 - 65 + 88 = 33 mm.
    geometry = stack_geometry(SHAPE, gaps_mm=2.0, pixel_spacing_mm=(2.0, 2.0), centre_lps_mm=(0, 0, 10))
    found, row, page = audited(tmp_path, geometry)
    kept = load_evidence(tmp_path / "out" / "cases" / "p1.npz")
    assert kept.label.shape[1] < 66, "the case is kept as a part of its series, or this shows nothing"
    assert (found["slice"], found["slices"], found["z_mm"]) == (45, 66, 33.0)
    assert (row["slice"], row["slices"], row["z_mm"]) == ("45", "66", "33.0")
    assert "axial, slice with the largest difference: slice 45 of 66, z 33.0 mm" in page
    assert '<td class="text">slice 45 of 66, z 33.0 mm</td>' in page
    # The middle of slices 42 to 53 is the 47th: 10 - 65 + 92.
    assert "axial, middle slice: slice 47 of 66, z 37.0 mm" in page
    assert f"of {kept.label.shape[1]}," not in page


def test_a_series_that_is_not_cut_axially_has_heights_but_no_slice_numbers(tmp_path):
    sagittal = stack_geometry(
        SHAPE, gaps_mm=2.0, pixel_spacing_mm=(2.0, 2.0), orientation=(0, 1, 0, 0, 0, -1)
    )
    found, row, page = audited(tmp_path, sagittal)
    # Rows run down in steps of 2 mm, the first at +19: rows 6 to 11, which all differ alike, at 7 to -3.
    assert (found["slice"], found["slices"], row["slice"]) == (None, None, "")
    assert -3.0 <= found["z_mm"] <= 7.0 and "slice with the largest difference: z " in page


def test_equal_and_empty_pairs_have_the_middle_slice_and_none(tmp_path):
    geometry = stack_geometry(SHAPE, gaps_mm=2.0, pixel_spacing_mm=(2.0, 2.0), centre_lps_mm=(0, 0, 10))
    audited(tmp_path, geometry)
    kept = load_evidence(tmp_path / "out" / "cases" / "p1.npz")
    label = kept.label[0]
    assert worst_place(kept, label, label) == Place(47, 66, 37.0)
    assert worst_place(kept, label & False, label & False) is None


def test_slices_of_a_bundles_image_are_those_that_were_read_also_uneven_ones(tmp_path):
    uneven = stack_geometry(SHAPE[:1] + (8, 9), gaps_mm=[1.0] * 30 + [4.0] * 35)
    write_series(np.zeros(uneven.shape), uneven, tmp_path / "ct")
    loaded = LoadCased(keys="image")({"image": str(tmp_path / "ct")})["image"]
    assert loaded.shape[-1] != 66, "MONAI has them on a regular grid"
    found = own_slices(loaded)
    assert found.slice_positions_mm == pytest.approx(uneven.slice_positions_mm, abs=1e-4)


def test_slices_of_a_nifti_file_that_monai_read_are_those_of_the_file(tmp_path):
    from monai.transforms import LoadImage, Spacing

    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[2, 3] = -50.0
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 7, 11), np.int16), affine), tmp_path / "ct.nii.gz")
    loaded = LoadImage(ensure_channel_first=True)(tmp_path / "ct.nii.gz")
    coarse = Spacing(pixdim=(4.0, 4.0, 6.0))(loaded)
    found = own_slices(coarse)
    assert found.shape == (11, 7, 6) and found.origins_lps_mm[:, 2].tolist() == list(range(-50, -19, 3))
    assert own_slices(np.zeros((1, 4, 4, 4))) is None
