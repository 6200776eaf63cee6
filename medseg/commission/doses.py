"""Which dose of a folder of plans belongs to which structure set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from medseg.dicom.dose import RTDOSE_CLASS_UID, RTPLAN_CLASS_UID, WHOLE_PLANS
from medseg.dicom.images.header import class_name
from medseg.dicom.images.scan import Found
from medseg.dicom.opening import read_dicom
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.workbench.clinic_sets import same_id


def plan_doses(found: Found, linked: Mapping[str, StructureSet]) -> tuple[dict[str, Path], list[str]]:
    """({series UID: the RTDOSE file of the plan that was made on its structure set}, what was left out).

    By the RTPLAN between them; where none is there, the only dose of the patient and Frame of Reference. The
    dose of single beams is left out.
    """
    plans = {
        str(header.get("SOPInstanceUID", "")): {
            str(row.get("ReferencedSOPInstanceUID", ""))
            for row in header.get("ReferencedStructureSetSequence") or []
        }
        for _, header in _headers(found, RTPLAN_CLASS_UID)
    }
    doses = _headers(found, RTDOSE_CLASS_UID)
    notes = [f"{path}: the dose of single beams" for path, header in doses if not _is_whole(header)]
    doses = [(path, header) for path, header in doses if _is_whole(header)]
    chosen: dict[str, Path] = {}
    for uid, structures in linked.items():
        fitting = [path for path, header in doses if structures.sop_instance_uid in _sets_of(header, plans)]
        fitting = fitting or [path for path, header in doses if _is_near(header, structures, plans)]
        if len(fitting) == 1:
            chosen[uid] = fitting[0]
        elif fitting:
            notes.append(f"{structures.path}: {len(fitting)} doses fit it, none taken")
    return chosen, notes


def _headers(found: Found, sop_class: str) -> list[tuple[Path, Dataset]]:
    """Headers of the objects of one class that a scan passed over."""
    kind = class_name(sop_class)
    return [(note.path, read_dicom(note.path)) for note in found.ignored if note.why.startswith(kind)]


def _is_whole(header: Dataset) -> bool:
    return str(header.get("DoseSummationType", "")) in WHOLE_PLANS


def _sets_of(header: Dataset, plans: Mapping[str, set[str]]) -> set[str]:
    """UIDs of the structure sets behind a dose, by its plans that are there."""
    rows = header.get("ReferencedRTPlanSequence") or []
    return set().union(*(plans.get(str(row.get("ReferencedSOPInstanceUID", "")), set()) for row in rows))


def _is_near(header: Dataset, structures: StructureSet, plans: Mapping[str, set[str]]) -> bool:
    same = same_id(str(header.get("PatientID", ""))) == same_id(structures.patient_id)
    frame = str(header.get("FrameOfReferenceUID", "")) in structures.frame_of_reference_uids
    return same and frame and not _sets_of(header, plans)
