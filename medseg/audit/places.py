"""Where in the image's own series a plane of an Evidence lies: it may be cropped or resampled, and a person
looks for the slice that the scanner and the planning system know."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medseg.audit.evidence import Evidence
from medseg.geometry import LPS_TO_RAS
from medseg.reports.pictures import anatomical_axes


class Place(NamedTuple):
    """Slice ``number`` of ``count`` of the series, from 1 in their order along the normal, both None where
    the series is not cut axially or not known; ``z_mm``: its height, to Superior."""

    number: int | None
    count: int | None
    z_mm: float

    def __str__(self) -> str:
        number = "" if self.number is None else f"slice {self.number} of {self.count}, "
        return f"{number}z {self.z_mm:.1f} mm"


def place_of(evidence: Evidence, index: int, shown: np.ndarray) -> Place | None:
    """Of a plane across the first axis, at the middle of what is ``shown`` on it, a bool [row, column] that
    holds something; None in 2D.

    Where the plane lies between two slices, it is the nearer one that is named, with its own height.
    """
    if evidence.affine_ras is None:
        return None
    middle = np.array([index, *np.argwhere(shown).mean(axis=0), 1.0])
    point = (LPS_TO_RAS @ evidence.affine_ras @ middle)[None, :3]
    own = evidence.own_slices
    if own is None or anatomical_axes(own)[0][0] != 0:
        return Place(None, None, float(point[0, 2]))
    number, _ = own.nearest_slice(point)
    on_slice = own.points_lps_mm(number, own.rows_columns(number, point))
    return Place(number + 1, own.shape[0], float(on_slice[0, 2]))


def worst_place(evidence: Evidence, label: np.ndarray, prediction: np.ndarray) -> Place | None:
    """The place of the largest differing area of two bool masks on the evidence's grid; the middle of both
    where they are equal; None when both are empty, and in 2D."""
    either = label | prediction
    if evidence.affine_ras is None or not either.any():
        return None
    wrong = np.count_nonzero(label ^ prediction, axis=(1, 2))
    middle = int(np.median(np.flatnonzero(either.any(axis=(1, 2)))))
    index = int(wrong.argmax()) if wrong.any() else middle
    return place_of(evidence, index, either[index] if either[index].any() else either.any(axis=0))
