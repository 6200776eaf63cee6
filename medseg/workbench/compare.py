"""How two sets of contours agree, structure by structure, with the definition of every number beside it."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import medseg
from medseg import files
from medseg.cases.mask_sources import MaskSource, Reference, is_dicom, is_nifti, open_masks
from medseg.errors import InputError, StructureError
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
from medseg.reports.comparison import Picture, draw_pair
from medseg.structures.tg263 import organ_code

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
class Request:
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


@dataclass(frozen=True)
class Comparison:
    """Agreements in the reference's order, and {name: volume in cc} of what only one set has."""

    reference_set: str
    other_set: str
    grid: str
    agreements: tuple[Agreement, ...]
    only_reference_cc: Mapping[str, float]
    only_other_cc: Mapping[str, float]
    notices: tuple[str, ...]

    def worst_first(self) -> list[Agreement]:
        """By surface DSC, then DSC; what has no number comes last."""
        return sorted(self.agreements, key=lambda row: (_last(row.surface_dsc), _last(row.dsc), row.name))


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def compare(request: Request) -> Comparison:
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


def _open(request: Request):
    series = request.images.series() if request.images.folder else None
    a = open_masks(request.reference_set, series, allow=request.images.allow_in_sets)
    b = open_masks(request.other_set, series, a.geometry, allow=request.images.allow_in_sets)
    return a, b, series


def _mask(source: MaskSource, name: str, notices: list[str]) -> np.ndarray:
    array, said = source.read(name)
    notices += [f"{source.path.name}: {sentence}" for sentence in said]
    return array if array.dtype == bool else array >= 0.5


def _check_tolerances(request: Request, names: Sequence[str]) -> None:
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


# ---- names -------------------------------------------------------------------------------------------------


def pair_names(
    names: Sequence[str], other_names: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], list[str]]:
    """([(name, other name)] in the order of ``names``, hints about names that only look alike).

    ``wanted``: texts "NAME=OTHER NAME"; names may hold "=" themselves. InputError when one of them names
    nothing or a name twice, or when there is no pair at all; StructureError when one joins a left with a
    right structure.
    """
    chosen: dict[str, str] = {}
    for text in wanted:
        name, other = _split_pair(text, names, other_names)
        if name in chosen or other in chosen.values():
            raise InputError(f"pair {text!r}: one of the names is paired twice.")
        if _side(name) and _side(other) and _side(name) != _side(other):
            raise StructureError(
                f"pair {text!r}: one is a left and the other a right structure; they are never compared."
            )
        chosen[name] = other
    free = [other for other in other_names if other not in chosen.values()]
    for key in (str, str.casefold):
        ours = Counter(key(name) for name in names if name not in chosen)
        theirs = {key(other): other for other in free if Counter(map(key, free))[key(other)] == 1}
        for name in names:
            if name not in chosen and ours[key(name)] == 1 and key(name) in theirs:
                chosen[name] = theirs[key(name)]
        free = [other for other in free if other not in chosen.values()]
    if not chosen:
        raise InputError(
            f"no structure has the same name in both sets ({', '.join(map(repr, names)) or 'none'}; "
            f'{", ".join(map(repr, other_names)) or "none"}); pair them with --map "NAME=OTHER NAME".'
        )
    return [(name, chosen[name]) for name in names if name in chosen], _hints(names, chosen, free)


def _split_pair(text: str, names: Sequence[str], other_names: Sequence[str]) -> tuple[str, str]:
    for cut in [match.start() for match in re.finditer("=", text)]:
        if text[:cut].strip() in names and text[cut + 1 :].strip() in other_names:
            return text[:cut].strip(), text[cut + 1 :].strip()
    raise InputError(
        f"pair {text!r}: expected NAME=OTHER NAME with a name of each set; the first has "
        f"{', '.join(map(repr, names))}, "
        f"the second {', '.join(map(repr, other_names))}."
    )


def _hints(names: Sequence[str], chosen: Mapping[str, str], free: Sequence[str]) -> list[str]:
    def bare(name: str) -> str:
        return re.sub(r"[\W_]+", "", name).casefold()

    alike = [
        (name, other) for name in names if name not in chosen for other in free if bare(name) == bare(other)
    ]
    return [
        f'{name!r} and {other!r} were not paired; if they are one structure, add --map "{name}={other}".'
        for name, other in alike
    ]


def _side(name: str) -> str:
    """ "L", "R" or "" where a name tells no side."""
    _, side = organ_code(name)
    if side:
        return side
    words = re.split(r"[\W_]+", name.casefold())
    sides = {{"lt": "l", "left": "l", "rt": "r", "right": "r"}.get(word, word) for word in words} & {"l", "r"}
    return sides.pop().upper() if len(sides) == 1 else ""


# ---- outputs -----------------------------------------------------------------------------------------------

COLUMNS = (
    "name",
    "other_name",
    "state",
    "tolerance_mm",
    "dsc",
    "surface_dsc",
    "hd95_mm",
    "mean_surface_distance_mm",
    "added_path_length_mm",
    "added_path_length_0_mm",
    "reference_path_length_mm",
    "reference_cc",
    "other_cc",
    "difference_cc",
)


def record(comparison: Comparison) -> dict[str, Any]:
    """Plain values for JSON; a number that does not exist or is infinite is None, and ``state`` says why."""
    rows = [
        {column: files.plain(getattr(row, column)) for column in COLUMNS} for row in comparison.agreements
    ]
    return {
        "reference": comparison.reference_set,
        "other": comparison.other_set,
        "grid": comparison.grid,
        "definitions": DEFINITIONS,
        "structures": rows,
        "only_in_reference_cc": {name: files.plain(cc) for name, cc in comparison.only_reference_cc.items()},
        "only_in_other_cc": {name: files.plain(cc) for name, cc in comparison.only_other_cc.items()},
        "notices": list(comparison.notices),
        "disclaimer": "Research use only, not a medical device.",
    }


def check_outputs(outs: Sequence[Path]) -> None:
    """InputError for outputs that cannot be written, that are one file, or that would replace masks or a
    DICOM file."""
    for number, out in enumerate(outs):
        if not out.parent.is_dir():
            raise InputError(f"{out}: the folder {out.parent} does not exist; make it first.")
        if out in outs[:number]:
            raise InputError(f"{out}: is named for two outputs; give each its own file.")
        if out.is_dir() or out.exists() and (is_nifti(out) or is_dicom(out)):
            raise InputError(
                f"{out}: is a folder, a mask or a DICOM file, which a comparison never replaces; name "
                f"another."
            )


def write_json(comparison: Comparison, out: Path) -> None:
    """Write :func:`record` atomically."""
    files.write_json(record(comparison), out)


def write_csv(comparison: Comparison, out: Path) -> None:
    """Write a row for every structure of either set, atomically; nan and inf stand as such, what is missing
    is empty.

    A name that a spreadsheet would take for a formula has an apostrophe before it.
    """
    fixed = {
        "grid": comparison.grid,
        "implementation": f"{DEFINITIONS['implementation']}: {SURFACE_DEFINITION}",
    }
    rows: list[dict[str, Any]] = [
        {column: getattr(row, column) for column in COLUMNS} for row in comparison.agreements
    ]
    for name, cc in comparison.only_reference_cc.items():
        rows.append({"name": name, "state": "only in reference", "reference_cc": cc})
    for name, cc in comparison.only_other_cc.items():
        rows.append({"other_name": name, "state": "only in other", "other_cc": cc})
    files.write_csv([{**row, **fixed} for row in rows], [*COLUMNS, *fixed], out)


def table_lines(comparison: Comparison) -> list[str]:
    """The comparison as lines for a terminal, worst structure first, with its definitions."""
    labels = {
        row: row.name if row.name == row.other_name else f"{row.name} / {row.other_name}"
        for row in comparison.agreements
    }
    width = max(16, *map(len, labels.values()))
    heads = ("DSC", "sDSC", "tol mm", "HD95 mm", "mean mm", "APL mm", "cc", "other cc")
    lines = [f"{'structure':{width}}" + "".join(f"{head:>10}" for head in heads)]
    for row in comparison.worst_first():
        cells = (
            f"{row.dsc:.3f}",
            f"{row.surface_dsc:.3f}",
            f"{row.tolerance_mm:g}",
            f"{row.hd95_mm:.2f}",
            f"{row.mean_surface_distance_mm:.2f}",
            f"{row.added_path_length_mm:.0f}",
            f"{row.reference_cc:.1f}",
            f"{row.other_cc:.1f}",
        )
        lines.append(f"{labels[row]:{width}}" + "".join(f"{cell:>10}" for cell in cells))
        if row.state != "both":
            lines.append(f"{'':{width}}  {row.state}")
    for where, only in (("reference", comparison.only_reference_cc), ("other", comparison.only_other_cc)):
        lines += [f"{name:{width}}  only in the {where}, {cc:.1f} cc" for name, cc in only.items()]
    lines.append(f"Grid: {comparison.grid}.")
    lines.append(f"Surfaces: {SURFACE_DEFINITION}.")
    lines += textwrap.wrap(f"APL: {PATH_DEFINITION} than the tolerance.", 100)
    return lines
