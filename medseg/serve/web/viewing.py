"""What the viewer looks at: the image and its structures, reduced once to a size that a browser can draw.

The reduced copy lies beside the job, as arrays for the server's own slices and as NIfTI for the viewer in the
browser. It is for looking: contours to plan with are in the downloads.
"""

from __future__ import annotations

import fcntl
import io
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.find import folder_name
from medseg.cases.multimodal import Companion, open_multimodal
from medseg.cases.nifti import read_mask, write_volume
from medseg.cases.volume import Case, open_case, resample
from medseg.errors import InputError
from medseg.files import load_json, write_json
from medseg.geometry import Geometry
from medseg.reports.pictures import LUNG_WINDOW_HU, WINDOW_HU, anatomical_axes
from medseg.shapes.outlines import mask_polygons
from medseg.structures.structure import fixed_colour_rgb

SUV_WINDOW = (1.0, 8.0)
"""Of a PET laid over the image, clear to full: that of the previews in medseg.transforms, without torch."""

MOST_PIXELS, MOST_VIEWER_PIXELS = 256, 160
"""Along each axis, of the server's slices and of the viewer's copy: a browser without a graphics card draws
171 x 171 x 134 in a second and 512 x 512 x 134 in fifty."""

DRAWN_PIXELS = 640
"""Of a slice's longer side, as the server draws it."""

WINDOWS = {"soft tissue": WINDOW_HU, "lung": LUNG_WINDOW_HU, "bone": (-450.0, 1550.0), "brain": (0.0, 80.0)}
"""Lowest and highest HU shown; "whole" stands for the image's own range."""

LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""Of each plane: what lies at its left, right, top and bottom."""

AXES = tuple(LETTERS)


@dataclass(frozen=True)
class View:
    """The reduced copy of one case, in ``folder``. Axis 0 runs to Superior, 1 to Posterior, 2 to Left."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """``shape``, ``spacing_mm``, ``is_ct``, ``range`` (1st and 99th percentile), ``names``, ``colours``,
        ``reduced``: whether voxels were left out, ``fused``: whether there is a PET."""
        return load_json(self.folder / "view.json")

    @cached_property
    def volume(self) -> np.ndarray:
        return np.load(self.folder / "volume.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def masks(self) -> np.ndarray:
        """uint8 [structure, slice, row, column], 1 inside."""
        return np.load(self.folder / "masks.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def fused(self) -> np.ndarray:
        """uint8 [slice, row, column]: the PET, 0 to 255 over SUV_WINDOW."""
        return np.load(self.folder / "fused.npy", mmap_mode="r", allow_pickle=False)


def view_of(case_folder: Path, record: Mapping[str, Any]) -> View:
    """The reduced copy of a contoured volume, made when it is asked for the first time. InputError when its
    masks or its image are gone."""
    folder = case_folder.parent / f".view_{case_folder.name}"
    if not folder.is_dir():
        with open(case_folder.parent / ".view_lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait for the first who asks
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=case_folder.parent, prefix=".making_") as unfinished:
                    made = Path(unfinished) / "view"
                    made.mkdir()
                    _make(case_folder, record, made)
                    made.rename(folder)
    return View(folder)


def _make(case_folder: Path, record: Mapping[str, Any], out: Path) -> None:
    case = open_case(record["source"])
    grid = case.geometry.regular_grid()
    volume = case.volume if grid is case.geometry else resample(case.volume, case.geometry, grid)
    order, flips = anatomical_axes(grid)
    steps, viewer_steps = _steps(grid.shape, MOST_PIXELS), _steps(grid.shape, MOST_VIEWER_PIXELS)

    def turned(array: np.ndarray) -> np.ndarray:
        small = array[_every(steps)]
        return np.flip(small.transpose(order), [axis for axis, flip in enumerate(flips) if flip])

    small = turned(volume).astype(np.float32)
    whole = small.min() >= -32768 and small.max() <= 32767 and np.abs(small).max() > 64
    np.save(out / "volume.npy", np.rint(small).astype(np.int16) if whole else small)
    names, masks, viewer_masks = [], [], []
    for name, mask in _masks(case_folder, case, record):
        mask = mask if grid is case.geometry else resample(mask.astype(np.float32), case.geometry, grid)
        names.append(name)
        masks.append(turned(mask >= 0.5).astype(np.uint8))
        viewer_masks.append(mask[_every(viewer_steps)] >= 0.5)
    pet = _pet(record)
    if pet is not None:
        values, covered = pet.sampled_on(_reduced_geometry(grid, steps))
        low, high = SUV_WINDOW
        share = np.clip((values - low) / (high - low), 0.0, 1.0) * covered
        flipped = [axis for axis, flip in enumerate(flips) if flip]
        np.save(out / "fused.npy", np.flip((share * 255).astype(np.uint8).transpose(order), flipped))
    np.save(out / "masks.npy", np.array(masks, np.uint8).reshape(-1, *small.shape))
    geometry = _reduced_geometry(grid, viewer_steps)
    coarse = volume[_every(viewer_steps)]
    write_volume(np.rint(coarse) if whole else coarse, geometry, out / "image.nii.gz")
    labels = _painted(viewer_masks, geometry.shape)
    write_volume(labels, geometry, out / "labels.nii.gz")
    spacing_mm = grid.spacing_mm if grid.shape[0] > 1 else (grid.pixel_spacing_mm[0], *grid.pixel_spacing_mm)
    about = {
        "shape": list(small.shape),
        "spacing_mm": [float(spacing_mm[axis] * steps[axis]) for axis in order],
        "is_ct": case.series is None or case.series.modality == "CT",
        "range": [float(value) for value in np.percentile(small, [1, 99])],
        "names": names,
        "colours": [list(fixed_colour_rgb(name)) for name in names],
        "reduced": max(steps) > 1,
        "fused": pet is not None,
    }
    write_json(about, out / "view.json")


def _pet(record: Mapping[str, Any]) -> Companion | None:
    """The PET that a result was contoured with, laid on its image as it was then; None without one."""
    further = dict(record.get("further_sources") or {})
    if "pt" not in further:
        return None
    registrations = [source for key, source in further.items() if key.startswith("registration")]
    others = {"pt": further["pt"]}
    allow = record.get("options", {}).get("allow", ())
    return open_multimodal(record["source"], others, registrations, allow=allow).companions["pt"]


def _steps(shape: tuple[int, ...], most: int) -> tuple[int, ...]:
    return tuple(-(-size // most) for size in shape)


def _every(steps: tuple[int, ...]) -> tuple[slice, ...]:
    """Every step-th voxel, the first being in the middle of its group."""
    return tuple(slice(step // 2, None, step) for step in steps)


def _reduced_geometry(grid: Geometry, steps: tuple[int, ...]) -> Geometry:
    """Where the voxels lie that :func:`_every` keeps of a regular grid."""
    shift = (steps[1] // 2) * grid.row_step_lps_mm + (steps[2] // 2) * grid.column_step_lps_mm
    shape = tuple(len(range(step // 2, size, step)) for size, step in zip(grid.shape, steps, strict=True))
    return Geometry(
        shape,
        grid.origins_lps_mm[_every(steps)[0]] + shift,
        grid.row_step_lps_mm * steps[1],
        grid.column_step_lps_mm * steps[2],
    )


def _painted(masks: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """int16: the number from 1 of the structure at each voxel; of several there the smallest, so that what
    lies inside another one shows."""
    labels = np.zeros(shape, np.int16)
    sizes = [np.count_nonzero(mask) for mask in masks]
    for number in sorted(range(len(masks)), key=lambda number: -sizes[number]):
        labels[masks[number]] = number + 1
    return labels


def _masks(case_folder: Path, case: Case, record: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, mask on the case's grid) of each structure of a result, from whichever of its files has them."""
    names = {folder_name(row["name"]): row["name"] for row in record.get("structures", ())}
    files = {file: case_folder / f"{file}.nii.gz" for file in names}
    if all(path.is_file() for path in files.values()):
        for file, path in files.items():
            yield names[file], read_mask(path, case.geometry)
        return
    from medseg.dicom import read_rtstruct  # an uneven or tilted stack, which no NIfTI describes

    yield from read_rtstruct(case_folder / "RS.dcm", case.series).items()


# ---- slices ------------------------------------------------------------------------------------------------


def slice_png(view: View, axis: str, index: int, window: str, hidden: set[int], fused: bool = False) -> bytes:
    """One slice as PNG with the outlines of the structures that are not ``hidden`` (by their number); index 0
    is the lowest. ``fused``: with the PET over it, where there is one. InputError for an axis, index or
    window that there is not."""
    from PIL import Image, ImageDraw

    if axis not in AXES or not 0 <= index < view.about["shape"][AXES.index(axis)]:
        raise InputError("no such slice.")
    number = AXES.index(axis)
    low, high = _window(view, window)
    plane = np.asarray(view.volume.take(index, number), dtype=np.float32)
    grey = (np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    row_mm, column_mm = (view.about["spacing_mm"][other] for other in range(3) if other != number)
    upwards = number > 0  # rows then run to Superior, which is drawn upwards
    size_mm = (plane.shape[1] * column_mm, plane.shape[0] * row_mm)
    scale = DRAWN_PIXELS / max(size_mm)
    size = tuple(max(1, round(mm * scale)) for mm in size_mm)
    image = Image.fromarray(grey[::-1] if upwards else grey).resize(size, Image.Resampling.BILINEAR)
    image = image.convert("RGB")
    if fused and view.about["fused"]:
        pet = np.asarray(view.fused.take(index, number))
        image = _coloured(image, pet[::-1] if upwards else pet)
    draw = ImageDraw.Draw(image)
    for place, colour in enumerate(view.about["colours"]):
        if place in hidden:
            continue
        mask = np.asarray(view.masks[place].take(index, number), dtype=bool)
        mask = mask[::-1] if upwards else mask
        factor = np.array([size[0] / mask.shape[1], size[1] / mask.shape[0]])
        for polygon in mask_polygons(mask):
            for ring in (polygon.exterior, *polygon.holes):
                points = (np.asarray(ring)[:, ::-1] + 0.5) * factor
                draw.line([tuple(point) for point in [*points, points[0]]], fill=tuple(colour), width=2)
    _letters(draw, LETTERS[axis], size)
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _coloured(image, share: np.ndarray):
    """The slice with the PET over it, clear where it is 0."""
    from matplotlib import colormaps
    from PIL import Image

    strong = Image.fromarray(share).resize(image.size, Image.Resampling.BILINEAR)
    part = np.asarray(strong, dtype=np.float32)[..., None] / 255
    colours = colormaps["hot"](part[..., 0])[..., :3] * 255
    weight = 0.6 * np.sqrt(part)
    return Image.fromarray((np.asarray(image) * (1 - weight) + colours * weight).astype(np.uint8))


def _letters(draw, letters: str, size: tuple[int, ...]) -> None:
    """Which way left, right, top and bottom of the slice lie in the patient."""
    width, height = size
    places = (
        (8, height / 2, "lm"),
        (width - 8, height / 2, "rm"),
        (width / 2, 6, "mt"),
        (width / 2, height - 6, "mb"),
    )
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        draw.text(
            (x, y), letter, fill="gold", anchor=anchor, font_size=18, stroke_width=1, stroke_fill="black"
        )


def _window(view: View, window: str) -> tuple[float, float]:
    if window == "whole":
        low, high = view.about["range"]
        return low, high
    if window not in WINDOWS:
        raise InputError(f"window {window!r}; expected one of {', '.join(WINDOWS)} or whole.")
    return WINDOWS[window]


def middle(view: View, axis: str) -> int:
    """The slice that shows most of the structures, or the middle one."""
    number = AXES.index(axis)
    others = tuple(other + 1 for other in range(3) if other != number)
    if not view.masks.size or not view.masks.any():
        return view.about["shape"][number] // 2
    return int(view.masks.any(axis=0).sum(axis=tuple(other - 1 for other in others)).argmax())


# ---- pictures ----------------------------------------------------------------------------------------------


def picture_png(source: Path, kind: str) -> bytes:
    """A radiograph or photograph as the network's user would see it, reduced where it is large."""
    return _png(_pixels(source, kind))


def _pixels(source: Path, kind: str) -> np.ndarray:
    """uint8 [row, column] or [row, column, 3]."""
    if kind == "photograph":
        from medseg.cases.photograph import open_photograph

        return (np.asarray(open_photograph(source).pixels) * 255).round().astype(np.uint8)
    from medseg.cases.radiograph import open_radiograph

    grey = np.asarray(open_radiograph(source).pixels, dtype=np.float32)
    low, high = np.percentile(grey, [0.5, 99.5])
    return (np.clip((grey - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def overlay_png(mask_path: Path, colour: tuple[int, int, int]) -> bytes:
    """A mask as coloured area, clear elsewhere."""
    from PIL import Image

    with Image.open(mask_path) as image:
        mask = np.asarray(image.convert("L")) > 127
    coloured = np.zeros((*mask.shape, 4), dtype=np.uint8)
    coloured[mask] = (*colour, 255)
    return _png(coloured)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((1600, 1600))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
