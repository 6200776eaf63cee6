"""Structures from wherever they are kept (RT Structure Set, DICOM Segmentation, NIfTI files), one mask at a
time.

A body of 512 x 512 x 300 voxels takes 75 MB, and structure sets hold dozens: whoever goes through two sets
reads each mask when its turn comes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.cases.nifti import is_nifti, load_image, read_mask
from medseg.dicom import ALLOWABLE, Series, find_series, read_series
from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.opening import read_dicom
from medseg.dicom.rtstruct.read import ALLOWABLE_IN_STRUCTURE_SETS, placeable
from medseg.dicom.rtstruct.structure_set import read_structure_set
from medseg.dicom.seg.read import read_seg
from medseg.errors import InputError, StructureError, unusable, why
from medseg.files import load_json
from medseg.geometry import Geometry
from medseg.structures.structure import Structure, structure_from_name

NIFTI_SUFFIXES = (".nii.gz", ".nii")
INDEX = "structures.json"
"""Beside mask files: which structure each of them is, since not every name can be a file's."""


@dataclass(frozen=True)
class Reference:
    """The images that contours belong to: ``folder``, one ``series_uid`` of it, and faults to ``allow``, of
    either kind."""

    folder: Path | None = None
    series_uid: str | None = None
    allow: tuple[str, ...] = ()

    def __post_init__(self):
        known = {**ALLOWABLE, **ALLOWABLE_IN_STRUCTURE_SETS}
        unknown = sorted(set(self.allow) - set(known))
        if unknown:
            raise InputError(f"`allow={unknown[0]}` is not known; expected names from {', '.join(known)}.")
        if self.folder is None and (self.series_uid is not None or self.allow):
            raise InputError("a series or a fault to allow needs the images it is of: `reference`.")

    def series(self) -> Series:
        """The series, read with those of the faults that a series can have; InputError without a folder."""
        if self.folder is None:
            raise InputError("contours need the images they belong to; name their folder: `reference`.")
        return read_series(
            self.folder, series_uid=self.series_uid, allow=[n for n in self.allow if n in ALLOWABLE]
        )

    @property
    def allow_in_sets(self) -> list[str]:
        return [name for name in self.allow if name in ALLOWABLE_IN_STRUCTURE_SETS]


@dataclass(frozen=True, eq=False)
class MaskSource:
    """The structures of ``path`` on one grid. ``kind``: "RT Structure Set", "DICOM Segmentation" or "NIfTI
    masks".

    ``read(name)`` gives (array [slice, row, column], sentences about what was odd): bool, or a float map from
    0 to 1. ``notices``: what was odd about the whole, and what was left out.
    """

    path: Path
    kind: str
    geometry: Geometry
    structures: tuple[Structure, ...]
    notices: tuple[str, ...]
    read: Callable[[str], tuple[np.ndarray, list[str]]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(structure.name for structure in self.structures)

    def require(self, names: Sequence[str]) -> None:
        """StructureError, with the names that there are, unless all ``names`` are structures of this
        source."""
        for name in names:
            if name not in self.names:
                there = ", ".join(map(repr, sorted(self.names))) or "none"
                why = "".join(f" {notice}" for notice in self.notices if repr(name) in notice)
                raise StructureError(f"{self.path}: no structure {name!r}; there are {there}.{why}")


def is_dicom(path: Path) -> bool:
    """True for a file with DICOM's preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def open_masks(
    path: str | Path,
    series: Series | None = None,
    geometry: Geometry | None = None,
    allow: Collection[str] = (),
) -> MaskSource:
    """The structures of an RT Structure Set, a DICOM Segmentation, a NIfTI mask or a folder of NIfTI masks.

    They lie on the grid of ``series``, which DICOM files need; NIfTI masks may do with ``geometry``, or with
    the grid of the first of them. ROIs without an area are left out with a notice. ``allow``: see
    read_rtstruct. Raises InputError, GeometryError or StructureError for what cannot be read or lies
    elsewhere.
    """
    path = Path(path)
    if path.is_dir() or is_nifti(path):
        if series is not None:
            _check_made_on(path, series)
        return _nifti_source(path, series.geometry if series else geometry)
    if not path.is_file():
        raise unusable(path, "a structure set (.dcm) or NIfTI masks")
    if series is None:
        raise InputError(
            f"{path}: contours need the images they were drawn on; name their folder: `reference`."
        )
    if modality(path) == "SEG":
        return _segmentation_source(path, series)
    return _structure_set_source(path, series, allow)


def modality(path: Path) -> str:
    """Modality of a DICOM file, "" when it has none or is no DICOM file."""
    try:
        return str(read_dicom(path).get("Modality", ""))
    except (InputError, *PARSE_ERRORS):
        return ""  # whoever opens it next says what is wrong with it


# ---- DICOM -------------------------------------------------------------------------------------------------


def _structure_set_source(path: Path, series: Series, allow: Collection[str]) -> MaskSource:
    structure_set = read_structure_set(path)
    readers, notices = placeable(structure_set, series, allow)
    stored = {roi.structure.name: roi.structure for roi in structure_set.rois}
    structures = tuple(
        stored.get(name) or Structure(name) for name in readers
    )  # "NAME (number 3)" where names repeat
    said = (*structure_set.notices, *notices)
    return MaskSource(
        path, "RT Structure Set", series.geometry, structures, said, lambda name: readers[name]()
    )


def _segmentation_source(path: Path, series: Series) -> MaskSource:
    masks = read_seg(path, series)
    by_name = {structure.name: mask for structure, mask in masks.items()}
    return MaskSource(
        path, "DICOM Segmentation", series.geometry, tuple(masks), (), lambda name: (by_name[name], [])
    )


# ---- NIfTI -------------------------------------------------------------------------------------------------


def _nifti_source(path: Path, geometry: Geometry | None) -> MaskSource:
    files = mask_files(path)
    if geometry is None:
        first = next(iter(files.values()))
        image, array = load_image(first)
        if array.ndim < 3 or image.affine is None or np.isclose(np.linalg.det(image.affine), 0):
            raise InputError(
                f"{first}: array of shape {array.shape} without a usable affine; expected a mask (x, y, z)."
            )
        geometry = Geometry.from_ras_affine(image.affine, array.shape[:3])

    def read(name: str) -> tuple[np.ndarray, list[str]]:
        array = read_mask(files[by_name[name]], geometry)
        if array.dtype != bool and not (
            array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1
        ):  # nan is neither
            raise StructureError(f"{files[by_name[name]]}: {_why_no_mask(array)}")
        return array, []

    index = read_index(path) if path.is_dir() else {}
    structures = tuple(index.get(file.name) or _plain(name, file) for name, file in files.items())
    by_name = dict(zip((structure.name for structure in structures), files, strict=True))
    if len(by_name) < len(files):
        raise StructureError(f"{path / INDEX}: gives two files the same name; repair or remove it.")
    return MaskSource(path, "NIfTI masks", geometry, structures, (), read)


def _check_made_on(path: Path, series: Series) -> None:
    """InputError when the index beside the masks says that they were made on another series."""
    index = (path if path.is_dir() else path.parent) / INDEX
    rows = load_json(index) if index.is_file() and read_index(index.parent) else {}
    made_on = rows.get("SeriesInstanceUID", series.series_instance_uid)
    if made_on != series.series_instance_uid:
        raise InputError(
            f"{path}: {INDEX} says that these are masks of series {made_on}, not of "
            f"{series.series_instance_uid}. If they belong on these images all the same, take that line out."
        )


def _why_no_mask(array: np.ndarray) -> str:
    values = np.unique(array)
    if len(values) == 2 and values[0] == 0 and np.isfinite(values[1]):
        return f"holds 0 and {values[1]:g}; expected a mask of 0 and 1 (or 255). Write its inside as 1."
    return (
        f"values from {array.min():g} to {array.max():g}; expected a mask of 0 and 1 or a map between them; "
        f"split a label map into one file per structure."
    )


def _plain(name: str, file: Path) -> Structure:
    try:
        return replace(structure_from_name(name), generation_algorithm="")  # a mask does not tell who drew it
    except StructureError as error:
        raise StructureError(f"{file}: {error} Rename the file.") from error


def mask_files(path: Path) -> dict[str, Path]:
    """{structure name: NIfTI file} of a file or of the files of a folder; InputError for none and for a name
    used twice."""
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if is_nifti(file) and not file.name.startswith("."))
        if not files:
            raise InputError(f"{path}: holds no NIfTI file (.nii, .nii.gz), but {_held(path)}.")
        if holds_slices(path):
            raise InputError(
                f"{path}: holds images and {_count(files)} beside them; which are the masks? Name the "
                "file of one, or put them into a folder of their own."
            )
    named: dict[str, Path] = {}
    for file in files:
        name = re.sub(r"\.nii(\.gz)?$", "", file.name, flags=re.IGNORECASE)
        if name in named:
            raise InputError(f"{named[name]} and {file} would both be called {name!r}; rename one.")
        named[name] = file
    return named


def _count(files: Sequence[Path]) -> str:
    return f"the NIfTI file {files[0].name}" if len(files) == 1 else f"{len(files)} NIfTI files"


def holds_slices(folder: Path) -> bool:
    """True for a folder with slices of CT, MR or PET in it, not below it."""
    return bool(find_series([file for file in folder.iterdir() if file.is_file() and is_dicom(file)]).series)


def _held(folder: Path) -> str:
    """What a folder holds, for people: "20 files of .dcm, 1 folder"."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    kinds = Counter(entry.suffix.lower() or "no suffix" for entry in entries if entry.is_file())
    held = [f"{count} files of {kind}" for kind, count in kinds.most_common(4)]
    folders = sum(entry.is_dir() for entry in entries)
    return ", ".join([*held, *([f"{folders} folders"] if folders else [])]) or "nothing at all"


def read_index(folder: Path) -> dict[str, Structure]:
    """{file name: Structure} that ``medseg convert`` wrote beside its masks; {} without such a file.

    InputError when the file is not one of medseg's; StructureError for a name, number or type that DICOM does
    not take.
    """
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        rows = load_json(path)["structures"]
        return {
            row["file"]: replace(
                structure_from_name(row["name"]),
                number=row.get("number"),
                colour_rgb=tuple(row["colour_rgb"]) if row.get("colour_rgb") else None,
                interpreted_type=row.get("interpreted_type") or "",
                generation_algorithm=row.get("generation_algorithm") or "",
            )
            for row in rows
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a list of structures by medseg ({why(error)}); repair or remove it."
        ) from error


def file_names(names: Sequence[str]) -> dict[str, str]:
    """{structure name: file name without suffix} that every file system takes, as like the name as can be.

    Separators, control characters and what Windows forbids become ``_``. StructureError when two names would
    need the same file (letters' case does not tell files apart everywhere).
    """
    chosen: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in names:
        file = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", name).rstrip(". ")
        file = re.sub(r"^\.", "_", file) or "_"
        if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", file, re.IGNORECASE):
            file = f"_{file}"
        other = owners.setdefault(file.casefold(), name)
        if other != name:
            raise StructureError(
                f"structures {other!r} and {name!r} would both be written as {file}.nii.gz; choose one of "
                f"them: `rois`."
            )
        chosen[name] = file
    return chosen
