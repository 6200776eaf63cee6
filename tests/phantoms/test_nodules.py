"""The synthetic chest CT: nodules of the size that was asked for, where they are said to be, among what looks
like them."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt
from scipy.ndimage import label as connected

from medseg.errors import InputError
from medseg.phantoms.nodules import make_chest_ct


@pytest.fixture(scope="module")
def patients():
    return [make_chest_ct(seed, (56, 64, 64), 2.0, count=4) for seed in range(8)]


def everyone(patients):
    return [(ct, nodule, ct.mask(number)) for ct in patients for number, nodule in enumerate(ct.nodules)]


def test_a_nodule_has_the_volume_of_the_ball_of_its_diameter(patients):
    shares = {True: [], False: []}
    for _, nodule, mask in everyone(patients):
        ball_mm3 = np.pi / 6 * nodule.diameter_mm**3
        shares[nodule.diameter_mm > 8].append(8.0 * mask.sum() / ball_mm3)
    assert all(0.75 < share < 1.25 for share in shares[True]) and 0.95 < np.mean(shares[True]) < 1.05
    assert all(0.4 < share < 1.8 for share in shares[False]), "a ball of 4 mm has four voxels of 2 mm"


def test_its_centre_is_where_lps_says_it_is(patients):
    for ct, nodule, mask in everyone(patients):
        slices, rows, columns = np.nonzero(mask)
        grid = ct.geometry
        points = (
            grid.origins_lps_mm[slices]
            + rows[:, None] * grid.row_step_lps_mm
            + columns[:, None] * grid.column_step_lps_mm
        )
        off_mm = np.linalg.norm(points.mean(axis=0) - nodule.centre_lps_mm)
        assert off_mm < 1 + 0.1 * nodule.diameter_mm


def test_sizes_span_the_range_and_every_density_occurs(patients):
    sizes = [nodule.diameter_mm for _, nodule, _ in everyone(patients)]
    assert len(sizes) > 20 and 4 <= min(sizes) < 6 and 18 < max(sizes) <= 30
    found = {nodule.density for _, nodule, _ in everyone(patients)}
    assert found == {"solid", "part-solid", "ground glass"}
    assert {nodule.at_pleura for _, nodule, _ in everyone(patients)} == {True, False}


def test_density_is_what_radiologists_mean_by_it(patients):
    for ct, nodule, mask in everyone(patients):
        if nodule.diameter_mm < 9:
            continue
        core = ct.volume_hu[distance_transform_edt(mask) > 0.6 * nodule.diameter_mm / 4]
        rim = ct.volume_hu[mask & (distance_transform_edt(mask) <= 1.5)]
        if nodule.density == "solid":
            assert np.median(core) > -30
        elif nodule.density == "ground glass":
            assert -750 < np.median(core) < -350
        else:
            assert np.median(core) > np.median(rim) + 150


def test_those_at_the_pleura_reach_it_and_the_others_do_not(patients):
    away_mm = {True: [], False: []}
    for ct, nodule, mask in everyone(patients):
        nearest_mm = 2.0 * distance_transform_edt(ct.lungs)[mask].min()  # 2 in the lung's outermost voxels
        away_mm[nodule.at_pleura].append(nearest_mm)
    assert max(away_mm[True]) <= 2 <= min(away_mm[False]) and np.mean(away_mm[False]) > 5


def test_nodules_keep_apart_and_each_is_one_piece(patients):
    for ct in patients:
        assert connected(binary_dilation(ct.labels > 0))[1] == len(ct.nodules)


def test_vessels_and_calcifications_are_there_to_be_mistaken_for_nodules(patients):
    for ct in patients:
        other = ct.lungs & ~binary_dilation(ct.labels > 0, iterations=2)
        deep = distance_transform_edt(ct.lungs) > 2
        assert (ct.volume_hu[other & deep] > -200).sum() > 100, "vessels"
        assert connected(ct.lungs)[1] >= 2
    assert sum((ct.volume_hu[ct.lungs] > 400).any() for ct in patients) >= 6, "calcifications"


def test_a_patient_without_nodules_and_the_same_patient_again():
    first, again = (make_chest_ct(3, (40, 56, 56), (3.0, 2.0, 2.0), count=0) for _ in range(2))
    assert np.array_equal(first.volume_hu, again.volume_hu)
    assert first.nodules == () and not first.labels.any()
    assert first.geometry.pixel_spacing_mm == (2.0, 2.0)
    assert np.allclose(first.geometry.slice_thickness_mm, 3.0)
    assert (make_chest_ct(4, (40, 56, 56), (3.0, 2.0, 2.0), count=0).volume_hu != first.volume_hu).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spacing_mm": -2.0}, "expected positive"),
        ({"spacing_mm": 1.0}, "100 mm or more"),
        ({"shape": (16, 64, 64)}, "32 voxels"),
        ({"diameters_mm": (30.0, 4.0)}, "the smaller first"),
        ({"count": 300}, "0 to 255"),
    ],
)
def test_a_phantom_that_cannot_be_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        make_chest_ct(0, **options)
