"""Damaged DICOM: whatever is cut, flipped or deleted, the answer is a result or one clear error, never a
crash.

Seeded, so that a failure repeats. MEDSEG_FUZZ_ROUNDS asks for a longer run, MEDSEG_FUZZ_SEED for another one.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medseg.dicom import ALLOWABLE, read_rtstruct, read_series, write_rtstruct
from medseg.errors import MedsegError
from medseg.phantoms.series import stack_geometry, write_series
from medseg.workbench.inspect import inspect, report_lines

ROUNDS = int(os.environ.get("MEDSEG_FUZZ_ROUNDS", 80))
SEED = int(os.environ.get("MEDSEG_FUZZ_SEED", 0))
SHAPE = (4, 32, 36)  # JPEG 2000 needs 32 rows and columns
WAYS = ("cut", "flip", "flip", "flip header", "flip header", "overwrite", "insert", "drop", "delete", "value")
NONSENSE = (b"", b"nan\\inf\\-1 ", b"1e999 ", b"\xff\xff\xff\xff", b"\0\0", b"\\\\\\\\", b"\xc3\xa9\\" * 4)
SYNTAXES = {"plain": None, "RLE": RLELossless, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> dict[str, Path]:
    """One folder per transfer syntax with a series of four slices, and a structure set of two ROIs in
    "structures"."""
    root = tmp_path_factory.mktemp("healthy")
    volume = np.random.default_rng(SEED).integers(-900, 900, SHAPE).astype(np.float32)
    folders = {name: root / name for name in SYNTAXES}
    for name, syntax in SYNTAXES.items():
        for file in write_series(volume, stack_geometry(SHAPE), folders[name], RescaleIntercept=0):
            if syntax is not None:
                dataset = pydicom.dcmread(file)
                dataset.compress(syntax)
                dataset.save_as(file)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:3, 4:9, 3:8] = True
    ring = mask.copy()
    ring[:, 6, 5] = False
    folders["structures"] = root / "structures"
    folders["structures"].mkdir()
    write_rtstruct(
        {"GTV": mask, "Ring": ring}, read_series(folders["plain"]), folders["structures"] / "RS.dcm"
    )
    return folders


def damage(path: Path, chance: random.Random) -> str:
    """Change one file in one of several ways; says which, for the message of a failing round."""
    raw = bytearray(path.read_bytes())
    way = chance.choice(WAYS)
    place = chance.randrange(len(raw))
    if way == "cut":
        raw = raw[:place]
    elif way in ("flip", "flip header"):
        end = min(len(raw), 1600) if way == "flip header" else len(raw)
        for _ in range(chance.choice([1, 1, 2, 5, 30])):
            raw[chance.randrange(132, end)] ^= 1 << chance.randrange(8)
    elif way == "overwrite":
        delimiter = b"\xfe\xff\xdd\xe0\0\0\0\0"
        raw[place : place + 16] = chance.choice(
            [b"\0" * 16, b"\xff" * 16, delimiter * 2, chance.randbytes(16)]
        )
    elif way == "insert":
        raw[place:place] = chance.randbytes(chance.choice([1, 2, 100]))
    elif way == "drop":
        del raw[place : place + chance.choice([1, 2, 8, 100])]
    else:
        return damage_element(path, chance, way)
    path.write_bytes(bytes(raw))
    return f"{way} at {place}"


def damage_element(path: Path, chance: random.Random, way: str) -> str:
    """Delete one element, or give it the bytes of nonsense, in a file that stays well-formed."""
    dataset = pydicom.dcmread(path)
    tag = chance.choice([tag for tag in dataset.keys() if tag != 0x7FE00010 or way == "delete"])
    keyword = pydicom.datadict.keyword_for_tag(tag) or str(tag)
    if way == "delete":
        del dataset[tag]
    else:
        raw = pydicom.dataelem.RawDataElement
        nonsense = chance.choice(NONSENSE)
        vr = dataset[tag].VR
        dataset._dict[tag] = raw(
            pydicom.tag.Tag(tag), vr if vr != "SQ" else "OB", len(nonsense), nonsense, 0, False, True
        )
    try:
        dataset.save_as(path)
    # noqa: BLE001 - the damage itself could not be written; the file stays healthy
    except Exception as error:
        return f"{way} {keyword} not written ({type(error).__name__})"
    return f"{way} {keyword}"


def answer(call, *arguments, **settings):
    """What a call gives, or its MedsegError; any other exception fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(*arguments, **settings)
        except MedsegError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            return error


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_damaged_slice_gives_a_sound_series_or_one_error(healthy, tmp_path, name):
    chance = random.Random(f"{SEED} {name}")
    outcomes = set()
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        shutil.copytree(healthy[name], folder)
        how = damage(chance.choice(sorted(folder.iterdir())), chance)
        said = f"round {number}: {how}"
        assert all(isinstance(line, str) for line in report_lines(inspect(folder))), said
        for allow in ((), ALLOWABLE):
            series = answer(read_series, folder, allow=allow)
            volume = series if isinstance(series, MedsegError) else answer(series.volume)
            outcomes.add(isinstance(volume, MedsegError))
            if not isinstance(volume, MedsegError):
                assert volume.shape == series.geometry.shape and np.isfinite(volume).all(), said
                # Nothing is lost in silence: all four slices are there, or the file left out is named.
                named = any("broken" in note or "could not be read" in note for note in series.warnings)
                assert len(series.files) == SHAPE[0] or named, said
        shutil.rmtree(folder)
    assert outcomes == {True, False}


def test_a_damaged_structure_set_gives_masks_or_one_error_and_no_half_written_file(healthy, tmp_path):
    chance = random.Random(f"{SEED} structures")
    series = read_series(healthy["plain"])
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2, 3:6, 3:6] = True
    outcomes = set()
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        shutil.copytree(healthy["structures"], folder)
        how = damage(folder / "RS.dcm", chance)
        said = f"round {number}: {how}"
        assert all(isinstance(line, str) for line in report_lines(inspect(folder))), said
        masks = answer(read_rtstruct, folder / "RS.dcm", series)
        outcomes.add(isinstance(masks, MedsegError))
        if not isinstance(masks, MedsegError):
            assert all(mask.shape == SHAPE and mask.dtype == bool for mask in masks.values()), said
        written = answer(
            write_rtstruct, {"New": mask}, series, folder / "out.dcm", append_to=folder / "RS.dcm"
        )
        left = {file.name for file in folder.iterdir()} - {"RS.dcm"}
        assert left == (set() if isinstance(written, MedsegError) else {"out.dcm"}), said
        if left:
            again = answer(read_rtstruct, folder / "out.dcm", series)
            assert isinstance(again, MedsegError) or np.array_equal(again["New"], mask), said
        shutil.rmtree(folder)
    assert outcomes == {True, False}
