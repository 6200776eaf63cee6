"""Load further series of a patient onto the grid of the image that is contoured."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.body_outlines import MOST_MM, outline_shift
from medseg.cases.multimodal import Companion, Multimodal
from medseg.errors import GeometryError, InputError, MedsegWarning
from medseg.geometry import Geometry
from medseg.transforms.readers import case_of, note_series

COVERED = "_covered"
"""What follows a series' key in the key of the mask of what it covers."""


class LoadSeriesd(MapTransform):
    """Load PET, MR or other series of the patient and look them up at the voxels of ``reference``.

    ``keys``: the item's further series, each a case source (DICOM or NIfTI) or absent. ``reference``: an
    image that :class:`medseg.transforms.LoadCased` loaded, whole or already cropped, turned and resampled:
    its present grid counts, so nothing is interpolated twice. The item's ``registrations``, where it has
    any, are REG files; see :func:`medseg.cases.multimodal.open_multimodal` for how series meet and what is
    refused.

    Output per key: MetaTensor (1, x, y, z), float32, on the reference's grid (SUV for PET in DICOM, stored
    numbers else), 0 where the series does not reach; and ``<key>_covered``, 1.0 where it does. A key that the
    item lacks stays absent, and run.json says that it is missing. A series that covers a part is a
    MedsegWarning, one that covers nothing a GeometryError; a patient whose outline lies elsewhere than on the
    reference is a MedsegWarning (:mod:`medseg.cases.body_outlines`). Nothing is to invert: predictions lie on
    the reference's grid.
    """

    def __init__(self, keys=("pt", "mr"), reference: str = "image"):
        super().__init__(keys, allow_missing_keys=True)
        if reference in self.keys:
            raise InputError(f"keys hold {reference}, on whose grid the others are put; leave it out.")
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.reference]
        others = {str(key): os.fspath(d[key]) for key in self.key_iterator(d)}
        missing = [str(key) for key in self.keys if key not in others]
        note_series(image.meta, others, d.get("registrations", ()), missing)
        case = case_of(image.meta)
        assert isinstance(case, Multimodal)
        frame_uid = case.geometry.frame_of_reference_uid
        grid = Geometry.from_ras_affine(np.asarray(image.affine), image.shape[1:], frame_uid)
        for key, companion in case.companions.items():
            values, covered = companion.sampled_on(grid)
            _check_cover(companion.name, float(covered.mean()))
            _check_outline(case, companion)
            d[key] = _on(image, values)
            d[f"{key}{COVERED}"] = _on(image, covered.astype(np.float32))
        return d


def _on(image: MetaTensor, array: np.ndarray) -> MetaTensor:
    """An array [slice, row, column] as a channel (1, x, y, z) with the place of ``image``."""
    channel = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))[None]
    return MetaTensor(channel, affine=image.affine, meta={"space": "RAS"})


def _check_outline(case: Multimodal, companion: Companion) -> None:
    shift = outline_shift(case, companion)
    if shift is not None and shift.length_mm > MOST_MM:
        warnings.warn(
            f"{companion.name}: the patient's outline on it lies {shift.words} of that on the CT. It was "
            "used as it lies: compare both in the preview, and register them anew or leave it out: `series`.",
            MedsegWarning,
            stacklevel=3,
        )


def _check_cover(name: str, share: float) -> None:
    if share == 0:
        raise GeometryError(
            f"{name} covers nothing of what the network sees: check how it is registered, or leave it out: "
            "`series`."
        )
    if share < 0.995:
        warnings.warn(
            f"{name} covers {100 * share:.0f} % of what the network sees; the rest is contoured without it.",
            MedsegWarning,
            stacklevel=3,
        )
