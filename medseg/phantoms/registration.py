"""A writer of DICOM Spatial Registration objects, for phantoms of several series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import format_number_as_ds

import medseg
from medseg.dicom.images.header import SPATIAL_REGISTRATION_UID
from medseg.phantoms.series import phantom_uid, save_dicom


def write_registration(
    out: str | Path,
    registered_uid: str,
    matrices: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    *,
    seed: int | str = 0,
    kind: str = "RIGID",
    **header,
) -> Path:
    """Write a REG object that takes points of the frames of ``matrices`` to the frame ``registered_uid``.

    ``matrices``: {Frame of Reference UID: a 4x4 in LPS mm, or several of which the first is applied first}.
    ``kind``: FrameOfReferenceTransformationMatrixType, written as it is, true or not. ``seed``: the patient
    and study of :func:`medseg.phantoms.series.write_series`. ``header``: DICOM keyword = value. An existing
    file is replaced.
    """
    dataset = Dataset()
    dataset.SOPClassUID = SPATIAL_REGISTRATION_UID
    dataset.SOPInstanceUID = phantom_uid("registration", seed, registered_uid, *matrices, Path(out).name)
    dataset.Modality = "REG"
    dataset.PatientName, dataset.PatientID = "PHANTOM^MEDSEG", f"PHANTOM-{seed}"[:64]
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
    dataset.BodyPartExamined = "WHOLEBODY"
    dataset.StudyInstanceUID = phantom_uid("study", seed)
    dataset.StudyID, dataset.StudyDate, dataset.StudyTime = "1", "20260101", "120000"
    dataset.SeriesInstanceUID = phantom_uid("series", "REG", seed, Path(out).name)
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, dataset.StudyTime
    dataset.ContentLabel, dataset.ContentDescription, dataset.ContentCreatorName = "REGISTRATION", "", ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "medseg", "phantom"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", medseg.__version__
    dataset.FrameOfReferenceUID = registered_uid
    frames = {registered_uid: np.eye(4), **matrices}
    dataset.RegistrationSequence = Items(_item(uid, steps, kind) for uid, steps in frames.items())
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    return save_dicom(dataset, Path(out))


def _item(uid: str, steps: np.ndarray | Sequence[np.ndarray], kind: str) -> Dataset:
    registration, item = Dataset(), Dataset()
    registration.RegistrationTypeCodeSequence = Items()
    registration.MatrixSequence = Items(_matrix(step, kind) for step in np.reshape(steps, (-1, 4, 4)))
    item.FrameOfReferenceUID = uid
    item.MatrixRegistrationSequence = Items([registration])
    return item


def _matrix(values: np.ndarray, kind: str) -> Dataset:
    step = Dataset()
    step.FrameOfReferenceTransformationMatrixType = kind
    step.FrameOfReferenceTransformationMatrix = [format_number_as_ds(float(v) + 0.0) for v in values.ravel()]
    return step
