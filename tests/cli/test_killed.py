"""kill -9 at any moment: nothing that stands there is half-written, and the next run leaves nothing stale.

Slow, and so run by name: ``pytest -m slow -s tests/cli/test_killed.py`` prints how many kills met a run at
work.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.phantoms.series import stack_geometry, write_series
from medseg.training.checkpoints import load_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 20
TINY = ["image_size=[32,32]", "network_def#channels=[4,4,4,4,4]", "batch_size=2", "device=cpu", "amp=false"]
SETS = [word for setting in TINY for word in ("--set", setting)]


def start(arguments: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "medseg", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def first_sign(process: subprocess.Popen, out: Path) -> float:
    """The time at which something new stands in ``out``, or the process has ended."""
    before = set(out.rglob("*"))
    while process.poll() is None and not set(out.rglob("*")) - before:
        time.sleep(0.01)
    return time.monotonic()


def seconds_at_work(arguments: list[str], out: Path) -> float:
    """How long a whole run goes on after its first sign in ``out``."""
    process = start(arguments)
    began = first_sign(process, out)
    assert process.wait() == 0
    return time.monotonic() - began


def killed(arguments: list[str], out: Path, after_s: float) -> bool:
    """Start a run, kill it so long after its first sign; True when it was still at work."""
    process = start(arguments)
    first_sign(process, out)
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    code = process.wait()
    assert code in (0, -signal.SIGKILL)
    return code == -signal.SIGKILL


def visible(out: Path) -> list[Path]:
    """What a person would take for a result: no part of the path is hidden."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(out).parts)]


def hidden(out: Path) -> list[str]:
    return [path.name for path in out.rglob(".*")]


def require_whole(path: Path) -> None:
    """Fail unless the file can be read to its last byte."""
    readers: dict[str, Callable[[Path], object]] = {
        ".gz": lambda file: np.asarray(nibabel.load(file).dataobj),
        ".pt": load_checkpoint,
        ".json": lambda file: json.loads(file.read_text(encoding="utf-8")),
        ".npz": lambda file: list(np.load(file).values()),
        ".png": lambda file: Image.open(file).load(),
    }
    readers.get(path.suffix, lambda file: file.read_bytes()[0])(path)


def kill_often(command: Callable[[int], list[str]], out: Path, whole_s: float) -> tuple[int, int]:
    """(kills that met a run at work, hidden files that lay there until the next run)."""
    rng, met, left = random.Random(0), 0, 0
    for number in range(KILLS):
        met += killed(command(number), out, rng.uniform(0, whole_s))
        left += len(hidden(out))
        for path in visible(out):
            require_whole(path)
    return met, left


def radiographs(folder: Path) -> Path:
    """Eight pictures of 40 x 40 with all four structures."""
    folder.mkdir()
    rng, cases = np.random.default_rng(0), []
    names = ["Lung_R", "Lung_L", "Mediastinum", "AirWay_Prox"]
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(folder / f"i{number}.png")
        field = np.zeros((40, 40), np.uint8)
        for bit in range(4):
            field[8 * bit : 8 * bit + 10, 10:30] |= 1 << bit
        Image.fromarray(field).save(folder / f"m{number}.png")
        image, label = f"i{number}.png", f"m{number}.png"
        cases.append({"image": image, "label": label, "case_id": f"c{number}", "present": names})
    (folder / "list.json").write_text(json.dumps({"training": cases[:6], "validation": cases[6:]}))
    return folder


def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    """(of the whole run, of the killed ones), both there and empty."""
    for name in ("whole", "out"):
        (tmp_path / name).mkdir()
    return tmp_path / "whole", tmp_path / "out"


def test_convert(tmp_path):
    noise = np.random.default_rng(0).normal(0, 200, (60, 256, 256))
    write_series(noise, stack_geometry(noise.shape), tmp_path / "CT")
    whole, out = two_folders(tmp_path)

    def command(number: int, folder: Path = out) -> list[str]:
        return ["convert", f"{tmp_path / 'CT'}", f"{folder / f'{number}.nii.gz'}"]

    whole_s = seconds_at_work(command(0, whole), whole)
    met, left = kill_often(command, out, whole_s)
    assert start(command(KILLS)).wait() == 0
    print(f"\nconvert: {KILLS} kills, {met} at work, {left} hidden files until the next run")
    assert met > 0 and hidden(out) == []
    assert all(path.read_bytes() == (whole / "0.nii.gz").read_bytes() for path in visible(out))


def test_train(tmp_path):
    data, epochs = radiographs(tmp_path / "data"), 60
    whole, out = two_folders(tmp_path)

    def command(folder: Path) -> list[str]:
        words = ["train", "cxr_anatomy", "--data", f"{data}", "--datalist", f"{data / 'list.json'}", *SETS]
        words += ["--set", f"epochs={epochs}", "--set", "val_interval=1", "-o", f"{folder}"]
        return [*words, "--resume"] if (folder / "last.pt").exists() else words

    whole_s = seconds_at_work(command(whole), whole)
    met, left = kill_often(lambda number: command(out), out, whole_s / 40)
    last = load_checkpoint(out / "last.pt")["trainer"]["epoch"]
    assert start(command(out)).wait() == 0
    print(f"\ntrain: {KILLS} kills, {met} at work, {left} hidden files until the next run, then epoch {last}")
    assert met > 0 and hidden(out) == [] and last < epochs
    one, other = (load_checkpoint(folder / "last.pt")["network"] for folder in (out, whole))
    assert all(bool((one[name] == other[name]).all()) for name in other), "as if never killed"


def test_audit(tmp_path):
    data = radiographs(tmp_path / "data")
    whole, out = two_folders(tmp_path)

    def command(folder: Path) -> list[str]:
        words = ["audit", "cxr_anatomy", "--data", f"{data}", "--datalist", f"{data / 'list.json'}", *SETS]
        return [*words, "--folds", "2", "--set", "epochs=6", "-o", f"{folder}"]

    whole_s = seconds_at_work(command(whole), whole)
    met, left = kill_often(lambda number: command(out), out, whole_s / 12)
    assert start(command(out)).wait() == 0
    print(f"\naudit: {KILLS} kills, {met} at work, {left} hidden files until the next run")
    assert met > 0 and hidden(out) == []
    names = [[path.relative_to(folder) for path in visible(folder)] for folder in (whole, out)]
    assert names[0] == names[1]
    ranked = [json.loads((folder / "audit.json").read_text())["findings"] for folder in (whole, out)]
    assert ranked[0] == ranked[1]
