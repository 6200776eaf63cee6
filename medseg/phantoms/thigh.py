"""The CT of a thigh with a soft-tissue sarcoma, made of formulas: the demo contours it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.cases.nifti import write_mask
from medseg.geometry import Geometry
from medseg.phantoms.series import phantom_uid, stack_geometry, voxel_points_lps_mm, write_series


@dataclass(frozen=True)
class Phantom:
    """What write_thigh_phantom made: the series, the truth on its grid, and a box for a network that wants a
    region.

    ``truth``: bool [slice, row, column] of "GTV" (the sarcoma), "Femur_L" and "Thigh_L" (within the skin).
    ``box_lps_mm``: (2, 3), lowest and highest LPS mm of the tumour with 12 mm around it.
    """

    ct_dir: Path
    truth_dir: Path
    truth: dict[str, np.ndarray]
    geometry: Geometry
    box_lps_mm: np.ndarray


_MUSCLES_MM = (
    (-2, -52, 26),
    (34, -44, 24),
    (-38, -40, 22),
    (54, -14, 20),
    (14, -30, 14),
    (-58, -12, 14),
    (-46, 14, 22),
    (56, 18, 18),
    (-18, 20, 18),
    (-34, 44, 20),
    (2, 54, 18),
    (34, 46, 20),
    (24, 14, 12),
)
"""Thirteen muscles of a left thigh in cross-section: (lateral, posterior) of the middle from the axis, and a
weight, mm."""

_LOBES_MM = (
    ((0, 0, 0), (28, 23, 42)),
    ((19, 9, 24), (19, 18, 26)),
    ((-22, 8, -18), (18, 18, 25)),
    ((9, -9, -30), (18, 15, 20)),
)
"""The sarcoma as a union of ellipsoids: middle from the tumour's middle and half axes, (left, posterior,
superior) mm."""

_TUMOUR_LPS_MM = np.array([96.0, 34.0, 4.0])
_THIGH_AXIS_LPS_MM = np.array([96.0, 0.0])


def write_thigh_phantom(out_dir, seed: int = 0) -> Phantom:
    """Make a planning CT of a left thigh with a soft-tissue sarcoma: ``out_dir``/CT and
    ``out_dir``/truth/<name>.nii.gz.

    64 axial slices of 256 x 256 voxels of 3.27 x 0.9766 x 0.9766 mm: skin, fat, muscles with fat between
    them, femur, vessels, nerve, the edge of the other thigh and the table; the tumour lies behind the femur,
    pushes the muscles aside and is 20-30 HU darker than they are. HU, contrast and noise are of the order of
    published sarcoma CTs; no patient's data is in it. ``seed``: noise, texture and small differences of
    shape; the same seed, the same bytes.
    """
    geometry = stack_geometry(
        (64, 256, 256), gaps_mm=3.27, pixel_spacing_mm=(0.9766, 0.9766), centre_lps_mm=(82.0, 8.0, 0.0)
    )
    rng = np.random.default_rng(seed)
    texture = _smooth_noise(rng, geometry.shape, (1.5, 5, 5))
    clumps = _smooth_noise(rng, geometry.shape, (3.0, 9, 9))
    muscles_mm = np.array(_MUSCLES_MM, dtype=np.float64) + rng.normal(0, 1.5, (len(_MUSCLES_MM), 3))
    volume_hu = np.empty(geometry.shape, dtype=np.float32)
    truth = {name: np.zeros(geometry.shape, dtype=bool) for name in ("GTV", "Femur_L", "Thigh_L")}
    for index in range(geometry.shape[0]):
        points = voxel_points_lps_mm(geometry, index)
        slice_hu, masks = _thigh_slice(points, texture[index], clumps[index], muscles_mm)
        noise = gaussian_filter(rng.normal(size=slice_hu.shape), (0.5, 0.8))
        volume_hu[index] = gaussian_filter(slice_hu, 0.6) + 14.0 * noise / noise.std()
        for name, mask in masks.items():
            truth[name][index] = mask
    volume_hu = np.clip(volume_hu, -1024, 3071)
    ct_dir, truth_dir = Path(out_dir) / "CT", Path(out_dir) / "truth"
    words = {"SeriesDescription": "Thigh phantom", "BodyPartExamined": "THIGH", "Laterality": "L"}
    write_series(volume_hu, geometry, ct_dir, seed=f"thigh-{seed}", **words)
    geometry = replace(geometry, frame_of_reference_uid=phantom_uid("frame of reference", f"thigh-{seed}"))
    _write_truth(truth, geometry, truth_dir)
    inside = np.argwhere(truth["GTV"])
    ends = [geometry.points_lps_mm(k, [(i, j)])[0] for k, i, j in (inside.min(0), inside.max(0))]
    return Phantom(ct_dir, truth_dir, truth, geometry, np.array([ends[0] - 12.0, ends[1] + 12.0]))


def _write_truth(truth: dict[str, np.ndarray], geometry: Geometry, truth_dir: Path) -> None:
    truth_dir.mkdir(parents=True, exist_ok=True)
    for name, mask in truth.items():
        write_mask(mask, geometry, truth_dir / f"{name}.nii.gz")


def _smooth_noise(rng: np.random.Generator, shape, sigmas) -> np.ndarray:
    """Noise of mean 0 and standard deviation 1 with clumps of ``sigmas`` voxels, float32."""
    noise = gaussian_filter(rng.normal(size=shape).astype(np.float32), sigmas)
    return noise / noise.std()


def _blend(below_hu, above_hu, inside_mm, edge_mm: float = 0.5):
    """``below_hu`` replaced by ``above_hu`` where ``inside_mm`` (signed distance into it) is positive, with a
    soft edge."""
    share = 1 / (1 + np.exp(-np.clip(inside_mm / edge_mm, -30, 30)))
    return below_hu + (above_hu - below_hu) * share


def _tumour_depth_mm(points_lps_mm: np.ndarray) -> np.ndarray:
    """How deep each point lies in the sarcoma, about mm (negative: outside); lobes melt into one another."""
    depths = []
    for middle, half_axes in _LOBES_MM:
        scaled = (points_lps_mm - _TUMOUR_LPS_MM - middle) / half_axes
        depths.append((1 - np.sqrt((scaled**2).sum(-1))) * min(half_axes))
    return 2.5 * np.logaddexp.reduce(np.array(depths) / 2.5, axis=0)


def _thigh_slice(points, texture, clumps, muscles_mm) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """HU [row, column] of one slice without noise, and its truth masks."""
    tumour_mm = _tumour_depth_mm(points)
    lateral, posterior = points[..., 0] - _THIGH_AXIS_LPS_MM[0], points[..., 1] - _THIGH_AXIS_LPS_MM[1]
    superior = points[0, 0, 2]
    skin_mm = _skin_depth_mm(lateral, posterior, superior)
    other_thigh_mm = _skin_depth_mm(-(points[..., 0] + 84.0), posterior, superior)
    table_mm = 1.6 - np.abs(points[..., 1] - 106.0 + 0.0009 * (points[..., 0] - 60.0) ** 2)
    slice_hu = _blend(np.full(lateral.shape, -1000.0), 120.0, table_mm)
    for depth_mm in (other_thigh_mm, skin_mm):
        slice_hu = _blend(slice_hu, 30.0 + 10 * texture, depth_mm)
        slice_hu = _blend(slice_hu, -102.0 + 5 * texture, depth_mm - 1.8)
    fat_mm = 12.0 + 4.0 * np.sin(np.arctan2(posterior, lateral) * 2 + 0.7) + 2.0 * clumps
    slice_hu = _blend(slice_hu, 52.0 + 4 * texture, other_thigh_mm - 14.0)
    slice_hu = _blend(slice_hu, _muscle_hu(points, tumour_mm, texture, clumps, muscles_mm), skin_mm - fat_mm)
    for left, back, radius, hu, sheath in (
        (-38, -8, 4.2, 48, 10),
        (-42, 2, 5.0, 45, 0),
        (44, 40, 3.6, 32, 6.5),
    ):
        distance_mm = np.hypot(lateral - left - 0.04 * superior, posterior - back)
        slice_hu = _blend(slice_hu, -95.0, sheath - distance_mm) if sheath else slice_hu
        slice_hu = _blend(slice_hu, hu, radius - distance_mm)
    # A thin layer of fat lies between the tumour and part of its surroundings, then the tumour itself.
    slice_hu = _blend(slice_hu, -75.0, 0.6 - np.abs(tumour_mm + 1.4) + 1.3 * clumps, 0.6)
    nodules_hu = 30.0 + 5.0 * texture + 5.0 * clumps - 12.0 * (clumps > 1.2)
    slice_hu = _blend(slice_hu, nodules_hu, tumour_mm, 0.7)
    femur_mm = _femur_depth_mm(lateral, posterior, superior)
    slice_hu = _blend(slice_hu, 1250.0 + 40 * texture, femur_mm)
    slice_hu = _blend(slice_hu, -45.0 + 15 * texture, femur_mm - 4.6 - 0.5 * clumps)
    return slice_hu, {
        "GTV": (tumour_mm > 0) & (femur_mm <= 0),
        "Femur_L": femur_mm > 0,
        "Thigh_L": skin_mm > 0,
    }


def _skin_depth_mm(lateral, posterior, superior: float) -> np.ndarray:
    """Depth under the skin of a thigh that widens upwards and bulges at the back where the tumour lies."""
    angle = np.arctan2(posterior, lateral)
    radius_mm = 80.0 + 0.06 * superior + 3.0 * np.cos(2 * angle - 0.4) + 2.0 * np.cos(3 * angle + 1.0)
    bulge_mm = 6.0 * np.exp(-((angle - np.pi / 2) ** 2) / 0.5 - (superior / 45.0) ** 2)
    return radius_mm + bulge_mm - np.hypot(lateral, posterior * 1.04)


def _femur_depth_mm(lateral, posterior, superior: float) -> np.ndarray:
    """Depth in the femur: a tube of 14 mm with the linea aspera as a ridge at the back."""
    lateral, posterior = lateral - 8.0 - 0.05 * superior, posterior + 14.0
    angle = np.arctan2(posterior, lateral)
    return 14.0 + 2.5 * np.exp(-((angle - np.pi / 2) ** 2) / 0.12) - np.hypot(lateral, posterior)


def _muscle_hu(points, tumour_mm, texture, clumps, muscles_mm) -> np.ndarray:
    """HU of the muscle compartment: cells around the muscles' middles, bent around the tumour, fat in the
    seams."""
    offset = points - _TUMOUR_LPS_MM
    reach = np.sqrt((offset / (32.0, 28.0, 50.0)) ** 2 @ np.ones(3))
    squeeze = np.sqrt(np.clip(1 - 0.85 / np.maximum(reach, 1.0) ** 2, 0.0, 1.0))[..., None]
    source = (_TUMOUR_LPS_MM + offset * squeeze)[..., :2] - _THIGH_AXIS_LPS_MM
    twist = 0.12 * points[0, 0, 2] / 100.0
    source = source @ np.array([[np.cos(twist), np.sin(twist)], [-np.sin(twist), np.cos(twist)]])
    source = source + 2.0 * texture[..., None]
    # A power diagram: the seam between two muscles is where their weighted squared distances are equal.
    power = ((source[..., None, :] - muscles_mm[:, :2]) ** 2).sum(-1) - muscles_mm[:, 2] ** 2
    nearest = np.partition(power, 1, axis=-1)
    seam_mm = (nearest[..., 1] - nearest[..., 0]) / 60.0
    kind = np.argmin(power, axis=-1)
    muscle_hu = 52.0 + 3.0 * np.sin(kind * 2.4) + 3.0 * texture - 6.0 * np.exp(tumour_mm / 5.0).clip(0, 1)
    return _blend(muscle_hu, -85.0 + 10 * texture, 0.9 + 0.7 * clumps - seam_mm, 0.4)
