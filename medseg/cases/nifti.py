"""Masks and images as NIfTI files on the image's own grid."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from medseg import limits
from medseg.errors import GeometryError, InputError, unusable
from medseg.files import atomic_path
from medseg.geometry import Geometry

NIFTI_SUFFIXES = (".nii", ".nii.gz")


INSIDE = (1, 255)
"""What a mask may hold inside: one, or all bits of a byte (as dcmrtstruct2nii writes it)."""

LARGEST_MM = 1e6
"""A step or an origin of a kilometre is no place of a patient."""


def is_nifti(path: str | Path) -> bool:
    """True for names that end in .nii or .nii.gz."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def write_mask(mask: np.ndarray, geometry: Geometry, out: str | Path) -> Path:
    """Write a bool mask [slice, row, column] as uint8 NIfTI (x=column, y=row, z=slice), atomically.

    An empty mask gives a file of zeros. Raises GeometryError for a stack that is not a plain box of voxels.
    """
    return _write(mask.astype(np.uint8), geometry, out)


def write_volume(volume: np.ndarray, geometry: Geometry, out: str | Path) -> Path:
    """Write an image [slice, row, column] as NIfTI, atomically: int16 where that holds every value exactly,
    else float32.

    Raises GeometryError for a stack that is not a plain box of voxels.
    """
    exact = bool(np.isfinite(volume).all()) and volume.min() >= -32768 and volume.max() <= 32767
    exact = exact and bool((volume == np.rint(volume)).all())
    return _write(volume.astype(np.int16 if exact else np.float32), geometry, out)


def _write(array: np.ndarray, geometry: Geometry, out: str | Path) -> Path:
    import nibabel

    if not geometry.is_regular:
        kind = "tilted" if geometry.is_uniform else "uneven"
        raise GeometryError(
            f"{Path(out).name}: the slices are {kind}, which NIfTI cannot describe; write an RTSTRUCT "
            f"instead."
        )
    if array.shape != geometry.shape:
        raise GeometryError(
            f"{Path(out).name}: mask {array.shape} for an image of {geometry.shape} (slice, row, column)."
        )
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), geometry.affine_ras)
    image.header.set_xyzt_units("mm")
    image.set_qform(geometry.affine_ras, code=1)
    image.set_sform(geometry.affine_ras, code=1)
    with atomic_path(out) as temporary:
        nibabel.save(image, temporary)
    return Path(out)


def read_mask(path: str | Path, geometry: Geometry) -> np.ndarray:
    """A mask, or a map of probabilities, [slice, row, column] from a NIfTI file that lies on the image's own
    grid.

    NIfTI files keep the same voxels in other axis orders and directions (dcm2niix turns the rows round); they
    are put in the image's order by their affine, never resampled. Arrays of only 0 and 1 become bool, and so
    do those of only 0 and 255, as some tools write them. Raises InputError for a file that is no
    three-dimensional NIfTI image, and GeometryError when its voxels are not those of the image.
    """
    from nibabel import orientations

    path = Path(path)
    if not path.is_file():
        raise unusable(path, "a NIfTI mask")
    image, array = load_image(path)
    array = array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
    if array.ndim != 3 or image.affine is None:
        raise InputError(f"{path}: array of shape {array.shape}; expected one mask (x, y, z).")
    own, wanted = orientations.io_orientation(image.affine), orientations.io_orientation(geometry.affine_ras)
    if np.isnan(own).any():
        raise InputError(f"{path}: its affine is singular, so its voxels have no place.")
    turn = orientations.ornt_transform(own, wanted)
    affine_ras = image.affine @ orientations.inv_ornt_aff(turn, array.shape)
    array = orientations.apply_orientation(array, turn)
    if (
        geometry.is_uniform
    ):  # compare with what NIfTI can say of these slices, whose own positions were rounded
        geometry = Geometry.from_lps_affine(geometry.affine_lps, geometry.shape)
    Geometry.from_ras_affine(affine_ras, array.shape).require_same(geometry, str(path))
    array = np.ascontiguousarray(array.transpose(2, 1, 0))
    is_mask = any(bool(((array == 0) | (array == inside)).all()) for inside in INSIDE)
    return array.astype(bool) if is_mask else array


def load_image(path: str | Path):
    """(nibabel image, array of its voxels) of a NIfTI file; InputError when it is damaged, above a limit or
    its voxels are no numbers."""
    import nibabel

    errors = (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        MemoryError,
        struct.error,
        zlib.error,
    )
    try:
        kind, needed = _declared(Path(path))
        if _is_compressed(path):
            _count_to_the_end(path, needed)
        image = kind.from_filename(path)
        array = np.asarray(image.dataobj)
    except InputError as error:
        raise InputError(f"{path}: {error}.") from error
    except errors as error:
        raise InputError(
            f"{path}: cannot be read as NIfTI ({' '.join(str(error).split())[:160]})."
        ) from error
    if image.affine is not None and not np.abs(image.affine).max() < LARGEST_MM:  # nan is not below either
        raise InputError(f"{path}: its affine holds {np.abs(image.affine).max():g}; expected millimetres.")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: its voxels are of type {array.dtype}; expected one real number each.")
    return image, array


def _is_compressed(path: str | Path) -> bool:
    return str(path).lower().endswith(".gz")


HEADER_BYTES = 540  # of NIfTI-2, the longer one


def _declared(path: Path) -> tuple[type, int]:
    """(NIfTI-1 or NIfTI-2 image class of nibabel, bytes of the whole file by what its header says).

    InputError for more voxels than the limit, or than the file's own size can hold.
    """
    import nibabel

    with gzip.open(path) if _is_compressed(path) else open(path, "rb") as file:
        head = file.read(HEADER_BYTES)
    kind = nibabel.Nifti2Image if nibabel.Nifti2Header.may_contain_header(head) else nibabel.Nifti1Image
    header_kind = kind.header_class
    if len(head) < header_kind.template_dtype.itemsize:
        raise InputError(f"the file is cut off: {len(head)} bytes are no header of NIfTI")
    header = header_kind(head[: header_kind.template_dtype.itemsize], check=False)
    shape = tuple(int(side) for side in header.get_data_shape())
    voxels = math.prod(shape)
    if voxels < 1 or min(shape) < 1:
        raise InputError(f"its header declares an image of shape {shape}; expected positive sizes")
    limits.check("volume_voxels", voxels, f"its header declares an image of shape {shape}")
    start = float(header["vox_offset"])
    if not 0 <= start <= limits.most("header_bytes"):
        raise InputError(f"its header puts the first voxel at byte {start:g}; the file is damaged")
    needed = int(start) + voxels * header.get_data_dtype().itemsize
    available = path.stat().st_size * (MOST_DEFLATE_GAIN if _is_compressed(path) else 1)
    if available < needed:
        raise InputError(
            f"the file is cut off: its {path.stat().st_size} bytes cannot hold the {needed} that its header "
            "declares"
        )
    return kind, needed


MOST_DEFLATE_GAIN = 1032
"""One byte of a deflated stream stands for at most so many (zlib's own limit)."""


def _count_to_the_end(path: str | Path, needed: int) -> None:
    """Let gzip compare its checksum, which stands at the end, where nibabel never reads; InputError for a
    file that holds more than a header declares, or less."""
    counted = 0
    with gzip.open(path) as file:
        while block := file.read(1 << 20):
            counted += len(block)
            if counted > needed:
                limits.check("trailing_bytes", counted - needed, "behind its voxels the file holds")
    if counted < needed:
        raise InputError(f"the file is cut off: it holds {counted} of {needed} bytes")


def write_flat_mask(mask: np.ndarray, spacing_mm: tuple[float, float] | None, out: str | Path) -> Path:
    """Write a bool mask [row, column] as a flat uint8 NIfTI file (x=column, y=row) of 0 and 1, atomically.

    Position and direction are marked unknown (qform and sform code 0), since a radiograph has none. Without
    ``spacing_mm`` (between rows, between columns) the unit of length is marked unknown too, and a pixel
    counts 1.
    """
    import nibabel

    image = nibabel.Nifti1Image(mask.astype(np.uint8).T, None)
    row, column = spacing_mm or (1.0, 1.0)
    image.header.set_zooms((column, row))
    image.header.set_xyzt_units("unknown" if spacing_mm is None else "mm")
    with atomic_path(out) as temporary:
        nibabel.save(image, temporary)
    return Path(out)
