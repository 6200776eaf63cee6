"""Boxes on their way into a network and back: from a datalist to the network's grid, moved as the image is,
and from its answer to the case's own coordinates.

Boxes are rows (low row, low column, high row, high column): MONAI's box mode with its first axis first.
Pixels are counted from the outer corner of the first one, so that a box around it is 0, 0, 1, 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.apps.detection.transforms.box_ops import apply_affine_to_boxes
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTrait
from torchvision import tv_tensors
from torchvision.transforms import v2

from medseg.cases.radiograph import open_radiograph
from medseg.cases.results import Boxes
from medseg.errors import BundleError, InputError
from medseg.files import load_json
from medseg.transforms.readers import REMARK_KEY

ROW = 5
"""Numbers of a target's row: a box's four and its class."""

UPRIGHT_WITHIN = 1e-6
TALL_WIDE = [1, 0, 3, 2]
"""(row, column) corners to torchvision's (x, y) ones, and back."""


def check_boxes(boxes: Sequence[Mapping[str, Any]], shape: Sequence[int], source: str) -> np.ndarray:
    """float64 (N, 2, 2), the low and high corners (row, column) of findings ``{"class", "low", "high"}`` on
    an image of ``shape``; InputError, in one line, for a box that no reader can have meant: corners swapped
    or equal, numbers that are none, or a part outside the image."""
    corners = box_corners(boxes, 2, source, "row and column")
    for number, (low, high) in enumerate(corners):
        if (low < 0).any() or (high > shape).any():
            raise InputError(
                f"{source}: box {number + 1} ({_words(low)} to {_words(high)}, row and column) leaves the "
                f"image of {shape[0]} rows and {shape[1]} columns."
            )
    return corners


def box_corners(boxes: Sequence[Mapping[str, Any]], dimensions: int, source: str, unit: str) -> np.ndarray:
    """float64 (N, 2, ``dimensions``), the low and high corners of findings ``{"class", "low", "high"}``;
    InputError for corners that are swapped or equal, and numbers that are none."""
    try:
        corners = np.array([[box["low"], box["high"]] for box in boxes], dtype=np.float64)
        corners = corners.reshape(len(boxes), 2, dimensions)
    except (KeyError, TypeError, ValueError) as error:
        numbers = {2: "two", 3: "three"}[dimensions]
        raise InputError(
            f"{source}: a box is not {{class, low, high}} of {numbers} numbers ({error})."
        ) from error
    for number, (low, high) in enumerate(corners):
        where = f"{source}: box {number + 1} ({_words(low)} to {_words(high)}, {unit})"
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise InputError(f"{where} has a corner that is no number.")
        if (low > high).any():
            raise InputError(f"{where} has its corners swapped; the low one comes first.")
        if (low == high).any():
            raise InputError(f"{where} has no {'area' if dimensions == 2 else 'volume'}; leave it out.")
    return corners


def _words(corner: np.ndarray) -> str:
    return ", ".join(f"{number:g}" for number in corner)


def to_grid(boxes: np.ndarray, affine_from: np.ndarray, affine_to: np.ndarray) -> np.ndarray:
    """Boxes float64 (N, 2 D) of the grid with ``affine_from`` (D + 1 square: index to space) on the grid with
    ``affine_to``. InputError where the axes of one are oblique to the other's: such a box has no box."""
    between = np.linalg.inv(affine_to) @ affine_from
    axes = np.abs(between[:-1, :-1])
    if (np.sort(axes, axis=1)[:, :-1] > UPRIGHT_WITHIN * axes.max()).any():
        raise InputError("boxes cannot follow an image that was turned obliquely; turn both at once.")
    # An index is a pixel's middle; a box counts from corners.
    return apply_affine_to_boxes(np.asarray(boxes, dtype=np.float64) - 0.5, between) + 0.5


def flat_affine(image: MetaTensor) -> np.ndarray:
    """float64 3 x 3: index (row, column) of a film's pixels on the grid as it is now to the film's own."""
    affine = np.asarray(image.affine, dtype=np.float64)
    return affine[np.ix_([0, 1, -1], [0, 1, -1])]


class BoxTargetd(MapTransform):
    """Findings of a datalist, ``[{"class", "low", "high"}]`` in the film's own pixels (row, column), to
    float32 (``most``, 5) on the grid that ``image_key`` has come to: corners and the class's number, NaN
    behind the last. An empty list is a normal film.

    ``classes``: the names, counted from 0; another one is refused. ``merged``: {a class of the datalist: the
    one it is trained as}. InputError as :func:`check_boxes`, and for more than ``most`` boxes.
    """

    def __init__(
        self,
        keys="label",
        classes: Sequence[str] = (),
        merged: Mapping[str, str] | None = None,
        image_key: str = "image",
        most: int = 100,
    ):
        super().__init__(keys)
        self.classes, self.merged = tuple(classes), dict(merged or {})
        self.image_key, self.most = image_key, most

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        source = str(image.meta["filename_or_obj"])
        for key in self.key_iterator(d):
            corners = check_boxes(d[key], [int(n) for n in image.meta["spatial_shape"]], source)
            if len(corners) > self.most:
                raise InputError(f"{source}: {len(corners)} boxes, at most {self.most} are taken.")
            rows = torch.full((self.most, ROW), torch.nan)
            moved = to_grid(corners.reshape(-1, 4), np.eye(3), flat_affine(image))
            rows[: len(corners), :4] = torch.from_numpy(moved).float()
            for number, box in enumerate(d[key]):
                rows[number, 4] = self._number(box.get("class"), source)
            d[key] = rows
        return d

    def _number(self, name: str, source: str) -> int:
        name = self.merged.get(name, name) if isinstance(name, str) else name
        if name not in self.classes:
            raise InputError(f"{source}: class {name!r} is unknown; expected {', '.join(self.classes)}.")
        return self.classes.index(name)


class RandBoxAffined(MapTransform, RandomizableTrait):
    """Turn, move, scale and mirror a film and its boxes together, by torchvision, in one interpolation.

    ``turn_deg``: up to so much to either side. ``shift``: up to so much of each side. ``scale``: (least,
    most). ``flip``: the share that is mirrored left to right. A box becomes the upright one around its turned
    corners, cut to the image; those that leave less than a pixel are gone. Beyond the film it is black. Draws
    are torch's, which a training seeds at every epoch.
    """

    def __init__(
        self,
        keys="image",
        label_key: str = "label",
        turn_deg: float = 5.0,
        shift: float = 0.05,
        scale: Sequence[float] = (0.9, 1.1),
        flip: float = 0.0,
    ):
        super().__init__(keys)
        self.label_key = label_key
        bilinear = v2.InterpolationMode.BILINEAR
        steps = [v2.RandomAffine(turn_deg, (shift, shift), tuple(scale), interpolation=bilinear)]
        steps += [v2.RandomHorizontalFlip(flip)] if flip else []
        self.move = v2.Compose(
            [
                *steps,
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=1, labels_getter=lambda inputs: inputs[-1]),
            ]
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        rows = d[self.label_key]
        known = rows[~rows.isnan().any(dim=1)]
        for key in self.key_iterator(d):
            image = torch.as_tensor(d[key])
            boxes = tv_tensors.BoundingBoxes(
                known[:, TALL_WIDE], format="XYXY", canvas_size=tuple(image.shape[-2:])
            )
            plain = image.as_tensor() if isinstance(image, MetaTensor) else image
            moved, boxes, classes = self.move(tv_tensors.Image(plain), boxes, known[:, 4])
            # The meta data's affine would be that of the image before, so it goes.
            d[key] = moved.as_subclass(torch.Tensor)
            found = torch.full_like(rows, torch.nan)
            found[: len(boxes), :4] = boxes.as_subclass(torch.Tensor)[:, TALL_WIDE]
            found[: len(boxes), 4] = classes
            d[self.label_key] = found
        return d


class ToBoxesd(MapTransform):
    """A detector's answer (rows, 6) to :class:`medseg.cases.results.Boxes` in the film's own pixels.

    ``classes``: names by number. ``thresholds``: {class: score from which a box is called}, or a JSON file
    with them under ``thresholds``, or one number for all. ``remark`` stands in every file. A box is cut to
    the film; one that lies beyond it altogether is not called. BundleError for a threshold file without a
    class.
    """

    def __init__(
        self,
        keys="pred",
        classes: Sequence[str] = (),
        thresholds: float | str | Mapping[str, float] = 0.5,
        image_key: str = "image",
        remark: str = "",
    ):
        super().__init__(keys)
        self.classes, self.image_key, self.remark = tuple(classes), image_key, remark
        self.thresholds = thresholds_of(thresholds, self.classes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        case = open_radiograph(image.meta["filename_or_obj"])
        for key in self.key_iterator(d):
            rows = torch.as_tensor(d[key]).detach().cpu().double().numpy()
            rows = rows[~np.isnan(rows).any(axis=1)]
            names = [self.classes[int(number)] for number in rows[:, 5]]
            moved = to_grid(rows[:, :4], flat_affine(image), np.eye(3)).reshape(-1, 2, 2)
            corners = np.clip(moved, 0, case.shape)
            called = [
                score >= self.thresholds[name] and bool((low < high).all())
                for name, score, (low, high) in zip(names, rows[:, 4], corners, strict=True)
            ]
            d["boxes"] = Boxes(
                case,
                corners[called],
                rows[called, 4],
                tuple(name for name, is_called in zip(names, called, strict=True) if is_called),
                remark=" ".join(filter(None, (image.meta.get(REMARK_KEY, ""), self.remark))),
            )
        return d


def thresholds_of(given: float | str | Mapping[str, float], classes: Sequence[str]) -> dict[str, float]:
    """{class: score} of what :class:`ToBoxesd` takes."""
    if isinstance(given, str):
        try:
            given = dict(load_json(given)["thresholds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{given}: no thresholds ({type(error).__name__}: {error}).") from error
    if isinstance(given, int | float):
        given = dict.fromkeys(classes, float(given))
    missing = [name for name in classes if not 0 <= given.get(name, -1) <= 1]
    if missing:
        raise BundleError(f"no threshold from 0 to 1 of class {missing[0]!r}.")
    return dict(given)
