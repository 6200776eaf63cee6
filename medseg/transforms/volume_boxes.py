"""Boxes of volumes on their way into a network and back: from millimetres in the patient to the network's
grid, through MONAI's transforms of boxes, and from its answer to the case's own coordinates.

On a grid boxes are rows (low x, y, z, high x, y, z): MONAI's box mode. Voxels are counted from the outer
corner of the first one. In the patient they are corners in LPS mm, as :class:`medseg.cases.results.Boxes` has
them.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.apps.detection.transforms.box_ops import apply_affine_to_boxes
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable

from medseg.cases.mask_boxes import voxels_about
from medseg.cases.results import Boxes
from medseg.errors import InputError, MedsegWarning
from medseg.geometry import LPS_TO_RAS, Geometry
from medseg.shapes.packed import Boxed, pack
from medseg.transforms.detections import UPRIGHT_WITHIN, BoxTargetd, box_corners, thresholds_of
from medseg.transforms.readers import REMARK_KEY, case_of

ROW = 7
"""Numbers of a target's row: a box's six and its class."""

UNIT = "left, posterior and superior, mm"


def check_volume_boxes(
    boxes: Sequence[Mapping[str, Any]], affine_ras: np.ndarray, shape: Sequence[int], source: str
) -> np.ndarray:
    """float64 (N, 2, 3), the corners in LPS mm of findings ``{"class", "low", "high"}`` on an image (x, y, z)
    of ``shape`` with ``affine_ras``. InputError, in one line, for corners that are swapped, equal or no
    numbers, and a box whose middle lies outside the image."""
    corners = box_corners(boxes, 3, source, UNIT)
    outside = _is_outside(to_volume_grid(corners, affine_ras), shape)
    if outside.any():
        number = int(outside.argmax())
        place = ", ".join(f"{mm:g}" for mm in corners[number].mean(axis=0))
        raise InputError(f"{source}: box {number + 1} around {place} ({UNIT}) lies outside the image.")
    return corners


def to_volume_grid(corners_lps_mm: np.ndarray, affine_ras: np.ndarray) -> np.ndarray:
    """float64 (N, 6) on the grid with ``affine_ras`` of corners (N, 2, 3) in LPS mm. InputError where the
    grid's axes are oblique to the patient's: an upright box has no box there."""
    turned = np.abs(affine_ras[:3, :3])
    if len(corners_lps_mm) and (np.sort(turned, axis=1)[:, :-1] > UPRIGHT_WITHIN * turned.max()).any():
        raise InputError(
            "boxes cannot be put on slices that are oblique to the patient; resample them upright."
        )
    to_index = np.linalg.inv(affine_ras) @ LPS_TO_RAS
    return (
        apply_affine_to_boxes(corners_lps_mm.reshape(-1, 6), to_index) + 0.5
    )  # an index is a voxel's middle


def _is_outside(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """bool (N,): boxes (N, 6) whose middle lies outside the grid."""
    middles = (boxes[:, :3] + boxes[:, 3:]) / 2
    return ((middles < 0) | (middles > np.array(shape))).any(axis=1)


class VolumeBoxTargetd(BoxTargetd):
    """Findings of a datalist, ``[{"class", "low", "high"}]`` in LPS mm, to float32 (``most``, 7) on the grid
    that ``image_key`` has come to: corners and the class's number, NaN behind the last. An empty list is a CT
    without a finding.

    ``classes``: the names, counted from 0; another one is refused. ``merged``: {a class of the datalist: the
    one it is trained as}. A box whose middle was cut away, as by :class:`medseg.transforms.CropLungsd`, is
    left out with a MedsegWarning. InputError as :func:`check_volume_boxes`, by the image as it was read, and
    for more than ``most`` boxes.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        source = str(image.meta["filename_or_obj"])
        first = np.asarray(image.meta["original_affine"]), [int(n) for n in image.meta["spatial_shape"]]
        for key in self.key_iterator(d):
            corners = check_volume_boxes(d[key], *first, source)
            if len(corners) > self.most:
                raise InputError(f"{source}: {len(corners)} boxes, at most {self.most} are taken.")
            numbers = np.array([self._number(box.get("class"), source) for box in d[key]])
            boxes = to_volume_grid(corners, np.asarray(image.affine, dtype=np.float64))
            lost = _is_outside(boxes, image.shape[1:])
            if lost.any():
                words = f"{source}: {lost.sum()} of {len(lost)} boxes lie where the image was cut away"
                warnings.warn(words, MedsegWarning, stacklevel=2)
            boxes = boxes[~lost].clip(0, np.tile(image.shape[1:], 2))
            rows = torch.full((self.most, ROW), torch.nan)
            rows[: len(boxes), :6] = torch.from_numpy(boxes).float()
            rows[: len(boxes), 6] = torch.from_numpy(numbers[~lost]).float()
            d[key] = rows
        return d


class SplitBoxRowsd(MapTransform):
    """Rows (most, 7) to what MONAI's transforms of boxes take: ``box_key`` float32 (N, 6) and ``class_key``
    int64 (N,)."""

    def __init__(self, keys="label", box_key: str = "box", class_key: str = "box_class"):
        super().__init__(keys)
        self.box_key, self.class_key = box_key, class_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            known = d[key][~d[key].isnan().any(dim=1)]
            d[self.box_key], d[self.class_key] = known[:, :6].clone(), known[:, 6].long()
        return d


class JoinBoxRowsd(MapTransform):
    """The other way round: rows of the same number as before, NaN behind the last; the two keys go."""

    def __init__(self, keys="label", box_key: str = "box", class_key: str = "box_class"):
        super().__init__(keys)
        self.box_key, self.class_key = box_key, class_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            boxes = torch.as_tensor(d.pop(self.box_key)).as_subclass(torch.Tensor).reshape(-1, 6)
            rows = torch.full_like(d[key], torch.nan)
            rows[: len(boxes), :6] = boxes
            rows[: len(boxes), 6] = torch.as_tensor(d.pop(self.class_key)).float().reshape(-1)
            d[key] = rows
        return d


class RandNeighbourSlicesd(Randomizable, MapTransform):
    """``count`` slices across the last axis of a volume (1, x, y, z), each with its neighbours: what
    :class:`medseg.networks.SliceDetector` learns from.

    The answer is a list of dictionaries, one for each slice: the image (3, x, y), its channels the slice
    below, the slice and the one above, and under ``label_key`` the slice (1, x, y) of the map at
    ``mask_key``, whose voxels hold the numbers of findings. ``cutting``: the share of slices that cut a
    finding; it is drawn first and then one of its slices, so that small ones are seen as often as large ones.
    The others may lie anywhere. InputError for a map of another size.
    """

    def __init__(
        self,
        keys="image",
        mask_key: str = "mask",
        label_key: str = "label",
        count: int = 1,
        cutting: float = 0.6,
    ):
        super().__init__(keys)
        self.mask_key, self.label_key, self.count, self.cutting = mask_key, label_key, count, cutting

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        labels = torch.as_tensor(data[self.mask_key]).as_subclass(torch.Tensor)
        places = (labels > 0).nonzero(as_tuple=True)
        numbers, levels = labels[places], places[-1]
        findings = [levels[numbers == number].unique() for number in numbers.unique()]
        return [self._sample(data, labels, findings) for _ in range(self.count)]

    def _sample(
        self, data: Mapping[Hashable, Any], labels: torch.Tensor, findings: list[torch.Tensor]
    ) -> dict[Hashable, Any]:
        level = int(self.R.randint(labels.shape[-1]))
        if findings and self.R.random() < self.cutting:
            cut = findings[self.R.randint(len(findings))]
            level = int(cut[self.R.randint(len(cut))])
        d = {key: value for key, value in data.items() if key != self.mask_key}
        for key in self.key_iterator(data):
            image = torch.as_tensor(data[key]).as_subclass(torch.Tensor)
            if image.ndim != 4 or image.shape[0] != 1 or image.shape != labels.shape:
                raise InputError(
                    f"an image of shape {tuple(image.shape)}, findings of {tuple(labels.shape)}; expected "
                    "both (1, x, y, z)."
                )
            last = image.shape[-1] - 1
            near = [max(level - 1, 0), level, min(level + 1, last)]
            d[key] = image[0][..., near].movedim(-1, 0).contiguous()
        d[self.label_key] = labels[..., level].contiguous()
        return d


class SplitAnswerd(MapTransform):
    """The answer of :class:`medseg.inference.LinkedSlices` to rows under its key and masks under
    ``mask_key``."""

    def __init__(self, keys="pred", mask_key: str = "pred_masks"):
        super().__init__(keys)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.mask_key], d[key] = d[key]["masks"], d[key]["rows"]
        return d


class ToVolumeBoxesd(MapTransform):
    """A detector's answer (rows, 8) on the grid of ``image_key`` to :class:`medseg.cases.results.Boxes` in
    LPS mm; on a grid that is oblique to the patient each box becomes the upright one around it.

    ``classes``, ``thresholds`` and ``remark``: see :class:`medseg.transforms.ToBoxesd`. ``mask_key``: an int
    map (1, x, y, z), n + 1 in the voxels of row n; a voxel of the case belongs to a box if the nearest one on
    the network's grid does, and a box whose mask holds no voxel of the case keeps an empty one.
    """

    def __init__(
        self,
        keys="pred",
        classes: Sequence[str] = (),
        thresholds: float | str | Mapping[str, float] = 0.5,
        image_key: str = "image",
        mask_key: str | None = None,
        remark: str = "",
    ):
        super().__init__(keys)
        self.classes, self.image_key, self.mask_key, self.remark = tuple(classes), image_key, mask_key, remark
        self.thresholds = thresholds_of(thresholds, self.classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image: MetaTensor = d[self.image_key]
        affine_lps = LPS_TO_RAS @ np.asarray(image.affine, dtype=np.float64)
        case = case_of(image.meta)
        for key in self.key_iterator(d):
            rows = torch.as_tensor(d[key]).detach().cpu().double().numpy()
            named = [int(row[7]) if np.isfinite(row).all() else None for row in rows]
            called = [
                number
                for number, name in enumerate(named)
                if name is not None and rows[number, 6] >= self.thresholds[self.classes[name]]
            ]
            corners = [_upright_lps(rows[number, :6], affine_lps) for number in called]
            masks = ()
            if self.mask_key is not None:
                labels = torch.as_tensor(d[self.mask_key])[0].cpu().numpy()
                grid = (np.linalg.inv(affine_lps), labels)
                ends = zip(called, corners, strict=True)
                masks = tuple(_mask_on(case.geometry, *grid, n + 1, corner) for n, corner in ends)
            d["boxes"] = Boxes(
                case,
                np.array(corners),
                rows[called, 6],
                tuple(self.classes[named[number]] for number in called),
                masks,
                remark=" ".join(filter(None, (image.meta.get(REMARK_KEY, ""), self.remark))),
            )
        return d


def _upright_lps(box: np.ndarray, affine_lps: np.ndarray) -> np.ndarray:
    """float64 (2, 3): low and high corner in LPS mm around a grid's box (6,)."""
    ends = np.array(list(itertools.product(*box.reshape(2, 3).T))) - 0.5
    points = ends @ affine_lps[:3, :3].T + affine_lps[:3, 3]
    return np.array([points.min(axis=0), points.max(axis=0)])


def _mask_on(
    geometry: Geometry, to_index: np.ndarray, labels: np.ndarray, number: int, corners_lps_mm: np.ndarray
) -> Boxed:
    """The voxels of ``geometry``, packed, whose nearest in ``labels`` (x, y, z), reached from LPS mm by
    ``to_index``, is ``number``; only those about the corners (2, 3) are looked at."""
    corner, points = voxels_about(geometry, corners_lps_mm)
    nearest = np.rint(points @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
    known = ((nearest >= 0) & (nearest < labels.shape)).all(axis=-1)
    part = np.zeros(points.shape[:3], dtype=bool)
    part[known] = labels[tuple(nearest[known].T)] == number
    return pack(part, corner)
