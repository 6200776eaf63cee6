"""medseg train on small pictures: methods with settings of their own, and failures that say what is wrong in
one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SMALL = [
    "epochs=1",
    "batch_size=2",
    "image_size=[32,32]",
    "network_def#channels=[4,4,4,4,4]",
    "device=cpu",
    "amp=false",
]


@pytest.fixture
def radiographs(tmp_path) -> Path:
    """Six pictures of 40 x 40 with all four structures in their bit fields; the last two validate."""
    rng, cases = np.random.default_rng(0), []
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(tmp_path / f"i{number}.png")
        field = np.zeros((40, 40), np.uint8)
        for bit in range(4):
            field[8 * bit : 8 * bit + 10, 10:30] |= 1 << bit
        Image.fromarray(field).save(tmp_path / f"m{number}.png")
        names = ["Lung_R", "Lung_L", "Mediastinum", "AirWay_Prox"]
        cases.append(
            {"image": f"i{number}.png", "label": f"m{number}.png", "case_id": f"c{number}", "present": names}
        )
    (tmp_path / "list.json").write_text(json.dumps({"training": cases[:4], "validation": cases[4:]}))
    return tmp_path


def train(folder: Path, *settings: str) -> tuple[int, str]:
    """Exit code and what was written to stderr. A process of its own: the bundle's logging.conf takes over
    the streams."""
    sets = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    arguments = ["train", "cxr_anatomy", "--data", f"{folder}", "--datalist", f"{folder / 'list.json'}"]
    command = [sys.executable, "-m", "medseg", *arguments, "-o", f"{folder / 'run'}", *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_method_with_a_setting_of_its_own_trains_and_is_not_overwritten(radiographs):
    options = ["method=trimming", "method_options#drop_share=0.25"]
    code, said = train(radiographs, *options)
    last = radiographs / "run" / "last.pt"
    assert code == 0 and last.exists() and "note: no model.pt" in said
    before = last.read_bytes()
    code, said = train(radiographs, *options)
    assert code == 2 and "would be overwritten; add --resume" in said and last.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["method=foo"], "error: unknown method 'foo'; choose one of ce,"),
        (["method=trimming"], "error: method 'trimming' needs method_options drop_share."),
        (["batch_size=9"], "error: no batch to train on: 4 cases and batch_size 9"),
    ],
)
def test_settings_that_cannot_be_meant_end_in_the_reason(radiographs, settings, expected):
    code, said = train(radiographs, *settings)
    assert code == 2 and [line for line in said.splitlines() if line.startswith(expected)]
    assert not (radiographs / "run" / "last.pt").exists()


def test_a_mask_of_another_size_than_its_picture_is_named(radiographs):
    Image.fromarray(np.full((20, 40), 15, np.uint8)).save(radiographs / "m1.png")
    code, said = train(radiographs)
    assert code == 2 and "error: c1: 'label' has 20 x 40 pixels, its image 40 x 40" in said
