"""The `times` part of run.py: every set read by medseg and by plastimatch in turn, seconds and voxels."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from read import analytic_case, real_cases, roi_key
from runs import run_peer, table

READERS = ("medseg", "plastimatch --xor-contours")


def benchmark_times(pythons: list[str], given: argparse.Namespace) -> str:
    """The table of seconds, as Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases, _ = real_cases(given.data, folder)
        cases["seven bodies"] = analytic_case(folder / "analytic")
        lines = [
            line_of(pythons, case, *files, folder / f"masks_{number}", given.repeats)
            for number, (case, files) in enumerate(cases.items())
        ]
    return (
        "Seconds of processor time (one core) from files to masks in uncompressed files, the fastest of "
        f"{given.repeats} runs, imports left out.\n\n"
        + table(
            ["set", "slices", "medseg", "plastimatch --xor-contours", "ratio", "voxels that differ"], lines
        )
    )


def line_of(
    pythons: list[str], case: str, ct_dir: Path, structures: Path, folder: Path, repeats: int
) -> list[str]:
    seconds, masks = [], []
    for number, reader in enumerate(READERS):
        out_dir = folder / str(number)
        report = run_peer(pythons, "read", reader, ct_dir, structures, out_dir, "--repeats", repeats)
        seconds.append(report["fastest_s"])
        masks.append({roi_key(path.stem): np.load(path) for path in out_dir.glob("*.npy")})
    ours, theirs = masks
    differing = sum(int((mask != theirs[name]).sum()) for name, mask in ours.items() if name in theirs)
    voxels = sum(int(mask.sum()) for mask in ours.values())
    missing = "".join(f", {name} not read" for name in sorted(ours.keys() - theirs))
    ratio = f"{seconds[1] / seconds[0]:.1f}"
    slices = str(len(list(ct_dir.iterdir())))
    return [case, slices, *(f"{s:.3f}" for s in seconds), ratio, f"{differing} of {voxels}{missing}"]
