"""The `holes` part of run.py: which encoding of a hole do readers understand?"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from runs import Failed, read_back, run_peer, save_case, table
from scipy import ndimage

from medseg.metrics import dice
from medseg.phantoms.series import stack_geometry
from medseg.shapes.loops import HOLE_MODES

READERS = (
    "medseg",
    "plastimatch --xor-contours",
    "plastimatch",
    "rt-utils",
    "DicomRTTool",
    "dcmrtstruct2nii",
    "PlatiPy",
)


def hole_masks(shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """A ring, an island in a hole, a plate with many holes, and a rough sponge."""
    z, y, x = np.indices(shape)
    radius = np.hypot(y - shape[1] / 2 + 0.3, x - shape[2] / 2 - 0.2)
    level = (z > 2) & (z < shape[0] - 3)
    noise = np.random.default_rng(1).standard_normal(shape)
    return {
        "Ring": level & (radius < 40) & (radius >= 25),
        "Island": level & (radius < 40) & ((radius >= 25) | (radius < 12)),
        "Plate": level & (radius < 42) & ((y % 12 > 4) | (x % 12 > 4)),
        "Sponge": level & (radius < 42) & (ndimage.gaussian_filter(noise, (1, 3, 3)) > -0.01),
    }


def benchmark_holes(pythons: list[str], given: argparse.Namespace) -> str:
    geometry = stack_geometry((16, 96, 96), gaps_mm=2.5, pixel_spacing_mm=(0.977, 0.977))
    masks, modes = hole_masks(geometry.shape), list(HOLE_MODES)
    lines, worst = [], {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        ct_dir, mask_dir = save_case(Path(folder), masks, geometry)
        files = {
            m: run_peer(pythons, "write", "medseg", ct_dir, mask_dir, Path(folder, m), "--holes", m)
            for m in modes
        }
        for reader in READERS:
            line = [reader]
            for mode in modes:
                try:
                    out_dir = Path(folder, "read", f"{reader} {mode}".replace(" ", "_"))
                    found = read_back(pythons, reader, ct_dir, files[mode]["file"], out_dir)
                except Failed as failure:
                    line.append(f"failed: {failure}")
                    worst[mode].append(0.0)
                    continue
                if found is None:
                    break
                scores = [dice(mask, found.get(roi, mask & ~mask)) for roi, mask in masks.items()]
                line.append(f"{min(scores):.4f} ({', '.join(f'{score:.3f}' for score in scores)})")
                worst[mode].append(min(scores))
            if len(line) > 1:
                lines.append(line)
    lines.append(["worst reader", *[f"{min(worst[mode]):.4f}" for mode in modes]])
    best = max(modes, key=lambda mode: (min(worst[mode]), np.mean(worst[mode])))
    return (
        "What each reader makes of medseg's file: worst Dice (ring, island in a hole, plate with holes, "
        "sponge). A reader that fails counts as 0.\n\n"
        + table(["reader", *[f"{mode} ({HOLE_MODES[mode]})" for mode in modes]], lines)
        + f"\n\nBest supported: **{best}**, by the worst reader and then by the mean."
    )
