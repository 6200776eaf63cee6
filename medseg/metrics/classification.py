"""How well labels of whole images fit: rows of a confusion matrix, Brier score, net benefit, calibration.

Ranking and calibration (ROC AUC, AUPR, sensitivity at a specificity, ECE, the points of a reliability plot)
are those of :mod:`medseg.metrics.pixels`, with an image for a pixel: give its functions
``count_levels(probability, truth)``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from scipy.special import log_softmax

from medseg.errors import InputError


class ClassScore(NamedTuple):
    """Of one class: ``precision`` (share of those called so that are so), ``recall`` (share of those that are
    so that were called so), their harmonic mean ``f1``, and ``support``, how many are so. nan where nothing
    was called so, or is so."""

    precision: float
    recall: float
    f1: float
    support: int


def class_scores(truth: np.ndarray, called: np.ndarray, classes: int) -> list[ClassScore]:
    """One row per class. ``truth`` and ``called``: int (N,), class numbers from 0. InputError for other
    lengths and for a number that is no class."""
    truth, called = np.asarray(truth), np.asarray(called)
    _check(truth, called, classes)
    rows = []
    for number in range(classes):
        right = int(((truth == number) & (called == number)).sum())
        said, there = int((called == number).sum()), int((truth == number).sum())
        precision = right / said if said else float("nan")
        recall = right / there if there else float("nan")
        f1 = 2 * right / (said + there) if said + there else float("nan")
        rows.append(ClassScore(precision, recall, f1, there))
    return rows


def _check(truth: np.ndarray, called: np.ndarray, classes: int) -> None:
    if truth.shape != called.shape or truth.ndim != 1:
        raise InputError(f"truth {truth.shape} and answers {called.shape}: expected one of each per image.")
    for values in (truth, called):
        if values.size and not (0 <= values.min() and values.max() < classes):
            raise InputError(f"class numbers {values.min()} to {values.max()}: expected 0 to {classes - 1}.")


def brier_score(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error of probabilities of two classes. ``probabilities``: float (N,), of class 1;
    ``truth``: bool (N,). 0 is perfect, a constant 0.5 gives 0.25; nan without images. Source: Brier 1950,
    in the one-column form."""
    return float(np.mean((probabilities - truth) ** 2)) if len(truth) else float("nan")


def net_benefit(probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """What a decision at each threshold is worth: true positives less false positives at the threshold's
    odds, per image (Vickers and Elkin 2006). float (T,); nan without images.

    Compare with treating nobody, 0, and everybody: ``net_benefit(ones, truth, thresholds)``. InputError for a
    threshold outside 0 to 1, which 1 itself is: its odds are infinite.
    """
    thresholds = np.asarray(thresholds, float)
    if thresholds.size and not (0 <= thresholds.min() and thresholds.max() < 1):
        raise InputError(
            f"thresholds {thresholds.min():g} to {thresholds.max():g}: expected from 0 to below 1."
        )
    if not len(truth):
        return np.full(thresholds.shape, np.nan)
    called = np.asarray(probabilities)[None] >= thresholds[:, None]
    right, wrong = (called & truth).sum(1), (called & ~np.asarray(truth, bool)).sum(1)
    return (right - wrong * thresholds / (1 - thresholds)) / len(truth)


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The number above 0 that logits are divided by so that softmax fits best on images that were not trained
    on (Guo et al., ICML 2017): above 1 the network was too sure.

    ``logits``: float (N, C), ``truth``: int (N,). Between 0.05 and 20; order and decisions stay. InputError
    without images, for a class that no logit has, and for a number that is not finite.
    """
    logits, truth = np.asarray(logits, float), np.asarray(truth)
    if not len(logits) or logits.ndim != 2 or len(logits) != len(truth):
        raise InputError(
            f"logits {logits.shape}, truth {truth.shape}: expected (N, C) and (N,), N at least 1."
        )
    if not np.isfinite(logits).all():
        raise InputError("logits that are not finite.")
    _check(truth, truth, logits.shape[1])

    def loss(log_temperature: float) -> float:
        chances = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(chances[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def fit_platt(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(temperature, offset) with which ``scores / temperature + offset`` is the log odds that fit best on
    images that were not trained on (Platt 1999): a temperature alone cannot help a network that calls one
    class too often, as one does that was trained on classes drawn alike.

    ``scores``: float (N,), log odds of the network; ``truth``: bool (N,). The temperature keeps to 0.05 to
    20, the offset to -20 to 20, which only scores that tell the classes apart without an error reach.
    InputError without images, for other lengths, and where only one class is there.
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
    if scores.shape != truth.shape or scores.ndim != 1 or not np.isfinite(scores).all():
        raise InputError(f"scores {scores.shape}, truth {truth.shape}: expected finite numbers, (N,) both.")
    if truth.all() or not truth.any():
        raise InputError(f"{len(truth)} images of one class: expected some of both.")
    sign = np.where(truth, 1.0, -1.0)

    def loss(found: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (scores * found[0] + found[1])).mean())

    fit = minimize(loss, (1.0, 0.0), method="L-BFGS-B", bounds=((0.05, 20.0), (-20.0, 20.0)))
    return float(1 / fit.x[0]), float(fit.x[1])


def venn_abers(scores: np.ndarray, truth: np.ndarray, score: float) -> tuple[float, float]:
    """The lower and the upper calibrated probability of a new image: what isotonic regression says of it when
    it is put among known images as wrong, and as right (Vovk and Petej, UAI 2014).

    ``scores``: float (N,) of images that were not trained on, ``truth``: bool (N,). One of the two is a
    calibrated probability whatever the network's own are; they lie far apart where few known images are like
    the new one. InputError without images and for other lengths.
    """
    scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
    if not len(scores) or scores.shape != truth.shape:
        raise InputError(f"{len(scores)} scores and {len(truth)} truths: expected as many, at least 1.")
    ends = []
    for label in (0.0, 1.0):
        together, labels = np.append(scores, score), np.append(truth.astype(float), label)
        levels, place, counts = np.unique(together, return_inverse=True, return_counts=True)
        means = np.bincount(place, weights=labels) / counts  # images of one score are one step
        fitted = isotonic_regression(means, weights=counts).x
        ends.append(float(fitted[place[-1]]))
    return ends[0], ends[1]


def grouped_auc(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> float:
    """The chance that a positive image has a higher score than a negative one *of the same group*, ties
    counting half: an ROC AUC over the pairs within groups only.

    ``scores``: float (N,), ``truth``: bool (N,), ``groups``: (N,) of anything comparable. With the machine as
    group, what knowing the machine is worth is gone from it. With a machine as truth and the class as group
    it says how well the scores tell the machine among images of one class: 0.5 for scores that do not look at
    it. nan where no group has images of both kinds; InputError for other lengths.
    """
    scores, truth, groups = np.asarray(scores, float), np.asarray(truth, bool), np.asarray(groups)
    if not scores.shape == truth.shape == groups.shape or scores.ndim != 1:
        shapes = f"{scores.shape} scores, {truth.shape} truths, {groups.shape} groups"
        raise InputError(f"{shapes}: expected (N,) each.")
    wins, pairs = 0.0, 0
    for group in np.unique(groups):
        here = groups == group
        positive, negative = scores[here & truth], np.sort(scores[here & ~truth])
        below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
        wins += below.sum() / 2
        pairs += len(positive) * len(negative)
    return float(wins / pairs) if pairs else float("nan")
