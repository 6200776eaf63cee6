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
from medseg.cases.mask_sources import MaskSource, Reference, open_masks
from medseg.dicom import write_rtstruct
from medseg.dicom.derived import refuse_existing
from medseg.errors import InputError, MedsegWarning, StructureError
from medseg.geometry import Geometry
from medseg.metrics import volume_cc
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


def derive(recipe: Recipe, mask_of: Callable[[str], np.ndarray], geometry: Geometry) -> np.ndarray:
    """The structure of a recipe as a bool mask [slice, row, column]; ``mask_of`` gives the bool mask of a
    name.

    An empty start stays empty. InputError, StructureError and GeometryError as the functions of margins raise
    them.
    """
    if recipe.crop_mm and recipe.crop_to is None:
        raise InputError("a crop distance needs the structure to crop to.")
    if recipe == Recipe(recipe.start):
        raise InputError(
            f"{recipe.start}: nothing to do with it; give a margin in mm, or a structure to combine it with."
        )
    mask = mask_of(recipe.start).copy()
    for name in recipe.union:
        mask |= mask_of(name)
    for name in recipe.intersect:
        mask &= mask_of(name)
    mask = expand(mask, geometry, recipe.mm)
    for name, gap_mm in recipe.minus:
        mask = subtract(mask, mask_of(name), geometry, gap_mm)
    if recipe.crop_to is not None:
        mask = crop(mask, mask_of(recipe.crop_to), geometry, recipe.crop_mm)
    return mask


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
    volumes_cc: dict[str, float] = {}
    mask = derive(request.recipe, _reader(source, series.geometry, notes, volumes_cc), series.geometry)
    volumes_cc[request.name] = volume_cc(mask, series.geometry)
    if touches_border(mask):
        notes.append(
            f"{request.name} reaches the border of the images and ends there; the margin may want more of "
            f"them."
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MedsegWarning)
        write_rtstruct(
            {_new_structure(request): mask},
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
    """InputError for an ``out`` that is the source or that exists, and for a set of another frame."""
    if request.out.exists():
        if request.out.samefile(request.source):
            raise InputError(
                f"{request.out}: is the structure set itself, which is kept as it is; name a new file."
            )
        refuse_existing(request.out, request.overwrite)
    if "frame_of_reference" in request.reference.allow:
        raise InputError(
            "`allow=frame_of_reference` does not go with margin: the result is a copy of the set and would "
            "keep the other "
            "frame. Carry the set over first, with medseg convert to masks and back."
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


def _reader(
    source: MaskSource, geometry: Geometry, notes: list[str], volumes_cc: dict[str, float]
) -> Callable[[str], np.ndarray]:
    """Reads masks by name, and notes their volumes and what was odd about them."""

    def read(name: str) -> np.ndarray:
        mask, said = source.read(name)
        notes.extend(said)
        volumes_cc[name] = volume_cc(mask, geometry)
        return mask

    return read
