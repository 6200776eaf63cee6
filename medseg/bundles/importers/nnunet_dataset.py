"""``medseg bundles export nnunet-dataset``: clinic exports as a raw data set of nnU-Net v2.

Reads what ``medseg datalist`` wrote: images with their structure sets. Writes ``imagesTr``, ``labelsTr``,
``dataset.json`` and ``splits_final.json``, whose folds never divide a patient. A label map holds one label a
voxel, so where structures overlap the one that stands later in the datalist wins, and the report says how
many voxels that were.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.datalist import SECTIONS, check_datalist
from medseg.bundles.importers.names import side_of
from medseg.errors import InputError
from medseg.files import load_json, make_folder, write_json

NAME = re.compile(r"Dataset\d{3}_\w+")
RESERVED = ("background", "ignore")
"""Labels that mean something to nnU-Net itself."""

MOST_LABELS = 255
"""What one byte a voxel tells apart, 0 left for nothing."""


@dataclass(frozen=True)
class DatasetRequest:
    """``datalist``: of ``medseg datalist``; its paths begin at ``data``. ``output``: a new folder that is
    called as nnU-Net asks, Dataset501_Name. ``folds``: how many parts the patients are divided into by
    ``seed``."""

    datalist: Path
    data: Path
    output: Path
    folds: int = 5
    seed: int = 0


def export_dataset(request: DatasetRequest) -> list[str]:
    """Write the data set; returns what there is to say of it, in sentences. InputError for a name that
    nnU-Net would not take (of the folder or a structure), a folder that exists, more than 255 structures,
    fewer patients than folds, an ROI of the other side than its structure, and a case in which a structure
    was not contoured, since "not contoured" is no label of nnU-Net's."""
    if not NAME.fullmatch(request.output.name):
        raise InputError(f"{request.output.name}: nnU-Net asks for a name such as Dataset501_Pelvis.")
    if request.output.exists():
        raise InputError(f"{request.output}: exists already; name a new folder.")
    check_datalist(request.datalist, request.data)
    content = load_json(request.datalist)
    if not isinstance(content.get("structures"), Mapping) or not content["structures"]:
        raise InputError(f"{request.datalist}: no structures; expected a list that medseg datalist wrote.")
    items = [item for section in SECTIONS for item in content[section]]
    _check_labels(content["structures"], items)
    names = _case_names(items)
    folds = _folds(items, names, request)
    make_folder(request.output.parent)
    staging = request.output.with_name(f".{request.output.name}.part{os.getpid()}")
    try:
        for folder in ("imagesTr", "labelsTr"):
            (staging / folder).mkdir(parents=True)
        notes, modalities = [], set()
        for item, name in zip(items, names, strict=True):
            modality, overlap = _write_case(item, name, content["structures"], request, staging)
            modalities.add(modality)
            notes += [f"{name}: {overlap} voxels belong to several structures"] if overlap else []
        write_json(_description(content["structures"], modalities, len(items)), staging / "dataset.json")
        write_json(folds, staging / "splits_final.json")
        staging.replace(request.output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return [f"{request.output}: {len(items)} cases, {len(folds)} folds", *notes, *_next_steps(request.output)]


def _next_steps(folder: Path) -> list[str]:
    number = folder.name[7:10]
    return [
        f"next: nnUNetv2_plan_and_preprocess -d {number}, copy splits_final.json to "
        f"nnUNet_preprocessed/{folder.name}, nnUNetv2_train {number} 3d_fullres 0"
    ]


def _check_labels(structures: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
    """InputError for structures that are no labels of nnU-Net's, and for ROIs on the wrong side."""
    if len(structures) > MOST_LABELS:
        raise InputError(
            f"{len(structures)} structures; a label map has room for {MOST_LABELS}. Leave some out of the "
            "datalist."
        )
    for structure in structures:
        if structure.strip().lower() in RESERVED:
            raise InputError(
                f"structure {structure!r}: nnU-Net means something else by it; give it another name in the "
                "datalist, or leave it out."
            )
    for item in items:
        for structure, roi in (item.get("rois") or {}).items():
            sides = {side_of(structure), side_of(roi or "")} - {""}
            if len(sides) > 1:
                raise InputError(
                    f"{item['case_id']}: ROI {roi!r} would be {structure!r}: left and right are swapped."
                )


def _case_names(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """case_001, case_002 …: names of files tell nothing of a patient."""
    return [f"case_{number:03d}" for number in range(1, len(items) + 1)]


def _folds(
    items: Sequence[Mapping[str, Any]], names: Sequence[str], request: DatasetRequest
) -> list[dict[str, list[str]]]:
    """nnU-Net's splits_final: per fold the names that train and validate, whole patients on one side."""
    patient_of = [str(item.get("patient_id", item["case_id"])) for item in items]

    def drawn(patient: str) -> str:
        return hashlib.sha256(f"{request.seed} {patient}".encode()).hexdigest()

    patients = sorted(set(patient_of), key=drawn)
    if not 2 <= request.folds <= len(patients):
        raise InputError(f"`folds={request.folds}`: expected 2 to {len(patients)}, as many as patients.")
    fold_of = {patient: number % request.folds for number, patient in enumerate(patients)}
    splits = []
    for fold in range(request.folds):
        sides: dict[str, list[str]] = {"train": [], "val": []}
        for name, patient in zip(names, patient_of, strict=True):
            sides["val" if fold_of[patient] == fold else "train"].append(name)
        splits.append(sides)
    return splits


def _write_case(
    item: Mapping[str, Any],
    name: str,
    structures: Mapping[str, Sequence[str]],
    request: DatasetRequest,
    folder: Path,
) -> tuple[str, int]:
    """Write image and label; returns (modality, how many voxels several structures claim)."""
    from medseg.transforms import LoadCased, LoadRTStructd

    loaded = LoadCased("image")({"image": str(request.data / item["image"])})
    loaded |= {"label": str(request.data / item["label"]), "rois": item.get("rois")}
    loaded = LoadRTStructd("label", structures)(loaded)
    channels = loaded["label"].numpy()
    lacking = [
        structure for structure, mask in zip(structures, channels, strict=True) if np.isnan(mask.flat[0])
    ]
    if lacking:
        raise InputError(
            f"{item['case_id']}: {lacking[0]} is not contoured, which nnU-Net would learn as absent; leave "
            "the case or the structure out of the datalist."
        )
    labels = np.zeros(channels.shape[1:], dtype=np.uint8)
    for number, mask in enumerate(channels, start=1):
        labels[mask > 0.5] = number
    affine = np.asarray(loaded["image"].affine)
    _save(loaded["image"].numpy()[0], affine, folder / "imagesTr" / f"{name}_0000.nii.gz")
    _save(labels, affine, folder / "labelsTr" / f"{name}.nii.gz")
    from medseg.transforms.readers import case_of

    case = case_of(loaded["image"].meta)
    modality = case.series.modality if case.series else "CT"
    return modality, int(((channels > 0.5).sum(axis=0) > 1).sum())


def _save(array: np.ndarray, affine_ras: np.ndarray, path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array, affine_ras), path)


def _description(structures: Mapping[str, Any], modalities: set[str], count: int) -> dict[str, Any]:
    """The content of dataset.json. InputError for cases of different modalities, which are one channel."""
    if len(modalities) > 1:
        raise InputError(f"cases of {' and '.join(sorted(modalities))}; one channel is of one modality.")
    labels = {"background": 0, **{name: number for number, name in enumerate(structures, start=1)}}
    return {
        "channel_names": {"0": modalities.pop()},
        "labels": labels,
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
