"""Where the voxels of a stack of slices lie in the patient. The only place where LPS meets RAS.

Conventions, used everywhere in medseg:

* arrays are indexed ``[slice, row, column]``; slices of a DICOM series ascend along
  :attr:`Geometry.normal_lps`, those of a left-handed NIfTI file descend, and nothing is flipped to change
  that;
* points are millimetres in the DICOM patient system, LPS: x grows to the patient's Left, y to Posterior, z to
  Superior;
* integer indices are voxel *centres*, so a slice covers rows -0.5 ... rows - 0.5;
* each slice keeps its own position, because real stacks are uneven or sheared (gantry tilt) and one affine
  would misplace their contours (DICOM PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medseg.errors import GeometryError

POSITION_TOLERANCE_MM = 0.01
"""Positions closer than this are the same. ImagePositionPatient is written with 2-6 decimals by real
scanners."""

EVEN_TOLERANCE_MM = 0.1
"""Slices this close to where one affine puts them (and within a fifth of their distance) count as even:
scanners that write positions with one decimal come this far off. Contours are placed by each slice's own
position all the same."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Left-posterior-superior (DICOM) to right-anterior-superior (NIfTI, MONAI) millimetres; its own inverse."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Shape and position of a stack of parallel slices.

    ``shape``: (slices, rows, columns). ``origins_lps_mm``: float64 (slices, 3), the centre of voxel (row 0,
    column 0) of each slice, in order along the normal. ``row_step_lps_mm`` / ``column_step_lps_mm``: float64
    (3,), from one row (column) to the next. ``frame_of_reference_uid``: the DICOM Frame of Reference, or None
    where it is not known.

    Raises GeometryError for a shape that does not fit the origins, for in-plane axes that are not
    perpendicular, and for slices that do not go steadily along the normal.
    """

    shape: tuple[int, int, int]
    origins_lps_mm: np.ndarray
    row_step_lps_mm: np.ndarray
    column_step_lps_mm: np.ndarray
    frame_of_reference_uid: str | None = None

    def __post_init__(self):
        for name in ("origins_lps_mm", "row_step_lps_mm", "column_step_lps_mm"):
            values = np.array(getattr(self, name), dtype=np.float64)
            if not np.isfinite(values).all():
                raise GeometryError(
                    f"{name} holds a value that is not a finite number; positions must be finite mm."
                )
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        _check_stack(self)

    @classmethod
    def from_lps_affine(
        cls, affine_lps: np.ndarray, shape, frame_of_reference_uid: str | None = None
    ) -> Geometry:
        """From a 4x4 affine that maps (slice, row, column) to LPS mm."""
        affine_lps = np.asarray(affine_lps, dtype=np.float64)
        origins = affine_lps[:3, 3] + np.arange(shape[0])[:, None] * affine_lps[:3, 0]
        return cls(tuple(shape), origins, affine_lps[:3, 1], affine_lps[:3, 2], frame_of_reference_uid)

    # ---- directions and distances --------------------------------------------------------------------------

    @cached_property
    def normal_lps(self) -> np.ndarray:
        """Unit vector (3,) across the slices: column direction x row direction, as DICOM defines it."""
        normal = np.cross(self.column_step_lps_mm, self.row_step_lps_mm)
        normal /= np.linalg.norm(normal)
        normal.setflags(write=False)
        return normal

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """(between rows, between columns) in mm: the order of DICOM PixelSpacing."""
        return float(np.linalg.norm(self.row_step_lps_mm)), float(np.linalg.norm(self.column_step_lps_mm))

    @cached_property
    def slice_positions_mm(self) -> np.ndarray:
        """float64 (slices,): distance of each slice along the normal from the patient origin, steadily up or
        down."""
        positions_mm = self.origins_lps_mm @ self.normal_lps
        positions_mm.setflags(write=False)
        return positions_mm

    @property
    def slice_thickness_mm(self) -> np.ndarray:
        """float64 (slices,): the height each slice stands for, half the gap to each neighbour.

        An end slice counts its inner half gap twice. A single slice has no height: nan, never 1.0.
        """
        if self.shape[0] == 1:
            return np.array([np.nan])
        gaps_mm = np.abs(np.diff(self.slice_positions_mm))
        padded = np.concatenate([gaps_mm[:1], gaps_mm, gaps_mm[-1:]])
        return (padded[:-1] + padded[1:]) / 2

    @property
    def is_uniform(self) -> bool:
        """True when one step leads from every slice to the next, so that an affine exists (it may still be
        sheared)."""
        if self.shape[0] < 3:
            return True
        steps = np.diff(self.origins_lps_mm, axis=0)
        drift_mm = np.abs(
            self.origins_lps_mm - self.origins_lps_mm[0] - np.arange(self.shape[0])[:, None] * steps.mean(0)
        )
        tolerance_mm = max(POSITION_TOLERANCE_MM, min(EVEN_TOLERANCE_MM, 0.2 * np.linalg.norm(steps.mean(0))))
        return bool(drift_mm.max() <= tolerance_mm + 1e-6)

    @property
    def is_sheared(self) -> bool:
        """True when slices shift sideways: by more than 0.25 mm or half a pixel in all (gantry tilt), or to
        and fro."""
        if self.shape[0] < 2:
            return False
        steps = np.diff(self.origins_lps_mm, axis=0)
        sideways_mm = steps - (steps @ self.normal_lps)[:, None] * self.normal_lps
        total_mm = np.linalg.norm(sideways_mm.sum(0))
        leans = total_mm > min(0.25, 0.5 * min(self.pixel_spacing_mm))
        return bool(leans or np.linalg.norm(sideways_mm, axis=1).max() > EVEN_TOLERANCE_MM)

    @property
    def is_regular(self) -> bool:
        """True for a plain box of voxels: even slices, straight up the normal. Only this fits NIfTI, SEG and
        MONAI."""
        return self.is_uniform and not self.is_sheared

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slice, row, column) spacing in mm. GeometryError for uneven slices and for a single slice: not
        known."""
        if self.shape[0] < 2:
            raise GeometryError("one slice has no slice spacing; at least two slices are needed here.")
        if not self.is_uniform:
            gaps_mm = np.abs(np.diff(self.slice_positions_mm))
            raise GeometryError(
                f"slices are uneven ({gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm apart), so there is no "
                "single slice spacing; use slice_thickness_mm or resample with regular_grid()."
            )
        gap_mm = abs(self.slice_positions_mm[-1] - self.slice_positions_mm[0]) / (self.shape[0] - 1)
        return (float(gap_mm), *self.pixel_spacing_mm)

    @property
    def voxel_volumes_cc(self) -> np.ndarray:
        """float64 (slices,): volume of one voxel of each slice in cm3; nan for a single slice."""
        return self.slice_thickness_mm * self.pixel_spacing_mm[0] * self.pixel_spacing_mm[1] / 1000.0

    # ---- index <-> millimetres -----------------------------------------------------------------------------

    def points_lps_mm(self, slice_index: int, rows_columns: np.ndarray) -> np.ndarray:
        """Points (n, 3) in LPS mm of fractional (row, column) pairs (n, 2) on one slice, by that slice's own
        position."""
        rows_columns = np.asarray(rows_columns, dtype=np.float64)
        in_plane = rows_columns[:, :1] * self.row_step_lps_mm + rows_columns[:, 1:] * self.column_step_lps_mm
        return self.origins_lps_mm[slice_index] + in_plane

    def rows_columns(self, slice_index: int | np.ndarray, points_lps_mm: np.ndarray) -> np.ndarray:
        """Fractional (row, column) pairs (n, 2) of points (n, 3) projected straight onto one slice, or
        each onto its own of the slices (n,)."""
        offset = np.asarray(points_lps_mm, dtype=np.float64) - self.origins_lps_mm[slice_index]
        row_mm2 = self.row_step_lps_mm @ self.row_step_lps_mm
        column_mm2 = self.column_step_lps_mm @ self.column_step_lps_mm
        return np.stack(
            [offset @ self.row_step_lps_mm / row_mm2, offset @ self.column_step_lps_mm / column_mm2], axis=1
        )

    def nearest_slice(self, points_lps_mm: np.ndarray) -> tuple[int, float]:
        """(index, distance in mm) of the slice whose plane lies nearest to the mean of the points (n, 3)."""
        position_mm = float(np.mean(np.asarray(points_lps_mm, dtype=np.float64) @ self.normal_lps))
        distances_mm = np.abs(self.slice_positions_mm - position_mm)
        index = int(distances_mm.argmin())
        return index, float(distances_mm[index])

    # ---- affines -------------------------------------------------------------------------------------------

    @property
    def affine_lps(self) -> np.ndarray:
        """4x4, (slice, row, column) to LPS mm. GeometryError for uneven slices: then no affine is true."""
        if not self.is_uniform:
            raise GeometryError(
                "slices are uneven, so no affine describes them; use points_lps_mm slice by slice."
            )
        affine = np.eye(4)
        if self.shape[0] > 1:
            affine[:3, 0] = (self.origins_lps_mm[-1] - self.origins_lps_mm[0]) / (self.shape[0] - 1)
        else:
            affine[:3, 0] = self.normal_lps
        affine[:3, 1] = self.row_step_lps_mm
        affine[:3, 2] = self.column_step_lps_mm
        affine[:3, 3] = self.origins_lps_mm[0]
        return affine

    @property
    def affine_ras(self) -> np.ndarray:
        """4x4, (column, row, slice) to RAS mm: for NIfTI and MONAI, whose arrays are [column, row, slice]."""
        return LPS_TO_RAS @ self.affine_lps[:, [2, 1, 0, 3]]

    @classmethod
    def from_ras_affine(
        cls, affine_ras: np.ndarray, shape_xyz, frame_of_reference_uid: str | None = None
    ) -> Geometry:
        """Geometry of an array (x, y, z) with a NIfTI affine, seen as [slice=z, row=y, column=x]."""
        affine_lps = (LPS_TO_RAS @ np.asarray(affine_ras, dtype=np.float64))[:, [2, 1, 0, 3]]
        return cls.from_lps_affine(affine_lps, tuple(shape_xyz)[::-1], frame_of_reference_uid)

    def regular_grid(self) -> Geometry:
        """The plain box of voxels that covers this stack, for a network that needs one; itself when already
        regular.

        Pixels keep their size and direction, slices stand straight up the normal. Their spacing is the median
        gap, and rows and columns are added where a sheared stack reaches sideways.
        """
        return self if self.is_regular else _upright_box(self)

    def require_same(self, other: Geometry, what: str, tolerance_mm: float = POSITION_TOLERANCE_MM) -> None:
        """Raise GeometryError, naming ``what`` is being placed, unless ``other`` is this geometry."""
        found = difference(self, other, tolerance_mm)
        if found:
            raise GeometryError(
                f"{what} does not lie on the image's grid: {found}. Nothing is flipped or resampled to fit."
            )


def difference(
    geometry: Geometry, other: Geometry, tolerance_mm: float = POSITION_TOLERANCE_MM
) -> str | None:
    """In words, how ``other`` differs from ``geometry``; None when they are the same to
    ``tolerance_mm``.

    Frames of Reference must be equal when both are known. Corners of every slice are compared, so that a
    small error of direction counts by the distance it makes.
    """
    if geometry.shape != other.shape:
        return f"shape {geometry.shape} against {other.shape} (slices, rows, columns)"
    known = None not in (geometry.frame_of_reference_uid, other.frame_of_reference_uid)
    if known and geometry.frame_of_reference_uid != other.frame_of_reference_uid:
        return f"Frame of Reference {geometry.frame_of_reference_uid} against {other.frame_of_reference_uid}"
    rows, columns = geometry.shape[1:]
    corners = np.array([[0, 0], [rows - 1, 0], [0, columns - 1]], dtype=np.float64)
    for index in range(geometry.shape[0]):
        apart_mm = np.linalg.norm(
            geometry.points_lps_mm(index, corners) - other.points_lps_mm(index, corners), axis=1
        ).max()
        if apart_mm > tolerance_mm:
            return f"slice {index} lies up to {apart_mm:.3f} mm apart"
    return None


def _check_stack(geometry: Geometry) -> None:
    """GeometryError for what Geometry says it refuses."""
    if len(geometry.shape) != 3 or min(geometry.shape) < 1:
        raise GeometryError(f"shape {geometry.shape}: expected (slices, rows, columns), each at least 1.")
    if geometry.origins_lps_mm.shape != (geometry.shape[0], 3):
        raise GeometryError(
            f"{geometry.origins_lps_mm.shape[0]} slice positions for {geometry.shape[0]} slices."
        )
    row_mm, column_mm = np.linalg.norm(geometry.row_step_lps_mm), np.linalg.norm(geometry.column_step_lps_mm)
    if min(row_mm, column_mm) <= 0:
        raise GeometryError("pixel spacing is zero; expected a positive distance between rows and columns.")
    if abs(geometry.row_step_lps_mm @ geometry.column_step_lps_mm) > 1e-3 * row_mm * column_mm:
        raise GeometryError("rows and columns are not perpendicular; the image orientation is damaged.")
    gaps_mm = np.diff(geometry.slice_positions_mm)
    if len(gaps_mm) and gaps_mm.min() <= 0 and gaps_mm.max() >= 0:
        raise GeometryError("slices do not go steadily along the slice normal; sort them by position first.")


def _upright_box(geometry: Geometry) -> Geometry:
    """Geometry.regular_grid of a stack that is not regular."""
    positions_mm = geometry.slice_positions_mm
    gap_mm = float(np.median(np.diff(positions_mm)))
    slices = int(np.ceil((positions_mm[-1] - positions_mm[0]) / gap_mm - 1e-6)) + 1
    corners = geometry.rows_columns(0, geometry.origins_lps_mm)
    low = np.floor(corners.min(0) + 1e-6)
    extra = np.ceil(corners.max(0) - low - 1e-6).astype(int)
    origin = geometry.points_lps_mm(0, low[None])[0]
    origins = origin + np.arange(slices)[:, None] * gap_mm * geometry.normal_lps
    shape = (slices, geometry.shape[1] + int(extra[0]), geometry.shape[2] + int(extra[1]))
    return Geometry(
        shape, origins, geometry.row_step_lps_mm, geometry.column_step_lps_mm, geometry.frame_of_reference_uid
    )
