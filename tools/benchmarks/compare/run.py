"""Time and numbers of medseg's comparison of masks beside DeepMind's surface-distance and MONAI, in one run.

    python tools/benchmarks/compare/run.py CT_DIR RS.dcm "Lung L+Lung R" Patient

Each structure (several joined by +) is compared with two masks made of it: one moved by a slice, two rows and
three columns, and one redrawn by a hand that errs smoothly by a few mm. Seconds are the least of --repeats
runs on masks that are in memory; medseg's include DSC, volumes and added path length, the others' surface
DSC, HD95 and mean distance.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from medseg.cases.mask_sources import open_masks
from medseg.dicom import read_series
from medseg.geometry import Geometry
from medseg.workbench.compare import describe_grid, measure

TOLERANCE_MM = 2.0
NUMBERS = ("surface_dsc", "hd95_mm", "mean_surface_distance_mm")


def by_medseg(a: np.ndarray, b: np.ndarray, geometry: Geometry) -> dict[str, float]:
    return measure(a, b, geometry, TOLERANCE_MM)


def by_deepmind(a: np.ndarray, b: np.ndarray, geometry: Geometry) -> dict[str, float]:
    import surface_distance

    distances = surface_distance.compute_surface_distances(a, b, geometry.spacing_mm)
    areas = distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()
    both = surface_distance.compute_average_surface_distance(distances)
    return {
        "surface_dsc": surface_distance.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM),
        "hd95_mm": surface_distance.compute_robust_hausdorff(distances, 95),
        "mean_surface_distance_mm": float(np.average(both, weights=areas)),
    }


def by_monai(a: np.ndarray, b: np.ndarray, geometry: Geometry) -> dict[str, float]:
    """Its HD95 and mean distance are of voxel edges, unweighted: other definitions, other numbers."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    reference, other = (torch.from_numpy(mask[None, None]) for mask in (a, b))
    options = {"include_background": True, "spacing": list(geometry.spacing_mm)}
    return {
        "surface_dsc": float(
            compute_surface_dice(other, reference, [TOLERANCE_MM], use_subvoxels=True, **options)
        ),
        "hd95_mm": float(compute_hausdorff_distance(other, reference, percentile=95, **options)),
        "mean_surface_distance_mm": float(
            compute_average_surface_distance(other, reference, symmetric=True, **options)
        ),
    }


IMPLEMENTATIONS = {
    "medseg": by_medseg,
    "DeepMind surface-distance": by_deepmind,
    "MONAI use_subvoxels": by_monai,
}


def moved(mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, (1, 2, 3), (0, 1, 2))


def redrawn(mask: np.ndarray) -> np.ndarray:
    """The mask with an outline that wanders by a few mm, smoothly and always the same way."""
    noise = ndimage.gaussian_filter(
        np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32), (2, 6, 6)
    )
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), (0.7, 2, 2))
    return blurred + blurred * (1 - blurred) * noise / noise.std() > 0.5  # errs only where the outline is


CHANGES = {"moved": moved, "redrawn": redrawn}


def best_of(repeats: int, function: Callable[[], dict[str, float]]) -> tuple[float, float, dict[str, float]]:
    """(least wall seconds, least CPU seconds of all threads, the result)."""
    wall, processor, result = [], [], {}
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return min(wall), min(processor), result


def compare_once(what: str, mask: np.ndarray, other: np.ndarray, geometry: Geometry, repeats: int) -> None:
    """A row of the table per implementation; AssertionError when medseg and DeepMind are more than 1e-3
    apart."""
    first_seconds, first = None, {}
    for name, function in IMPLEMENTATIONS.items():
        wall, processor, row = best_of(repeats, partial(function, mask, other, geometry))
        first_seconds, first = first_seconds or wall, first or row
        cells = [what, name, f"{wall:.2f}", f"{processor:.2f}", f"{wall / first_seconds:.1f}"]
        print("| " + " | ".join([*cells, *(f"{row[number]:.4f}" for number in NUMBERS)]) + " |", flush=True)
        if name.startswith("DeepMind"):
            worst = max(abs(first[number] - row[number]) for number in NUMBERS)
            assert worst <= 1e-3, f"medseg and DeepMind differ by {worst}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ct_dir", type=Path)
    parser.add_argument("structure_set", type=Path)
    parser.add_argument("structures", nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    series = read_series(options.ct_dir)
    source = open_masks(options.structure_set, series)
    print(
        f"{describe_grid(series.geometry)}; tolerance {TOLERANCE_MM:g} mm; {os.cpu_count()} CPU cores; "
        f"load {os.getloadavg()[0]:.1f}; least of {options.repeats}\n"
    )
    print(
        "| structure | change | implementation | seconds | CPU seconds | ratio | surface DSC | HD95 mm | "
        "mean mm |"
    )
    print("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for structure in options.structures:
        mask = np.logical_or.reduce([source.read(name)[0] for name in structure.split("+")])
        for change, make in CHANGES.items():
            compare_once(f"{structure} | {change}", mask, make(mask), series.geometry, options.repeats)


if __name__ == "__main__":
    main()
