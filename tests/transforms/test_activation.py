"""Boxes where a map is bright, on the film that the map lies on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.cases.radiograph import open_radiograph
from medseg.cases.results import Labels
from medseg.errors import InputError
from medseg.transforms import MapToBoxesd, SaveBoxTabled


@pytest.fixture
def item(tmp_path):
    """A film of 40 x 50 pixels with labels and a map of two classes: a bright block each, and a speck."""
    Image.fromarray(np.arange(2000, dtype=np.uint8).reshape(40, 50)).save(tmp_path / "film.png")
    heat = torch.zeros(2, 40, 50)
    heat[0, 10:20, 5:15] = 0.8
    heat[1, 20:30, 30:48] = 0.4
    heat[1, 0, 0] = 0.4
    case = open_radiograph(tmp_path / "film.png")
    return {"map": heat, "labels": Labels(case, {"sick": 0.7}), "case_name": "film"}


def test_a_bright_block_is_a_box_of_its_class_in_the_film_s_pixels(item, tmp_path):
    done = MapToBoxesd(names=("mass", "nodule"))(item)
    boxes = done["boxes"]
    assert boxes.classes == ("mass", "nodule") and boxes.scores == pytest.approx([0.8, 0.4])
    assert boxes.corners.tolist() == [[[10, 5], [20, 15]], [[20, 30], [30, 48]]]
    assert boxes.remark == "Where the network looked; no finding."
    SaveBoxTabled(output_dir=tmp_path)(done)
    (table,) = tmp_path.rglob("boxes.csv")
    assert "film.png,mass,5.00,10.00,15.00,20.00,0.8" in table.read_text()


def test_share_and_size_decide_what_is_a_box(item):
    assert len(MapToBoxesd(names=("a", "b"), least_pixels=1)(item)["boxes"].scores) == 3
    item["map"][0, 12, 7] = 1.0
    corners = MapToBoxesd(names=("a", "b"), share=0.9, least_pixels=1)(item)["boxes"].corners
    assert corners[0].tolist() == [[12, 7], [13, 8]]


def test_a_map_of_zeros_has_no_boxes(item):
    item["map"] = torch.zeros(1, 40, 50)
    assert MapToBoxesd(names=("a",))(item)["boxes"].corners.shape == (0, 2, 2)


def test_a_map_on_another_grid_and_a_share_of_nothing_are_refused(item):
    with pytest.raises(InputError, match="for 1 classes on a film of"):
        MapToBoxesd(names=("a",))(item)
    with pytest.raises(InputError, match="share 0"):
        MapToBoxesd(share=0)
