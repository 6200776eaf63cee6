"""Label files of 3D Slicer and OHIF are read onto the image's grid and written as their clients need them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.cases.nifti import write_volume
from medseg.errors import GeometryError, InputError
from medseg.phantoms.series import stack_geometry
from medseg.serve.monai_label.label_files import compose, names_of, read_label, suffix_of, write_nrrd

GEOMETRY = stack_geometry((4, 6, 5), gaps_mm=2.5, pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(7, -20, 110))


def label_map():
    array = np.zeros(GEOMETRY.shape, dtype=np.int16)
    array[1, 2, 3], array[3, 5, 0] = 1, 2
    return array


def test_nrrd_for_ohif_is_uncompressed_bytes_in_the_images_order(tmp_path):
    out = write_nrrd(label_map(), GEOMETRY, tmp_path / "mask.nrrd")
    header, _, voxels = out.read_bytes().partition(b"\n\n")
    assert b"encoding: raw" in header and b"type: unsigned char" in header
    assert voxels == label_map().astype(np.uint8).tobytes()
    image = SimpleITK.ReadImage(str(out))
    where = image.TransformIndexToPhysicalPoint((3, 2, 1))
    assert np.allclose(where, GEOMETRY.points_lps_mm(1, np.array([[2, 3]]))[0], atol=1e-3)


def test_every_kind_of_file_reads_back_the_same(tmp_path):
    write_nrrd(label_map(), GEOMETRY, tmp_path / "a.nrrd")
    write_volume(label_map(), GEOMETRY, tmp_path / "a.nii.gz")
    (tmp_path / "a.bin").write_bytes(label_map().astype(np.uint8).tobytes())
    for name in ("a.nrrd", "a.nii.gz", "a.bin"):
        assert np.array_equal(read_label(tmp_path / name, suffix_of(name), GEOMETRY), label_map()), name


def test_a_nifti_label_with_turned_axes_is_put_in_order_and_a_shifted_one_refused(tmp_path):
    straight = nibabel.Nifti1Image(label_map().transpose(2, 1, 0), GEOMETRY.affine_ras)
    nibabel.save(nibabel.as_closest_canonical(straight), tmp_path / "turned.nii.gz")
    assert np.array_equal(read_label(tmp_path / "turned.nii.gz", ".nii.gz", GEOMETRY), label_map())
    moved = stack_geometry((4, 6, 5), gaps_mm=2.5, pixel_spacing_mm=(1.5, 1.25), centre_lps_mm=(8, -20, 110))
    write_volume(label_map(), moved, tmp_path / "moved.nii.gz")
    write_nrrd(label_map(), moved, tmp_path / "moved.nrrd")
    for name in ("moved.nii.gz", "moved.nrrd"):
        with pytest.raises(GeometryError, match="apart"):
            read_label(tmp_path / name, suffix_of(name), GEOMETRY)


def test_what_is_no_label_is_refused(tmp_path):
    (tmp_path / "short.bin").write_bytes(b"\1" * 119)
    (tmp_path / "no.nrrd").write_bytes(b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 9000 9000 9000\n\n")
    (tmp_path / "no.nii.gz").write_bytes(b"nothing")
    write_volume(label_map() + 0.5, GEOMETRY, tmp_path / "half.nii.gz")
    write_volume(label_map() * 300, GEOMETRY, tmp_path / "large.nii.gz")
    for name in ("short.bin", "no.nrrd", "no.nii.gz", "half.nii.gz", "large.nii.gz"):
        with pytest.raises(InputError):
            read_label(tmp_path / name, suffix_of(name), GEOMETRY)
    for name in ("label.exe", "label", "../../x.gz"):
        with pytest.raises(InputError, match="expected one of"):
            suffix_of(name)


def masks(**boxes):
    found = {}
    for name, rows in boxes.items():
        found[name] = np.zeros((1, 10, 10), dtype=bool)
        found[name][0, slice(*rows)] = True
    return found


KNOWN = ("Brainstem", "SpinalCord", "Parotid_R", "Parotid_L", "PTV")


def test_only_the_right_parotid_present_is_number_1_for_slicer_and_keeps_its_place_for_ohif():
    found = {**masks(Brainstem=(0, 0), Parotid_L=(0, 0)), **masks(Parotid_R=(2, 5))}
    values, names, hidden = compose(found, KNOWN, gapless=True)
    assert names == {"Parotid_R": 1} and set(np.unique(values)) == {0, 1} and (values == 1).sum() == 30
    values, names, _ = compose(found, KNOWN, gapless=False)
    assert names == {"Parotid_R": 3} and set(np.unique(values)) == {0, 3} and not hidden


def test_where_structures_overlap_the_first_named_shows_and_the_hidden_voxels_are_told():
    values, names, hidden = compose(masks(PTV=(0, 6), Parotid_R=(4, 6)), KNOWN, gapless=True)
    assert names == {"Parotid_R": 1, "PTV": 2} and hidden == {"PTV": 20}
    assert (values == 1).sum() == 20 and (values == 2).sum() == 40


def test_a_structure_that_others_cover_wholly_leaves_no_gap():
    found = masks(Brainstem=(0, 6), Parotid_R=(2, 4), PTV=(6, 8))
    values, names, hidden = compose(found, KNOWN, gapless=True)
    assert names == {"Brainstem": 1, "PTV": 2} and hidden == {"Parotid_R": 20}
    assert set(np.unique(values)) == {0, 1, 2}


def test_label_info_of_slicer_names_the_numbers():
    info = [{"name": "Parotid_L", "idx": 2}, {"name": "GTV", "idx": 1}]
    assert names_of(info, label_map(), KNOWN) == {"Parotid_L": 2, "GTV": 1}
    assert names_of(None, label_map(), KNOWN) == {"Brainstem": 1, "SpinalCord": 2}
    for wrong in ({"idx": 1}, [{"name": "A", "idx": 0}], [{"name": "A", "idx": True}], [3]):
        with pytest.raises(InputError, match="label_info"):
            names_of(wrong, label_map(), KNOWN)
    for twice in ([{"name": "A"}, {"name": "A"}], [{"name": "A", "idx": 1}, {"name": "B", "idx": 1}]):
        with pytest.raises(InputError, match="twice"):
            names_of(twice, label_map(), KNOWN)
    with pytest.raises(InputError, match="no `label_info`"):
        names_of(None, label_map(), KNOWN[:1])
