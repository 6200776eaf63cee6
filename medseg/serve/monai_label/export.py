"""Submitted labels as other programs take them: RTSTRUCT, DICOM SEG, and the data of a MONAI training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.find import Bundle, read_json
from medseg.cases.nifti import write_volume
from medseg.cases.volume import open_case
from medseg.errors import BundleError, InputError
from medseg.files import make_folder
from medseg.serve.monai_label.films import NO_RTSTRUCT, write_film_seg
from medseg.serve.monai_label.fuse import fuse
from medseg.serve.monai_label.images import Image, geometry_of, series_of
from medseg.serve.monai_label.labels import BY_HAND, Version, current, newest_of_each
from medseg.serve.monai_label.models import structures_of
from medseg.structures.structure import Structure, structure_from_name

DICOM_FILES = {"rtstruct": "RS.dcm", "dicom_seg": "SEG.dcm"}


def write_dicom(version: Version, image: Image, kind: str, folder: Path) -> Path:
    """Write a label as ``RS.dcm`` or ``SEG.dcm`` (``kind``: a key of DICOM_FILES) on the series of its image.

    Who drew it stands in it as MANUAL, or SEMIAUTOMATIC when it began with a model's answer; the annotator's
    name does not. InputError for an image that is no DICOM, and for RTSTRUCT of a radiograph.
    """
    from medseg.dicom import write_rtstruct, write_seg

    out = folder / DICOM_FILES[kind]
    if image.kind == "radiograph":
        if kind == "rtstruct":
            raise InputError(NO_RTSTRUCT)
        drawn = version.masks(geometry_of(image))
        named = {_structure(name, version): mask for name, mask in drawn.items()}
        return write_film_seg(named, image.source, out)
    series = series_of(image)
    if series is None:
        raise InputError(f"output {kind}: it refers to DICOM images, and this one is a NIfTI file.")
    masks = {_structure(name, version): mask for name, mask in version.masks(series.geometry).items()}
    write = write_rtstruct if kind == "rtstruct" else write_seg
    return write(masks, series, out)


def _structure(name: str, version: Version) -> Structure:
    drawn = "MANUAL" if version.origin == BY_HAND else "SEMIAUTOMATIC"
    said = f"medseg label {version.id}; {version.origin}"
    return replace(structure_from_name(name), generation_algorithm=drawn, generation_description=said)


# ---- for training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """The label that an image is trained with: ``masks`` {structure: bool}, and ``versions`` behind it."""

    image: Image
    masks: Mapping[str, np.ndarray]
    versions: tuple[str, ...]


def choose_labels(
    image: Image, versions: Sequence[Version], annotators: Sequence[str], method: str
) -> Chosen | None:
    """What a reviewer chose; else the newest of each annotator, fused by ``method`` where there are several.

    ``annotators``: only these, all when empty. None for an image without a label of theirs.
    """
    wanted = [one for one in versions if not annotators or one.annotator in annotators]
    newest = newest_of_each(wanted)
    if not newest:
        return None
    chosen = current(wanted)
    if chosen is not None and chosen.notes.get("chosen"):
        newest = {chosen.annotator: chosen}
    geometry = geometry_of(image)
    used = [newest[name] for name in sorted(newest)]
    masks = [version.masks(geometry) for version in used]
    together = masks[0] if len(masks) == 1 else fuse(masks, method)
    return Chosen(image, together, tuple(version.id for version in used))


def patient_key(image: Image) -> str:
    """The same for images of one patient, and nobody's name: a digest of PatientID, without one of the study;
    of a NIfTI file its own id."""
    series = series_of(image)
    if series is None:
        said = f"image {image.id}"
    else:
        said = str(series.headers[0].get("PatientID") or series.study_instance_uid)
    return hashlib.sha256(said.strip().casefold().encode(errors="surrogateescape")).hexdigest()[:16]


def write_training_case(chosen: Chosen, bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Write image and label as the bundle's own train.json reads them, below ``folder``; returns the row of
    the datalist.

    With ``bits`` in train.json the label is a field of bits, with the names that were drawn; with one channel
    a mask. BundleError for a bundle that reads labels in another way; InputError for a label without any of
    the bundle's structures.
    """
    names = structures_of(bundle)
    drawn = [name for name in names if name in chosen.masks and chosen.masks[name].any()]
    if not drawn:
        raise InputError(f"image {chosen.image.id}: nothing of {', '.join(names)} is drawn in its label.")
    config = read_json(bundle.folder / "configs" / "train.json")
    bits = config.get("bits")
    case = open_case(chosen.image.source)
    field = np.zeros(case.shape, dtype=np.int16)
    if isinstance(bits, Mapping):
        for name in drawn:
            field[chosen.masks[name]] |= 1 << int(bits[name][0])
    elif len(names) == 1:
        field[chosen.masks[names[0]]] = 1
    else:
        raise BundleError(
            f"bundle {bundle.name}: its train.json has no `bits` for {len(names)} structures, so labels "
            "cannot be written as it reads them."
        )
    place = folder / chosen.image.key
    make_folder(place)
    write_volume(case.volume, case.geometry, place / "image.nii.gz")
    write_volume(field, case.geometry, place / "label.nii.gz")
    row = {"image": f"{chosen.image.key}/image.nii.gz", "label": f"{chosen.image.key}/label.nii.gz"}
    return {**row, "case_id": chosen.image.key, "patient_id": patient_key(chosen.image), "present": drawn}
