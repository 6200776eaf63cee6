"""Several images of one patient on the grid of one of them."""

import numpy as np
import pytest
import SimpleITK

from medseg.cases.multimodal import sampled_on
from medseg.errors import GeometryError
from medseg.geometry import Geometry


def stack(positions_mm, shape=(4, 5), pixel_mm=(2.0, 1.0), origin=(0.0, 0.0), **others):
    origins = np.array([[origin[0], origin[1], z] for z in positions_mm], dtype=float)
    steps = np.array([0, pixel_mm[0], 0.0]), np.array([pixel_mm[1], 0, 0.0])
    return Geometry((len(positions_mm), *shape), origins, *steps, **others)


def points_of(geometry):
    """(slices, rows, columns, 3) LPS mm of every voxel centre."""
    pairs = np.stack(np.meshgrid(*map(np.arange, geometry.shape[1:]), indexing="ij"), -1).reshape(-1, 2)
    return np.stack([geometry.points_lps_mm(k, pairs) for k in range(geometry.shape[0])]).reshape(
        *geometry.shape, 3
    )


def in_simpleitk(volume, geometry):
    image = SimpleITK.GetImageFromArray(volume)
    affine = geometry.affine_lps[:3, [2, 1, 0]]
    spacing = np.linalg.norm(affine, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine / spacing).ravel().tolist())
    image.SetOrigin(geometry.origins_lps_mm[0].tolist())
    return image


def turned(degrees, axis, shift=(0.0, 0.0, 0.0)):
    a, b = [other for other in range(3) if other != axis]
    matrix = np.eye(4)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[[a, a, b, b], [a, b, a, b]] = cos, -sin, sin, cos
    matrix[:3, 3] = shift
    return matrix


def test_an_image_on_its_own_grid_is_itself():
    volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    geometry = stack([0, 3, 6])
    values, covered = sampled_on(volume, geometry, geometry)
    np.testing.assert_array_equal(values, volume)
    assert covered.all()
    assert values.dtype == np.float32


def test_a_coarse_pet_on_a_fine_ct_equals_simpleitk():
    volume = np.random.default_rng(0).normal(size=(6, 8, 9)).astype(np.float32)
    pet = stack(np.arange(6) * 3.27, (8, 9), (4.0, 4.0), (-3.0, 5.0))
    ct = stack(np.arange(8) * 3.0 - 1.0, (30, 28), (1.1, 1.3), (-6.0, 3.0))
    values, covered = sampled_on(volume, pet, ct)
    expected = SimpleITK.Resample(
        in_simpleitk(volume, pet),
        in_simpleitk(np.zeros(ct.shape, np.float32), ct),
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        0.0,
    )
    np.testing.assert_allclose(values, SimpleITK.GetArrayFromImage(expected), atol=1e-5)
    assert 0 < covered.sum() < covered.size
    assert (values[~covered] == 0).all()


def test_a_turned_and_shifted_mr_equals_simpleitk():
    volume = np.random.default_rng(1).normal(size=(7, 8, 9)).astype(np.float32)
    mr = stack(np.arange(7) * 3.0, (8, 9), (2.0, 2.0), (-8.0, -8.0))
    ct = stack(np.arange(6) * 2.5, (12, 12), (1.5, 1.5), (-9.0, -9.0))
    matrix = turned(20, 0, (1.0, -2.0, 3.0)) @ turned(-35, 2)
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    expected = SimpleITK.Resample(
        in_simpleitk(volume, mr),
        in_simpleitk(np.zeros(ct.shape, np.float32), ct),
        transform,
        SimpleITK.sitkLinear,
        0.0,
    )
    values, covered = sampled_on(volume, mr, ct, matrix)
    np.testing.assert_allclose(values, SimpleITK.GetArrayFromImage(expected), atol=1e-4)
    assert 0.2 < covered.mean() < 0.9


def test_uneven_slices_are_mixed_by_their_own_positions():
    # Slices at 0, 2 and 8 mm hold 0, 20 and 80: at 5 mm lies 50, where one mean spacing of 4 mm would say 35.
    volume = np.repeat([0.0, 20.0, 80.0], 20).reshape(3, 4, 5)
    values, covered = sampled_on(volume, stack([0, 2, 8]), stack([1, 5, 7.4]))
    np.testing.assert_allclose(values[:, 0, 0], [10, 50, 74], atol=1e-4)
    assert covered.all()


@pytest.mark.parametrize("matrix", [np.eye(4), turned(25, 0, (0, 1.0, -2.0)), turned(90, 1, (0, 0, 4.0))])
def test_a_field_that_is_linear_in_space_comes_back_exactly_from_an_uneven_stack(matrix):
    moving = stack([0, 2, 3, 8, 9.5], (12, 13), origin=(-6.0, -12.0))
    gradient = np.array([1.0, -2.0, 3.0])
    reference = stack([1, 4, 6], (3, 4), (1.5, 1.5), (0.0, 1.0))
    there = points_of(reference) @ matrix[:3, :3].T + matrix[:3, 3]
    values, covered = sampled_on(points_of(moving) @ gradient, moving, reference, matrix)
    inner = covered & (there[..., 2] >= 0) & (there[..., 2] <= 9.5) & (np.abs(there[..., 0]) <= 6)
    assert inner.sum() >= 12
    np.testing.assert_allclose(values[inner], (there @ gradient)[inner], atol=1e-3)


def test_a_tilted_stack_is_looked_up_where_its_slices_really_lie():
    # Every slice is shifted by 1 mm in y, as a tilted gantry does.
    origins = np.array([[0, k, 3.0 * k] for k in range(5)])
    tilted = Geometry((5, 8, 6), origins, np.array([0, 1.0, 0]), np.array([1.0, 0, 0]))
    reference = stack([3, 4.5], (2, 3), (1.0, 1.0), (1.0, 4.0))
    values, covered = sampled_on(points_of(tilted)[..., 1], tilted, reference)
    np.testing.assert_allclose(values, points_of(reference)[..., 1], atol=1e-5)
    assert covered.all()


def test_slices_in_descending_order_give_the_same():
    rng = np.random.default_rng(2)
    for positions in ([0, 2, 8], [0, 3, 6]):
        volume, reference = rng.normal(size=(3, 4, 5)), stack([-0.5, 1, 5])
        upwards = sampled_on(volume, stack(positions), reference)
        downwards = sampled_on(volume[::-1], stack(positions[::-1]), reference)
        np.testing.assert_allclose(upwards[0], downwards[0], atol=1e-6)
        np.testing.assert_array_equal(upwards[1], downwards[1])


@pytest.mark.parametrize(("positions", "ends_mm"), [([0, 3, 6], (-1.5, 7.5)), ([0, 2, 8], (-1.0, 11.0))])
def test_half_a_gap_beyond_the_outermost_slices_is_covered_and_no_more(positions, ends_mm):
    volume = np.repeat([5.0, 6.0, 7.0], 20).reshape(3, 4, 5)
    low, high = ends_mm
    near = stack([low + 0.01, high - 0.01])
    values, covered = sampled_on(volume, stack(positions), near)
    assert covered.all()
    np.testing.assert_allclose(values[:, 0, 0], [5, 7], atol=1e-5)
    values, covered = sampled_on(volume, stack(positions), stack([low - 0.01, high + 0.01]))
    assert not covered.any()
    assert (values == 0).all()


def test_what_lies_elsewhere_is_not_covered():
    geometry = stack([0, 3, 6])
    values, covered = sampled_on(np.ones((3, 4, 5)), geometry, geometry, turned(0, 0, (500.0, 0, 0)))
    assert not covered.any()
    assert not values.any()


def test_two_frames_without_a_transformation_are_refused_and_with_one_are_not():
    one = stack([0, 3], frame_of_reference_uid="1.2.3")
    other = stack([0, 3], frame_of_reference_uid="1.2.4")
    with pytest.raises(GeometryError, match=r"Frame of Reference 1\.2\.3 against 1\.2\.4"):
        sampled_on(np.zeros(one.shape), one, other)
    assert sampled_on(np.zeros(one.shape), one, other, np.eye(4))[1].all()


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.eye(3), "4x4"),
        (np.full((4, 4), np.nan), "finite"),
        (np.diag([1.0, 1, 0, 1]), "squeezes space flat: determinant 0, expected about 1"),
        (np.diag([1e-3, 1e-3, 1e-3, 1]), "determinant 1e-09, expected about 1"),
        (np.diag([1.0, 1, 1, 2]), "0 0 0 1"),
    ],
)
def test_a_matrix_that_is_no_affine_transformation_is_refused(matrix, words):
    geometry = stack([0, 3])
    with pytest.raises(GeometryError, match=words):
        sampled_on(np.zeros(geometry.shape), geometry, geometry, matrix)


def test_one_slice_and_an_array_of_another_shape_are_refused():
    one, two = stack([0]), stack([0, 3])
    with pytest.raises(GeometryError, match="one slice"):
        sampled_on(np.zeros(one.shape), one, two)
    with pytest.raises(GeometryError, match=r"array \(2, 5, 4\)"):
        sampled_on(np.zeros((2, 5, 4)), two, two)
