"""Volumes as MetaImage (``.mhd`` with its ``.raw``, or ``.mha``), the format of LUNA16, through SimpleITK."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from medseg import limits
from medseg.errors import InputError, why
from medseg.geometry import Geometry

SUFFIXES = (".mhd", ".mha")

HEAD_BYTES = 1 << 16
"""A header is a few lines of text; its last is ElementDataFile."""

NEEDED = {
    "ElementSpacing": ("ElementSpacing", "ElementSize"),
    "Offset": ("Offset", "Origin", "Position"),
    "TransformMatrix": ("TransformMatrix", "Orientation", "Rotation"),
}
"""What says where voxels lie, with its names; SimpleITK would take 1 mm and 0 for what is missing."""

WIDTHS = {
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}
"""Bytes of a voxel."""


def is_metaimage(path: str | Path) -> bool:
    """True for names that end in .mhd or .mha."""
    return str(path).lower().endswith(SUFFIXES)


def load_metaimage(path: str | Path) -> tuple[np.ndarray, Geometry]:
    """(float32 [slice, row, column], Geometry) of one 3D volume of single numbers; its world is LPS mm, as
    DICOM's. InputError for a file that is none, that does not say where its voxels lie, whose raw file is
    missing or of another size, or that is above a limit."""
    import SimpleITK

    path = Path(path)
    fields = _header(path)
    if path.is_symlink() and not (path.parent / fields["ElementDataFile"]).is_file():
        path = path.resolve()  # a link to the header alone: the voxels are beside what it leads to
    for name, words in NEEDED.items():
        if not any(word in fields for word in words):
            raise InputError(f"{path}: its header has no {name}, so its voxels have no place.")
    _check_spacing(path, fields)
    _check_data(path, fields)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        shape = reader.GetSize()
        if len(shape) != 3 or reader.GetNumberOfComponents() != 1:
            raise InputError(
                f"{path}: an image of {shape} of {reader.GetNumberOfComponents()} numbers each; "
                "expected one 3D volume of single numbers."
            )
        limits.check("volume_voxels", math.prod(shape), f"{path}: its header declares an image of {shape}")
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read as MetaImage ({why(error)}).") from error
    values = SimpleITK.GetArrayFromImage(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite numbers; clean the file first.")
    steps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps[:, ::-1], image.GetOrigin()
    return values, Geometry.from_lps_affine(affine, values.shape)


def _header(path: Path) -> dict[str, str]:
    """{name: text} of the lines up to ElementDataFile."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({why(error)}).") from error
    fields: dict[str, str] = {}
    for line in head.split(b"\n"):
        name, equals, text = line.decode("latin-1").partition("=")
        if not equals:
            break
        fields[name.strip()] = text.strip()
        if name.strip() == "ElementDataFile":
            return fields
    raise InputError(f"{path}: no header of MetaImage; expected lines up to ElementDataFile.")


def _check_spacing(path: Path, fields: dict[str, str]) -> None:
    """InputError for anything but three positive numbers; SimpleITK would turn a negative one into a mirrored
    axis."""
    text = next(fields[word] for word in NEEDED["ElementSpacing"] if word in fields)
    try:
        spacing = [float(word) for word in text.split()]
    except ValueError:
        spacing = []
    if len(spacing) != 3 or not all(0 < mm < math.inf for mm in spacing):
        raise InputError(f"{path}: ElementSpacing {text!r}; expected three positive numbers, in mm.")


def _check_data(path: Path, fields: dict[str, str]) -> None:
    """InputError unless the voxels are in the file itself or in a file beside it, of the size declared where
    they are not compressed."""
    data = fields["ElementDataFile"]
    if data.upper() == "LOCAL":
        return
    raw = path.parent / data
    if Path(data).name != data or data.upper().startswith("LIST"):
        raise InputError(f"{path}: its voxels are in {data!r}; expected one file beside it.")
    if not raw.is_file():
        raise InputError(f"{path}: its voxels are in {data}, which is not there; download both files.")
    sizes = [int(word) for word in fields.get("DimSize", "").split() if word.isdecimal()]
    width = WIDTHS.get(fields.get("ElementType", ""), 1)
    if (
        fields.get("CompressedData", "False").lower() != "true"
        and raw.stat().st_size < math.prod(sizes) * width
    ):
        raise InputError(
            f"{path}: {data} is cut off: {raw.stat().st_size} bytes, {math.prod(sizes) * width} expected."
        )
