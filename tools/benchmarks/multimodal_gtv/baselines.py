"""What needs no network: an ellipsoid, thresholds on the PET, and gradient boosting voxel by voxel."""

from __future__ import annotations

import numpy as np
from cases import MARGIN_MM, Patient
from scipy.ndimage import gaussian_filter, uniform_filter
from sklearn.ensemble import HistGradientBoostingClassifier

from medseg.cases.multimodal import sampled_on
from medseg.metrics import dice
from medseg.transforms.multimodal import CT, MR, MR_COVERED, PT, SUV_AT_ONE

THRESHOLDS_SUV = np.arange(0.4, 6.01, 0.2)
SIZE = (40, 40, 40)
VOXELS = 4000
"""Voxels of each training patient that the classifier sees."""


def ellipsoid(patient: Patient, exact: bool) -> np.ndarray:
    """bool on the box: the ellipsoid that fills the drawn box less the mean margin, or (``exact``) the
    tumour's own bounding box, which no user knows."""
    shape = patient.box_grid.shape
    if exact:
        places = np.argwhere(patient.truth[patient.box])
        low, high = places.min(0) - 0.5, places.max(0) + 0.5
    else:
        margin = np.mean(MARGIN_MM) / np.array(patient.grid.spacing_mm)
        low, high = margin - 0.5, np.array(shape) - 0.5 - margin
    axes = [
        (np.arange(n) - (a + b) / 2) / max((b - a) / 2, 0.5) for n, a, b in zip(shape, low, high, strict=True)
    ]
    return sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= 1


def suv(patient: Patient) -> np.ndarray:
    """float32 on the box: SUV, 0 where the PET does not reach."""
    small, grid = patient.sampled(SIZE)
    logarithm = sampled_on(small[PT].numpy().transpose(2, 1, 0), grid, patient.box_grid)[0]
    return np.expm1(logarithm * np.log1p(SUV_AT_ONE))


def best_threshold_suv(training: list[Patient]) -> float:
    """The fixed SUV with the highest mean Dice on these patients."""
    values = [(suv(patient), patient.truth[patient.box]) for patient in training]
    means = [np.mean([dice(pet >= level, truth) for pet, truth in values]) for level in THRESHOLDS_SUV]
    return float(THRESHOLDS_SUV[int(np.argmax(means))])


def features(patient: Patient, with_position: bool = True) -> np.ndarray:
    """float32 (voxels, features) of the box on SIZE voxels: each series at four scales, its spread, its
    place in the box."""
    image = patient.sampled(SIZE)[0].numpy()
    columns = [image[MR_COVERED]]
    for channel in (CT, PT, MR):
        values = image[channel]
        columns += [values] + [gaussian_filter(values, sigma) for sigma in (1, 2, 4)]
        mean = uniform_filter(values, 5)
        columns.append(np.sqrt(np.clip(uniform_filter(values**2, 5) - mean**2, 0, None)))
        columns.append(values - np.percentile(values, 95))
    if with_position:
        axes = np.meshgrid(*[np.abs((np.arange(n) + 0.5) * 2 / n - 1) for n in SIZE], indexing="ij")
        columns += [*axes, sum(axis**2 for axis in axes)]
    return np.stack([column.ravel() for column in columns], axis=1).astype(np.float32)


def truth_small(patient: Patient) -> np.ndarray:
    """float32 (voxels,): the share of the GTV in each voxel of the box on SIZE voxels."""
    grid = patient.sampled(SIZE)[1]
    inside = patient.truth[patient.box].astype(np.float32)
    return sampled_on(inside, patient.box_grid, grid)[0].transpose(2, 1, 0).ravel()


def boosting(training: list[Patient], seed: int = 0) -> HistGradientBoostingClassifier:
    """Gradient boosting on voxels of these patients' boxes, all series present."""
    rng, rows, labels = np.random.default_rng(seed), [], []
    for patient in training:
        drawn = rng.choice(np.prod(SIZE), VOXELS, replace=False)
        rows.append(features(patient)[drawn])
        labels.append(truth_small(patient)[drawn] >= 0.5)
    model = HistGradientBoostingClassifier(
        max_iter=200, learning_rate=0.08, min_samples_leaf=100, l2_regularization=1.0, random_state=seed
    )
    return model.fit(np.concatenate(rows), np.concatenate(labels))


def boosted(model: HistGradientBoostingClassifier, patient: Patient) -> np.ndarray:
    """float32 on the box: the smoothed probability of the classifier."""
    small = model.predict_proba(features(patient))[:, 1].reshape(SIZE).astype(np.float32)
    grid = patient.sampled(SIZE)[1]
    return sampled_on(gaussian_filter(small, 1).transpose(2, 1, 0).copy(), grid, patient.box_grid)[0]


def masks(training: list[Patient], held_out: list[Patient]):
    """(patient, method, bool mask on its box) of every baseline for the patients held out."""
    level, model = best_threshold_suv(training), boosting(training)
    for patient in held_out:
        pet = suv(patient)
        yield patient, "ellipsoid in the box", ellipsoid(patient, exact=False)
        yield patient, "ellipsoid in the exact box", ellipsoid(patient, exact=True)
        yield patient, "SUV 2.5", pet >= 2.5
        yield patient, "SUV threshold of the fold", pet >= level
        yield patient, "40 % of SUVmax", pet >= 0.4 * pet.max()
        yield patient, "gradient boosting", boosted(model, patient) >= 0.5
