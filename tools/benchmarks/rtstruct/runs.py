"""Run a peer's tool in whichever Python has it, and write tables: what the RTSTRUCT benchmarks share."""

import json
import subprocess
from pathlib import Path

import numpy as np

from medseg.geometry import Geometry
from medseg.phantoms.series import write_series

PEERS = Path(__file__).with_name("peers.py")
WRITERS = ("medseg", "rt-utils", "DicomRTTool", "plastimatch")


class Failed(Exception):
    """A tool refused or crashed; the message is its last line."""


def run_peer(pythons: list[str], what: str, name: str, *arguments) -> dict | None:
    """The tool's report from the first Python that has it, or None where none does. Failed when it fails."""
    for python in pythons:
        command = [python, PEERS, what, name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        if done.returncode != 3:
            raise Failed((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
    print(f"skipped: {name} is not installed in {', '.join(pythons)}")
    return None


def read_back(
    pythons: list[str], reader: str, ct_dir: Path, structures, out_dir: Path
) -> dict[str, np.ndarray] | None:
    if run_peer(pythons, "read", reader, ct_dir, structures, out_dir) is None:
        return None
    return {path.stem: np.load(path) for path in out_dir.glob("*.npy")}


def table(heads: list[str], lines: list[list[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *[[*line, *[""] * (len(heads) - len(line))] for line in lines]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def save_case(folder: Path, masks: dict[str, np.ndarray], geometry: Geometry) -> tuple[Path, Path]:
    """(CT_DIR, MASK_DIR) of a case whose images are empty: only their geometry matters here."""
    ct_dir, mask_dir = folder / "ct", folder / "masks"
    write_series(np.zeros(geometry.shape, dtype=np.int16), geometry, ct_dir)
    mask_dir.mkdir()
    for name, mask in masks.items():
        np.save(mask_dir / f"{name}.npy", mask)
    return ct_dir, mask_dir
