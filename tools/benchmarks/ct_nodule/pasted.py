"""Semi-synthetic CTs for detection: real nodules of LIDC-IDRI, cut out by mask, pasted into other lungs.

    python tools/benchmarks/ct_nodule/lidc_crops.py prepare ../shared/data/nodules/lidc lidc.npz
    python tools/benchmarks/ct_nodule/pasted.py lidc.npz OUT_DIR --phantoms 20 \
        --ct ../shared/data/rt/lung1_001/CT --times 5 --ignored ../shared/data/rt/lung1_001/RTSTRUCT.dcm:GTV-1

Writes OUT_DIR/<case>.nii.gz, voxels of 1 mm, and OUT_DIR/datalist.json, whose section "test" is what
medseg score takes. A phantom has lungs with vessels and grains of lime and no nodule of its own; a planning
CT has whatever its patient has, and what is known of it (--ignored) counts neither way.

What it can show: whether a network finds real nodules' texture and shape among real or painted vessels. What
it cannot: pasted nodules hang on no vessel and no wall, their edge is blended over a voxel, the noise around
them is another scanner's, and on a real CT a nodule nobody knows counts as false. Scores are no scores of
LUNA16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crop_data import LEVELS, WINDOW_HU, Crops, load
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from medseg.cases.mask_boxes import mask_box, mask_boxes
from medseg.errors import InputError, MedsegError
from medseg.geometry import Geometry
from medseg.shapes.boxes import box_of
from medseg.shapes.lungs import lung_mask

TRIES = 50
"""Places that are tried for a nodule before it is left out."""

APART_MM = 5.0
"""What is left free around a nodule, to the wall of the lung and to the next one."""


@dataclass(frozen=True, eq=False)
class Host:
    """Lungs to paste into: ``volume_hu`` and ``lungs`` bool [slice, row, column] of 1 mm voxels on
    ``geometry``. ``ignored``: boxes of what its patient has."""

    name: str
    patient: str
    volume_hu: np.ndarray
    lungs: np.ndarray
    geometry: Geometry
    ignored: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Pasted:
    """``volume_hu`` on the host's geometry, ``label`` boxes LPS mm as a datalist has them, and ``nodules``,
    the names of the crops."""

    host: Host
    volume_hu: np.ndarray
    label: tuple[dict[str, Any], ...]
    nodules: tuple[str, ...]


def paste(host: Host, crops: Crops, rows: list[int], seed: int) -> Pasted:
    """Paste the crops ``rows`` into a host, the largest first, each mirrored at random, where lung reaches
    APART_MM beyond it; one that finds no place is left out."""
    rng = np.random.default_rng([seed, 31])
    volume, free = host.volume_hu.copy(), host.lungs.copy()
    label, names = [], []
    for row in sorted(rows, key=lambda row: -int(crops.masks[row].sum())):
        values, mask = _nodule(crops, row, rng)
        place = _place(free, mask.shape, rng)
        if place is None:
            continue
        part = tuple(slice(start, start + n) for start, n in zip(place, mask.shape, strict=True))
        # Partial volume: the edge is blended over about a voxel, outwards from the readers' outline.
        share = np.maximum(gaussian_filter(mask.astype(np.float32), 0.7), mask)
        volume[part] += share * (values - volume[part])
        whole = np.zeros(free.shape, dtype=bool)
        whole[part] = mask
        low, high = mask_box(whole, host.geometry)
        label.append({"class": "nodule", "low": low, "high": high})
        names.append(crops.names[row])
        free[part] = False
    return Pasted(host, volume, tuple(label), tuple(names))


def _nodule(crops: Crops, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(HU float32, bool mask) [slice, row, column] of one crop with two voxels around its nodule, where the
    crop's border goes on beyond it."""
    low, high = WINDOW_HU
    box = box_of(crops.masks[row])
    mask = np.pad(crops.masks[row][box], 2)
    kept = crops.images[row][box].astype(np.float32) / LEVELS * (high - low) + low
    values = np.pad(kept, 2, mode="edge")
    turn = tuple(slice(None, None, int(way)) for way in rng.choice((-1, 1), 3))
    return values[turn].transpose(2, 1, 0), mask[turn].transpose(2, 1, 0)


def _place(free: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...] | None:
    """The corner of a box of ``shape`` in free lung, APART_MM away from everything else; None without."""
    radius = max(shape) / 2
    depth = distance_transform_edt(free)
    for slack in (APART_MM, 2.0):
        places = np.flatnonzero(depth >= radius + slack)
        if len(places):
            break
    for _ in range(TRIES if len(places) else 0):
        middle = np.unravel_index(places[rng.integers(len(places))], free.shape)
        corner = tuple(int(m - n // 2) for m, n in zip(middle, shape, strict=True))
        ends = tuple(c + n for c, n in zip(corner, shape, strict=True))
        if min(corner) >= 0 and all(e <= n for e, n in zip(ends, free.shape, strict=True)):
            return corner
    return None


def phantom_host(seed: int, shape: tuple[int, int, int] = (192, 224, 288)) -> Host:
    """A chest of formulas without a nodule."""
    from medseg.phantoms.nodules import make_chest_ct

    made = make_chest_ct(seed, shape, 1.0, count=0)
    name = f"phantom_{seed:02d}"
    return Host(name, name, made.volume_hu, made.lungs, made.geometry)


def ct_host(folder: Path, ignored: str = "") -> Host:
    """A CT on voxels of 1 mm, cut to its lungs. ``ignored``: "RTSTRUCT:ROI" of what its patient has.
    InputError for one without lungs."""
    from medseg.dicom import read_rtstruct, read_series

    series = read_series(folder)
    grid, volume = series.geometry, series.volume()
    spacing = grid.spacing_mm
    lungs = lung_mask(volume.transpose(2, 1, 0), spacing[::-1]).transpose(2, 1, 0)
    if not lungs.any():
        raise InputError(f"{folder}: no lungs on this CT; give one of the chest.")
    known: tuple[dict[str, Any], ...] = ()
    if ignored:
        path, _, roi = ignored.rpartition(":")
        known = tuple(mask_boxes(read_rtstruct(path, series)[roi], grid, "ignored"))
    box = box_of(lungs, [int(np.ceil(10 / mm)) for mm in spacing])
    factors = [
        max(round((s.stop - s.start) * mm), 1) / (s.stop - s.start)
        for s, mm in zip(box, spacing, strict=True)
    ]
    fine = zoom(volume[box], factors, order=1, mode="nearest", grid_mode=True)
    fine_lungs = zoom(lungs[box].astype(np.float32), factors, order=1, mode="nearest", grid_mode=True) >= 0.5
    affine = grid.affine_lps.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start - 0.5 for s in box]
    affine[:3, :3] = affine[:3, :3] / factors
    affine[:3, 3] += affine[:3, :3] @ [0.5, 0.5, 0.5]
    geometry = Geometry.from_lps_affine(affine, fine.shape)
    name = folder.parent.name if folder.name.lower() == "ct" else folder.name
    return Host(name, name, fine, fine_lungs, geometry, known)


def cases(hosts: list[Host], crops: Crops, times: int, seed: int, most: int = 5) -> Iterator[Pasted]:
    """Each host ``times`` times with 1 to ``most`` nodules, no nodule twice as long as there are others."""
    rng = np.random.default_rng([seed, 32])
    order = list(rng.permutation(len(crops.names)))
    for number in range(times):
        for host in hosts:
            rows = [int(order.pop()) for _ in range(rng.integers(1, most + 1)) if order]
            yield paste(host, crops, rows, seed + number)


def write(made: Iterator[Pasted], out: Path) -> list[dict[str, Any]]:
    """NIfTI files, and what the datalist says of them."""
    from medseg.cases.nifti import write_volume

    rows = []
    for number, one in enumerate(made):
        name = f"{one.host.name}_{number:03d}"
        write_volume(np.rint(one.volume_hu), one.host.geometry, out / f"{name}.nii.gz")
        rows.append(
            {
                "image": f"{name}.nii.gz",
                "label": list(one.label),
                "ignored": list(one.host.ignored),
                "case_id": name,
                "patient_id": one.host.patient,
                "nodules": list(one.nodules),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crops", type=Path, metavar="FILE.npz")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--phantoms", type=int, default=0, metavar="N")
    parser.add_argument("--ct", type=Path, metavar="CT_DIR", help="a real CT of the chest")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="the real CT so many times")
    parser.add_argument("--ignored", default="", metavar="RTSTRUCT:ROI", help="what its patient has")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from medseg.files import write_json

    try:
        if not options.phantoms and options.ct is None:
            raise InputError("nothing to paste into: give phantoms, a CT or both.")
        crops = load(options.crops)
        options.out.mkdir(parents=True, exist_ok=True)
        rows = write(
            cases([phantom_host(n) for n in range(options.phantoms)], crops, 1, options.seed), options.out
        )
        if options.ct is not None:
            hosts = [ct_host(options.ct, options.ignored)]
            rows += write(cases(hosts, crops, options.times, options.seed + 1), options.out)
    except MedsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    words = "Real nodules of LIDC-IDRI pasted into phantoms and a planning CT: semi-synthetic."
    write_json({"description": words, "seed": options.seed, "test": rows}, options.out / "datalist.json")
    print(f"{len(rows)} CTs, {sum(len(row['label']) for row in rows)} nodules: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
