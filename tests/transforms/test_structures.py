"""From probabilities to structures: specks, margins, and the files' folder names."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.cases.results import Structures
from medseg.cases.volume import Case
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantoms.series import stack_geometry
from medseg.shapes.packed import PackedMasks, pack
from medseg.structures.structure import Structure
from medseg.transforms import (
    KeepComponentsd,
    MarginStructuresd,
    RestoreStructuresd,
    ToStructuresd,
    case_folder,
)

GTV = Structure("GTV", interpreted_type="GTV")


def case(mask):
    geometry = stack_geometry(mask.shape, gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0))
    return Structures(Case("made by hand", np.zeros(mask.shape, np.float32), geometry, None), {GTV: mask})


def two_pieces():
    """One piece of 8 x 10 x 10 voxels (1.6 cc at 2 x 1 x 1 mm) and one of 2 x 5 x 5 (0.1 cc)."""
    probability = np.full((20, 30, 30), 0.2, dtype=np.float32)
    probability[2:10, 2:12, 2:12] = 0.9
    probability[15:17, 20:25, 20:25] = 0.8
    return probability


def test_specks_below_the_smallest_volume_go_and_the_halo_of_the_rest_stays():
    kept = KeepComponentsd(min_volume_cc=0.5)({"structures": case(two_pieces())})["structures"].masks[GTV]
    assert (kept >= 0.5).sum() == 800
    assert kept[15, 22, 22] == 0 and kept[1, 1, 1] == np.float32(0.2)
    both = KeepComponentsd(min_volume_cc=0.05)({"structures": case(two_pieces())})["structures"].masks[GTV]
    assert (both >= 0.5).sum() == 850


def test_only_the_largest_piece_stays_when_asked():
    kept = KeepComponentsd(largest_only=True)({"structures": case(two_pieces())})["structures"].masks[GTV]
    assert (kept >= 0.5).sum() == 800


def test_only_the_named_structures_lose_their_smaller_pieces():
    one = case(two_pieces())
    ptv = Structure("PTV", interpreted_type="PTV")
    both = one.add([(ptv, two_pieces())])
    kept = KeepComponentsd(largest_only=True, names=["GTV"])({"structures": both})["structures"].masks
    assert kept[GTV][15:17].max() < 0.5 <= kept[ptv][15:17].max()
    with pytest.raises(StructureError, match="no structure Gtv"):
        KeepComponentsd(largest_only=True, names=["Gtv"])({"structures": both})


def test_a_piece_farther_from_the_largest_than_allowed_is_left_out_and_told():
    """The nearest corners are 6 slices of 2 mm, 9 rows and 9 columns of 1 mm apart: sqrt(306) = 17.49 mm."""
    keep = KeepComponentsd(max_gap_mm=17.4)
    with pytest.warns(MedsegWarning, match=r"GTV: 0\.1 cc left out, 17 mm or more .*up to 17\.4 mm"):
        kept = keep({"structures": case(two_pieces())})["structures"].masks[GTV]
    assert (kept >= 0.5).sum() == 800 and kept[1, 1, 1] == np.float32(0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for all_kept in (KeepComponentsd(max_gap_mm=17.6), KeepComponentsd(max_gap_mm=None)):
            kept = all_kept({"structures": case(two_pieces())})["structures"].masks[GTV]
            assert (kept >= 0.5).sum() == 850
        KeepComponentsd(min_volume_cc=0.5, max_gap_mm=0)(
            {"structures": case(two_pieces())}
        )  # specks: not told
    for wrong in (-1, float("nan"), "30", True):
        with pytest.raises(InputError, match=f"max_gap_mm is {wrong!r}; expected null"):
            KeepComponentsd(max_gap_mm=wrong)


def test_the_gap_between_pieces_is_measured_over_uneven_slices_and_in_packed_masks():
    """Between slices 3 and 4 lie 20 mm, between all others 1: from slice 3 to 8 are 24 mm."""
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[1:4, 2:12, 2:12] = mask[8, 2:5, 2:5] = True
    geometry = stack_geometry(mask.shape, gaps_mm=[1.0] * 3 + [20.0] + [1.0] * 7, pixel_spacing_mm=(1.0, 1.0))
    packed = PackedMasks(mask.shape, {GTV: pack(mask[1:], (1, 0, 0))})
    structures = Structures(Case("made by hand", np.zeros(mask.shape, np.float32), geometry, None), packed)
    whole = KeepComponentsd(max_gap_mm=24.1)({"structures": structures})["structures"].masks[GTV]
    assert whole[8].any()
    with pytest.warns(MedsegWarning, match="24 mm or more"):
        kept = KeepComponentsd(max_gap_mm=23.9)({"structures": structures})["structures"].masks[GTV]
    assert np.flatnonzero(kept.any((1, 2))).tolist() == [1, 2, 3]


def test_a_structure_of_nothing_but_specks_becomes_empty():
    kept = KeepComponentsd(min_volume_cc=5.0)({"structures": case(two_pieces())})["structures"].masks[GTV]
    assert not (kept >= 0.5).any()


def margins(ctv_mm, ptv_mm):
    return MarginStructuresd(
        margins=[
            {"source": "GTV", "name": "CTV", "interpreted_type": "CTV", "margin_mm": ctv_mm},
            {"source": "CTV", "name": "PTV", "interpreted_type": "PTV", "margin_mm": ptv_mm},
        ]
    )


def names(result):
    return [structure.name for structure in result["structures"].masks]


def test_a_margin_of_zero_adds_nothing_and_the_next_grows_from_its_source():
    item = {"structures": case(two_pieces())}
    assert names(margins(0, 0)(item)) == ["GTV"]
    assert names(margins(4, 0)(item)) == ["GTV", "CTV"]
    assert names(margins(4, 2)(item)) == ["GTV", "CTV", "PTV"]
    only_ptv = margins(0, 6)(item)["structures"].masks
    both = margins(6, 0)(item)["structures"].masks
    ptv, ctv = (
        [m for s, m in masks.items() if s.name == name][0]
        for masks, name in ((only_ptv, "PTV"), (both, "CTV"))
    )
    assert np.array_equal(ptv, ctv)


def test_margins_that_cannot_be_meant_are_refused():
    with pytest.raises(InputError, match="-2 mm"):
        margins(-2, 0)
    with pytest.raises(InputError, match="expected the fields"):
        MarginStructuresd(margins=[{"source": "GTV", "name": "CTV"}])
    lost = MarginStructuresd(
        margins=[{"source": "ITV", "name": "PTV", "interpreted_type": "PTV", "margin_mm": 3}]
    )
    with pytest.raises(StructureError, match="no structure ITV; have GTV"):
        lost({"structures": case(two_pieces())})


def test_a_mask_of_another_shape_cannot_join_a_case():
    good = case(two_pieces())
    with pytest.raises(StructureError, match="array"):
        good.add([(GTV, np.zeros((3, 3, 3), dtype=bool))])


def test_unknown_fields_of_a_structure_are_refused():
    with pytest.raises(StructureError, match="expected the fields"):
        ToStructuresd(structures=[{"name": "GTV", "color": "red"}])


def test_case_folders_stay_inside_the_output_folder(tmp_path):
    assert case_folder("../../etc", tmp_path).parent == tmp_path
    assert case_folder("Müller/CT 1", tmp_path).name == "Müller_CT_1"


def test_on_a_single_slice_whose_volume_nobody_knows_nothing_is_dropped_as_too_small():
    probability = two_pieces()[5:6]
    with pytest.warns(MedsegWarning, match="no volume"):
        kept = KeepComponentsd(min_volume_cc=5.0)({"structures": case(probability)})["structures"].masks[GTV]
    assert np.array_equal(kept, probability) and (kept >= 0.5).sum() == 100


@pytest.mark.parametrize(("side", "refused"), [(30, False), (60, True)])
def test_a_region_larger_than_the_network_ever_saw_is_refused(side, refused, tmp_path):
    from medseg.phantoms.series import write_series
    from medseg.transforms import CropWithind, LoadCased

    geometry = stack_geometry((10, side, 20), gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0))
    write_series(np.zeros(geometry.shape), geometry, tmp_path)
    item = LoadCased("image")({"image": str(tmp_path)})
    crop = CropWithind("image", largest_mm=50.0)
    if refused:
        with pytest.raises(GeometryError, match="the whole image is 20 x 60 x 20 mm; .* up to 50 mm"):
            crop(item)
        small = CropWithind("image", within="-9,9,-20,20,-9,9", largest_mm=50.0)
        assert small(item)["image"].shape == (1, 18, 40, 10)
    else:
        assert crop(item)["image"].shape == (1, 20, 30, 10)


# ---- from the network's grid to the case's -----------------------------------------------------------------


def answered(folder, within=None, spacing_mm=(4.0, 4.0, 3.0), **geometry):
    """(preprocessing, item) of a phantom, with two channels of logits that follow its brightness."""
    from monai.transforms import Compose, Orientationd, ScaleIntensityRanged, Spacingd

    from medseg.phantoms.chiral import chiral_phantom
    from medseg.phantoms.series import write_series
    from medseg.transforms import CropWithind, LoadCased

    geometry = {"gaps_mm": 2.5, "pixel_spacing_mm": (1.5, 1.25), "centre_lps_mm": (7, -20, 110), **geometry}
    phantom = chiral_phantom(stack_geometry((34, 64, 72), **geometry))
    write_series(phantom.volume_hu, phantom.geometry, folder)
    before = Compose(
        [
            LoadCased("image"),
            CropWithind("image", within=within),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=spacing_mm, mode="bilinear"),
            ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
        ]
    )
    item = before({"image": str(folder)})
    bright = 12 * item["image"].as_tensor() - 8
    item["pred"] = MetaTensor(torch.cat([bright, -bright])).copy_meta_from(item["image"])
    return before, item


NAMES = [{"name": "Bright"}, {"name": "Dark"}]


@pytest.mark.parametrize(
    "stack",
    [
        {},
        {"orientation": (0, 1, 0, 0, 0, -1)},
        {"orientation": (0.9, 0.3, -0.1, -0.2, 0.8, 0.4)},
        {"gaps_mm": 7.0},
        {"gaps_mm": [2.5] * 16 + [1.0] + [4.0] * 16},
        {"tilt_degrees": 15.0},
    ],
    ids=["plain", "sagittal", "oblique", "thick", "uneven", "tilted"],
)
@pytest.mark.parametrize("within", [None, "-30,35,-50,20,80,140"])
def test_restored_probabilities_are_those_of_monais_inverse(stack, within, tmp_path):
    from monai.transforms import Activationsd, Compose, Invertd

    before, item = answered(tmp_path, within, **stack)
    inverse = Compose(
        [
            Activationsd("pred", sigmoid=True),
            Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
            ToStructuresd("pred", structures=NAMES, within=within),
        ]
    )
    expected = inverse(dict(item))["structures"].masks
    ours = RestoreStructuresd("pred", structures=NAMES, within=within)(dict(item))["structures"].masks
    assert isinstance(ours, PackedMasks) and [s.name for s in ours] == ["Bright", "Dark"]
    for structure, other in expected.items():
        assert np.array_equal(ours[structure] >= 0.5, other >= 0.5) and (other >= 0.5).any()
        kept = ours[structure] > 0
        assert np.abs(ours[structure] - other)[kept].max() < 1e-5


def test_packed_masks_are_restored_to_nearly_the_same_structures(tmp_path):
    _, item = answered(tmp_path, spacing_mm=(1.5, 1.5, 1.5))
    sharp = RestoreStructuresd("pred", structures=NAMES)(dict(item))["structures"].masks
    size = item["pred"].shape[-1]
    bits = np.packbits(item["pred"].numpy() >= 0, axis=-1)
    item["pred"] = MetaTensor(torch.from_numpy(bits)).copy_meta_from(item["image"])
    item["pred"].meta["packed_size"] = size
    cut = RestoreStructuresd("pred", structures=NAMES)(dict(item))["structures"].masks
    for structure, mask in cut.items():
        assert mask.dtype == bool
        both = (mask & (sharp[structure] >= 0.5)).sum()
        assert 2 * both / (mask.sum() + (sharp[structure] >= 0.5).sum()) > 0.93


def test_a_prediction_of_another_grid_is_not_restored(tmp_path):
    _, item = answered(tmp_path)
    restore = RestoreStructuresd("pred", structures=NAMES)
    moved = item["pred"].clone()
    moved.affine = moved.affine + torch.tensor([[0, 0, 0, 2.0], [0] * 4, [0] * 4, [0] * 4])
    with pytest.raises(GeometryError, match="prediction does not lie on the image's grid"):
        restore({**item, "pred": moved})
    with pytest.raises(GeometryError, match="the prediction has"):
        restore({**item, "pred": item["pred"][:, 1:]})
    far = {key: item[key].clone() for key in ("image", "pred")}
    for tensor in far.values():
        tensor.affine = tensor.affine + torch.tensor([[0, 0, 0, 30.0], [0] * 4, [0] * 4, [0] * 4])
    with pytest.raises(GeometryError, match="reaches beyond the image"):
        restore({**item, **far})
    with pytest.raises(StructureError, match="2 predicted channels for 1 named"):
        RestoreStructuresd("pred", structures=NAMES[:1])(item)
    with pytest.raises(InputError, match="activation 'relu': expected one of sigmoid, none"):
        RestoreStructuresd("pred", structures=NAMES, activation="relu")


def test_specks_of_packed_masks_are_measured_with_the_thickness_of_their_own_slices():
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[1:3, 2:12, 2:12] = mask[8:10, 2:12, 2:12] = True  # 200 voxels each, of 1 and of 4 mm
    geometry = stack_geometry(mask.shape, gaps_mm=[1.0] * 5 + [4.0] * 6, pixel_spacing_mm=(1.0, 1.0))
    packed = PackedMasks(mask.shape, {GTV: pack(mask), Structure("Thick"): pack(mask[7:], (7, 0, 0))})
    structures = Structures(Case("made by hand", np.zeros(mask.shape, np.float32), geometry, None), packed)
    kept = KeepComponentsd(min_volume_cc=0.5)({"structures": structures})["structures"].masks
    for result in kept.values():
        assert np.flatnonzero(result.any((1, 2))).tolist() == [8, 9]


def test_specks_and_margins_of_packed_masks_are_those_of_plain_ones(tmp_path):
    plain = case(two_pieces())
    packed = Structures(plain.case, PackedMasks(plain.case.geometry.shape, {GTV: pack(plain.masks[GTV])}))
    grow = [{"source": "GTV", "name": "CTV", "interpreted_type": "CTV", "margin_mm": 3.0}]
    results = []
    for structures in (plain, packed):
        kept = KeepComponentsd(min_volume_cc=0.5)({"structures": structures})
        results.append(MarginStructuresd(margins=grow)(kept)["structures"].masks)
    assert isinstance(results[1], PackedMasks) and [s.name for s in results[1]] == ["GTV", "CTV"]
    for structure, mask in results[0].items():
        assert np.array_equal(results[1][structure] >= 0.5, mask >= 0.5)


def test_the_crop_to_the_body_keeps_the_patient_and_leaves_the_couch_and_the_air():
    from medseg.transforms import CropBodyd

    ct = torch.full((1, 100, 90, 40), -1000.0)
    ct[:, 30:70, 20:50, :] = 40.0  # the patient, 80 x 60 mm
    ct[:, 5:95, 70:73, :] = 100.0  # a couch 40 mm behind
    ct[:, 45:50, 30:35, :] = -900.0  # air inside
    image = MetaTensor(ct, affine=torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0])))
    crop = CropBodyd("image", margin_mm=10.0)
    cropped = crop({"image": image})
    low = cropped["image"].affine[:3, 3] / torch.tensor([2.0, 2.0, 3.0])
    first, stop = low.tolist(), (low + torch.tensor(cropped["image"].shape[1:])).tolist()
    assert 22 <= first[0] <= 25 and 75 <= stop[0] <= 78 and 12 <= first[1] <= 15 and 55 <= stop[1] <= 58
    assert (first[2], stop[2]) == (0, 40)
    back = crop.inverse(cropped)["image"]
    assert back.shape == image.shape and torch.equal(back[:, 30:70, 20:50], image[:, 30:70, 20:50])
    empty = MetaTensor(torch.full((1, 20, 20, 20), -1000.0))
    assert crop({"image": empty})["image"].shape == (1, 20, 20, 20)
    with pytest.raises(InputError, match="margin_mm is -1"):
        CropBodyd("image", margin_mm=-1)
