"""A label beside its prediction, and what a reason for their disagreement looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Reason:
    """``kind``: a key of KINDS. ``words``: the sentence for a person. ``amount``: in mm or px, nan where it
    has none. ``vector``: of a shift, along the axes of Evidence. ``dice_after``: of the corrected label with
    the prediction."""

    kind: str
    words: str
    amount: float = math.nan
    vector: tuple[float, ...] = ()
    dice_after: float = math.nan


KINDS = {
    "shifted": "lies somewhere else by one and the same distance",
    "expanded": "its outline lies outside the prediction all round",
    "contracted": "its outline lies inside the prediction all round",
    "missing component": "a piece of the prediction has no label",
    "far prediction": (
        "the prediction has a piece so far from the label that it is likely the prediction's own error"
    ),
    "extra component": "a piece of the label has no prediction",
    "wrong structure": "fits the prediction of another structure better",
    "sides swapped": "left and right fit each other's prediction",
    "slices dropped": "empty slices within the label",
    "cropped": "the label ends before the prediction does",
    "too long": "the label goes on after the prediction has ended",
    "empty label": "no label voxel, but a prediction",
    "nothing predicted": "a label, but no predicted voxel",
    "no single cause": "no one correction explains the difference",
    "not judged": "the predictions of this structure are too poor to say anything about its labels",
}


@dataclass(frozen=True, eq=False)
class Pair:
    """A label and its prediction, bool (*spatial) in the convention of Evidence, with voxel ``spacing`` in
    ``unit``, and the image, uint8 (*spatial), where there is one."""

    label: np.ndarray
    prediction: np.ndarray
    spacing: tuple[float, ...]
    unit: str
    image: np.ndarray | None = None

    def within(self, box: tuple[slice, ...]) -> Pair:
        """The part of it in a box."""
        image = None if self.image is None else self.image[box]
        return replace(self, label=self.label[box], prediction=self.prediction[box], image=image)

    def says(self, distance: float) -> str:
        """A distance for a reader: "6 mm"."""
        return (
            f"{distance:.0f} {self.unit}"
            if distance >= 2 or self.unit == "px"
            else f"{distance:.1f} {self.unit}"
        )

    def size(self, voxels: float) -> str:
        """A volume or area for a reader: "3.2 cc"."""
        volume = voxels * math.prod(self.spacing)
        return (
            f"{volume / 1000:.1f} cc"
            if self.unit == "mm" and len(self.spacing) == 3
            else f"{volume:.0f} {self.unit}²"
        )
