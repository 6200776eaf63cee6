"""Films cut to the box of an annotation tool, and maps put back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from PIL import Image

from medseg.errors import InputError
from medseg.transforms import CropToDrawnBoxd, LoadRadiographd, MirrorRightd

# LabelImg counts from 1 and its last pixel is inside: columns 3 to 6 and rows 2 to 4 of 8 x 10 pixels.
CORNERS = "<xmin>3</xmin><ymin>2</ymin><xmax>6</xmax><ymax>4</ymax>"
BOX = f"<object><name>neck</name><bndbox>{CORNERS}</bndbox></object>"


def draw(path, *boxes):
    path.write_text(f"<annotation><filename>film.png</filename>{''.join(boxes)}</annotation>")


@pytest.fixture
def film(tmp_path):
    """A film of 8 rows and 10 columns whose pixels all differ."""
    pixels = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800
    Image.fromarray(pixels).save(tmp_path / "film.png")
    return tmp_path / "film.png", pixels


def cut(film, boxes):
    item = LoadRadiographd("image")({"image": str(film)})
    return CropToDrawnBoxd("image", boxes)(item)["image"]


def test_the_pixels_of_the_box_are_kept_and_others_are_not(film, tmp_path):
    path, pixels = film
    draw(tmp_path / "film.xml", BOX)
    expected = pixels[1:4, 2:6] / 65535
    assert np.allclose(cut(path, "beside")[0].numpy(), expected, atol=1e-6)
    (tmp_path / "boxes").mkdir()
    (tmp_path / "film.xml").rename(tmp_path / "boxes" / "film.xml")
    assert np.allclose(cut(path, tmp_path / "boxes")[0].numpy(), expected, atol=1e-6)
    assert cut(path, None).shape == (1, 8, 10)


def answer(folder, *boxes):
    """What `medseg segment` writes of a film with boxes, the best first."""
    folder.mkdir(parents=True)
    found = [{"class": "neck", "score": 0.9, "low": low, "high": high} for low, high in boxes]
    (folder / "boxes.json").write_text(json.dumps({"boxes": {"unit": "pixels", "found": found}}))


def test_of_a_detectors_boxes_the_best_is_kept_and_a_drawn_one_goes_before(film, tmp_path):
    path, pixels = film
    answer(tmp_path / "found" / "film", ([0.4, 2.0], [3.2, 5.0]), ([0, 0], [8, 10]))
    assert np.allclose(cut(path, tmp_path / "found")[0].numpy(), pixels[0:4, 2:5] / 65535, atol=1e-6)
    draw(tmp_path / "found" / "film.xml", BOX)
    assert np.allclose(cut(path, tmp_path / "found")[0].numpy(), pixels[1:4, 2:6] / 65535, atol=1e-6)


def test_a_film_on_which_a_detector_found_nothing_is_refused(film, tmp_path):
    answer(tmp_path / "found" / "film")
    with pytest.raises(InputError, match="boxes.json: 0 boxes; expected one"):
        cut(film[0], tmp_path / "found")
    (tmp_path / "found" / "film" / "boxes.json").write_text("[]")
    with pytest.raises(InputError, match="no boxes of `medseg segment`"):
        cut(film[0], tmp_path / "found")


def test_a_link_to_a_film_finds_the_box_beside_the_film(film, tmp_path):
    path, _ = film
    draw(tmp_path / "film.xml", BOX)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "other.png").symlink_to(path)
    assert cut(tmp_path / "links" / "other.png", "beside").shape == (1, 3, 4)


def test_a_map_of_a_mirrored_cut_film_comes_back_to_its_place(film, tmp_path):
    path, _ = film
    draw(tmp_path / "film.xml", BOX)
    steps = Compose(
        [LoadRadiographd("image"), CropToDrawnBoxd("image", "beside"), MirrorRightd("image", side="R")]
    )
    item = steps({"image": str(path)})
    seen = torch.zeros(1, 3, 4)
    seen[0, 0, 3] = 1  # at the right end as the network saw it, so at the left end of the box on the film
    item["map"] = MetaTensor(seen, meta=dict(item["image"].meta))
    back = Invertd("map", steps, orig_keys="image", nearest_interp=False)(item)["map"]
    assert back.shape == (1, 8, 10)
    assert torch.nonzero(back[0]).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ((), "0 boxes; expected one"),
        ((BOX, BOX), "2 boxes; expected one"),
        ((BOX.replace("<xmax>6", "<xmax>60"),), "columns 2 to 60 on a film of 8 x 10"),
        (None, "film.xml: no such file"),
    ],
)
def test_a_film_that_cannot_be_cut_is_refused(film, tmp_path, boxes, words):
    if boxes is not None:
        draw(tmp_path / "film.xml", *boxes)
    with pytest.raises(InputError, match=words):
        cut(film[0], "beside")
