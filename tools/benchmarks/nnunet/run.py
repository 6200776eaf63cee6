"""medseg beside nnU-Net on the same weights: do the masks agree, how long does it take, how much memory.

    python tools/benchmarks/nnunet/run.py equality     voxels that differ, by kind of model, in small
    python tools/benchmarks/nnunet/run.py speed        one larger CT: seconds, peak memory, differing voxels

Needs nnunetv2 beside medseg[nnunet,openvino]. Weights are random, which changes neither the work nor what is
compared; `--trained` trains each of them for a few iterations on phantoms first, by a short loop of its own.
Every path of `speed` is a process of its own, whose wall clock and peak RSS are measured; of nnU-Net's
several processes only the largest counts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from equality import equality, train_on_blocks
from models import write_volume

ROOT = Path(__file__).resolve().parents[3]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """(seconds, peak GB of the largest process) of a command, from a process of its own."""
    run = [sys.executable, __file__, "--child", *command]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:] + done.stdout[-500:])
    seconds, peak_gb = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds, peak_gb


def child(command: list[str]) -> None:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(json.dumps([time.perf_counter() - began, peak_gb]))


def speed(given: argparse.Namespace) -> str:
    """The rows of both programs on one volume."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, image = write_volume(folder, given.voxels, given.features, given.labels)
        if given.trained:
            train_on_blocks(model)
        env = {**os.environ, "MEDSEG_TRUST_FILE": str(folder / "trusted.json"), "PYTHONPATH": str(ROOT)}
        env |= {f"nnUNet_{place}": str(folder) for place in ("raw", "preprocessed", "results")}
        medseg = [sys.executable, "-m", "medseg"]
        imported = [*medseg, "bundles", "import", "nnunet", str(model), "-o", str(folder / "bundle")]
        subprocess.run(imported, env=env, check=True, stdout=subprocess.DEVNULL)
        own = [*medseg, "segment", str(image), "--bundle", str(folder / "bundle"), "--format", "nifti"]
        entry = (
            "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as p; p()"
        )
        theirs = ["-i", str(image.parent), "-o", str(folder / "theirs"), "-m", str(model), "-f", "0"]
        theirs += ["-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
        paths = {
            "nnUNetv2_predict": [sys.executable, "-c", entry, *theirs],
            "medseg, torch": [*own, "-o", str(folder / "torch"), "--engine", "torch"],
            "medseg, OpenVINO": [*own, "-o", str(folder / "openvino"), "--engine", "openvino"],
        }
        results = {path: measured(command, env) for path, command in paths.items()}
        counts = {kind: differing(folder, kind) for kind in ("torch", "openvino")}
    rows = []
    first = results["nnUNetv2_predict"]
    for path, (seconds, peak_gb) in results.items():
        kind = "openvino" if "OpenVINO" in path else "torch"
        differ = "" if path == "nnUNetv2_predict" else f"{counts[kind][0]} of {counts[kind][1]}"
        times = f"{first[0] / seconds:.1f}", f"{peak_gb / first[1]:.2f}"
        rows.append([path, f"{seconds:.0f}", times[0], f"{peak_gb:.2f}", times[1], differ])
    head = ["path", "seconds", "times faster", "peak GB", "of nnU-Net's", "voxels that differ"]
    sizes = " x ".join(map(str, given.voxels))
    busy = f"load of the computer at the end {os.getloadavg()[0]:.1f}"
    return f"{table(head, rows)}\n\n{sizes} voxels, {given.labels} labels, mirror images on all axes; {busy}."


def differing(folder: Path, kind: str) -> tuple[int, int]:
    """(voxels whose label differs from nnU-Net's, all voxels)."""
    import nibabel
    import numpy as np

    (theirs,) = (folder / "theirs").glob("*.nii.gz")
    wanted = np.asarray(nibabel.load(theirs).dataobj)
    found = np.zeros_like(wanted)
    for mask in (folder / kind).glob("*/Part_*.nii.gz"):
        number = int(mask.name.partition(".")[0].rpartition("_")[2])
        found[np.asarray(nibabel.load(mask).dataobj) > 0] = number
    return int((found != wanted).sum()), wanted.size


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("equality", "speed"))
    parser.add_argument("--trained", action="store_true", help="train a few iterations first")
    sizes = {"type": int, "nargs": 3, "default": (96, 256, 256), "metavar": "N"}
    parser.add_argument("--voxels", **sizes, help="speed: slices, rows, columns")
    parser.add_argument("--features", type=int, default=16, metavar="N", help="speed: of the first stage")
    parser.add_argument("--labels", type=int, default=4, metavar="N", help="speed: nothing and N - 1 others")
    parser.add_argument("--markdown", type=Path, help="file whose section is replaced; last")
    parser.add_argument("--section", help="its name, if not that of what is measured")
    given = parser.parse_args()
    text = speed(given) if given.what == "speed" else table(*equality(given.trained))
    print(text)
    if given.markdown:
        sys.path.append(str(ROOT / "tools" / "docs"))
        from page_section import put_section

        command = shlex.join(["python", "tools/benchmarks/nnunet/run.py", *sys.argv[1:]])
        command = command.partition(" --markdown")[0]
        put_section(given.markdown, given.section or given.what, f"`{command}`\n\n{text}")


if __name__ == "__main__":
    main()
