"""CTV and PTV of a network's structure: inside the patient, and out of what they must not enter."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from medseg.cases.results import Structures
from medseg.cases.volume import Case
from medseg.errors import InputError, MedsegWarning, StructureError
from medseg.phantoms.series import stack_geometry, voxel_points_lps_mm
from medseg.structures.structure import Structure
from medseg.transforms.margins import MarginStructuresd

GTV, BONE = Structure("GTV", interpreted_type="GTV"), Structure("Bone")
RADIUS_MM, SKIN_MM = 6.0, 30.0


def points():
    geometry = stack_geometry((14, 80, 80), gaps_mm=3.0, pixel_spacing_mm=(1.0, 1.0))
    found = np.stack([voxel_points_lps_mm(geometry, index) for index in range(14)])
    return geometry, found - found.reshape(-1, 3).mean(0)


def near_the_skin(modality="CT"):
    """A cylinder of tissue with a GTV 2 mm below its skin, and bone on the GTV's other side."""
    geometry, at = points()
    hu = np.where(np.hypot(at[..., 0], at[..., 1]) <= SKIN_MM, 0, -1000).astype(np.float32)
    gtv = np.linalg.norm(at - [SKIN_MM - 2 - RADIUS_MM, 0, 0], axis=-1) <= RADIUS_MM
    bone = at[..., 0] < SKIN_MM - 2 - 2 * RADIUS_MM - 2
    series = SimpleNamespace(modality=modality, warnings=()) if modality else None
    return Structures(Case("x", hu, geometry, series), {GTV: gtv, BONE: bone}), hu > -300


def grow(result, **settings):
    margins = [
        {"source": "GTV", "name": "CTV", "interpreted_type": "CTV", "margin_mm": 5.0},
        {"source": "CTV", "name": "PTV", "interpreted_type": "PTV", "margin_mm": 3.0},
    ]
    margins[0] |= {"not_into": settings.pop("ctv_not_into", [])}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MedsegWarning)
        masks = MarginStructuresd(margins=margins, **settings)({"structures": result})["structures"].masks
    return {s.name: mask >= 0.5 for s, mask in masks.items()}, [str(w.message) for w in said]


def test_ctv_and_ptv_end_at_the_skin_and_what_was_cut_is_said():
    result, patient = near_the_skin()
    free, said = grow(result)
    assert said == [] and (free["CTV"] & ~patient).any()
    at_skin, said = grow(result, crop_to_body_mm=0.0)
    assert (
        len(said) == 2
        and said[0].startswith("CTV: ")
        and "cc of its margin lay less than 0 mm inside" in said[0]
    )
    outside = points()[1][(at_skin["CTV"] | at_skin["PTV"]) & ~patient]
    assert (np.hypot(*outside.T[:2]) < SKIN_MM + 1.5).all()  # the patient's mask has one voxel of skin
    within = (free["CTV"] & patient) & ~at_skin["CTV"]
    assert not within.any()


def test_an_inset_keeps_its_distance_but_never_takes_from_the_source():
    result, _ = near_the_skin()
    cut, _ = grow(result, crop_to_body_mm=5.0)
    added = points()[1][cut["CTV"] & ~cut["GTV"]]
    assert np.hypot(*added.T[:2]).max() < SKIN_MM - 5 + 1.5
    assert not (cut["GTV"] & ~cut["CTV"]).any() and not (cut["CTV"] & ~cut["PTV"]).any()


@pytest.mark.parametrize("modality", [None, "MR"])
def test_only_a_ct_shows_where_the_patient_ends(modality):
    result, _ = near_the_skin(modality)
    assert (grow(result, crop_to_body_mm=0.0)[0]["CTV"] == grow(result)[0]["CTV"]).all()


def test_a_ct_without_tissue_is_not_taken_for_a_patient():
    result, _ = near_the_skin()
    air = Structures(Case("x", np.full_like(result.case.volume, -1000), *_rest(result)), result.masks)
    assert grow(air, crop_to_body_mm=0.0)[0]["CTV"].sum() == grow(result)[0]["CTV"].sum()


def _rest(result):
    return result.case.geometry, result.case.series


def test_the_ctv_keeps_out_of_bone_and_the_ptv_may_enter_it():
    result, _ = near_the_skin()
    masks, said = grow(result, ctv_not_into=["Bone"])
    assert not (masks["CTV"] & masks["Bone"]).any() and (masks["PTV"] & masks["Bone"]).any()
    assert len(said) == 1 and "inside Bone and were cut away" in said[0]
    with pytest.raises(StructureError, match="keep out of Heart: have GTV, Bone"):
        grow(result, ctv_not_into=["Heart"])


def test_an_empty_gtv_has_an_empty_ctv():
    result, _ = near_the_skin()
    nothing = Structures(result.case, {GTV: np.zeros(result.case.shape, dtype=bool)})
    masks, said = grow(nothing, crop_to_body_mm=0.0)
    assert not masks["CTV"].any() and not masks["PTV"].any() and said == []


def test_a_distance_below_zero_is_refused():
    with pytest.raises(InputError, match="crop_to_body_mm is -1"):
        MarginStructuresd(crop_to_body_mm=-1)
