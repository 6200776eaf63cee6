"""Boxes follow the image: a known point lies in its box before and behind every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chest_files import ramp, write_dx
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Resized, ResizeWithPadOrCropd, Rotate90d, Rotated

from medseg.errors import BundleError, InputError
from medseg.transforms import BoxTargetd, FilmGreyd, LoadRadiographd, RandBoxAffined, ToBoxesd
from medseg.transforms.detections import thresholds_of

SPOT = (40, 52)  # (row, column) of the bright square's first pixel, 4 x 6 pixels large
BOX = {"class": "mass", "low": [40, 52], "high": [44, 58]}


def film(tmp_path, rows=80, columns=100):
    pixels = ramp(rows, columns) // 4
    pixels[SPOT[0] : SPOT[0] + 4, SPOT[1] : SPOT[1] + 6] = 4095
    return str(write_dx(tmp_path / "film.dcm", pixels, WindowCenter=2048, WindowWidth=4096))


def chain(*steps):
    return Compose([LoadRadiographd("image"), *steps, BoxTargetd(classes=("mass",), most=4)])


def bright(image):
    """The box around the brightest pixels: (low row, low column, high row, high column)."""
    rows, columns = np.nonzero(np.asarray(image)[0] > 0.75)
    return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


@pytest.mark.parametrize(
    "step",
    [
        Resized("image", (160, 200), mode="nearest"),
        Flipd("image", 0),
        Flipd("image", 1),
        Rotate90d("image", 1),
        Compose(
            [
                Resized("image", 200, size_mode="longest", mode="nearest"),
                ResizeWithPadOrCropd("image", (256, 256)),
                Flipd("image", 1),
            ]
        ),
    ],
)
def test_a_box_follows_what_the_image_went_through(step, tmp_path):
    item = chain(step)({"image": film(tmp_path), "label": [BOX]})
    assert item["label"][0].tolist() == [*map(float, bright(item["image"])), 0.0]
    assert item["label"][1:].isnan().all() and item["label"].shape == (4, 5)


def test_a_normal_film_has_rows_of_nothing(tmp_path):
    assert chain()({"image": film(tmp_path), "label": []})["label"].isnan().all()


def test_an_image_that_was_turned_alone_is_refused(tmp_path):
    turned = Rotated("image", 0.1, keep_size=True)(LoadRadiographd("image")({"image": film(tmp_path)}))
    with pytest.raises(InputError, match="turned obliquely; turn both at once"):
        BoxTargetd(classes=("mass",))({**turned, "label": [BOX]})


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ({"low": [40, 52], "high": [81, 58]}, "leaves the image of 80 rows and 100 columns"),
        ({"low": [-1, 52], "high": [44, 58]}, "leaves the image"),
        ({"low": [44, 52], "high": [40, 58]}, "corners swapped"),
        ({"low": [40, 52], "high": [40, 58]}, "has no area"),
        ({"low": [40, float("nan")], "high": [44, 58]}, "no number"),
        ({"low": [40], "high": [44, 58]}, "not {class, low, high} of two numbers"),
        ({"high": [44, 58]}, "not {class, low, high}"),
        ({"class": "lump", "low": [40, 52], "high": [44, 58]}, "class 'lump' is unknown; expected mass"),
    ],
)
def test_boxes_that_nobody_can_have_meant_are_refused_in_one_line(box, words, tmp_path):
    with pytest.raises(InputError, match=words) as refusal:
        BoxTargetd(classes=("mass",))(
            {**LoadRadiographd("image")({"image": film(tmp_path)}), "label": [BOX, box]}
        )
    assert "\n" not in str(refusal.value)


def test_too_many_boxes_and_merged_classes(tmp_path):
    item = LoadRadiographd("image")({"image": film(tmp_path)})
    with pytest.raises(InputError, match="5 boxes, at most 4"):
        BoxTargetd(classes=("mass",), most=4)({**item, "label": [BOX] * 5})
    one = BoxTargetd(classes=("mass or nodule",), merged={"mass": "mass or nodule"})
    assert one({**item, "label": [BOX]})["label"][0, 4] == 0


@pytest.mark.parametrize("options", [{"turn_deg": 5.0}, {"turn_deg": 0.0, "shift": 0.2}, {"flip": 1.0}])
def test_turned_moved_and_mirrored_together(options, tmp_path):
    item = chain()({"image": film(tmp_path), "label": [BOX]})
    item["image"] = item["image"] * 0
    item["image"][0, 40:44, 52:58] = 1.0
    still = {"turn_deg": 0.0, "shift": 0.0, "scale": (1.0, 1.0)}
    for seed in range(4):
        torch.manual_seed(seed)
        moved = RandBoxAffined(**{**still, **options})(dict(item))
        rows, columns = np.nonzero(moved["image"][0].numpy() > 0.5)
        middle = [(rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2]
        box = moved["label"][0]
        assert [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] == pytest.approx(middle, abs=1.0)
        assert box[2] - box[0] >= 4 - 1e-3 and box[3] - box[1] >= 6 - 1e-3


def test_a_point_turned_about_the_middle_by_hand():
    # The middle of the right edge, turned clockwise by 90 degrees, is the middle of the lower edge.
    item = {"image": torch.zeros(1, 41, 41), "label": torch.tensor([[20.0, 38.0, 21.0, 41.0, 0.0]])}
    transform = RandBoxAffined(turn_deg=0.0, shift=0.0, scale=(1.0, 1.0))
    transform.move.transforms[0].degrees = (90.0, 90.0)
    assert transform(item)["label"][0].tolist() == pytest.approx([38, 20, 41, 21, 0], abs=1e-3)


def test_a_box_that_leaves_the_image_is_gone():
    item = {"image": torch.zeros(1, 40, 40), "label": torch.tensor([[0.0, 0.0, 4.0, 4.0, 0.0]])}
    transform = RandBoxAffined(turn_deg=0.0, shift=0.0, scale=(3.0, 3.0))
    assert transform(item)["label"].isnan().all()


def test_answers_come_back_to_the_film_s_own_pixels(tmp_path):
    prepared = chain(Resized("image", 200, size_mode="longest"), ResizeWithPadOrCropd("image", (256, 256)))
    item = prepared({"image": film(tmp_path), "label": [BOX]})
    low = [*item["label"][0, :4].tolist(), 0.9, 0.0]
    item["pred"] = torch.tensor([low, [*low[:4], 0.2, 0.0], [0, 0, 10, 10, 0.8, 0.0], [np.nan] * 6])
    boxes = ToBoxesd(classes=("mass",), thresholds=0.5, remark="Say so.")(item)["boxes"]
    assert boxes.corners[0].ravel().tolist() == pytest.approx([40, 52, 44, 58], abs=1e-4)
    assert boxes.scores.tolist() == pytest.approx([0.9])  # 0.2 is below, and the third lies beside the film
    assert boxes.record()["boxes"]["remark"] == "Say so."


def test_thresholds_are_a_number_a_map_or_a_file(tmp_path):
    (tmp_path / "t.json").write_text('{"thresholds": {"mass": 0.3}}')
    assert thresholds_of(str(tmp_path / "t.json"), ("mass",)) == {"mass": 0.3}
    assert thresholds_of(0.5, ("a", "b")) == {"a": 0.5, "b": 0.5}
    with pytest.raises(BundleError, match="no threshold from 0 to 1 of class 'b'"):
        thresholds_of({"a": 0.5}, ("a", "b"))
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(BundleError, match="no thresholds"):
        thresholds_of(str(tmp_path / "t.json"), ("mass",))


def test_grey_values_by_window_percentile_and_logarithm():
    image = {"image": MetaTensor(torch.linspace(0, 1, 101).reshape(1, 1, 101))}
    window = FilmGreyd(window=(0.2, 0.6))(dict(image))["image"][0, 0]
    assert window[[10, 20, 40, 60, 90]].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-5)
    clipped = FilmGreyd(clip=(10, 90))(dict(image))["image"][0, 0]
    assert clipped[[5, 50, 95]].tolist() == pytest.approx([0, 0.5, 1], abs=1e-5)
    logged = FilmGreyd(window=(0.0, 1.0), log_gain=9.0)(dict(image))["image"][0, 0]
    assert logged[[0, 100]].tolist() == [0, 1]
    assert float(logged[50]) == pytest.approx(np.log(5.5) / np.log(10), abs=1e-5)
    with pytest.raises(InputError, match="expected low, then high"):
        FilmGreyd(window=(0.6, 0.2))
