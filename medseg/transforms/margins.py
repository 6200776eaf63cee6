"""CTV and PTV of a structure that a network drew: margins, kept inside the patient and out of what they must
not enter."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import MapTransform

from medseg import limits
from medseg.cases.region import region_mask
from medseg.cases.results import Structures
from medseg.cases.volume import Case
from medseg.errors import InputError, MedsegWarning, StructureError
from medseg.metrics import volume_cc
from medseg.shapes.body import body_mask
from medseg.shapes.margins import crop, expand, subtract
from medseg.structures.structure import Structure


class MarginStructuresd(MapTransform):
    """Add structures by expansion in mm: CTV from GTV, PTV from CTV. A margin of 0 adds nothing.

    ``margins``: dicts of ``source`` (name), ``name``, ``interpreted_type`` and ``margin_mm``, applied in
    order, so that one may build on another. A margin of 0 lets later margins grow from its source instead.
    ``not_into``, where a dict has it: structures of the result, or ``RS.dcm:ROI`` as a region is given, that
    the new structure keeps out of; one that builds on it may enter them.

    ``crop_to_body_mm``: on a CT the new structures end so far inside the patient
    (:func:`medseg.shapes.body.body_mask`); None: they may reach into the air. Elsewhere, and on an image
    without tissue, nothing is cut. What is cut away is said in a MedsegWarning, and never the source: a
    network that contours air is not to be hidden.

    The new structures are float maps, whose 0.5 level is the surface moved by the margin. Raises
    StructureError for an unknown source and a structure not to enter that is not there, InputError for a
    negative margin or distance.
    """

    FIELDS = {"source", "name", "interpreted_type", "margin_mm"}

    def __init__(
        self,
        keys="structures",
        margins: Sequence[Mapping[str, Any]] = (),
        crop_to_body_mm: float | None = None,
    ):
        super().__init__(keys)
        for margin in margins:
            if set(margin) - {"not_into"} != self.FIELDS:
                raise InputError(
                    f"margin with {', '.join(map(str, margin))}: expected the fields "
                    f"{', '.join(sorted(self.FIELDS))}, and not_into where it is wanted."
                )
            limits.check_margin(margin["margin_mm"])
            if not margin["margin_mm"] >= 0:
                raise InputError(
                    f"margin {margin['name']}: {margin['margin_mm']} mm; expected 0 (off) or more."
                )
        if crop_to_body_mm is not None and not crop_to_body_mm >= 0:
            raise InputError(f"crop_to_body_mm is {crop_to_body_mm}; expected 0 or more, or null: no crop.")
        limits.check_margin(crop_to_body_mm or 0)
        self.margins = tuple(margins)
        self.crop_to_body_mm = crop_to_body_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = d[key].add(self._grown(d[key]))
        return d

    def _grown(self, result: Structures) -> Iterator[tuple[Structure, np.ndarray]]:
        by_name: dict[str, Any] = {structure.name: structure for structure in result.masks}
        made: dict[str, np.ndarray] = {}
        body = None
        for margin in self.margins:
            source, name = margin["source"], margin["name"]
            if source not in by_name:
                raise StructureError(f"margin {name}: no structure {source}; have {', '.join(by_name)}.")
            if margin["margin_mm"] == 0:
                by_name[name] = by_name[source]
                continue
            key = by_name[source]
            start = made[key.name] if key.name in made else result.masks[key]
            grown = expand(start, result.case.geometry, margin["margin_mm"])
            for other in margin.get("not_into") or ():
                grown = _without(name, grown, other, _other_mask(other, result, made), start, result.case)
            if self.crop_to_body_mm is not None and start.any() and _is_ct(result.case):
                body = _body(result.case) if body is None else body
                grown = self._inside(name, grown, body, start, result.case)
            made[name] = grown
            by_name[name] = Structure(name, interpreted_type=margin["interpreted_type"])
            yield by_name[name], grown

    def _inside(self, name: str, grown: np.ndarray, body: np.ndarray, start: np.ndarray, case: Case):
        if not body.any():
            return grown
        kept = np.maximum(crop(grown, body, case.geometry, self.crop_to_body_mm), start)
        _say_cut(name, grown, kept, f"less than {self.crop_to_body_mm:g} mm inside the patient", case)
        return kept


def _without(name: str, grown: np.ndarray, other: str, mask: np.ndarray, start: np.ndarray, case: Case):
    kept = np.maximum(subtract(grown, mask, case.geometry), start)
    _say_cut(name, grown, kept, f"inside {other.rpartition(':')[2]}", case)
    return kept


def _say_cut(name: str, before: np.ndarray, after: np.ndarray, where: str, case: Case) -> None:
    cut_cc = volume_cc(before, case.geometry) - volume_cc(after, case.geometry)
    if cut_cc >= 0.005:
        warnings.warn(
            f"{name}: {cut_cc:.2f} cc of its margin lay {where} and were cut away.",
            MedsegWarning,
            stacklevel=2,
        )


def _other_mask(name: str, result: Structures, made: Mapping[str, np.ndarray]) -> np.ndarray:
    if name in made:
        return made[name]
    for structure, mask in result.masks.items():
        if structure.name == name:
            return mask
    if ":" in name:
        return region_mask(name, result.case)
    known = ", ".join([*(structure.name for structure in result.masks), *made])
    raise StructureError(f"a margin is to keep out of {name}: have {known}; or name an ROI as RS.dcm:ROI.")


def _is_ct(case: Case) -> bool:
    return case.series is not None and case.series.modality == "CT"


def _body(case: Case) -> np.ndarray:
    """bool [slice, row, column]: the patient on a case's own slices."""
    row_mm, column_mm = case.geometry.pixel_spacing_mm
    slice_mm = float(np.median(case.geometry.slice_thickness_mm))
    return body_mask(case.volume.transpose(2, 1, 0), (column_mm, row_mm, slice_mm)).transpose(2, 1, 0)
