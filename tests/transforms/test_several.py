"""LoadSeriesd: further series on whatever grid the image has come to."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import Compose, Orientationd, Spacingd
from patient_series import ball, ct_geometry, write_patient

from medseg.cases.multimodal import Multimodal
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.geometry import Geometry
from medseg.transforms import CropWithind, LoadCased, LoadSeriesd
from medseg.transforms.readers import case_of


@pytest.fixture(scope="module")
def item(tmp_path_factory):
    folder = write_patient(tmp_path_factory.mktemp("series") / "P1")
    others = {"pt": str(folder / "PET"), "mr": str(folder / "MR")}
    return {"image": str(folder / "CT"), **others, "registrations": [str(folder / "REG.dcm")]}


def truth_on(image) -> np.ndarray:
    """The ball at the voxels (x, y, z) of an image."""
    grid = Geometry.from_ras_affine(np.asarray(image.affine), image.shape[1:])
    return ball(grid).transpose(2, 1, 0)


def test_series_come_on_the_grid_of_a_cropped_turned_and_resampled_image(item):
    chain = Compose(
        [
            LoadCased("image"),
            CropWithind("image", within="-12,28,-24,16,-14,22"),
            Orientationd("image", axcodes="PSL", labels=None),
            Spacingd("image", pixdim=(1.5, 2.5, 1.0)),
            LoadSeriesd(("pt", "mr")),
        ]
    )
    made = chain(item)
    inside = truth_on(made["image"])
    assert made["pt"].shape == made["mr"].shape == made["image"].shape
    assert np.allclose(made["pt"].affine, made["image"].affine)
    # 800 within the ball and 200 without, but for the voxels between.
    found = made["mr"][0].numpy() > 500
    assert 2 * (found & inside).sum() / (found.sum() + inside.sum()) > 0.95
    assert made["mr_covered"].min() == 1.0
    middle = made["pt"][0].numpy()[inside]
    assert middle.max() == pytest.approx(5.0, abs=0.2) and middle.mean() > 3.5


def test_what_a_series_does_not_reach_is_zero_and_not_covered_and_said(item):
    with pytest.warns(MedsegWarning, match=r"MR series 2\.25\.\d+ covers 6\d % of what the network sees"):
        made = Compose([LoadCased("image"), LoadSeriesd(("pt", "mr"))])(item)
    covered = made["mr_covered"][0].numpy() == 1
    assert 0.6 < covered.mean() < 0.7 and not made["mr"][0].numpy()[~covered].any()
    assert made["pt_covered"].min() == 1.0


def test_the_case_of_the_image_is_multimodal_and_knows_what_is_missing(item):
    without = {key: value for key, value in item.items() if key != "mr"}
    made = Compose([LoadCased("image"), LoadSeriesd(("pt", "mr"))])(without)
    case = case_of(made["image"].meta)
    assert isinstance(case, Multimodal) and case.missing == ("mr",) and "mr" not in made
    assert case.series_in_words() == "CT + PT, no MR"
    assert case.geometry.shape == ct_geometry().shape


def test_a_series_that_covers_nothing_and_a_key_that_is_the_reference_are_refused(item):
    chain = Compose([LoadCased("image"), CropWithind("image", within="-20,30,-30,20,30,34.5")])
    with pytest.raises(GeometryError, match="covers nothing of what the network sees"):
        LoadSeriesd(("mr",))(chain(item))
    with pytest.raises(InputError, match="keys hold image"):
        LoadSeriesd(("image", "pt"))
