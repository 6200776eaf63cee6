"""Structure sets as training labels, straight from DICOM: CT folder + RTSTRUCT + map of ROI names, no files
between.

:class:`LoadRTStructd` is the MONAI door, :func:`structure_channels` the function behind it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.cases.volume import Case, open_case, resample
from medseg.errors import GeometryError, InputError, MedsegWarning, StructureError
from medseg.geometry import Geometry
from medseg.structures.aliases import Aliases, check_aliases, match_rois
from medseg.transforms.readers import case_of


def structure_channels(
    structure_set: str | os.PathLike,
    case: Case,
    structures: Aliases,
    rois: Mapping[str, str | None] | None = None,
    allow: Sequence[str] = (),
) -> tuple[np.ndarray, dict[str, str | None]]:
    """(float32 [structure, slice, row, column] of 0 and 1 on the case's slices, {structure: ROI name or
    None}).

    ``structures``: {structure: regular expressions}, see :mod:`medseg.structures.aliases`; their order is
    that of the channels. ``rois``: {structure: exact ROI name} instead of matching by pattern, None or left
    out for "not contoured". A structure that nobody contoured, or whose ROI has no voxel on these images, is
    a channel of NaN: no loss, rather than "there is none". ``allow``: see
    :data:`medseg.dicom.ALLOWABLE_IN_STRUCTURE_SETS`.

    Raises InputError for a case without a DICOM series, GeometryError for another patient or Frame of
    Reference, StructureError when several ROIs are meant by one structure and when none of the structures is
    there.
    """
    from medseg.dicom.rtstruct.read import place
    from medseg.dicom.rtstruct.structure_set import read_structure_set

    if case.series is None:
        raise InputError(
            f"{structure_set}: a structure set needs the DICOM series it was drawn on; {case.source} is none."
        )
    found = read_structure_set(structure_set)
    # A damaged one is kept, so that its being left out is said.
    drawn = [roi for roi in found.rois if roi.damage or any(c.bounds_an_area for c in roi.contours)]
    names = [roi.structure.name for roi in drawn]
    chosen = (
        match_rois(structures, names, str(structure_set))
        if rois is None
        else _exact(structures, rois, found.path)
    )
    missing = sorted(name for name in chosen.values() if name is not None and name not in names)
    if missing:
        raise StructureError(
            f"{structure_set}: no contours of {', '.join(map(repr, missing))}; it has {', '.join(names)}."
        )
    wanted = tuple(roi for roi in drawn if roi.structure.name in chosen.values())
    if not wanted:
        raise StructureError(
            f"{structure_set}: none of {', '.join(structures)} is among its ROIs "
            f"{', '.join(names) or '(none)'}; add patterns, or leave the case out."
        )
    masks, notices = place(replace(found, rois=wanted), case.series, allow)
    channels = np.full((len(chosen), *case.geometry.shape), np.nan, dtype=np.float32)
    for number, (structure, name) in enumerate(chosen.items()):
        if name in masks and masks[name].any():
            channels[number] = masks[name]
        else:
            chosen[structure] = None
    for notice in notices:
        warnings.warn(f"{structure_set}: {notice}", MedsegWarning, stacklevel=2)
    return channels, chosen


def _exact(structures: Aliases, rois: Mapping[str, str | None], path: object) -> dict[str, str | None]:
    unknown = sorted(set(rois) - set(structures))
    if unknown:
        raise InputError(
            f"{path}: ROIs are named for {', '.join(unknown)}; the structures are {', '.join(structures)}."
        )
    return {structure: rois.get(structure) for structure in structures}


class LoadRTStructd(MapTransform):
    """Load structure sets (a path under each key) as MetaTensor (C, x, y, z) on exactly the grid of the
    case's image.

    ``image_key``: the image's case source, or the image as :class:`medseg.transforms.LoadCased` (or MONAI's
    LoadImaged with :class:`medseg.transforms.CaseReader`) has just loaded it; nothing may have moved or
    cropped it yet. ``structures`` and ``allow``: as in :func:`structure_channels`, one channel each.
    ``rois_key``: where an item may say which ROI is which, ``{structure: ROI name}``, as
    ``medseg datalist`` writes it. The label's meta data tell which were used. A structure
    that is not contoured is a channel of NaN, to which the losses of :mod:`medseg.losses.per_sample` give no
    loss.

    Uneven or tilted stacks: the label follows the image onto its regular grid, linear in between and cut at
    0.5. What has no voxel left there is NaN too, with a MedsegWarning.
    """

    def __init__(
        self,
        keys,
        structures: Aliases,
        image_key: str = "image",
        rois_key: str | None = "rois",
        allow: Sequence[str] = (),
    ):
        super().__init__(keys)
        self.structures = check_aliases(structures, "LoadRTStructd(structures=…)")
        self.image_key = image_key
        self.rois_key = rois_key
        self.allow = tuple(allow)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        case = self._case(d[self.image_key])
        grid = case.geometry.regular_grid()
        # Taken out, because MONAI could not collate items that name different structures.
        rois = d.pop(self.rois_key, None) if self.rois_key else None
        for key in self.key_iterator(d):
            path = os.fspath(d[key])
            channels, chosen = structure_channels(path, case, self.structures, rois, self.allow)
            if grid is not case.geometry:
                channels = np.stack([_on_grid(channel, case.geometry, grid) for channel in channels])
                chosen = _still_there(channels, chosen, path)
            array = np.ascontiguousarray(channels.transpose(0, 3, 2, 1))
            meta = {
                "affine": grid.affine_ras,
                "original_affine": grid.affine_ras,
                "space": "RAS",
                "spatial_shape": np.asarray(array.shape[1:]),
                "original_channel_dim": 0,
                "filename_or_obj": path,
                "rois": ", ".join(f"{structure}={name or '(none)'}" for structure, name in chosen.items()),
            }
            d[key] = MetaTensor(torch.from_numpy(array), meta=meta)
        return d

    def _case(self, image: Any) -> Case:
        if not isinstance(image, MetaTensor):
            return open_case(os.fspath(image))
        case = case_of(image.meta)
        grid = case.geometry.regular_grid()
        on_grid = tuple(image.shape[-3:]) == grid.shape[::-1] and np.allclose(
            image.affine, grid.affine_ras, atol=1e-3
        )
        if not on_grid:
            raise GeometryError(
                f"{case.source}: the image was moved, cropped or resampled before its structures were "
                "loaded; put LoadRTStructd right behind the transform that loads the image."
            )
        return case


def _on_grid(channel: np.ndarray, geometry: Geometry, grid: Geometry) -> np.ndarray:
    """A channel resampled as the image was; one of NaN stays NaN."""
    if np.isnan(channel.flat[0]):
        return np.full(grid.shape, np.nan, dtype=np.float32)
    return (resample(channel, geometry, grid) >= 0.5).astype(np.float32)


def _still_there(channels: np.ndarray, chosen: dict[str, str | None], path: str) -> dict[str, str | None]:
    """``chosen`` without structures so thin that no slice of the grid meets them; their channels become
    NaN."""
    for channel, (structure, name) in zip(channels, chosen.items(), strict=True):
        if name is not None and not channel.any():
            channel[:] = np.nan
            message = (
                f"{path}: ROI {name!r} lies between the slices of the regular grid; it counts as not "
                f"contoured."
            )
            warnings.warn(message, MedsegWarning, stacklevel=3)
            chosen = {**chosen, structure: None}
    return chosen
