"""A new structure from those of a structure set: margins, cropping and Boolean operations, appended to a copy
of the set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import medseg
from medseg import limits
from medseg.cases.mask_sources import MaskSource, Reference, is_nifti, open_masks
from medseg.dicom import write_rtstruct
from medseg.dicom.derived import refuse_existing
from medseg.dicom.rtstruct.structure_set import read_structure_set
from medseg.errors import InputError, MedsegWarning, StructureError
from medseg.geometry import Geometry
from medseg.metrics import volume_cc
from medseg.shapes.drawn import outline_map
from medseg.shapes.margins import crop, expand, subtract
from medseg.structures.structure import Structure, structure_from_name


@dataclass(frozen=True)
class Recipe:
    """How a structure is made of others, always in this order:

        grow((start or each of union) and each of intersect, mm) without each of minus, cropped to crop_to

    ``mm``: one margin, negative to shrink, or one for each patient direction (see margins.expand). ``minus``:
    (name, gap in mm to keep from it). ``crop_mm``: how far inside the surface of ``crop_to`` the result has
    to stay.
    """

    start: str
    mm: float | Mapping[str, float] = 0.0
    union: tuple[str, ...] = ()
    intersect: tuple[str, ...] = ()
    minus: tuple[tuple[str, float], ...] = ()
    crop_to: str | None = None
    crop_mm: float = 0.0

    @property
    def names(self) -> list[str]:
        """Every structure that it needs."""
        cropped = [self.crop_to] if self.crop_to is not None else []
        return [self.start, *self.union, *self.intersect, *(name for name, _ in self.minus), *cropped]

    def check_margins(self) -> None:
        """InputError for a number of mm beyond the limit, before anything is read."""
        margins_mm = self.mm.values() if isinstance(self.mm, Mapping) else [self.mm]
        for mm in (*margins_mm, *(gap_mm for _, gap_mm in self.minus), self.crop_mm):
            limits.check_margin(mm)

    def __str__(self) -> str:
        words = " or ".join([self.start, *self.union])
        for name in self.intersect:
            words = f"({words}) and {name}"
        if isinstance(self.mm, Mapping):
            words += " + " + ", ".join(f"{direction} {mm:g}" for direction, mm in self.mm.items()) + " mm"
        elif self.mm:
            words += f" {'+' if self.mm > 0 else '-'} {abs(self.mm):g} mm"
        for name, gap_mm in self.minus:
            words += f", without {name}" + (f" and {gap_mm:g} mm around it" if gap_mm else "")
        if self.crop_to is not None:
            words += f", inside {self.crop_to}" + (f" by {self.crop_mm:g} mm" if self.crop_mm else "")
        return words


def derive(recipe: Recipe, map_of: Callable[[str], np.ndarray], geometry: Geometry) -> np.ndarray:
    """The structure of a recipe as a float32 map [slice, row, column], inside from 0.5 on; ``map_of`` gives
    the map, or bool mask, of a name.

    An empty start stays empty. InputError, StructureError and GeometryError as the functions of margins raise
    them.
    """
    if recipe.crop_mm and recipe.crop_to is None:
        raise InputError("a crop distance needs the structure to crop to.")
    if recipe == Recipe(recipe.start):
        raise InputError(
            f"{recipe.start}: nothing to do with it; give a margin in mm, or a structure to combine it with."
        )
    found = map_of(recipe.start)
    for name in recipe.union:
        found = np.maximum(found, map_of(name))
    for name in recipe.intersect:
        found = np.minimum(found, map_of(name))
    found = expand(found, geometry, recipe.mm)
    for name, gap_mm in recipe.minus:
        found = subtract(found, map_of(name), geometry, gap_mm)
    if recipe.crop_to is not None:
        found = crop(found, map_of(recipe.crop_to), geometry, recipe.crop_mm)
    return found


@dataclass(frozen=True)
class Derivation:
    """A recipe for ``name``, the structure set it starts from, its images, and the new file. ``overwrite``:
    replace it."""

    source: Path
    out: Path
    reference: Reference
    name: str
    recipe: Recipe
    holes: str = "keyhole"
    overwrite: bool = False


def derive_structure_set(request: Derivation) -> dict[str, Any]:
    """Write a copy of a structure set with one more, UNAPPROVED, structure; returns names, volumes and
    notices.

    What was in the set keeps its bytes, names and numbers. Raises InputError for an ``out`` that is the
    source or that exists, StructureError for names that are not there or already taken; and as derive and
    write_rtstruct do.
    """
    _check_paths(request)
    request.recipe.check_margins()
    series = request.reference.series()
    source = open_masks(request.source, series, allow=request.reference.allow_in_sets)
    if source.kind != "RT Structure Set":
        raise InputError(
            f"{request.source}: expected an RT Structure Set, found {source.kind}; medseg convert makes one "
            f"of them first."
        )
    if request.name.casefold() in {name.casefold() for name in source.names}:
        raise StructureError(
            f"{request.source}: already has a structure {request.name!r}; choose another `name`."
        )
    source.require(request.recipe.names)
    notes = [*series.warnings]
    read = _Reader(source, request.source, series.geometry)
    derived = derive(request.recipe, read, series.geometry)
    volumes_cc = {**read.volumes_cc, request.name: volume_cc(derived, series.geometry)}
    notes += read.notes
    if touches_border(derived >= 0.5):
        notes.append(
            f"{request.name} reaches the border of the images and ends there; the margin may want more of "
            f"them."
        )
    notes += _said_of_ends(request.recipe, read.at_border)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MedsegWarning)
        write_rtstruct(
            {_new_structure(request): derived},
            series,
            request.out,
            holes=request.holes,
            append_to=request.source,
            overwrite=request.overwrite,
        )
    notes += [str(warning.message) for warning in said if issubclass(warning.category, MedsegWarning)]
    return {
        "out": str(request.out),
        "name": request.name,
        "recipe": str(request.recipe),
        "volumes_cc": {name: None if np.isnan(cc) else round(cc, 3) for name, cc in volumes_cc.items()},
        "warnings": list(dict.fromkeys(notes)),
    }


def _check_paths(request: Derivation) -> None:
    """InputError for an ``out`` that is the source, that exists or is named as a mask, and for a set of
    another frame."""
    if is_nifti(request.out):
        raise InputError(f"{request.out}: is the name of a mask; the result is a structure set, OUT.dcm.")
    if request.out.exists():
        if request.out.samefile(request.source):
            raise InputError(
                f"{request.out}: is the structure set itself, which is kept as it is; name a new file."
            )
        refuse_existing(request.out, request.overwrite)
    if "frame_of_reference" in request.reference.allow:
        raise InputError(
            "`allow=frame_of_reference` does not go with margin: the result is a copy of the set and would "
            "keep the other frame. Carry the set over first, with medseg convert to masks and back."
        )


def _new_structure(request: Derivation) -> Structure:
    """The new structure, which says how it was made: computed from what somebody drew, so neither by hand nor
    without."""
    made = f"medseg {medseg.__version__}: {request.recipe}".replace("\\", "_")
    return replace(
        structure_from_name(request.name), generation_algorithm="SEMIAUTOMATIC", generation_description=made
    )


def touches_border(mask: np.ndarray) -> bool:
    """True when a bool mask [slice, row, column] has a voxel in the first or last slice, row or column."""
    return any(bool(mask.take(end, axis).any()) for axis in range(3) for end in (0, -1))


def _said_of_ends(recipe: Recipe, at_border: Mapping[str, str]) -> list[str]:
    """A sentence for each structure that is shrunk although it touches the border of the images."""
    shrunk = {recipe.crop_to} if recipe.crop_to is not None and recipe.crop_mm else set()
    if not isinstance(recipe.mm, Mapping) and recipe.mm < 0:
        shrunk |= {recipe.start, *recipe.union}
    return [
        f"{name} reaches {at_border[name]}, where the scan ends and not {name}: no distance was kept from "
        f"there."
        for name in sorted(shrunk & at_border.keys())
    ]


def _border_in_words(mask: np.ndarray) -> str:
    """Which ends of the images a bool mask [slice, row, column] touches; "" for none."""
    slices = [word for word, end in (("first", 0), ("last", -1)) if mask[end].any()]
    words = [f"the {' and '.join(slices)} slice{'s' if len(slices) > 1 else ''}"] if slices else []
    if any(mask.take(end, axis).any() for axis in (1, 2) for end in (0, -1)):
        words.append("the images' edge")
    return " and ".join(words)


class _Reader:
    """Reads structures by name as maps that follow the contours as drawn, and notes what was odd about them,
    their volumes, and which end of the images they touch."""

    def __init__(self, source: MaskSource, path: Path, geometry: Geometry) -> None:
        self.source, self.geometry = source, geometry
        self.contours = {roi.structure.name: roi.contours for roi in read_structure_set(path).rois}
        self.notes: list[str] = list(source.notices)
        self.volumes_cc: dict[str, float] = {}
        self.at_border: dict[str, str] = {}

    def __call__(self, name: str) -> np.ndarray:
        mask, said = self.source.read(name)
        self.notes.extend(said)
        words = _border_in_words(mask)
        if words:
            self.at_border[name] = words
        drawn = outline_map(mask, self._outlines(name), self.geometry)
        self.volumes_cc[name] = volume_cc(drawn, self.geometry)
        return drawn

    def _outlines(self, name: str) -> dict[int, list[np.ndarray]]:
        """{slice index: loops of (row, column)} of an ROI; none for a name that medseg made up."""
        outlines: dict[int, list[np.ndarray]] = {}
        for contour in self.contours.get(name, ()):
            if contour.bounds_an_area and len(contour.points_lps_mm):
                index, _ = self.geometry.nearest_slice(contour.points_lps_mm)
                loop = self.geometry.rows_columns(index, contour.points_lps_mm)
                outlines.setdefault(index, []).append(loop)
        return outlines
