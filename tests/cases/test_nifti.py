"""Masks as NIfTI files, and from NIfTI files to an RT Structure Set by the stand-alone script."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel import orientations

from medseg.cases.nifti import read_mask, write_mask
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import GeometryError, InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

ROOT = Path(__file__).resolve().parents[2]
OBLIQUE = (0.9397, 0.342, 0, -0.3214, 0.883, 0.342)


@pytest.fixture(scope="module")
def phantom():
    return chiral_phantom(stack_geometry((30, 48, 56), pixel_spacing_mm=(1.5, 1.25), orientation=OBLIQUE))


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("ct")
    write_series(phantom.volume_hu, phantom.geometry, out)
    return out


def export(*arguments):
    command = [sys.executable, str(ROOT / "tools" / "export_rtstruct.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_mask_comes_back_as_it_was_written(phantom, tmp_path):
    path = write_mask(phantom.masks["L"], phantom.geometry, tmp_path / "L.nii.gz")
    assert np.array_equal(read_mask(path, phantom.geometry), phantom.masks["L"])


def test_a_mask_on_slices_whose_positions_were_rounded_comes_back(tmp_path):
    stack = stack_geometry((40, 12, 10), gaps_mm=3.2701)
    stack = replace(
        stack, origins_lps_mm=np.round(stack.origins_lps_mm, 1)
    )  # up to 0.1 mm off the even spacing
    mask = np.zeros(stack.shape, dtype=bool)
    mask[7, 3:5, 4] = True
    assert np.array_equal(read_mask(write_mask(mask, stack, tmp_path / "m.nii.gz"), stack), mask)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SPR", "PIR"])
def test_a_file_in_another_axis_order_gives_the_same_voxels(axes, phantom, tmp_path):
    write_mask(phantom.masks["L"], phantom.geometry, tmp_path / "L.nii.gz")
    image = nibabel.load(tmp_path / "L.nii.gz")
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(axes)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "turned.nii.gz", phantom.geometry), phantom.masks["L"])


def test_a_map_of_probabilities_stays_a_map(phantom, tmp_path):
    probability = np.where(phantom.masks["L"], 0.75, 0.25).astype(np.float32)
    image = nibabel.Nifti1Image(probability.transpose(2, 1, 0), phantom.geometry.affine_ras)
    nibabel.save(image, tmp_path / "L.nii.gz")
    read = read_mask(tmp_path / "L.nii.gz", phantom.geometry)
    assert read.dtype.kind == "f" and np.array_equal(read, probability)


def test_a_mask_on_another_grid_is_refused(phantom, tmp_path):
    affine = phantom.geometry.affine_ras.copy()
    affine[:3, 3] += (0, 0.5, 0)
    nibabel.save(
        nibabel.Nifti1Image(phantom.masks["L"].astype(np.uint8).transpose(2, 1, 0), affine),
        tmp_path / "a.nii",
    )
    with pytest.raises(GeometryError, match="0.500 mm apart"):
        read_mask(tmp_path / "a.nii", phantom.geometry)
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((56, 48, 29), np.uint8), phantom.geometry.affine_ras), tmp_path / "b.nii"
    )
    with pytest.raises(GeometryError, match=r"shape \(29, 48, 56\)"):
        read_mask(tmp_path / "b.nii", phantom.geometry)


def test_a_mask_for_an_uneven_stack_is_refused_because_nifti_cannot_describe_it(phantom, tmp_path):
    write_mask(phantom.masks["L"], phantom.geometry, tmp_path / "L.nii.gz")
    uneven = stack_geometry((30, 48, 56), gaps_mm=np.linspace(2, 4, 29))
    with pytest.raises(GeometryError, match="uneven"):
        read_mask(tmp_path / "L.nii.gz", uneven)
    with pytest.raises(GeometryError, match="uneven"):
        write_mask(phantom.masks["L"], uneven, tmp_path / "out.nii.gz")


def test_what_is_no_mask_is_refused(phantom, tmp_path):
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(InputError, match="text.nii.gz"):
        read_mask(tmp_path / "text.nii.gz", phantom.geometry)
    whole = write_mask(phantom.masks["L"], phantom.geometry, tmp_path / "L.nii.gz").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "damaged.nii.gz").write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        read_mask(tmp_path / "damaged.nii.gz", phantom.geometry)
    colours = np.zeros((56, 48, 30), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, phantom.geometry.affine_ras), tmp_path / "colours.nii")
    with pytest.raises(InputError, match="one real number each"):
        read_mask(tmp_path / "colours.nii", phantom.geometry)
    with pytest.raises(InputError, match="no such file"):
        read_mask(tmp_path / "missing.nii.gz", phantom.geometry)
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.uint8), np.eye(4)), tmp_path / "many.nii")
    with pytest.raises(InputError, match=r"\(4, 4, 4, 3\)"):
        read_mask(tmp_path / "many.nii", phantom.geometry)


def test_the_script_writes_a_folder_of_masks_as_structures(phantom, folder, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, structure in (("L", "Femur_L"), ("Marker", "GTV")):
        write_mask(phantom.masks[name], phantom.geometry, masks / f"{structure}.nii.gz")
    result = export(folder, masks, "-o", tmp_path / "RS.dcm", "--model", "thigh", "0.1")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    volume_cc = phantom.masks["Marker"].sum() * 1.5 * 1.25 * 3 / 1000
    assert f"GTV              {volume_cc:10.2f} cc" in result.stdout
    read = read_rtstruct(tmp_path / "RS.dcm", read_series(folder))
    assert np.array_equal(read["Femur_L"], phantom.masks["L"]) and np.array_equal(
        read["GTV"], phantom.masks["Marker"]
    )


def test_the_script_adds_to_an_existing_set_and_warns_of_names(phantom, folder, tmp_path):
    write_rtstruct({"GTV": phantom.masks["Marker"]}, read_series(folder), tmp_path / "old.dcm")
    mask = write_mask(phantom.masks["L"], phantom.geometry, tmp_path / "Lt Lung.nii.gz")
    result = export(folder, mask, "-o", tmp_path / "new.dcm", "--append-to", tmp_path / "old.dcm")
    assert result.returncode == 0
    assert "warning: structure name 'Lt Lung'" in result.stderr
    assert list(read_rtstruct(tmp_path / "new.dcm", read_series(folder))) == ["GTV", "Lt Lung"]


def test_the_script_says_in_one_line_what_is_wrong_and_writes_nothing(phantom, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    labels = np.arange(30 * 48 * 56, dtype=np.int16).reshape(56, 48, 30) % 5
    nibabel.save(nibabel.Nifti1Image(labels, phantom.geometry.affine_ras), tmp_path / "labels.nii.gz")
    for given, words in (
        (tmp_path / "empty", "holds no NIfTI file"),
        (tmp_path / "labels.nii.gz", "one mask per structure"),
    ):
        result = export(folder, given, "-o", tmp_path / "RS.dcm")
        assert result.returncode == 2
        assert (
            result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and words in result.stderr
        )
    assert not (tmp_path / "RS.dcm").exists()
