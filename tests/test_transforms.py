"""From probabilities to structures: specks, margins, and the files' folder names."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.phantom import stack_geometry
from medseg.readers import Case
from medseg.structures import Structure
from medseg.transforms import CaseStructures, KeepComponentsd, MarginStructuresd, ToStructuresd, case_folder

GTV = Structure("GTV", interpreted_type="GTV")


def case(mask):
    geometry = stack_geometry(mask.shape, gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0))
    return CaseStructures(Case("made by hand", np.zeros(mask.shape, np.float32), geometry, None), {GTV: mask})


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
    both = one.with_masks([*one.masks.items(), (ptv, two_pieces())])
    kept = KeepComponentsd(largest_only=True, names=["GTV"])({"structures": both})["structures"].masks
    assert kept[GTV][15:17].max() < 0.5 <= kept[ptv][15:17].max()
    with pytest.raises(StructureError, match="no structure Gtv"):
        KeepComponentsd(largest_only=True, names=["Gtv"])({"structures": both})


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
    ptv, ctv = ([m for s, m in masks.items() if s.name == name][0] for masks, name in ((only_ptv, "PTV"), (both, "CTV")))
    assert np.array_equal(ptv, ctv)


def test_margins_that_cannot_be_meant_are_refused():
    with pytest.raises(InputError, match="-2 mm"):
        margins(-2, 0)
    with pytest.raises(InputError, match="exactly the fields"):
        MarginStructuresd(margins=[{"source": "GTV", "name": "CTV"}])
    lost = MarginStructuresd(margins=[{"source": "ITV", "name": "PTV", "interpreted_type": "PTV", "margin_mm": 3}])
    with pytest.raises(StructureError, match="no structure ITV; have GTV"):
        lost({"structures": case(two_pieces())})


def test_a_mask_of_another_shape_cannot_join_a_case():
    good = case(two_pieces())
    with pytest.raises(StructureError, match="array"):
        good.with_masks({GTV: np.zeros((3, 3, 3), dtype=bool)})


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
    from medseg.phantom import write_series
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
