"""Structures and images from one kind of file to another: structure set to masks and back, series to
NIfTI."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.mask_sources import (
    INDEX,
    MaskSource,
    Reference,
    file_names,
    holds_slices,
    is_nifti,
    open_masks,
    read_index,
)
from medseg.cases.nifti import write_mask, write_volume
from medseg.dicom import Series, write_rtstruct, write_seg
from medseg.dicom.damage import damage_as_input_error
from medseg.dicom.derived import refuse_existing
from medseg.dicom.opening import read_dicom
from medseg.dicom.rtstruct.structure_set import read_structure_set
from medseg.dicom.rtstruct.volumes import structure_set_volumes
from medseg.errors import GeometryError, InputError, MedsegWarning, unusable
from medseg.files import FILE_ENDINGS, load_json, staging_folder, write_json
from medseg.metrics import volume_cc
from medseg.structures.structure import Structure

DIRECTIONS = "RS.dcm OUT_DIR (masks), MASK_DIR OUT.dcm (structure set), CT_DIR OUT.nii.gz (image)"
FORMATS = ("rtstruct", "seg")


@dataclass(frozen=True)
class Conversion:
    """What to convert and how.

    ``rois``: structures to take, all when empty. ``format``: "rtstruct" or "seg", for an OUT.dcm. ``holes``,
    ``simplify_mm``, ``append_to``: as write_rtstruct takes them. ``overwrite``: replace files that are there.
    """

    source: Path
    out: Path
    reference: Reference = Reference()
    rois: tuple[str, ...] = ()
    format: str = "rtstruct"
    holes: str = "keyhole"
    simplify_mm: float = 0.0
    append_to: Path | None = None
    overwrite: bool = False


def convert(request: Conversion) -> dict[str, Any]:
    """Do a conversion; the paths say which: see DIRECTIONS. Returns a record of what was written and what was
    odd.

    Every file appears whole or not at all, and none that is there is replaced without ``overwrite``. Raises
    InputError when the paths fit no direction or an option does not belong to it, GeometryError and
    StructureError as the readers and writers do.
    """
    source, out = request.source, request.out
    if not (source.is_file() or source.is_dir()):
        raise unusable(source, f"one of {DIRECTIONS}")
    if request.format not in FORMATS:
        raise InputError(f"format {request.format!r}: expected one of {', '.join(FORMATS)}.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", MedsegWarning)
        record = _direction(request)(request)
    record["warnings"] += [
        str(warning.message) for warning in said if issubclass(warning.category, MedsegWarning)
    ]
    return {"source": str(source), "out": str(out), **record}


def _direction(request: Conversion):
    """The function for what the two paths are; InputError with what would be possible."""
    source, out = request.source, request.out
    is_folder = source.is_dir()
    holds_masks = is_nifti(source) or is_folder and any(map(is_nifti, source.glob("[!.]*")))
    found = "" if is_folder or is_nifti(source) else _modality(source)
    kind = found if found in ("RTSTRUCT", "SEG") else ""
    if is_nifti(out) and not kind and (not holds_masks or is_folder and holds_slices(source)):
        _refuse_options(
            request, "an image", rois=(), append_to=None, simplify_mm=0.0, holes="keyhole", format="rtstruct"
        )
        if request.reference.folder:
            raise InputError("`reference` does not go with writing an image: the source is the image.")
        return _image_to_nifti
    if out.suffix.lower() == ".dcm" and (holds_masks or kind == "SEG" or kind and request.format == "seg"):
        if request.format == "seg":
            _refuse_options(request, "a Segmentation", append_to=None, simplify_mm=0.0, holes="keyhole")
        return _masks_to_dicom
    if kind and (out.is_dir() or out.suffix.lower() not in FILE_ENDINGS):
        _refuse_options(request, "masks", append_to=None, simplify_mm=0.0, holes="keyhole", format="rtstruct")
        return _set_to_masks
    what = "NIfTI masks" if holds_masks else f"a DICOM file of modality {found or 'unknown'}"
    what = "a folder" if is_folder and not holds_masks else what
    raise InputError(f"{source} is {what} and {out} does not go with it; medseg convert does: {DIRECTIONS}.")


def _modality(path: Path) -> str:
    """Modality of a DICOM file, "" where it has none; InputError for one that is damaged, unreadable or no
    DICOM file."""
    with damage_as_input_error(path):
        return str(read_dicom(path).get("Modality", ""))


def _refuse_options(request: Conversion, what: str, **defaults) -> None:
    """InputError for an option that would change nothing."""
    for name, default in defaults.items():
        if getattr(request, name) != default:
            raise InputError(f"`{name}` does not go with writing {what}.")


def _open(request: Conversion) -> tuple[MaskSource, Series, list[str]]:
    """The structures of the request, its series and what was odd about both."""
    series = request.reference.series()
    source = open_masks(request.source, series, allow=request.reference.allow_in_sets)
    source.require(request.rois)
    return source, series, [*series.warnings, *source.notices]


# ---- structure set to masks --------------------------------------------------------------------------------


def _set_to_masks(request: Conversion) -> dict[str, Any]:
    source, series, notes = _open(request)
    if not series.geometry.is_regular:
        kind = "tilted" if series.geometry.is_uniform else "uneven"
        raise GeometryError(
            f"{request.reference.folder}: its slices are {kind}, which NIfTI masks cannot describe; convert "
            "to a DICOM Segmentation instead (OUT.dcm, `format=seg`), or resample the images first."
        )
    wanted = [
        structure for structure in source.structures if not request.rois or structure.name in request.rois
    ]
    if not wanted:
        raise InputError(
            f"{request.source}: no ROI of it bounds an area; nothing to convert. {' '.join(notes)}"
        )
    files = {
        name: f"{file}.nii.gz" for name, file in file_names([structure.name for structure in wanted]).items()
    }
    for file in (*files.values(), INDEX):
        refuse_existing(request.out / file, request.overwrite)
    if request.out.is_dir() and {file.parent.resolve() for file in series.files} & {request.out.resolve()}:
        raise InputError(f"{request.out}: masks would lie among the images; choose another folder.")
    is_new, kept = not request.out.exists(), _kept_rows(request.out, set(files.values()), series)
    rows = []
    try:
        with staging_folder(request.out) as staging:
            for structure in wanted:
                mask, said = source.read(structure.name)
                notes += said
                write_mask(mask, series.geometry, staging / files[structure.name])
                rows.append(_row(structure, mask, series, files[structure.name]))
            for file in files.values():
                os.replace(staging / file, request.out / file)
    except BaseException:
        if is_new and request.out.is_dir() and not any(request.out.iterdir()):
            request.out.rmdir()
        raise
    index = {
        "source": request.source.name,
        "SeriesInstanceUID": series.series_instance_uid,
        "structures": [*kept, *rows],
    }
    write_json(index, request.out / INDEX)
    return {"direction": "structure set to masks", "structures": rows, "warnings": notes}


def _kept_rows(folder: Path, files: set[str], series: Series) -> list[dict[str, Any]]:
    """Rows of the index that is there already, of masks that stay; InputError when they belong to other
    images."""
    if not read_index(folder):
        return []
    index = load_json(folder / INDEX)
    if index.get("SeriesInstanceUID") != series.series_instance_uid:
        raise InputError(
            f"{folder}: holds masks of series {index.get('SeriesInstanceUID')}, not of "
            f"{series.series_instance_uid}; masks of different images do not belong in one folder, choose "
            "another."
        )
    return [
        row for row in index["structures"] if row["file"] not in files and (folder / row["file"]).is_file()
    ]


def _row(structure: Structure, mask: np.ndarray, series: Series, file: str | None = None) -> dict[str, Any]:
    """What is told about one structure; an unknown volume (a single slice) is None."""
    mask = mask if mask.dtype == bool else mask >= 0.5
    cc = volume_cc(mask, series.geometry)
    row = {
        "name": structure.name,
        "number": structure.number,
        "interpreted_type": structure.interpreted_type,
        "generation_algorithm": structure.generation_algorithm,
        "colour_rgb": list(structure.colour_rgb) if structure.colour_rgb else None,
        "volume_cc": None if np.isnan(cc) else round(cc, 3),
        "empty": not bool(mask.any()),
    }
    return {"file": file, **row} if file else row


# ---- masks to structure set --------------------------------------------------------------------------------


def _masks_to_dicom(request: Conversion) -> dict[str, Any]:
    if request.out.exists() and request.out.samefile(request.source):
        raise InputError(f"{request.out}: is what would be converted, and is kept as it is; name a new file.")
    refuse_existing(request.out, request.overwrite)
    source, series, notes = _open(request)
    masks: dict[Structure, np.ndarray] = {}
    for structure in source.structures:
        if not request.rois or structure.name in request.rois:
            mask, said = source.read(structure.name)
            notes += said
            # Numbers of masks are kept where the new set is theirs alone; beside other ROIs they might be
            # taken.
            masks[replace(structure, number=None) if request.append_to else structure] = mask
    if request.format == "seg":
        write_seg(masks, series, request.out, overwrite=request.overwrite)
    else:
        write_rtstruct(
            masks,
            series,
            request.out,
            holes=request.holes,
            simplify_mm=request.simplify_mm,
            append_to=request.append_to,
            overwrite=request.overwrite,
        )
    rows = [_row(structure, mask, series) for structure, mask in masks.items()]
    if request.simplify_mm:
        notes += _thinned(rows, request)
    what = {"rtstruct": "masks to structure set", "seg": "structures to Segmentation"}[request.format]
    return {"direction": what, "structures": rows, "warnings": notes}


def _thinned(rows: list[dict[str, Any]], request: Conversion) -> list[str]:
    """Give the rows the volumes of the thinned contours as they were written; a sentence for each that
    thinning changed by more than 1 %."""
    written = read_structure_set(request.out)
    volumes_cc = zip(written.rois, structure_set_volumes(written), strict=True)
    of_contours = {roi.structure.name: cc for roi, cc in volumes_cc}
    notes = []
    for row in rows:
        before, after = row["volume_cc"], of_contours.get(row["name"])
        if before is None or after is None:
            continue
        row["volume_cc"] = round(after, 3)
        if abs(after - before) > 0.01 * before:
            notes.append(
                f"structure {row['name']}: thinning by {request.simplify_mm:g} mm left {after:.2f} of "
                f"{before:.2f} cc; take fewer mm."
            )
    return notes


# ---- series to NIfTI ---------------------------------------------------------------------------------------


def _image_to_nifti(request: Conversion) -> dict[str, Any]:
    refuse_existing(request.out, request.overwrite)
    return convert_series(replace(request.reference, folder=request.source), request.out)


def convert_series(images: Reference, out: Path) -> dict[str, Any]:
    """Write the series of ``images`` as NIfTI; a record of what was written. An ``out`` that is there is
    replaced. GeometryError for slices that NIfTI cannot describe."""
    series = images.series()
    if not series.geometry.is_regular:
        kind = "tilted" if series.geometry.is_uniform else "uneven"
        raise GeometryError(
            f"{images.folder}: its slices are {kind}, which NIfTI cannot describe, and medseg does not "
            "resample images in silence; resample them where you can see it (3D Slicer, plastimatch), or "
            "stay in DICOM: segment, compare and margin work on such slices."
        )
    grid = {
        "shape_slices_rows_columns": list(series.geometry.shape),
        "spacing_mm": list(series.geometry.spacing_mm),  # refuses a single slice, before anything is written
    }
    write_volume(series.volume(), series.geometry, out)
    return {
        "direction": "series to NIfTI",
        "modality": series.modality,
        "grid": grid,
        "warnings": list(series.warnings),
    }
