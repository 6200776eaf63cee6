"""What a bundle can answer about a case: structures, boxes or labels, each on the case's own grid.

Every kind has ``record()``, plain values for run.json without any patient's name, and ``summary()``, the same
in a few words. :data:`medseg.bundles.kinds.KINDS` says what can be written, drawn and scored of each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from medseg.cases.photograph import Photograph
from medseg.cases.radiograph import Radiograph
from medseg.cases.volume import Case
from medseg.errors import InputError, StructureError
from medseg.shapes.packed import Boxed, PackedMasks, pack
from medseg.structures.structure import Structure


@dataclass(frozen=True)
class Structures:
    """Structures on their own case's grid.

    ``masks``: {Structure: bool or float32 probabilities}, every array of ``case.shape``: [slice, row, column]
    of a volume, [row, column] of a radiograph or photograph. Of PackedMasks one array at a time exists, so go
    through them one by one. ``remark``: what every file written of them has to say, "" for nothing. Raises
    StructureError for an array of another shape.
    """

    case: Case | Radiograph | Photograph
    masks: Mapping[Structure, np.ndarray]
    remark: str = ""

    def __post_init__(self):
        shapes = (
            dict.fromkeys(self.masks, self.masks.shape)
            if isinstance(self.masks, PackedMasks)
            else {structure: mask.shape for structure, mask in self.masks.items()}
        )
        for structure, shape in shapes.items():
            if shape != self.case.shape:
                raise StructureError(
                    f"{structure.name}: array {shape} for an image of {self.case.shape}, slices first, then "
                    "rows and columns."
                )

    def add(self, masks: Iterable[tuple[Structure, np.ndarray]]) -> Structures:
        """The same case with more masks, taken one by one and packed if this case's are."""
        if isinstance(self.masks, PackedMasks):
            packed = {structure: pack(mask) for structure, mask in masks}
            return replace(self, masks=PackedMasks(self.masks.shape, {**self.masks.boxes, **packed}))
        return replace(self, masks={**self.masks, **dict(masks)})

    def change(self, change: Callable[[Structure, np.ndarray, int], np.ndarray]) -> Structures:
        """The same case with every mask as ``change`` gives it back: see
        :meth:`medseg.shapes.packed.PackedMasks.change`."""
        if isinstance(self.masks, PackedMasks):
            return replace(self, masks=self.masks.change(change))
        changed = {structure: change(structure, mask, 0) for structure, mask in self.masks.items()}
        return replace(self, masks=changed)

    def with_remark(self) -> Mapping[Structure, np.ndarray]:
        """The masks, each structure's ``generation_description`` with the remark in front: DICOM has a place
        for it."""
        if not self.remark:
            return self.masks

        def said(structure: Structure) -> Structure:
            words = f"{self.remark} {structure.generation_description}".strip()
            return replace(structure, generation_description=words)

        if isinstance(self.masks, PackedMasks):
            boxes = {said(structure): box for structure, box in self.masks.boxes.items()}
            return PackedMasks(self.masks.shape, boxes)
        return {said(structure): mask for structure, mask in self.masks.items()}

    def record(self) -> dict[str, Any]:
        """Input, geometry, and each structure with its type, its volume or area, and whether it is empty."""
        rows = []
        for structure, mask in self.masks.items():
            inside = binary(mask)
            known = {"name": structure.name, "interpreted_type": structure.interpreted_type}
            rows.append({**known, **self.case.size_of(mask), "empty": not bool(inside.any())})
        return {**self.case.record(), "structures": rows, "summary": ", ".join(map(_size_in_words, rows))}


def binary(mask: np.ndarray) -> np.ndarray:
    """bool: voxels inside the structure. A probability counts from 0.5 on, where the iso-contour runs."""
    return mask if mask.dtype == bool else mask >= 0.5


def _size_in_words(row: Mapping[str, Any]) -> str:
    """Name and volume, or area, of one structure's record."""
    name = row["name"]
    if row["empty"]:
        return f"{name} empty"
    if row.get("area_cm2") is not None:
        return f"{name} {row['area_cm2']:.1f} cm2"
    if row.get("area_mm2") is not None:
        return f"{name} {row['area_mm2']:.2f} mm2"
    if "area_pixels" in row:
        return f"{name} {row['area_pixels']} pixels"
    return f"{name} {row['volume_cc']:.1f} cc" if row["volume_cc"] is not None else f"{name} present"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Findings as boxes, each with a class and a score.

    ``corners``: float64 (N, 2, D), the low and the high corner of each box; of a radiograph D = 2, (row,
    column) in pixels from the outer corner of the first one, of a volume D = 3, LPS mm. ``scores``: float64
    (N,), 0 to 1. ``classes``: N names. ``masks``: nothing, or for each box a bool array of ``case.shape``, or
    one packed already; they are kept packed, and :meth:`mask` expands one. ``remark``: what every file
    written of them has to say, "" for nothing. N = 0 is an answer: nothing was found. Raises InputError when
    the lengths differ, a number is not finite, a corner is not below its opposite, a box leaves a flat image
    or a score is not in 0 to 1.
    """

    case: Case | Radiograph | Photograph
    corners: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    masks: tuple[np.ndarray | Boxed, ...] = ()
    remark: str = ""

    def __post_init__(self):
        dimensions = len(self.case.shape)
        corners = np.asarray(self.corners, dtype=np.float64).reshape(-1, 2, dimensions)
        scores = np.asarray(self.scores, dtype=np.float64).ravel()
        object.__setattr__(self, "corners", corners)
        object.__setattr__(self, "scores", scores)
        if not len(corners) == len(scores) == len(self.classes):
            raise InputError(
                f"{len(corners)} boxes, {len(scores)} scores and {len(self.classes)} classes; expected one "
                f"of each."
            )
        if not (np.isfinite(corners).all() and (corners[:, 0] < corners[:, 1]).all()):
            raise InputError(
                "a box has a corner that is not finite, or no extent; the low corner comes first."
            )
        if dimensions == 2 and not ((corners >= 0).all() and (corners <= self.case.shape).all()):
            raise InputError(
                f"a box leaves the image of {self.case.shape[0]} rows and {self.case.shape[1]} columns."
            )
        if not ((scores >= 0) & (scores <= 1)).all():
            raise InputError(f"scores from {scores.min():g} to {scores.max():g}; expected 0 to 1.")
        whole = [mask for mask in self.masks if not isinstance(mask, Boxed)]
        wrong = any(mask.shape != self.case.shape for mask in whole)
        if wrong or (self.masks and len(self.masks) != len(corners)):
            raise InputError("masks of boxes: expected one of the image's size for each box, or none.")
        packed = tuple(mask if isinstance(mask, Boxed) else pack(mask) for mask in self.masks)
        object.__setattr__(self, "masks", packed)

    def mask(self, index: int) -> np.ndarray:
        """bool of ``case.shape``: what belongs to box ``index``."""
        return self.masks[index].expand(self.case.shape)

    def ranked(self) -> np.ndarray:
        """int (N,): the boxes' numbers, the highest score first."""
        return np.argsort(-self.scores, kind="stable")

    def on_images(self) -> list[dict[str, Any]]:
        """Each box, best first, as it lies on one flat image: ``image`` (the number of the slice through its
        middle, 0 of a radiograph), ``corners`` float64 (2, 2), (row, column) from the outer corner of the
        first pixel, ``class`` and ``score``. A volume's box that lies askew to the slices gets the upright
        rectangle around it, cut to the image."""
        rows = []
        for index in self.ranked():
            image, corners = 0, self.corners[index]
            if self.case.kind == "volume":
                grid = self.case.geometry
                ends = np.array(list(itertools.product(*corners.T)))
                image, _ = grid.nearest_slice(ends)
                places = grid.rows_columns(image, ends) + 0.5
                corners = np.clip([places.min(axis=0), places.max(axis=0)], 0, grid.shape[1:])
            known = {"class": self.classes[index], "score": float(self.scores[index])}
            rows.append({"image": image, "corners": corners, **known})
        return rows

    @property
    def unit(self) -> str:
        """Of the corners: "LPS mm" on a volume, "pixels (row, column)" on a radiograph."""
        return "LPS mm" if self.case.kind == "volume" else "pixels (row, column)"

    def record(self) -> dict[str, Any]:
        """Input, geometry, and the boxes with the highest score first; the size of those with masks."""
        rows = [
            {
                "class": self.classes[index],
                "score": round(float(self.scores[index]), 4),
                "low": [round(float(value), 3) for value in self.corners[index, 0]],
                "high": [round(float(value), 3) for value in self.corners[index, 1]],
                **(self.case.size_of(self.mask(index)) if self.masks else {}),
            }
            for index in self.ranked()
        ]
        best = f", the best {rows[0]['class']} {rows[0]['score']:.2f}" if rows else ""
        words = f"{len(rows)} box{'' if len(rows) == 1 else 'es'}{best}"
        answer: dict[str, Any] = {"unit": self.unit, "found": rows}
        if self.remark:
            answer["remark"] = self.remark
        return {**self.case.record(), "boxes": answer, "summary": words}


@dataclass(frozen=True, eq=False)
class Labels:
    """What is said about the whole image: a probability per class, or numbers with their units.

    ``probabilities``: {class: 0 to 1}. ``values``: {name: (number, unit)}, such as {"T-score": (-2.1, "1")}.
    ``intervals``: {class or name: (low, high)}, calibrated. ``remark``: what has to be said with them, "" for
    nothing. Raises InputError when both are empty, for a probability or its interval outside 0 to 1, an
    interval of nothing that was said, and a number that is not finite.
    """

    case: Case | Radiograph | Photograph
    probabilities: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    remark: str = ""

    def __post_init__(self):
        if not self.probabilities and not self.values:
            raise InputError("labels without a probability and without a value say nothing.")
        for name, probability in self.probabilities.items():
            if not 0 <= probability <= 1:
                raise InputError(f"probability of {name} is {probability}; expected 0 to 1.")
        for name, (low, high) in self.intervals.items():
            least, most = (0, 1) if name in self.probabilities else (-math.inf, math.inf)
            if name not in {*self.probabilities, *self.values} or not least <= low <= high <= most:
                raise InputError(
                    f"interval of {name}: {low} to {high}; expected two of 0 to 1 of a class, or two numbers "
                    "of a value."
                )
        for name, (number, _) in self.values.items():
            if not math.isfinite(number):
                raise InputError(f"{name} is {number}; expected a finite number.")

    def record(self) -> dict[str, Any]:
        """Input, geometry, probabilities and values."""
        chances = {name: round(float(value), 4) for name, value in self.probabilities.items()}
        values = {
            name: {"value": float(f"{number:.6g}"), "unit": unit}
            for name, (number, unit) in self.values.items()
        }
        words = [f"{name} {value:.2f}" for name, value in chances.items()]
        words += [
            f"{name} {number:.3g}" + ("" if unit in ("", "1") else f" {unit}")
            for name, (number, unit) in self.values.items()
        ]
        answer: dict[str, Any] = {"probabilities": chances, "values": values}
        if self.intervals:
            answer["intervals"] = {
                name: [round(float(low), 4), round(float(high), 4)]
                for name, (low, high) in self.intervals.items()
            }
        if self.remark:
            answer["remark"] = self.remark
        return {**self.case.record(), "labels": answer, "summary": ", ".join(words)}


Result = Structures | Boxes | Labels
