"""Cases: what a user points at, opened as one volume with its geometry."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.cases.find import find_cases, folder_name
from medseg.cases.volume import open_case, resample
from medseg.errors import GeometryError, InputError
from medseg.geometry import Geometry
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.transforms import LoadCased


def ramp(geometry):
    """A volume whose every voxel holds 2 x + 3 y + 5 z of its own LPS position: linear, so interpolation is
    exact."""
    rows, columns = np.meshgrid(*(np.arange(n) for n in geometry.shape[1:]), indexing="ij")
    pairs = np.stack([rows.ravel(), columns.ravel()], axis=1)
    planes = [geometry.points_lps_mm(k, pairs) @ (2.0, 3.0, 5.0) for k in range(geometry.shape[0])]
    return np.array(planes, dtype=np.float32).reshape(geometry.shape)


def test_an_uneven_tilted_stack_is_resampled_where_its_voxels_really_lie():
    stack = stack_geometry(
        (12, 20, 16), gaps_mm=[2.0] * 5 + [4.0] * 6, pixel_spacing_mm=(1.5, 1.0), tilt_degrees=12
    )
    grid = stack.regular_grid()
    assert (
        grid.is_regular and grid.shape[0] == 10
    )  # 34 mm in steps of the median gap, 4 mm, both ends covered
    volume = resample(ramp(stack), stack, grid)
    inside = np.zeros(grid.shape, dtype=bool)
    inside[1:8, 6:14, 2:14] = True  # away from the borders, where the nearest value is used instead
    assert np.abs(volume - ramp(grid))[inside].max() < 0.05


def test_sampling_back_on_the_real_slices_is_the_inverse_for_a_linear_image():
    stack = stack_geometry(
        (12, 20, 16), gaps_mm=[2.0] * 5 + [4.0] * 6, pixel_spacing_mm=(1.5, 1.0), tilt_degrees=12
    )
    back = resample(ramp(stack.regular_grid()), stack.regular_grid(), stack)
    assert np.abs(back - ramp(stack))[:11].max() < 0.05  # the grid's last slice lies above the stack's


def test_a_tilted_stack_that_descends_is_resampled_where_its_voxels_really_lie():
    stack = stack_geometry((12, 20, 16), gaps_mm=2.0, pixel_spacing_mm=(1.5, 1.0), tilt_degrees=12)
    stack = Geometry(stack.shape, stack.origins_lps_mm[::-1], stack.row_step_lps_mm, stack.column_step_lps_mm)
    grid = stack.regular_grid()
    assert grid.slice_positions_mm[0] > grid.slice_positions_mm[-1]
    volume = resample(ramp(stack), stack, grid)
    inside = (slice(1, 11), slice(6, 14), slice(2, 14))
    assert np.abs(volume - ramp(grid))[inside].max() < 0.05


def test_the_network_sees_the_hounsfield_units_that_simpleitk_reads(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path)
    image = LoadCased("image")({"image": str(tmp_path)})["image"]
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    reference = reader.Execute()
    assert np.array_equal(image[0].numpy().transpose(2, 1, 0), SimpleITK.GetArrayFromImage(reference))
    ras = np.diag([-1, -1, 1, 1]) @ np.array([*reference.TransformIndexToPhysicalPoint((3, 5, 7)), 1])
    assert np.allclose(image.affine.numpy() @ (3, 5, 7, 1), ras, atol=1e-3)


def test_a_series_refused_by_medseg_is_not_loaded_by_another_reader(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path)
    (tmp_path / "CT_0011.dcm").unlink()
    with pytest.raises(InputError, match="missing"):
        LoadCased("image")({"image": str(tmp_path)})


def test_several_series_in_one_folder_are_separate_cases(tmp_path):
    phantom = chiral_phantom()
    for seed in (1, 2):
        for path in write_series(
            phantom.volume_hu + 10 * seed, phantom.geometry, tmp_path / f"made_{seed}", seed=seed
        ):
            (tmp_path / "mixed").mkdir(exist_ok=True)
            path.rename(tmp_path / "mixed" / f"{seed}_{path.name}")
        (tmp_path / f"made_{seed}").rmdir()
    cases, _ = find_cases(tmp_path / "mixed")
    assert len(cases) == 2 and len({name for name, _ in cases}) == 2
    levels = {float(np.median(open_case(source).volume[15, 24:26, 28:30])) for _, source in cases}
    assert levels == {10.0, 20.0}


def test_series_of_another_modality_are_passed_over_and_named(tmp_path):
    phantom = chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, tmp_path / "ct")
    write_series(np.abs(phantom.volume_hu), phantom.geometry, tmp_path / "mr", modality="MR", seed=5)
    cases, notes = find_cases(tmp_path, "CT")
    assert [name for name, _ in cases] == ["ct"]
    assert len(notes) == 1 and "MR" in notes[0]


def test_nifti_without_an_orientation_or_with_nan_is_refused(tmp_path):
    hole = np.zeros((4, 5, 6), dtype=np.float32)
    hole[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), dtype=np.float32), None), tmp_path / "lost.nii.gz")
    nibabel.save(nibabel.Nifti1Image(hole, np.diag([2, 2, 3, 1])), tmp_path / "nan.nii.gz")
    for name, words in (("lost", "orientation are unknown"), ("nan", "not finite")):
        with pytest.raises(InputError, match=words):
            open_case(str(tmp_path / f"{name}.nii.gz"))


def test_a_damaged_nifti_file_and_a_4d_one_are_refused_in_one_line(tmp_path):
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08\x00 not a volume")
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((3, 3, 3, 2), dtype=np.float32), np.eye(4)), tmp_path / "series.nii.gz"
    )
    for name, words in (("cut", "cannot be read as NIfTI"), ("series", "4 dimensions")):
        with pytest.raises(InputError, match=words) as caught:
            open_case(str(tmp_path / f"{name}.nii.gz"))
        assert "\n" not in str(caught.value)


def test_an_image_with_one_bit_flipped_in_its_compressed_file_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    path = tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(noise, np.diag([2, 2, 3, 1])), path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        open_case(str(path))


def test_masks_are_written_as_nifti_only_where_nifti_can_hold_the_geometry(tmp_path):
    from medseg.cases.nifti import write_mask

    tilted = stack_geometry((5, 6, 7), tilt_degrees=10)
    with pytest.raises(GeometryError, match="tilted"):
        write_mask(np.zeros(tilted.shape, dtype=bool), tilted, tmp_path / "GTV.nii.gz")
    assert not list(tmp_path.iterdir())

    geometry = Geometry((3, 4, 5), [[10.0, 20, 30 + 4 * k] for k in range(3)], [0, 2, 0], [1, 0, 0])
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[2, 1, 3] = True
    image = SimpleITK.ReadImage(str(write_mask(mask, geometry, tmp_path / "GTV.nii.gz")))
    # By hand: x = 10 + 3 * 1, y = 20 + 1 * 2, z = 30 + 2 * 4 in LPS, which is also what SimpleITK speaks.
    assert image[image.TransformPhysicalPointToIndex((13.0, 22.0, 38.0))] == 1
    assert SimpleITK.GetArrayFromImage(image).sum() == 1


def test_several_series_below_a_folder_with_a_hash_in_its_name_are_opened(tmp_path):
    phantom = chiral_phantom()
    for seed in (1, 2):
        write_series(
            phantom.volume_hu, phantom.geometry, tmp_path / "study #2" / "CT" / f"part_{seed}", seed=seed
        )
        for path in (tmp_path / "study #2" / "CT" / f"part_{seed}").iterdir():
            path.rename(tmp_path / "study #2" / "CT" / f"{seed}_{path.name}")
    cases, _ = find_cases(tmp_path / "study #2")
    assert len({open_case(source).series.series_instance_uid for _, source in cases}) == 2


def test_a_single_dicom_file_is_read_alone_and_not_with_its_folder(tmp_path):
    phantom = chiral_phantom()
    path = write_series(phantom.volume_hu, phantom.geometry, tmp_path)[4]
    assert find_cases(path)[0] == [(path.stem, str(path))]
    assert open_case(str(path)).geometry.shape == (1, *phantom.geometry.shape[1:])


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../x", "n" * 400, "é" * 200, "a\nb"])
def test_a_folder_name_is_one_visible_folder_whatever_the_case_is_called(name, tmp_path):
    folder = tmp_path / folder_name(name)
    folder.mkdir()
    assert (
        folder.parent == tmp_path
        and folder.resolve().parent == tmp_path.resolve()
        and not folder.name.startswith(".")
    )


def test_names_that_are_cut_stay_different():
    assert folder_name("n" * 400 + "1") != folder_name("n" * 400 + "2")


def test_hidden_nifti_files_are_no_cases_and_upper_case_suffixes_are_cut(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), dtype=np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "CASE.NII.GZ")
    (tmp_path / "._CASE.nii.gz").write_bytes(b"what macOS leaves beside files")
    assert [name for name, _ in find_cases(tmp_path)[0]] == ["CASE"]


@pytest.mark.parametrize(
    "dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=["complex", "rgb"]
)
def test_nifti_voxels_that_are_no_single_numbers_are_refused(dtype, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), dtype=dtype), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(InputError, match="expected one real number each"):
        open_case(str(tmp_path / "a.nii"))
