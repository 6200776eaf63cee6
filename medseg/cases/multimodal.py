"""Several images of one patient on one grid.

A tumour is drawn on CT, PET and MR together. The grid is that of the planning CT; the other images keep their
own voxels until :func:`sampled_on` looks them up there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from medseg.cases.volume import Case, fingerprint, open_case, read_case
from medseg.errors import GeometryError, InputError
from medseg.geometry import Geometry

EDGE = 1e-6
"""Voxels by which a rounded position may lie outside an image and still count as inside."""


def sampled_on(
    volume: np.ndarray,
    moving: Geometry,
    reference: Geometry,
    reference_to_moving: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``volume`` [slice, row, column] of the stack ``moving`` at every voxel centre of ``reference``.

    Returns (values float32, covered bool), both of ``reference.shape``. Interpolation is linear between the
    slices where they really lie, so uneven and sheared stacks are not displaced. ``covered``: the point lies
    within the moving stack, up to half a voxel (half an end gap) beyond its outermost centres, where the
    nearest value holds; elsewhere the value is 0 and ``covered`` is False.

    ``reference_to_moving``: 4x4, takes a point (LPS mm) of the reference's frame to the moving image's frame;
    None: both share one frame. GeometryError for a volume of another shape, for a single slice, whose height
    is not known, for a matrix that is not 4x4, finite, affine and invertible, and, without a matrix, for two
    different Frames of Reference.
    """
    volume = np.asarray(volume, dtype=np.float32)
    if volume.shape != moving.shape:
        raise GeometryError(
            f"array {volume.shape} for an image of {moving.shape}; expected (slices, rows, columns)."
        )
    if moving.shape[0] < 2:
        raise GeometryError("the image to sample is one slice, whose height is not known; expected a stack.")
    matrix = _checked(reference_to_moving, moving, reference)
    sample = _even if moving.is_uniform else _slice_by_slice
    values, covered = np.zeros(reference.shape, np.float32), np.zeros(reference.shape, bool)
    for index in range(reference.shape[0]):
        sample(volume, moving, _Plane.of(reference, index, matrix), values[index], covered[index])
    return values, covered


def _checked(matrix: np.ndarray | None, moving: Geometry, reference: Geometry) -> np.ndarray:
    if matrix is None:
        frames = moving.frame_of_reference_uid, reference.frame_of_reference_uid
        if None not in frames and frames[0] != frames[1]:
            raise GeometryError(
                f"Frame of Reference {frames[0]} against {frames[1]}: nothing says how they lie to each "
                "other; a DICOM Spatial Registration object would."
            )
        return np.eye(4)
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise GeometryError("a transformation must be a 4x4 matrix of finite numbers that ends in 0 0 0 1.")
    determinant = float(np.linalg.det(matrix[:3, :3]))
    if abs(determinant) < 1e-6:
        raise GeometryError(
            f"a transformation squeezes space flat: determinant {determinant:g}, expected about 1, as in the "
            "same patient's mm; check its matrix."
        )
    return matrix


class _Plane:
    """The pixel centres of one reference slice as points (mm) of the moving image's frame: ``origin`` plus
    ``row`` and ``column`` steps."""

    def __init__(self, origin: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]):
        self.origin, self.row, self.column, self.shape = origin, row, column, shape

    @classmethod
    def of(cls, reference: Geometry, index: int, matrix: np.ndarray) -> _Plane:
        turn = matrix[:3, :3]
        return cls(
            turn @ reference.origins_lps_mm[index] + matrix[:3, 3],
            turn @ reference.row_step_lps_mm,
            turn @ reference.column_step_lps_mm,
            reference.shape[1:],
        )

    def along(self, direction: np.ndarray, start: np.ndarray | float = 0.0) -> np.ndarray:
        """float64 (rows, columns): the points less ``start``, measured along ``direction``."""
        rows, columns = (np.arange(n, dtype=np.float64) for n in self.shape)
        return (
            (self.origin - start) @ direction
            + (rows * (self.row @ direction))[:, None]
            + (columns * (self.column @ direction))[None, :]
        )


def _even(volume: np.ndarray, moving: Geometry, plane: _Plane, values: np.ndarray, covered: np.ndarray):
    """One reference slice of a stack that one affine describes (it may be sheared)."""
    from scipy.ndimage import map_coordinates

    affine = moving.affine_lps
    inverse = np.linalg.inv(affine[:3, :3])
    indices = [plane.along(inverse[axis], affine[:3, 3]) for axis in range(3)]
    inside = np.ones(plane.shape, bool)
    for index, n in zip(indices, moving.shape, strict=True):
        inside &= (index >= -0.5 - EDGE) & (index <= n - 0.5 + EDGE)
    if inside.any():
        at = np.stack([index[inside] for index in indices])
        values[inside] = map_coordinates(volume, at, output=np.float32, order=1, mode="nearest")
        covered[inside] = True


def _slice_by_slice(
    volume: np.ndarray, moving: Geometry, plane: _Plane, values: np.ndarray, covered: np.ndarray
):
    """One reference slice of an uneven stack: mixed from the two slices around each point, each looked up by
    its own position."""
    from scipy.ndimage import map_coordinates

    order = np.argsort(moving.slice_positions_mm)  # slices of a left-handed NIfTI file descend
    positions_mm, thickness_mm = moving.slice_positions_mm[order], moving.slice_thickness_mm[order]
    height_mm = plane.along(moving.normal_lps)
    above = np.clip(np.searchsorted(positions_mm, height_mm), 1, len(order) - 1)
    low, high = positions_mm[above - 1], positions_mm[above]
    share = np.clip((height_mm - low) / (high - low), 0.0, 1.0)
    ends = positions_mm[0] - thickness_mm[0] / 2 - EDGE, positions_mm[-1] + thickness_mm[-1] / 2 + EDGE
    inside = (height_mm >= ends[0]) & (height_mm <= ends[1])
    steps = moving.row_step_lps_mm, moving.column_step_lps_mm
    in_plane = [plane.along(step / (step @ step)) for step in steps]
    sums = np.zeros(plane.shape)
    for neighbour, weight in ((order[above - 1], 1.0 - share), (order[above], share)):
        at = [
            index - (moving.origins_lps_mm @ step / (step @ step))[neighbour]
            for index, step in zip(in_plane, steps, strict=True)
        ]
        for index, n in zip(at, moving.shape[1:], strict=True):
            inside &= (weight == 0) | ((index >= -0.5 - EDGE) & (index <= n - 0.5 + EDGE))
        planes = neighbour.astype(np.float64)  # whole numbers: nothing is mixed across slices here
        sums += weight * map_coordinates(volume, np.stack([planes, *at]), order=1, mode="nearest")
    values[inside], covered[inside] = sums[inside], True


# ---- a case of several series ------------------------------------------------------------------------------

HIGHEST_SUV = 100.0
"""A PET with a hundredth of its voxels above it is in other units, such as Bq/ml, whatever its file says. The
hottest of the 41 PETs of sarcomas has a hundredth above 17."""

SAID_BY_CALLER = "coordinates of the files, as the caller put them together"
"""Through what an image lies to another when one of them is a NIfTI file, which names no frame."""


@dataclass(frozen=True, eq=False)
class Companion:
    """Another image of a case's patient, on its own grid.

    ``volume``: float32 [slice, row, column] of ``case.shape``: SUV (g/ml) of PET in DICOM, else as stored.
    ``reference_to_own``: 4x4 from points of the contoured image's frame to this one's, None where both share
    one. ``through``: in words, what says so. ``units``: of the numbers, and how they were made.
    """

    case: Case
    volume: np.ndarray
    reference_to_own: np.ndarray | None
    through: str
    units: str

    def sampled_on(self, grid: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """(values, covered) of :func:`sampled_on` on ``grid``, which lies in the contoured image's frame."""
        return sampled_on(self.volume, self.case.geometry, grid, self.reference_to_own)

    @property
    def name(self) -> str:
        """Its modality and UID, or its file."""
        series = self.case.series
        return f"{series.modality} series {series.series_instance_uid}" if series else self.case.source

    def record(self) -> dict[str, Any]:
        """Plain values for run.json: UIDs, what links it, units, and the matrix (row by row) where there is
        one."""
        matrix = {} if self.reference_to_own is None else {"matrix": self.reference_to_own.round(9).tolist()}
        return {**self.case.record()["input"], "through": self.through, "units": self.units, **matrix}


@dataclass(frozen=True, eq=False)
class Multimodal(Case):
    """A case whose contours are drawn on its own image with others of the same patient beside it.

    ``companions``: {item key: Companion}. ``missing``: keys that the bundle takes and the case lacks.
    """

    companions: Mapping[str, Companion] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the readers had to say about every series."""
        others = [f"{key}: {said}" for key, other in self.companions.items() for said in other.case.warnings]
        return (*super().warnings, *others)

    def record(self) -> dict[str, Any]:
        """That of a Case, and which ``series`` were used beside its image, and which are missing."""
        used = {key: other.record() for key, other in self.companions.items()}
        said = {"summary": self.series_in_words(), "used": used, "missing": list(self.missing)}
        return {**super().record(), "series": said}

    def series_in_words(self) -> str:
        """What it is contoured from: "CT + PT, no MR". Item keys other than "image" are modalities."""
        own = self.series.modality if self.series else "CT"
        lacking = f", no {' or '.join(key.upper() for key in self.missing)}" if self.missing else ""
        return " + ".join([own, *(key.upper() for key in self.companions)]) + lacking


def open_multimodal(
    source: str,
    others: Mapping[str, str],
    registrations: Sequence[str] = (),
    missing: Sequence[str] = (),
    allow: Sequence[str] = (),
) -> Multimodal:
    """Open the image to contour and further series of its patient, by case sources.

    ``others``: {item key: source}. ``registrations``: REG files that may link Frames of Reference.
    ``missing``: keys without a series. ``allow``: see :func:`medseg.cases.volume.open_case`. The last three
    stay in memory. Raises InputError, in one line, for a series of another patient, for two frames that no
    registration links or two link differently, for PET (key "pt") without what its SUV needs or with values
    that are none, and for a single slice.
    """
    files = tuple(fingerprint(item) for item in (source, *others.values(), *registrations))
    return _opened(source, tuple(others.items()), tuple(registrations), tuple(missing), tuple(allow), files)


@lru_cache(maxsize=3)
def _opened(
    source: str,
    others: tuple[tuple[str, str], ...],
    registrations: tuple[str, ...],
    missing: tuple[str, ...],
    allow: tuple[str, ...],
    _files: tuple,
) -> Multimodal:
    image = open_case(source, allow)
    companions = {
        key: _companion(key, image, read_case(other, allow), registrations) for key, other in others
    }
    return Multimodal(image.source, image.volume, image.geometry, image.series, companions, missing)


def _companion(key: str, image: Case, other: Case, registrations: tuple[str, ...]) -> Companion:
    matrix, through = _place(image, other, registrations)
    made = Companion(other, other.volume, matrix, through, "as stored")
    if other.series is not None and other.series.modality == "PT":
        from medseg.dicom.images.suv import suv_factors

        factors = suv_factors(other.series)
        made = replace(made, volume=factors.suv(other.volume), units=f"SUV (g/ml), from {factors.how}")
    if other.geometry.shape[0] < 2:
        raise InputError(f"{made.name}: one slice, whose height is not known; expected a stack.")
    if key == "pt" and (made.volume > HIGHEST_SUV).mean() > 0.01:
        highest = np.percentile(made.volume, 99)
        raise InputError(
            f"{made.name}: a hundredth of its values lie above {highest:.0f}, which is no SUV; expected PET "
            "in g/ml, by body weight."
        )
    return made


def _place(image: Case, other: Case, registrations: tuple[str, ...]) -> tuple[np.ndarray | None, str]:
    """(4x4 from the image's frame to the other's or None, through what); InputError where nothing says it."""
    if image.series is None or other.series is None:
        return None, SAID_BY_CALLER
    from medseg.dicom.patient import patient_of
    from medseg.dicom.registration import find_matrix, read_registration
    from medseg.dicom.together import SAME_FRAME

    name = f"{other.series.modality} series {other.series.series_instance_uid}"
    _require_patient(image, patient_of(other.series.headers[0]), name)
    own, wanted = other.geometry.frame_of_reference_uid, image.geometry.frame_of_reference_uid
    if own is None or wanted is None:
        without = name if own is None else "the image to contour"
        raise InputError(f"{without} has no FrameOfReferenceUID, so how the two lie is not known.")
    if own == wanted:
        return None, SAME_FRAME
    known = [read_registration(path) for path in registrations]
    try:
        matrix, chosen = find_matrix(known, own, wanted, _corners_lps_mm(other.geometry))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    _require_patient(image, chosen.patient, chosen.path.name)
    return np.linalg.inv(matrix), f"registration object {chosen.path.name} ({chosen.sop_instance_uid})"


def _require_patient(image: Case, patient: Mapping[str, str], name: str) -> None:
    from medseg.dicom.patient import differing_field, patient_of

    differs = differing_field(patient_of(image.series.headers[0]), patient)
    if differs:  # names the field and never what stands in it
        raise InputError(f"{name}: of another patient than the image to contour ({differs} differs).")


def _corners_lps_mm(geometry: Geometry) -> np.ndarray:
    """float64 (8, 3): of the first and the last slice."""
    rows, columns = geometry.shape[1:]
    corners = np.array([[0, 0], [rows - 1, 0], [0, columns - 1], [rows - 1, columns - 1]], dtype=np.float64)
    return np.concatenate([geometry.points_lps_mm(index, corners) for index in (0, -1)])
