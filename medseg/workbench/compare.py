"""How two sets of contours agree, structure by structure, with the definition of every number beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import medseg
from medseg.cases.mask_sources import MaskSource, Reference, open_masks
from medseg.errors import InputError
from medseg.geometry import Geometry
from medseg.metrics import (
    PATH_DEFINITION,
    SURFACE_DEFINITION,
    SurfaceDistances,
    added_path_length_mm,
    dice,
    surface_distances,
    volume_cc,
)
from medseg.reports.pictures import Picture, draw_pair
from medseg.workbench.name_pairs import pair_names

DEFINITIONS = {
    "implementation": f"medseg {medseg.__version__}",
    "dsc": "2 |A and B| / (|A| + |B|) over voxels, each with the height of its slice",
    "surface_dsc": f"share of both surfaces within the tolerance of the other; {SURFACE_DEFINITION}",
    "hd95_mm": "larger of the two directed 95th percentiles of surface distance, by area",
    "mean_surface_distance_mm": "mean distance over both surfaces together, by area",
    "added_path_length_mm": (
        f"{PATH_DEFINITION} than the tolerance (Vaassen 2020; added_path_length_0_mm: tolerance 0)"
    ),
    "volume": "voxels times their volume, slice by slice; an end slice counts as thick as its inner gap",
    "empty": "both empty: no number; one empty: DSC and surface DSC 0, distances infinite",
}
"""What each number is; goes into every output."""


@dataclass(frozen=True)
class ComparisonRequest:
    """Two sets to compare: ``reference_set`` is the truth, or what a person drew; ``other_set`` is judged.

    Each is an RT Structure Set, a DICOM Segmentation, a NIfTI mask or a folder of NIfTI masks. ``images``:
    needed for DICOM. ``tolerance_mm``, and ``tolerances_mm`` for single structures: of surface DSC and added
    path length. ``pairs``: texts "NAME=OTHER NAME". ``pictures``: draw every pair.
    """

    reference_set: Path
    other_set: Path
    images: Reference = Reference()
    tolerance_mm: float = 2.0
    tolerances_mm: Mapping[str, float] = field(default_factory=dict)
    pairs: tuple[str, ...] = ()
    pictures: bool = False


@dataclass(frozen=True)
class Agreement:
    """One structure in both sets. Numbers without an answer are nan; ``state``: "both", "reference empty",
    "other empty" or "both empty". Volumes and distances across a single slice are not known."""

    name: str
    other_name: str
    state: str
    tolerance_mm: float
    dsc: float
    surface_dsc: float
    hd95_mm: float
    mean_surface_distance_mm: float
    added_path_length_mm: float
    added_path_length_0_mm: float
    reference_path_length_mm: float
    reference_cc: float
    other_cc: float
    pictures: tuple[Picture, ...] = ()

    @property
    def difference_cc(self) -> float:
        return self.other_cc - self.reference_cc


class Unpaired(NamedTuple):
    """A structure of the set ``where`` ("reference" or "other") that was compared with nothing. ``state``:
    "only in reference", "only in other", or "not compared" where both sets have the name and the caller
    paired it otherwise. ``cc``: its volume."""

    name: str
    where: str
    state: str
    cc: float


@dataclass(frozen=True, repr=False)
class Comparison:
    """Agreements in the reference's order, and {name: volume in cc} of what of each set was compared with
    nothing; :meth:`unpaired` says why."""

    reference_set: str
    other_set: str
    grid: str
    agreements: tuple[Agreement, ...]
    only_reference_cc: Mapping[str, float]
    only_other_cc: Mapping[str, float]
    notices: tuple[str, ...]

    def __repr__(self) -> str:
        """A line per structure, worst first; pictures and notices are not shown."""
        rows = [
            f"  {row.name}: DSC {row.dsc:.3f}, surface DSC {row.surface_dsc:.3f} at {row.tolerance_mm:g} mm, "
            f"HD95 {row.hd95_mm:.2f} mm"
            for row in self.worst_first()
        ]
        states = [one.state for one in self.unpaired()]
        alone = len(states) - states.count("not compared")
        head = f"{len(rows)} structures in both sets, {alone} in one alone"
        if alone < len(states):
            head += f", {len(states) - alone} not compared"
        return "\n".join([head, *rows])

    def unpaired(self) -> list[Unpaired]:
        """What was compared with nothing, the reference's first."""
        ours = {*(row.name for row in self.agreements), *self.only_reference_cc}
        theirs = {*(row.other_name for row in self.agreements), *self.only_other_cc}
        sides = (("reference", self.only_reference_cc), ("other", self.only_other_cc))
        return [
            Unpaired(name, where, "not compared" if name in ours & theirs else f"only in {where}", cc)
            for where, volumes_cc in sides
            for name, cc in volumes_cc.items()
        ]

    def worst_first(self) -> list[Agreement]:
        """By surface DSC, then DSC; what has no number comes last."""
        return sorted(self.agreements, key=lambda row: (_last(row.surface_dsc), _last(row.dsc), row.name))


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def compare(request: ComparisonRequest) -> Comparison:
    """Compare every structure that both sets have; see Agreement for the numbers and DEFINITIONS for their
    meaning.

    Names are paired when they are the same, then when they differ in letters' case alone and no third name
    does; others by ``request.pairs``. Raises InputError when no structure can be paired or a tolerance or
    pair names none, StructureError for a pair of left and right, and what open_masks raises.
    """
    a, b, series = _open(request)
    geometry = a.geometry
    pairs, hints = pair_names(a.names, b.names, request.pairs)
    _check_tolerances(request, [name for name, _ in pairs])
    notices = [f"{source.path.name}: {notice}" for source in (a, b) for notice in source.notices] + hints
    notices += series.warnings if series else ()
    if geometry.shape[0] < 2:
        notices.append("one slice has no height: volumes and surface distances are not known.")
    volume, modality = (series.volume(), series.modality) if series and request.pictures else (None, "")
    agreements = []
    for name, other_name in pairs:
        masks = [_mask(source, own, notices) for source, own in ((a, name), (b, other_name))]
        row = measure(*masks, geometry, request.tolerances_mm.get(name, request.tolerance_mm))
        pictures = draw_pair(*masks, geometry, volume, modality) if request.pictures else ()
        agreements.append(Agreement(name, other_name, pictures=pictures, **row))
    paired_a, paired_b = ({pair[side] for pair in pairs} for side in (0, 1))
    only = [
        {
            name: volume_cc(_mask(source, name, notices), geometry)
            for name in source.names
            if name not in paired
        }
        for source, paired in ((a, paired_a), (b, paired_b))
    ]
    return Comparison(
        str(request.reference_set),
        str(request.other_set),
        describe_grid(geometry),
        tuple(agreements),
        *only,
        tuple(notices),
    )


def measure(
    reference: np.ndarray, other: np.ndarray, geometry: Geometry, tolerance_mm: float
) -> dict[str, Any]:
    """The numbers of an Agreement for two bool masks [slice, row, column] on one geometry, by their names
    there."""
    states = {(True, True): "both", (False, True): "reference empty", (True, False): "other empty"}
    state = states.get((bool(reference.any()), bool(other.any())), "both empty")
    distances = surface_distances(reference, other, geometry) if geometry.shape[0] > 1 else None
    lacking_mm, path_mm = added_path_length_mm(reference, other, geometry, tolerance_mm)
    lacking_0_mm, _ = added_path_length_mm(reference, other, geometry)
    return {
        "state": state,
        "tolerance_mm": tolerance_mm,
        "dsc": dice(reference, other, geometry),
        **_surface_numbers(distances, tolerance_mm),
        "added_path_length_mm": lacking_mm,
        "added_path_length_0_mm": lacking_0_mm,
        "reference_path_length_mm": path_mm,
        "reference_cc": volume_cc(reference, geometry),
        "other_cc": volume_cc(other, geometry),
    }


def _surface_numbers(distances: SurfaceDistances | None, tolerance_mm: float) -> dict[str, float]:
    if distances is None:
        return dict.fromkeys(("surface_dsc", "hd95_mm", "mean_surface_distance_mm"), math.nan)
    return {
        "surface_dsc": distances.dice(tolerance_mm),
        "hd95_mm": distances.hausdorff_mm(95.0),
        "mean_surface_distance_mm": distances.mean_mm(),
    }


def _open(request: ComparisonRequest):
    series = request.images.series() if request.images.folder else None
    a = open_masks(request.reference_set, series, allow=request.images.allow_in_sets)
    b = open_masks(request.other_set, series, a.geometry, allow=request.images.allow_in_sets)
    return a, b, series


def _mask(source: MaskSource, name: str, notices: list[str]) -> np.ndarray:
    array, said = source.read(name)
    notices += [f"{source.path.name}: {sentence}" for sentence in said]
    return array if array.dtype == bool else array >= 0.5


def _check_tolerances(request: ComparisonRequest, names: Sequence[str]) -> None:
    for name, value in {"": request.tolerance_mm, **request.tolerances_mm}.items():
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"tolerance {name} {value} mm: expected 0 or more.")
        if name and name not in names:
            raise InputError(f"tolerance of {name!r}: no such pair; there are {', '.join(map(repr, names))}.")


def describe_grid(geometry: Geometry) -> str:
    """One line: voxels along columns, rows and slices, their size in mm, and whether the slices are uneven or
    tilted."""
    slices, rows, columns = geometry.shape
    row_mm, column_mm = geometry.pixel_spacing_mm
    gaps_mm = np.abs(np.diff(geometry.slice_positions_mm))
    if not gaps_mm.size:
        between = "one slice of unknown height"
    elif geometry.is_uniform:
        between = f"{gaps_mm.mean():.4g} mm between slices"
    else:
        between = f"{gaps_mm.min():.4g} to {gaps_mm.max():.4g} mm between slices, uneven"
    tilted = ", tilted" if geometry.is_sheared else ""
    return f"{columns} x {rows} x {slices} voxels of {column_mm:.4g} x {row_mm:.4g} mm, {between}{tilted}"
