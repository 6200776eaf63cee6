"""What the viewer looks at: the image and its structures, reduced once to a size that a browser can draw.

The reduced copy lies beside the job, as arrays for the server's own slices and as NIfTI for the viewer in the
browser. It is for looking: contours to plan with are in the downloads.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.find import folder_name
from medseg.cases.multimodal import Companion, open_multimodal
from medseg.cases.nifti import read_mask, write_volume
from medseg.cases.volume import Case, open_case, resample
from medseg.files import load_json, write_json
from medseg.geometry import Geometry
from medseg.reports.pictures import anatomical_axes
from medseg.structures.structure import fixed_colour_rgb

SUV_WINDOW = (1.0, 8.0)
"""Of a PET laid over the image, clear to full: that of the previews in medseg.transforms, without torch."""

MOST_PIXELS, MOST_VIEWER_PIXELS = 256, 160
"""Along each axis, of the server's slices and of the viewer's copy: a browser without a graphics card draws
171 x 171 x 134 in a second and 512 x 512 x 134 in fifty."""


@dataclass(frozen=True)
class View:
    """The reduced copy of one case, in ``folder``. Axis 0 runs to Superior, 1 to Posterior, 2 to Left."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """``shape``, ``spacing_mm``, ``is_ct``, ``range`` (1st and 99th percentile), ``names``, ``colours``,
        ``affine_lps`` (4x4, from an index), ``boxes`` (class, score, low and high index), ``reduced``:
        whether voxels were left out, ``fused``: whether there is a PET."""
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
    return _kept(folder, lambda out: _make(open_case(record["source"]), record, case_folder, out))


def view_of_image(folder: Path, source: Path) -> View:
    """The same of an image that nothing was contoured on yet, kept in ``folder``. InputError for one that
    cannot be opened as a volume."""
    folder.parent.mkdir(exist_ok=True)
    return _kept(folder, lambda out: _make(open_case(str(source)), {}, None, out))


def _kept(folder: Path, make: Callable[[Path], None]) -> View:
    if not folder.is_dir():
        with open(folder.parent / ".view_lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait for the first who asks
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making_") as unfinished:
                    made = Path(unfinished) / "view"
                    made.mkdir()
                    make(made)
                    made.rename(folder)
    return View(folder)


@dataclass(frozen=True)
class _Turned:
    """How the arrays of a case on a regular ``grid`` become those of a view: every ``steps``-th voxel, axes
    in ``order``, some of them turned round (``flips``)."""

    grid: Geometry
    steps: tuple[int, ...]
    order: list[int]
    flips: list[bool]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return self.axes(array[_every(self.steps)])

    def axes(self, small: np.ndarray) -> np.ndarray:
        """The same of an array that is reduced already."""
        return np.flip(small.transpose(self.order), [axis for axis, flip in enumerate(self.flips) if flip])

    @property
    def geometry(self) -> Geometry:
        """Of the reduced copy before it is turned."""
        return _reduced_geometry(self.grid, self.steps)

    @property
    def affine_lps(self) -> np.ndarray:
        """4x4: an index of the view to LPS mm."""
        reduced = self.geometry
        straight, turned = reduced.affine_lps, np.eye(4)
        turned[:3, 3] = straight[:3, 3]
        for axis, (array_axis, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            step = straight[:3, array_axis]
            turned[:3, axis] = -step if flip else step
            turned[:3, 3] += (reduced.shape[array_axis] - 1) * step if flip else 0.0
        return turned


def _make(case: Case, record: Mapping[str, Any], case_folder: Path | None, out: Path) -> None:
    grid = case.geometry.regular_grid()
    volume = case.volume if grid is case.geometry else resample(case.volume, case.geometry, grid)
    turned = _Turned(grid, _steps(grid.shape, MOST_PIXELS), *anatomical_axes(grid))
    viewer_steps = _steps(grid.shape, MOST_VIEWER_PIXELS)
    small = turned(volume).astype(np.float32)
    whole = small.min() >= -32768 and small.max() <= 32767 and np.abs(small).max() > 64
    np.save(out / "volume.npy", np.rint(small).astype(np.int16) if whole else small)
    names, masks, viewer_masks = [], [], []
    for name, mask in _masks(case_folder, case, record) if case_folder else ():
        mask = mask if grid is case.geometry else resample(mask.astype(np.float32), case.geometry, grid)
        names.append(name)
        masks.append(turned(mask >= 0.5).astype(np.uint8))
        viewer_masks.append(mask[_every(viewer_steps)] >= 0.5)
    np.save(out / "masks.npy", np.array(masks, np.uint8).reshape(-1, *small.shape))
    geometry = _reduced_geometry(grid, viewer_steps)
    coarse = volume[_every(viewer_steps)]
    write_volume(np.rint(coarse) if whole else coarse, geometry, out / "image.nii.gz")
    write_volume(_painted(viewer_masks, geometry.shape), geometry, out / "labels.nii.gz")
    pet = _pet(record)
    if pet is not None:
        _write_pet(pet, turned, geometry, out)
    spacing_mm = grid.spacing_mm if grid.shape[0] > 1 else (grid.pixel_spacing_mm[0], *grid.pixel_spacing_mm)
    about = {
        "shape": list(small.shape),
        "spacing_mm": [float(spacing_mm[axis] * turned.steps[axis]) for axis in turned.order],
        "affine_lps": turned.affine_lps.round(4).tolist(),
        "is_ct": case.series is None or case.series.modality == "CT",
        "range": [float(value) for value in np.percentile(small, [1, 99])],
        "names": names,
        "colours": [list(fixed_colour_rgb(name)) for name in names],
        "boxes": _boxes(record, turned.affine_lps),
        "reduced": max(turned.steps) > 1,
        "fused": pet is not None,
    }
    write_json(about, out / "view.json")


def _write_pet(pet: Companion, turned: _Turned, viewer_geometry: Geometry, out: Path) -> None:
    values, covered = pet.sampled_on(turned.geometry)
    low, high = SUV_WINDOW
    share = np.clip((values - low) / (high - low), 0.0, 1.0) * covered
    np.save(out / "fused.npy", turned.axes((share * 255).astype(np.uint8)))
    values, covered = pet.sampled_on(viewer_geometry)
    write_volume((values * covered).astype(np.float32), viewer_geometry, out / "pet.nii.gz")


def _boxes(record: Mapping[str, Any], affine_lps: np.ndarray) -> list[dict[str, Any]]:
    """The boxes of a result with their low and high corners as indices of the view, so that a box of one
    voxel reaches from -0.5 to 0.5 around it."""
    to_index = np.linalg.inv(affine_lps)
    found = []
    for row in record.get("boxes", {}).get("found", ()):
        ends = np.array([row["low"], row["high"]])
        corners = np.array([ends[[a, b, c], [0, 1, 2]] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
        indices = corners @ to_index[:3, :3].T + to_index[:3, 3]
        found.append({**row, "low": indices.min(0).tolist(), "high": indices.max(0).tolist()})
    return found


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
