"""How well findings are found: FROC by LUNA16's rules, average precision and recall of boxes, image by image.

A **candidate** is a box or a point with a score, a **finding** is what is there. Of FROC (Setio et al., Med
Image Anal 2017): a finding is found by the best candidate that hits it, however many do; a candidate that
hits nothing is false, unless it hits what is to be ignored; scores that tie come in together; between two
points the curve is straight, as in LUNA16's own script. Average precision is COCO's, by MONAI, in 2D and 3D.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medseg.errors import InputError
from medseg.metrics.intervals import DRAWS, Interval, interval
from medseg.metrics.lesions import FALSE_FINDS
from medseg.metrics.pixels import count_levels, roc_auc

OVERLAPS = (0.1, 0.4, 0.5)
"""IoU from which a box counts as found: nodules' usual, VinDr-CXR's, PASCAL's."""

COCO_RANGE = (0.5, 0.95, 0.05)
MOST_BOXES = 100


@dataclass(frozen=True, eq=False)
class Candidates:
    """Of one image: ``scores`` float (N,), ``hits`` bool (N, M), which candidate hits which finding,
    ``ignored`` bool (N,), those that count as nothing where they hit no finding, and ``sizes`` float (M,) of
    the findings in mm or pixels. N or M may be 0. InputError for lengths that differ."""

    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    sizes: np.ndarray

    def __post_init__(self):
        count, findings = len(self.scores), len(self.sizes)
        if self.hits.shape != (count, findings) or self.ignored.shape != (count,):
            raise InputError(
                f"{count} scores of {findings} findings, but hits {self.hits.shape} and ignored "
                f"{self.ignored.shape}."
            )

    @property
    def counted(self) -> np.ndarray:
        """bool (N,): the candidates that hit a finding, or else are not to be ignored."""
        return self.hits.any(axis=1) | ~self.ignored

    def of_size(self, low: float, high: float) -> Candidates:
        """The findings of ``low`` <= size < ``high``; a candidate that hits only others is ignored."""
        kept = (self.sizes >= low) & (self.sizes < high)
        others = self.hits[:, ~kept].any(axis=1)
        return Candidates(self.scores, self.hits[:, kept], self.ignored | others, self.sizes[kept])


def within_radius(
    centres_mm: np.ndarray,
    scores: np.ndarray,
    findings_mm: np.ndarray,
    diameters_mm: np.ndarray,
    excluded_mm: np.ndarray | None = None,
    excluded_diameters_mm: np.ndarray | None = None,
) -> Candidates:
    """LUNA16's rule: a hit is a candidate's centre less than a radius away from the finding's. Centres (N, 3)
    and (M, 3); ``excluded``: findings that count neither way. InputError for excluded centres without
    diameters."""
    if (excluded_mm is None) != (excluded_diameters_mm is None):
        raise InputError("excluded findings need both a centre and a diameter.")
    ignored = np.zeros(len(scores), dtype=bool)
    if excluded_mm is not None and excluded_diameters_mm is not None:
        ignored |= _near(centres_mm, excluded_mm, excluded_diameters_mm).any(axis=1)
    diameters = np.asarray(diameters_mm, dtype=float)
    return Candidates(
        np.asarray(scores, float), _near(centres_mm, findings_mm, diameters), ignored, diameters
    )


def _near(centres: np.ndarray, others: np.ndarray, diameters: np.ndarray) -> np.ndarray:
    centres, others = (np.asarray(points, dtype=float).reshape(-1, 3) for points in (centres, others))
    away = np.linalg.norm(centres[:, None] - others[None], axis=2)
    return away < np.asarray(diameters, dtype=float)[None] / 2


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """Of one image: ``boxes`` float (N, 2 D), low corner then high corner, ``scores`` (N,) and ``classes``
    int (N,); ``truth`` (M, 2 D) and ``truth_classes`` (M,) of what is there; ``patient``: whose it is.
    ``mask_overlaps``: (N, M), the IoU of the masks that belong to the boxes, None where they have none."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    truth: np.ndarray
    truth_classes: np.ndarray
    patient: str = ""
    mask_overlaps: np.ndarray | None = None

    def of_class(self, number: int) -> ImageBoxes:
        """The boxes of one class alone."""
        own, true = self.classes == number, self.truth_classes == number
        return replace(
            self,
            boxes=self.boxes[own],
            scores=self.scores[own],
            classes=self.classes[own],
            truth=self.truth[true],
            truth_classes=self.truth_classes[true],
            mask_overlaps=None if self.mask_overlaps is None else self.mask_overlaps[np.ix_(own, true)],
        )

    def candidates(self, overlap: float | None = 0.4) -> Candidates:
        """Hits by the IoU that a box of the same class needs, or, with None, by its centre inside the
        finding. The size of a finding is the root of its area, or the third root of its volume."""
        dimensions = self.truth.shape[1] // 2
        low, high = self.truth[:, :dimensions], self.truth[:, dimensions:]
        if overlap is None:
            centres = (self.boxes[:, :dimensions] + self.boxes[:, dimensions:]) / 2
            hits = ((centres[:, None] >= low) & (centres[:, None] <= high)).all(axis=2)
        else:
            hits = box_overlaps(self.boxes, self.truth) >= overlap
        hits &= self.classes[:, None] == self.truth_classes[None]
        sizes = np.prod(high - low, axis=1) ** (1 / dimensions)
        return Candidates(self.scores, hits, np.zeros(len(self.scores), dtype=bool), sizes)


def box_overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 (N, M): the IoU of boxes (N, 2 D) and (M, 2 D), by MONAI."""
    from monai.data.box_utils import box_iou  # here, since it loads torch

    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    return np.asarray(box_iou(a.astype(np.float64), b.astype(np.float64)))


def _by_masks(images: Sequence[ImageBoxes]) -> tuple[Callable, list[np.ndarray], list[np.ndarray]]:
    """What MONAI's matching takes for masks: in place of boxes (image, number) (N, 2), and a function that
    looks the overlaps of two such sets up."""

    def numbers(count: int, image: int) -> np.ndarray:
        return np.stack([np.full(count, image), np.arange(count)], axis=1)

    for image in images:
        if image.mask_overlaps is None:
            raise InputError("boxes without masks cannot be judged by masks; leave `by_masks` out.")

    def overlap(found: np.ndarray, true: np.ndarray) -> np.ndarray:
        if not len(found) or not len(true):
            return np.zeros((len(found), len(true)))
        return images[found[0, 0]].mask_overlaps[np.ix_(found[:, 1], true[:, 1])]

    return (
        overlap,
        [numbers(len(image.boxes), n) for n, image in enumerate(images)],
        [numbers(len(image.truth), n) for n, image in enumerate(images)],
    )


@dataclass(frozen=True, eq=False)
class Froc:
    """The curve: ``false_per_image`` and ``sensitivity``, both rising from 0, at falling ``thresholds``."""

    false_per_image: np.ndarray
    sensitivity: np.ndarray
    thresholds: np.ndarray = field(repr=False)

    def at(self, false_per_image: float) -> float:
        """The sensitivity at so many false candidates per image, straight between two points; that of all
        candidates where there are not so many; nan without a finding."""
        return float(np.interp(false_per_image, self.false_per_image, self.sensitivity))

    @property
    def cpm(self) -> float:
        """The competition metric of LUNA16: the mean at 1/8, 1/4, 1/2, 1, 2, 4 and 8."""
        return float(np.mean([self.at(number) for number in FALSE_FINDS]))


def froc(images: Sequence[Candidates]) -> Froc:
    """The curve of images together; without a finding every sensitivity is nan, without a candidate 0."""
    true, false, findings = [], [], 0
    for image in images:
        findings += len(image.sizes)
        best = np.where(image.hits, image.scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
        true.append(best[np.isfinite(best)])
        false.append(image.scores[~image.hits.any(axis=1) & ~image.ignored])
    found, wrong = (np.sort(np.concatenate([*values, np.zeros(0)])) for values in (true, false))
    thresholds = np.unique(np.concatenate([found, wrong]))[::-1]
    above = [len(values) - np.searchsorted(values, thresholds) for values in (found, wrong)]
    with np.errstate(invalid="ignore"):
        sensitivity = np.concatenate([[0], above[0]]) / np.float64(findings)
    false_per_image = np.concatenate([[0], above[1]]) / max(len(images), 1)
    return Froc(false_per_image, sensitivity, np.concatenate([[np.inf], thresholds]))


def image_auroc(images: Sequence[Candidates]) -> float:
    """How well the best score of an image, of candidates that count, tells those with a finding from those
    without; one without a candidate has the score 0. nan where all are of one kind."""
    best = np.array([image.scores[image.counted].max(initial=0.0) for image in images])
    return roc_auc(count_levels(best, np.array([len(image.sizes) > 0 for image in images])))


class BoxPrecisions:
    """Average precision (AP) and recall (AR) of boxes, or of their masks ``by_masks``, matched once per
    image, so that an interval over patients costs little. ``classes``: names by number. At each IoU of
    OVERLAPS, and as the mean over COCO's range, "0.50:0.95". InputError ``by_masks`` for an image without
    mask overlaps."""

    def __init__(self, images: Sequence[ImageBoxes], classes: Sequence[str], by_masks: bool = False) -> None:
        from monai.apps.detection.metrics.coco import COCOMetric  # here, since it loads torch
        from monai.apps.detection.metrics.matching import matching_batch

        self.classes, self.images = tuple(classes), tuple(images)
        self._coco = COCOMetric(
            self.classes, OVERLAPS, COCO_RANGE, max_detection=(MOST_BOXES,), per_class=True, verbose=False
        )
        overlap, boxes, truth = (
            box_overlaps,
            [image.boxes for image in images],
            [image.truth for image in images],
        )
        if by_masks:
            overlap, boxes, truth = _by_masks(images)
        self._matched = matching_batch(
            overlap,
            self._coco.iou_thresholds.tolist(),
            boxes,
            [image.classes for image in images],
            [image.scores for image in images],
            truth,
            [image.truth_classes for image in images],
            max_detections=MOST_BOXES,
        )

    def table(self, rows: np.ndarray | None = None) -> dict[tuple[str, str, str], float]:
        """{(class or "all", "AP" or "AR", IoU): value} of these rows of images, all of them for None; a class
        without a finding is nan and counts for nothing in "all"."""
        chosen = self._matched if rows is None else [self._matched[row] for row in rows]
        logging.disable(logging.WARNING)  # MONAI says of every class that it has no finding in a draw
        try:
            found = self._coco._compute_statistics(chosen)
        finally:
            logging.disable(logging.NOTSET)
        precisions, recalls = np.asarray(found["precision"]), np.asarray(found["recall"])
        precision = np.where(precisions < 0, np.nan, precisions)[..., 0].mean(axis=1)
        recall = np.where(recalls < 0, np.nan, recalls)[..., 0]
        thresholds = np.round(self._coco.iou_thresholds, 3)
        places = {f"{overlap:.2f}": np.isclose(thresholds, overlap) for overlap in OVERLAPS}
        places[f"{COCO_RANGE[0]:.2f}:{COCO_RANGE[1]:.2f}"] = thresholds >= COCO_RANGE[0] - 1e-9
        table = {}
        for measure, values in (("AP", precision), ("AR", recall)):
            for overlap, place in places.items():
                per_class = values[place].mean(axis=0)
                known = per_class[~np.isnan(per_class)]
                table["all", measure, overlap] = float(known.mean()) if len(known) else float("nan")
                for name, value in zip(self.classes, per_class, strict=True):
                    table[name, measure, overlap] = float(value)
        return table

    def with_interval(self, key: tuple[str, str, str], draws: int = 500) -> Interval:
        """One value of :meth:`table` and its 95 % interval over patients."""
        patients = [image.patient for image in self.images]
        return interval(lambda rows: self.table(rows)[key], patients, draws=draws)


def froc_interval(
    images: Sequence[Candidates],
    patients: Sequence[str],
    figure: Callable[[Froc], float] = lambda curve: curve.cpm,
    draws: int = DRAWS,
) -> Interval:
    """A figure of the curve, CPM unless told otherwise, and its 95 % interval over patients."""
    return interval(lambda rows: figure(froc([images[row] for row in rows])), patients, draws=draws)


def best_threshold(images: Sequence[Candidates]) -> tuple[float, float]:
    """(threshold, F1): the score from which calling candidates gives the greatest F1 of findings, the highest
    of several that are equally good; choose it on validation images, never on those that are reported. F1 is
    2 found / (2 found + false + missed). (1, 0) where nothing is ever found. nan F1 without a finding."""
    findings = sum(len(image.sizes) for image in images)
    if not findings:
        return 1.0, float("nan")
    curve = froc(images)
    found, false = curve.sensitivity * findings, curve.false_per_image * len(images)
    f1 = 2 * found / (found + false + findings)
    place = int(f1.argmax())
    return (float(curve.thresholds[place]), float(f1[place])) if place else (1.0, 0.0)


def rounded_down(threshold: float) -> float:
    """A threshold of three digits that no score at it falls below, though files round scores to four."""
    return max(math.floor((threshold - 5e-5) * 1000) / 1000, 0.0)
