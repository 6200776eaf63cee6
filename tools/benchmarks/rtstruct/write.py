"""The `write` part of run.py: nine structures, written by every tool and read back by plastimatch."""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from runs import WRITERS, Failed, read_back, run_peer, save_case, table
from scipy import ndimage

from medseg.geometry import Geometry
from medseg.metrics import dice
from medseg.phantoms.series import stack_geometry


def nine_structures(geometry: Geometry) -> dict[str, np.ndarray]:
    """Balls of 5, 12 and 30 mm, a cord, a ring with a hole, body, body less lungs, lungs and a rough
    bowel."""
    (slices, rows, columns), spacing_mm = geometry.shape, geometry.spacing_mm
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(geometry.shape, spacing_mm, strict=True)]
    z, y, x = np.ix_(*axes)

    def ellipsoid(centre_zyx_mm, radii_zyx_mm):
        parts = zip((z, y, x), centre_zyx_mm, radii_zyx_mm, strict=True)
        return sum(((axis - c) / r) ** 2 for axis, c, r in parts) <= 1

    long = 1e6
    body = ellipsoid((0, 0, 0), (long, 120, 190))
    lungs = ellipsoid((0, 0, -95), (130, 75, 55)) | ellipsoid((0, 0, 95), (130, 75, 55))
    noise = np.random.default_rng(0).standard_normal((slices, rows, columns), dtype=np.float32)
    rough = ndimage.gaussian_filter(noise, (1, 3, 3)) > 0
    return {
        "GTVp1": ellipsoid((10, 30, 20), (5, 5, 5)),
        "GTVp2": ellipsoid((-20, -20, -30), (12, 12, 12)),
        "CTVp2": ellipsoid((-20, -20, -30), (30, 30, 30)),
        "SpinalCord": ellipsoid((0, 70, 0), (long, 6, 7)),
        "Bladder_Wall": ellipsoid((-60, -30, 0), (50, 45, 45)) & ~ellipsoid((-60, -30, 0), (long, 36, 36)),
        "External": body,
        "Body-Lungs": body & ~lungs,
        "Lungs": lungs,
        "Bowel": rough & ellipsoid((-60, -30, 0), (60, 60, 80)),
    }


def benchmark_write(pythons: list[str], given: argparse.Namespace) -> str:
    geometry = stack_geometry((given.slices, 512, 512), gaps_mm=2.5, pixel_spacing_mm=(0.977, 0.977))
    masks = nine_structures(geometry)
    lines, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        ct_dir, mask_dir = save_case(Path(folder), masks, geometry)
        for name in WRITERS:
            out_dir = Path(folder, name)
            try:
                report = run_peer(pythons, "write", name, ct_dir, mask_dir, out_dir, "--repeats", 5)
                if report is None:
                    continue
                found = read_back(
                    pythons, "plastimatch --xor-contours", ct_dir, report["file"], out_dir / "read"
                )
            except Failed as failure:
                lines.append([name, f"failed: {failure}", *[""] * 7])
                continue
            first = first or report
            lines.append(write_line(name, report, first, masks, found))
            shutil.rmtree(out_dir)
    heads = [
        "writer",
        "convert + save",
        "with reading CT and masks",
        "file",
        "dciodvfy errors",
        "worst Dice of nine",
        "Dice of GTV 5 mm",
        "Dice of cord",
        "largest change of volume",
    ]
    return (
        f"Nine structures on 512 x 512 x {given.slices}, 0.977 x 2.5 mm. Times are processor seconds (one "
        "core), medians of up to 5 runs; (n x) is the ratio to medseg. Read back by plastimatch "
        "--xor-contours.\n\n" + table(heads, lines)
    )


def write_line(name: str, report: dict, first: dict, masks: dict, found: dict) -> list[str]:
    """One writer's row of the table of nine structures."""
    empty = np.zeros_like(next(iter(masks.values())))
    scores = {roi: dice(mask, found.get(roi, empty)) for roi, mask in masks.items()}
    change = {roi: found.get(roi, empty).sum() / mask.sum() - 1 for roi, mask in masks.items()}
    worst, largest = min(scores, key=scores.get), max(change, key=lambda roi: abs(change[roi]))
    seconds = [
        f"{report[key]:.2f} s ({report[key] / first[key]:.1f} x)" if report[key] else ""
        for key in ("save_s", "whole_s")
    ]
    return [
        f"{name} {report['version']}",
        *seconds,
        f"{Path(report['file']).stat().st_size / 1e6:.1f} MB",
        dciodvfy_errors(report["file"]),
        f"{scores[worst]:.4f} ({worst})",
        f"{scores['GTVp1']:.4f}",
        f"{scores['SpinalCord']:.4f}",
        f"{change[largest]:+.2%} ({largest})",
    ]


def dciodvfy_errors(path: str) -> str:
    if shutil.which("dciodvfy") is None:
        return "dciodvfy not installed"
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace")
    return str(len(re.findall(r"^Error", done.stderr + done.stdout, flags=re.M)))
