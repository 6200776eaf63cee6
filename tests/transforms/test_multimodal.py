"""CT, PET and MR as channels of one image."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.cases.nifti import write_volume
from medseg.errors import InputError
from medseg.phantoms.series import stack_geometry
from medseg.transforms import (
    LoadCased,
    LoadSeriesd,
    RandDropSeriesd,
    RandSeriesLookd,
    StackSeriesd,
    only_series,
)

SHAPE = (6, 10, 12)


def stacked(seed=0):
    image = torch.from_numpy(np.random.default_rng(seed).uniform(0.2, 0.8, (5, 8, 8, 8)).astype(np.float32))
    image[3:] = 1
    image[2, :4] = image[4, :4] = 0  # the MR covers a half
    return MetaTensor(image)


@pytest.fixture
def item(tmp_path):
    """CT of -160, 40 and 400 HU, PET of SUV 20, and an MR of 0 to 1000 that covers the lower half."""
    grid = stack_geometry(SHAPE, gaps_mm=3.0, pixel_spacing_mm=(1.0, 1.0))
    ct = np.full(SHAPE, 40.0, np.float32)
    ct[0], ct[1] = -160, 400
    write_volume(ct, grid, tmp_path / "ct.nii.gz")
    write_volume(np.full(SHAPE, 20.0, np.float32), grid, tmp_path / "pt.nii.gz")
    place = {"gaps_mm": 3.0, "pixel_spacing_mm": (1.0, 1.0), "centre_lps_mm": (0, 0, -4.5)}
    half = stack_geometry((3, *SHAPE[1:]), **place)
    mr = np.linspace(0, 1000, 360).astype(np.float32).reshape(3, 10, 12)
    write_volume(mr, half, tmp_path / "mr.nii.gz")
    return {
        key: str(tmp_path / f"{name}.nii.gz") for key, name in (("image", "ct"), ("pt", "pt"), ("mr", "mr"))
    }


def stack(item):
    for transform in (LoadCased("image"), LoadSeriesd(("pt", "mr")), StackSeriesd("image", (-160, 240))):
        item = transform(item)
    return item


@pytest.mark.filterwarnings("ignore:.*covers 50 %")
def test_all_three_come_normalised_with_what_they_cover(item):
    made = stack(item)
    assert "pt" not in made and "mr" not in made and "mr_covered" not in made
    image = made["image"].numpy().transpose(0, 3, 2, 1)
    assert image.shape == (5, *SHAPE)
    np.testing.assert_allclose(image[0, :3, 0, 0], [0, 1, 0.5])  # -160, above 240, and 40 HU
    np.testing.assert_allclose(image[1], 1)  # SUV 20
    assert (image[3] == 1).all()
    np.testing.assert_array_equal(image[4, :, 0, 0], [1, 1, 1, 0, 0, 0])
    # 1st and 99th percentile of 0 to 1000 are 10 and 990: 500 is the middle, 1000 a little above 1.
    assert image[2, :3].max() == pytest.approx(990 / 980, abs=1e-3)
    assert image[2, :3].min() == 0
    assert np.median(image[2, :3]) == pytest.approx(0.5, abs=1e-3)
    assert not image[2, 3:].any()


def test_a_series_that_is_missing_is_zero_and_not_covered(item):
    image = stack({"image": item["image"], "pt": item["pt"]})["image"]
    assert image[1].all() and image[3].all()
    assert not image[2].any() and not image[4].any()
    assert not stack({"image": item["image"]})["image"][1:].any()


def test_only_the_named_series_stay():
    image = stacked()
    for kept, zero in ((("pt", "mr"), []), (("pt",), [2, 4]), (("mr",), [1, 3]), ((), [1, 2, 3, 4])):
        left = only_series(image, kept)
        for channel in range(5):
            expected = torch.zeros(8, 8, 8) if channel in zero else image[channel].as_tensor()
            assert torch.equal(left[channel].as_tensor(), expected)


def test_series_are_dropped_as_often_as_said():
    transform = RandDropSeriesd("image", shares=(0.3, 0.2, 0.1))
    transform.set_random_state(0)
    kinds = []
    for _ in range(600):
        image = transform({"image": stacked()})["image"]
        kinds.append((bool(image[3].any()), bool(image[4].any())))
    for kind, share in (
        ((False, False), 0.3),
        ((True, False), 0.2),
        ((False, True), 0.1),
        ((True, True), 0.4),
    ):
        assert kinds.count(kind) / 600 == pytest.approx(share, abs=0.06)


def test_shares_of_one_always_leave_the_same():
    for shares, left in (((1, 0, 0), (False, False)), ((0, 1, 0), (True, False)), ((0, 0, 0), (True, True))):
        image = RandDropSeriesd("image", shares)({"image": stacked()})["image"]
        assert (bool(image[3].any()), bool(image[4].any())) == left


@pytest.mark.parametrize("shares", [(0.5, 0.6, 0), (-0.1, 0, 0), (0.1, 0.1)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(InputError, match="three, none negative, at most 1 together"):
        RandDropSeriesd("image", shares)


def test_the_look_changes_but_not_coverage_nor_where_nothing_is():
    transform = RandSeriesLookd("image", prob=1.0)
    transform.set_random_state(0)
    before = stacked()
    after = transform({"image": before})["image"]
    assert torch.equal(after[3:].as_tensor(), before[3:].as_tensor())
    assert not after[2, :4].any()
    for channel in range(3):
        changed = (after[channel] - before[channel]).abs()[4:]
        assert 0.01 < float(changed.mean()) < 0.3
    assert torch.equal(before.as_tensor(), stacked().as_tensor())  # what a cache holds is left as it is


def test_without_chance_the_look_stays():
    image = RandSeriesLookd("image", prob=0.0)({"image": stacked()})["image"]
    assert torch.equal(image.as_tensor(), stacked().as_tensor())


def test_a_window_upside_down_is_refused():
    with pytest.raises(InputError, match="lowest, highest"):
        StackSeriesd("image", (240, -160))
