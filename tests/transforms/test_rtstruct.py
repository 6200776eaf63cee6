"""Structure sets as MONAI labels: the same voxels as read_rtstruct, NaN for what nobody contoured, and it
trains."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.transforms import (
    Compose,
    Lambdad,
    RandCropByPosNegLabeld,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
)

from medseg.cases.volume import open_case, resample
from medseg.dicom import read_rtstruct, read_series, write_rtstruct
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.losses.per_sample import DiceBCEPerSample
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series
from medseg.transforms import LoadCased
from medseg.transforms.rtstruct import LoadRTStructd, structure_channels

STRUCTURES = {"Target": ["gtv.*"], "Lung_L": [], "Heart": []}
pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.MedsegWarning")


def write_case(folder, geometry=None, names=("GTV", "LEFT LUNG"), **options):
    """A phantom's CT and a structure set with its ball and its letter, under the names of a clinic; its
    item."""
    phantom = chiral_phantom(geometry) if geometry is not None else chiral_phantom()
    write_series(phantom.volume_hu, phantom.geometry, folder / "CT", **options)
    masks = dict(zip(names, (phantom.masks["Marker"], phantom.masks["L"]), strict=True))
    write_rtstruct(masks, read_series(folder / "CT"), folder / "RS.dcm")
    return {"image": str(folder / "CT"), "label": str(folder / "RS.dcm")}


def load(item, structures=STRUCTURES, **options):
    return LoadRTStructd("label", structures, **options)(LoadCased("image")(item))


def test_the_label_has_the_voxels_of_read_rtstruct_on_the_grid_of_the_image(tmp_path):
    item = write_case(tmp_path)
    loaded = load(item)
    masks = read_rtstruct(item["label"], read_series(item["image"]))
    label, image = loaded["label"], loaded["image"]
    assert label.shape == (3, *image.shape[1:]) and label.dtype == torch.float32
    assert torch.equal(label.affine, image.affine)
    for channel, name in ((0, "GTV"), (1, "LEFT LUNG")):
        assert np.array_equal(label[channel].numpy().transpose(2, 1, 0), masks[name].astype(np.float32))
    assert label.meta["rois"] == "Target=GTV, Lung_L=LEFT LUNG, Heart=(none)"


def test_what_nobody_contoured_is_nan_throughout(tmp_path):
    label = load(write_case(tmp_path))["label"]
    assert torch.isnan(label[2]).all() and not torch.isnan(label[:2]).any()


def test_the_image_may_still_be_a_path(tmp_path):
    item = write_case(tmp_path)
    alone = LoadRTStructd("label", STRUCTURES)(item)["label"]
    assert torch.equal(torch.nan_to_num(alone, 9.0), torch.nan_to_num(load(item)["label"], 9.0))


def test_the_label_of_an_uneven_tilted_stack_follows_the_image_onto_its_grid(tmp_path):
    geometry = stack_geometry((14, 40, 44), gaps_mm=[2.0] * 6 + [4.0] * 7, tilt_degrees=10)
    item = write_case(tmp_path, geometry)
    loaded = load(item)
    case = open_case(item["image"])
    grid = case.geometry.regular_grid()
    assert grid.shape != case.geometry.shape
    mask = read_rtstruct(item["label"], case.series)["LEFT LUNG"]
    expected = resample(mask.astype(np.float32), case.geometry, grid) >= 0.5
    assert loaded["label"].shape[1:] == loaded["image"].shape[1:] == grid.shape[::-1]
    assert np.array_equal(loaded["label"][1].numpy().transpose(2, 1, 0) > 0, expected)
    # The bright letter of the phantom stays under its label: the same place in the patient.
    values_hu = loaded["image"][0][loaded["label"][1] > 0]
    assert float(values_hu.median()) == pytest.approx(float(np.median(case.volume[mask])), abs=1)


def test_what_the_regular_grid_of_an_uneven_stack_misses_is_nan_and_never_zero(tmp_path):
    geometry = stack_geometry((14, 40, 44), gaps_mm=[2.0] * 6 + [4.0] * 7)
    phantom = chiral_phantom(geometry)
    write_series(phantom.volume_hu, geometry, tmp_path / "CT")
    # Slices 1 and 2 lie 2 mm from the next, the grid's 4 mm apart: it meets one of the two.
    slices = {f"Thin{number}": np.zeros(geometry.shape, bool) for number in (1, 2)}
    slices["Thin1"][1, 20:24, 20:24] = slices["Thin2"][2, 20:24, 20:24] = True
    write_rtstruct(slices, read_series(tmp_path / "CT"), tmp_path / "RS.dcm")
    item = {"image": str(tmp_path / "CT"), "label": str(tmp_path / "RS.dcm")}
    with pytest.warns(MedsegWarning, match="ROI 'Thin1' lies between the slices of the regular grid"):
        label = load(item, {"Thin1": [], "Thin2": []})["label"]
    assert torch.isnan(label[0]).all() and label[1].sum() == 16
    assert label.meta["rois"] == "Thin1=(none), Thin2=Thin2"


def test_an_item_may_say_which_roi_is_which(tmp_path):
    item = write_case(tmp_path, names=("GTV", "GTV_old"))
    with pytest.raises(StructureError, match="'GTV', 'GTV_old' could all be Target"):
        load(item)
    loaded = load({**item, "rois": {"Target": "GTV_old"}})
    assert loaded["label"].meta["rois"].startswith("Target=GTV_old, Lung_L=(none)")
    assert "rois" not in loaded
    preferred = load(item, {"Target": ["gtv", "gtv.*"]})
    assert preferred["label"].meta["rois"] == "Target=GTV"


def test_wrong_maps_and_items_are_refused(tmp_path):
    item = write_case(tmp_path)
    with pytest.raises(StructureError, match="none of Heart is among its ROIs GTV, LEFT LUNG"):
        load(item, {"Heart": []})
    with pytest.raises(StructureError, match="no contours of 'Gone'"):
        load({**item, "rois": {"Target": "Gone"}})
    with pytest.raises(InputError, match="named for Liver"):
        load({**item, "rois": {"Liver": "GTV"}})
    with pytest.raises(InputError, match="list of regular expressions"):
        LoadRTStructd("label", {"GTV": "gtv"})


def test_an_image_that_was_moved_before_its_structures_were_loaded_is_refused(tmp_path):
    moved = Spacingd("image", (2.0, 2.0, 2.0))(LoadCased("image")(write_case(tmp_path)))
    with pytest.raises(GeometryError, match="right behind the transform that loads the image"):
        LoadRTStructd("label", STRUCTURES)(moved)


def test_a_set_of_another_frame_is_refused_unless_that_is_accepted(tmp_path):
    item = write_case(tmp_path / "one")
    other = write_case(
        tmp_path / "other", replace(chiral_phantom().geometry, frame_of_reference_uid="1.2.3.4")
    )
    mixed = {"image": item["image"], "label": other["label"]}
    with pytest.raises(GeometryError, match="Frame of Reference 1.2.3.4"):
        load(mixed)
    assert load(mixed, allow=["frame_of_reference"])["label"].shape[0] == 3


def test_a_nifti_image_has_no_series_to_lay_contours_on(tmp_path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="needs the DICOM series"):
        structure_channels("RS.dcm", open_case(str(tmp_path / "ct.nii.gz")), STRUCTURES)


def test_what_is_odd_about_the_set_is_said_with_its_name(tmp_path):
    import pydicom

    item = write_case(tmp_path)
    dataset = pydicom.dcmread(item["label"])
    del dataset.ROIContourSequence[0].ContourSequence[1]
    dataset.save_as(item["label"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(item)
    assert any(
        "RS.dcm: ROI 'GTV': 1 slices inside it" in str(w.message)
        for w in caught
        if w.category is MedsegWarning
    )


# ---- training ----------------------------------------------------------------------------------------------


def one_step(items, structures, spacing_mm, patch, neg=1):
    """(loss, gradient norm of the last layer) of one training step of a MONAI pipeline on these items."""
    steps = Compose(
        [
            LoadCased("image"),
            LoadRTStructd("label", structures),
            Spacingd(["image", "label"], spacing_mm, mode=("bilinear", "nearest")),
            ScaleIntensityRanged("image", -200, 300, 0, 1, clip=True),
            SpatialPadd(["image", "label"], patch),
            Lambdad("label", lambda label: (label > 0).any(0, keepdim=True), overwrite="contoured"),
            RandCropByPosNegLabeld(
                ["image", "label", "contoured"], "contoured", patch, neg=neg, num_samples=2
            ),
        ]
    ).set_random_state(0)
    dataset = CacheDataset(items, steps, num_workers=2, progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=len(items), collate_fn=list_data_collate)))
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, len(structures), 3, padding=1)
    loss = DiceBCEPerSample()(network(batch["image"]), batch["label"]).mean()
    loss.backward()
    return batch, float(loss), network.weight.grad


def test_a_monai_pipeline_trains_on_series_and_structure_sets_without_a_file_between(tmp_path):
    items = [write_case(tmp_path / "one"), write_case(tmp_path / "two", names=("gtv 2", "Lung_L"))]
    batch, loss, gradient = one_step(items, STRUCTURES, (1.5, 1.5, 3.0), (16, 16, 8))
    assert batch["label"].shape == (4, 3, 16, 16, 8)
    assert torch.isnan(batch["label"][:, 2]).all() and bool((batch["label"][:, :2] > 0).any())
    assert np.isfinite(loss) and torch.isfinite(gradient).all()
    assert not gradient[2].any() and gradient[0].any()


def test_crops_are_drawn_around_the_first_structure_although_others_are_nan(tmp_path):
    item = write_case(tmp_path, names=("GTV", "Other"))
    batch, *_ = one_step([item] * 2, {"GTV": [], "Heart": []}, (1.5, 1.5, 3.0), (4, 4, 2), neg=0)
    middle = batch["label"][:, 0, 2, 2, 1]
    assert middle.tolist() == [1.0] * 4 and torch.isnan(batch["label"][:, 1]).all()


def test_a_monai_pipeline_trains_on_real_sarcoma_sets(shared_data):
    cases = [
        shared_data / "rt" / "sts" / f"STS_{number}" for number in ("019", "025")
    ]  # head first and feet first
    items = [{"image": str(case / "CT"), "label": str(case / "RS.dcm")} for case in cases]
    batch, loss, gradient = one_step(items, {"GTV": ["gtv_mass.*"]}, (2.0, 2.0, 3.0), (32, 32, 16))
    assert batch["label"].sum() > 0 and np.isfinite(loss) and gradient.any()
