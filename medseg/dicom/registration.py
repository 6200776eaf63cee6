"""DICOM Spatial Registration objects (REG): where points of one Frame of Reference lie in another."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.images.header import (
    DEFORMABLE_REGISTRATION_UID,
    SPATIAL_REGISTRATION_UID,
    class_name,
)
from medseg.dicom.nesting import check_nesting
from medseg.dicom.opening import read_dicom
from medseg.dicom.patient import patient_of
from medseg.errors import InputError, printable, unusable

REGISTRATION_SEQUENCE = 0x00700308

MATRIX_TYPES = ("RIGID", "RIGID_SCALE", "AFFINE")

MATRIX_TOLERANCE = 1e-3
"""How far a matrix may be from orthonormal, as its type demands: matrices are written as text, some with
three decimals."""

SCALES = (0.5, 2.0)
"""Between which lengths the axes of a whole transformation lie: no patient is twice as large in one series as
in another, but one of cm or m against mm is 10 or 1000 times."""

AGREEMENT_MM = 0.1
"""Two registrations that put the corners of a series no further apart than this say the same."""


@dataclass(frozen=True, eq=False)
class Registration:
    """One REG object. ``to_registered``: {Frame of Reference UID: float64 4x4 that takes its LPS mm to LPS mm
    of ``registered_uid``}, the object's own frame among them. ``patient``: see
    :func:`medseg.dicom.patient.patient_of`.
    """

    path: Path
    sop_instance_uid: str
    registered_uid: str
    to_registered: Mapping[str, np.ndarray]
    patient: Mapping[str, str] = field(repr=False)

    def matrix(self, source_uid: str, target_uid: str) -> np.ndarray | None:
        """float64 4x4 that takes LPS mm of one frame to LPS mm of the other; None where this object does not
        name both."""
        if source_uid not in self.to_registered or target_uid not in self.to_registered:
            return None
        return np.linalg.solve(self.to_registered[target_uid], self.to_registered[source_uid])

    def __str__(self) -> str:
        others = [uid for uid in self.to_registered if uid != self.registered_uid]
        return f"{self.path.name} maps {', '.join(others) or 'no other frame'} to {self.registered_uid}"


# ---- reading -----------------------------------------------------------------------------------------------


def read_registration(path: str | os.PathLike) -> Registration:
    """The Spatial Registration object in a file (DICOM PS3.3 C.20.2), every matrix of it checked.

    Several matrices of one frame are multiplied in the order of their items, the first one applied first
    (equation C.20.2-2). InputError, in one line, for another kind of object (a Deformable Spatial
    Registration too, whose displacements are not read), for a matrix that is not what its type says, mirrors
    or flattens, for a scale outside SCALES, and for a frame that is mapped twice to different places.
    """
    path = Path(path)
    if not path.is_file():
        raise unusable(path, "a Spatial Registration object (REG)")
    with damage_as_input_error(path):
        dataset = read_dicom(path)
        sop_class = str(dataset.get("SOPClassUID", ""))
        if sop_class == DEFORMABLE_REGISTRATION_UID:
            raise InputError(
                f"{path}: a Deformable Spatial Registration; only matrices (rigid, rigid with scale, affine) "
                "are read. Export a Spatial Registration."
            )
        if sop_class != SPATIAL_REGISTRATION_UID:
            name = class_name(sop_class)
            seen = f"SOPClassUID {sop_class[:64]!r}" if name == sop_class else name
            raise InputError(f"{path}: {seen}; expected a REG object.")
        try:
            check_nesting(path, dataset, (REGISTRATION_SEQUENCE,))
        except InputError as error:
            raise InputError(f"{path}: damaged DICOM ({error}); export it again.") from error
        return _registration(path, dataset)


def _registration(path: Path, dataset: Dataset) -> Registration:
    registered_uid = _frame_uid(dataset, path)
    items = dataset.get("RegistrationSequence") or []
    if not registered_uid or not items:
        missing = "RegistrationSequence" if registered_uid else "FrameOfReferenceUID"
        raise InputError(f"{path}: no {missing}; the object says nothing of where frames lie.")
    found = {registered_uid: np.eye(4)}
    for number, item in enumerate(items, 1):
        uid = _frame_uid(item, path)
        if not uid:
            raise InputError(
                f"{path}: item {number} of RegistrationSequence has no FrameOfReferenceUID, only images; "
                "which frame it moves is not known."
            )
        matrix = _matrix_of(item, f"{path}: frame {uid}")
        if uid in found and np.abs(found[uid] - matrix).max() > MATRIX_TOLERANCE:
            what = "is moved against itself" if uid == registered_uid else "is mapped twice, differently"
            raise InputError(f"{path}: frame {uid} {what}; expected one place for each frame.")
        found.setdefault(uid, matrix)
    return Registration(
        path, str(dataset.get("SOPInstanceUID", "")), registered_uid, found, patient_of(dataset)
    )


def _frame_uid(dataset: Dataset, path: Path) -> str:
    """The FrameOfReferenceUID of the object or an item, "" where there is none; InputError for other text."""
    uid = str(dataset.get("FrameOfReferenceUID") or "")
    if uid and not re.fullmatch(r"[0-9.]{1,64}", uid):
        raise InputError(f"{path}: FrameOfReferenceUID {uid[:64]!r} is no UID.")
    return uid


def _matrix_of(item: Dataset, where: str) -> np.ndarray:
    """The product of an item's matrices. InputError for a scale outside SCALES; single matrices may have one,
    as those that change units and change them back."""
    registrations = item.get("MatrixRegistrationSequence") or []
    if len(registrations) != 1:
        raise InputError(f"{where}: {len(registrations)} items in MatrixRegistrationSequence; expected one.")
    steps = registrations[0].get("MatrixSequence") or []
    if not steps:
        raise InputError(f"{where}: no MatrixSequence.")
    product = np.eye(4)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no scale of a patient either
        for step in steps:
            product = _checked(step, where) @ product
        lengths = _lengths(product)
    low, high = SCALES
    if not ((lengths >= low) & (lengths <= high)).all():
        raise InputError(
            f"{where}: its matrix scales the axes by {', '.join(f'{n:g}' for n in lengths)}; expected "
            f"{low:g} to {high:g}, as of one patient in mm. Look whether it is in other units, and export it "
            "again."
        )
    return product


def _lengths(matrix: np.ndarray) -> np.ndarray:
    """float64 (3,): what each axis is scaled by; hypot does not overflow."""
    return np.hypot.reduce(matrix[:3, :3], axis=0)


def _checked(step: Dataset, where: str) -> np.ndarray:
    """One 4x4 of a MatrixSequence; InputError unless it is what its type says (DICOM PS3.3 C.20.2.1.2)."""
    kind = str(step.get("FrameOfReferenceTransformationMatrixType") or "")
    if kind not in MATRIX_TYPES:
        raise InputError(
            f"{where}: FrameOfReferenceTransformationMatrixType {kind!r}; expected {', '.join(MATRIX_TYPES)}."
        )
    values = np.asarray(step.get("FrameOfReferenceTransformationMatrix") or [], dtype=np.float64)
    if values.shape != (16,) or not np.isfinite(values).all():
        raise InputError(
            f"{where}: FrameOfReferenceTransformationMatrix of {values.size} values; expected 16 finite "
            "numbers."
        )
    matrix = values.reshape(4, 4)
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
        turned = " (it looks transposed)" if np.abs(matrix[:3, 3]).max() == 0 else ""
        raise InputError(f"{where}: last row {matrix[3].tolist()}; expected 0, 0, 0, 1{turned}.")
    lengths = _lengths(matrix)
    axes = matrix[:3, :3] / np.where(lengths, lengths, 1)
    volume = float(np.linalg.det(axes))  # of axes of length 1, so that a scale is not taken for a flat one
    if volume < 1e-6:
        raise InputError(
            f"{where}: determinant {volume:g} of its axes without their scale; the matrix "
            f"{'mirrors' if volume < 0 else 'flattens'} the patient, expected a positive one, as 1 of a turn."
        )
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    stretch = np.abs(lengths - 1).max()
    if kind != "AFFINE" and skew > MATRIX_TOLERANCE or kind == "RIGID" and stretch > MATRIX_TOLERANCE:
        raise InputError(
            f"{where}: the matrix says {kind}, but its axes have lengths "
            f"{', '.join(f'{n:.4f}' for n in lengths)} and lean by up to {skew:.4f}; export it again."
        )
    return matrix


# ---- choosing ----------------------------------------------------------------------------------------------


def find_matrix(
    registrations: Sequence[Registration], source_uid: str, target_uid: str, points_lps_mm: np.ndarray
) -> tuple[np.ndarray, Registration]:
    """The 4x4 from one Frame of Reference to the other, and the object that says so; one object, no chains.

    ``points_lps_mm``: float (n, 3) in the source frame, such as the corners of a series; where several
    objects link the two frames they must move these to the same places. InputError when none does, with where
    the others lead, and when two disagree.
    """
    links = [
        (found, reg) for reg in registrations if (found := reg.matrix(source_uid, target_uid)) is not None
    ]
    if not links:
        there = "; ".join(map(str, registrations[:4])) or "there is none"
        own, wanted = printable(source_uid, ""), printable(target_uid, "")  # as damaged headers have them
        raise InputError(
            f"Frame of Reference {own} instead of {wanted}, and no registration object (REG) links the two "
            f"({there})."
        )
    first, chosen = links[0]
    for matrix, other in links[1:]:
        apart_mm = float(
            np.linalg.norm(moved(points_lps_mm, matrix) - moved(points_lps_mm, first), axis=1).max()
        )
        if apart_mm > AGREEMENT_MM:
            raise InputError(
                f"{chosen.path.name} and {other.path.name} both register frame {source_uid} to {target_uid}, "
                f"up to {apart_mm:.1f} mm apart; keep the one that is right."
            )
    return first, chosen


def moved(points_lps_mm: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (n, 3) taken by a 4x4: float64 (n, 3)."""
    return np.asarray(points_lps_mm, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
