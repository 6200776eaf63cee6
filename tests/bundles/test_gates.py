"""The shipped gates on real images: what belongs to a bundle passes, what does not is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medseg.bundles.config import build, load_config
from medseg.bundles.find import find_bundle
from medseg.errors import InputError
from medseg.transforms import CheckInputd, CropWithind

CHEST, THIGH = "rt/lung1_001/CT", "rt/sts/STS_024/CT"


@pytest.fixture(scope="module")
def door():
    """A function that shows one image to a bundle's own steps, up to its gate."""
    steps = {}

    def show(name: str, source, within: str | None = None) -> None:
        if name not in steps:
            bundle = find_bundle(name)
            parser = load_config(bundle, "inference", {"device": "cpu"})
            chain = build(bundle, parser, "preprocessing").transforms
            gate = next(n for n, step in enumerate(chain) if isinstance(step, CheckInputd))
            steps[name] = chain[: gate + 1]
        item = {"image": str(source)}
        for step in steps[name]:
            if isinstance(step, CropWithind):
                step.within = within
            item = step(item)

    return show


def test_a_chest_is_refused_by_the_head_and_neck_by_tag_and_by_look(shared_data, door):
    with pytest.raises(InputError, match="BodyPartExamined CHEST.*it looks different"):
        door("ct_head_neck", shared_data / CHEST)


def test_a_thigh_passes_in_a_region_where_limbs_belong_and_nowhere_else(shared_data, door):
    door("mm_gtv", shared_data / THIGH, "RS.dcm:GTV_Mass_CT")
    with pytest.raises(InputError, match="BodyPartExamined EXTREMITY.*it looks different"):
        door("ct_head_neck", shared_data / THIGH)


def test_a_lung_without_a_tag_is_refused_by_its_look(shared_data, door):
    for name in ("ct_head_neck", "mm_gtv"):
        with pytest.raises(InputError, match="learned from: it looks different"):
            door(name, shared_data / "rt/ibsi1_lung_gtv/dicom/image")


@pytest.mark.parametrize("patient", ["pt_2", "pt_17"])  # of validation and of test
def test_heads_and_necks_pass_and_their_labels_do_not(patient, shared_data, door):
    folder = shared_data / "training/openkbp" / patient
    door("ct_head_neck", folder / "ct.nii.gz")
    with pytest.raises(InputError, match="no Hounsfield units|label map"):
        door("ct_head_neck", folder / "structures.nii.gz")


@pytest.mark.parametrize("images", ["sts_pet/*/pet_suv.nii.gz", "sts_mr/*/mr_t1.nii.gz"])
def test_pet_and_mr_are_no_ct(images, shared_data, door):
    with pytest.raises(InputError, match="no Hounsfield units"):
        door("ct_head_neck", sorted((shared_data / "training").glob(images))[0])


def test_films_of_another_hospital_pass_upright_and_not_inverted(shared_data, door, tmp_path):
    films = sorted((shared_data / "cxr/nih_mass_nodule/images").iterdir())[:6]
    for film in films:
        door("cxr_anatomy", film)
        grey = np.asarray(Image.open(film).convert("L"))
        Image.fromarray(255 - grey).save(tmp_path / "inverted.png")
        with pytest.raises(InputError, match="it looks different"):
            door("cxr_anatomy", tmp_path / "inverted.png")


def test_a_photograph_of_the_fundus_in_grey_is_no_chest(shared_data, door, tmp_path):
    for number, photograph in enumerate(sorted((shared_data / "fundus/hei_med/images").iterdir())[:4]):
        Image.open(photograph).convert("L").save(tmp_path / f"{number}.png")
        with pytest.raises(InputError, match="it looks different"):
            door("cxr_anatomy", tmp_path / f"{number}.png")
