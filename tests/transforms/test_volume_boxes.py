"""Boxes follow the CT: a known block of voxels lies in its box before and behind every step, in mm as
SimpleITK has them."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import SimpleITK
import torch
from monai.apps.detection.transforms.dictionary import RandFlipBoxd
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Orientationd, Rotate90d, Rotated, Spacingd, SpatialCropd

from medseg.cases.nifti import write_volume
from medseg.cases.volume import open_case
from medseg.errors import InputError, MedsegWarning
from medseg.phantoms.series import stack_geometry, write_series
from medseg.transforms import (
    JoinBoxRowsd,
    LoadCased,
    RandNeighbourSlicesd,
    SplitAnswerd,
    SplitBoxRowsd,
    ToVolumeBoxesd,
    VolumeBoxTargetd,
)

LOW, HIGH = (
    (4, 6, 10),
    (7, 11, 18),
)  # of the bright block: first voxel, and behind the last (slice, row, column)
GRID = stack_geometry((12, 20, 24), gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0), centre_lps_mm=(30, -20, 55))


@pytest.fixture
def source(tmp_path) -> str:
    volume = np.zeros(GRID.shape, dtype=np.float32)
    volume[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))] = 1000
    return str(write_volume(volume, GRID, tmp_path / "ct.nii.gz"))


def corners_lps_mm(path: str) -> dict:
    """The block's box by SimpleITK's own affine."""
    image = SimpleITK.ReadImage(path)
    ends = [[n - 0.5 for n in corner[::-1]] for corner in (LOW, HIGH)]
    points = np.array([image.TransformContinuousIndexToPhysicalPoint(end) for end in ends])
    return {"class": "nodule", "low": points.min(axis=0).tolist(), "high": points.max(axis=0).tolist()}


def chain(*steps, **options):
    """Not MONAI's Compose, which wraps what a step raises."""
    last = VolumeBoxTargetd(classes=("nodule",), most=3, **options)
    return lambda item: reduce(lambda d, step: step(d), [LoadCased("image"), *steps, last], item)


def bright(image) -> list[float]:
    places = np.argwhere(np.asarray(image)[0] > 500)
    return [*map(float, places.min(axis=0)), *map(float, places.max(axis=0) + 1)]


STEPS = {
    "as it is": (),
    "RAS": (Orientationd("image", "RAS", labels=None),),
    "LPS, cut": (Orientationd("image", "LPS", labels=None), SpatialCropd("image", roi_slices=[slice(5, 24)])),
    "flipped and turned": (Flipd("image", 1), Rotate90d("image", 1, spatial_axes=(0, 2))),
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_box_follows_what_the_image_went_through(steps, source):
    item = chain(*steps)({"image": source, "label": [corners_lps_mm(source)]})
    assert item["label"][0].tolist() == pytest.approx([*bright(item["image"]), 0.0], abs=1e-4)
    assert item["label"].shape == (3, 7) and item["label"][1:].isnan().all()


def test_on_finer_voxels_the_box_grows_with_them(source):
    step = Spacingd("image", (0.5, 0.5, 1.0), mode="nearest")
    item = chain(step)({"image": source, "label": [corners_lps_mm(source)]})
    size = item["label"][0, 3:6] - item["label"][0, :3]
    assert size.tolist() == pytest.approx([8 * 2, 5 * 2, 3 * 2], abs=1e-3)


def test_a_ct_without_a_nodule_has_rows_of_nothing(source):
    assert chain()({"image": source, "label": []})["label"].isnan().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"low": [900, 900, 900], "high": [910, 910, 910]},
            "box 1 around 905, 905, 905 .* lies outside the image",
        ),
        ({"low": [40, -20, 55], "high": [30, -10, 60]}, "corners swapped; the low one comes first"),
        ({"low": [30, -20, 55], "high": [35, -15, 55]}, "has no volume; leave it out"),
        ({"low": [30, -20, float("inf")]}, "a corner that is no number"),
        ({"low": [30, -20]}, "not .class, low, high. of three numbers"),
        ({"class": "mass"}, "class 'mass' is unknown; expected nodule"),
        ({"class": ["nodule"]}, "class .'nodule'. is unknown; expected nodule"),
    ],
)
def test_a_box_that_cannot_be_meant_is_refused_in_one_line(change, words, source):
    with pytest.raises(InputError, match=words) as caught:
        chain()({"image": source, "label": [{**corners_lps_mm(source), **change}]})
    assert source in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [None, {"class": "nodule"}, ["nodule"]])
def test_a_label_that_is_no_list_of_boxes_is_refused_in_one_line(label, source):
    with pytest.raises(InputError, match="a box is not .class, low, high. of three numbers"):
        chain()({"image": source, "label": label})


def test_more_boxes_than_rows_and_an_image_turned_alone_are_refused(source):
    box = corners_lps_mm(source)
    with pytest.raises(InputError, match="4 boxes, at most 3"):
        chain()({"image": source, "label": [box] * 4})
    with pytest.raises(InputError, match="oblique to the patient"):
        chain(Rotated("image", (0, 0, 0.2), keep_size=True))({"image": source, "label": [box]})


def test_a_box_that_was_cut_away_is_left_out_with_a_warning(source):
    half = SpatialCropd("image", roi_slices=[slice(0, 5)])
    with pytest.warns(MedsegWarning, match="1 of 1 boxes lie where the image was cut away"):
        assert chain(half)({"image": source, "label": [corners_lps_mm(source)]})["label"].isnan().all()


def test_a_class_may_be_trained_as_another(source):
    item = {"image": source, "label": [{**corners_lps_mm(source), "class": "small nodule"}]}
    assert chain(merged={"small nodule": "nodule"})(item)["label"][0, 6] == 0


def test_rows_go_through_monai_s_own_transforms_of_boxes_and_come_back(source):
    flip = RandFlipBoxd(["image"], ["box"], ["image"], prob=1.0, spatial_axis=0)
    item = chain()({"image": source, "label": [corners_lps_mm(source)]})
    item = Compose([SplitBoxRowsd(), flip, JoinBoxRowsd()])(item)
    assert item["label"][0].tolist() == pytest.approx([*bright(item["image"]), 0.0], abs=1e-4)
    assert item["label"].shape == (3, 7) and "box" not in item and "box_class" not in item


# ---- slices ------------------------------------------------------------------------------------------------


def numbered_slices():
    volume = torch.arange(6.0).expand(1, 4, 5, 6)  # every voxel holds the number of its slice
    mask = torch.zeros(1, 4, 5, 6)
    mask[0, 1, 1, 2] = 7
    mask[0, 2:, 2:, 5] = 9
    return {"image": MetaTensor(volume.clone()), "mask": mask, "case_id": "a"}


def test_a_slice_has_its_neighbours_as_channels_and_its_own_findings():
    step = RandNeighbourSlicesd(count=40, cutting=1.0).set_random_state(0)
    found = {
        tuple(d["image"][:, 0, 0].tolist()): d["label"].unique().tolist() for d in step(numbered_slices())
    }
    assert found == {(1, 2, 3): [0, 7], (4, 5, 5): [0, 9]}, (
        "small and large are drawn; the last is its own above"
    )
    (sample,) = RandNeighbourSlicesd(count=1, cutting=1.0)(numbered_slices())
    assert sample["image"].shape == (3, 4, 5) and sample["label"].shape == (1, 4, 5)
    assert set(sample) == {"image", "label", "case_id"}


def test_other_slices_are_drawn_too_and_a_ct_without_findings_has_only_those():
    step = RandNeighbourSlicesd(count=60, cutting=0.0).set_random_state(0)
    assert {int(d["image"][1, 0, 0]) for d in step(numbered_slices())} == set(range(6))
    healthy = numbered_slices() | {"mask": torch.zeros(1, 4, 5, 6)}
    assert not any(d["label"].any() for d in RandNeighbourSlicesd(count=5, cutting=1.0)(healthy))


def test_findings_of_another_size_are_refused():
    with pytest.raises(InputError, match="expected both"):
        RandNeighbourSlicesd()(numbered_slices() | {"mask": torch.zeros(1, 4, 5, 7)})


# ---- answers -----------------------------------------------------------------------------------------------


def answer(*rows):
    found = torch.full((4, 8), torch.nan)
    for number, row in enumerate(rows):
        found[number] = torch.tensor(row)
    return found


def test_an_answer_becomes_boxes_where_simpleitk_says_they_are(source):
    item = LoadCased("image")({"image": source})
    item = Spacingd("image", (0.5, 1.0, 1.0), mode="nearest")(Orientationd("image", "RAS", labels=None)(item))
    box = [float(n) for n in bright(item["image"])]
    item["pred"] = answer([*box, 0.9, 0], [*box, 0.4, 0])
    found = ToVolumeBoxesd(classes=("nodule",), thresholds=0.5, remark="Learned little.")(item)["boxes"]
    expected = corners_lps_mm(source)
    assert found.scores.tolist() == pytest.approx([0.9]) and found.remark == "Learned little."
    assert np.allclose(found.corners[0], [expected["low"], expected["high"]], atol=0.6)
    assert found.classes == ("nodule",) and not found.masks


def test_masks_come_back_on_the_case_s_own_grid(source):
    item = Orientationd("image", "RAS", labels=None)(LoadCased("image")({"image": source}))
    inside = torch.as_tensor(item["image"])[0] > 500
    labels = (inside * 2).to(torch.int16)[None]
    item["pred"] = {
        "rows": answer([0, 0, 0, 1, 1, 1, 0.2, 0], [*bright(item["image"]), 0.9, 0]),
        "masks": labels,
    }
    steps = Compose([SplitAnswerd(), ToVolumeBoxesd(classes=("nodule",), mask_key="pred_masks")])
    found = steps(item)["boxes"]
    assert np.array_equal(found.mask(0), open_case(source).volume > 500)
    assert found.record()["boxes"]["found"][0]["volume_cc"] == pytest.approx(3 * 5 * 8 * 2 / 1000)


def test_of_a_turned_series_a_box_is_the_upright_one_around_it(tmp_path):
    turn = np.deg2rad(30)
    turned = (np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0)
    grid = stack_geometry((8, 16, 16), gaps_mm=2.0, orientation=turned)
    write_series(np.zeros(grid.shape), grid, tmp_path / "CT")
    item = LoadCased("image")({"image": str(tmp_path / "CT")})
    item["pred"] = answer([4, 4, 2, 8, 8, 4, 0.9, 0])
    labels = torch.zeros(item["image"].shape, dtype=torch.int16)
    labels[0, 4:8, 4:8, 2:4] = 1
    found = ToVolumeBoxesd(classes=("nodule",), mask_key="masks")({**item, "masks": labels})["boxes"]
    side = 4 * (np.cos(turn) + np.sin(turn))
    assert np.diff(found.corners[0], axis=0)[0] == pytest.approx([side, side, 4.0], abs=1e-4)
    assert np.argwhere(found.mask(0)).min(axis=0).tolist() == [2, 4, 4] and found.mask(0).sum() == 2 * 4 * 4


def test_no_row_above_the_threshold_is_an_answer(source):
    item = {**LoadCased("image")({"image": source}), "pred": answer([1, 1, 1, 2, 2, 2, 0.4, 0])}
    assert len(ToVolumeBoxesd(classes=("nodule",), thresholds=0.5)(item)["boxes"].scores) == 0
