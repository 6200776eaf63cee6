"""medseg train on small pictures: methods with settings of their own, and failures that say what is wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.cli import main

SMALL = ["epochs=1", "batch_size=2", "image_size=[32,32]", "network_def#channels=[4,4,4,4,4]", "device=cpu", "amp=false"]


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
        cases.append({"image": f"i{number}.png", "label": f"m{number}.png", "case_id": f"c{number}", "present": names})
    (tmp_path / "list.json").write_text(json.dumps({"training": cases[:4], "validation": cases[4:]}))
    return tmp_path


def train(folder: Path, *words: str, settings: list[str] = SMALL) -> int:
    sets = [word for setting in settings for word in ("--set", setting)]
    arguments = ["train", "cxr_anatomy", "--data", f"{folder}", "--datalist", f"{folder / 'list.json'}"]
    return main([*arguments, "-o", f"{folder / 'run'}", *sets, *words])


def test_a_method_with_a_setting_of_its_own_trains_and_is_not_overwritten(radiographs, capsys):
    options = ["--set", "method=trimming", "--set", "method_options#drop_share=0.25"]
    assert train(radiographs, *options) == 0
    last = radiographs / "run" / "last.pt"
    assert last.exists() and "note: no model.pt" in capsys.readouterr().err
    before = last.read_bytes()
    assert train(radiographs, *options) == 2
    assert "would be overwritten; add --resume" in capsys.readouterr().err and last.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["method=foo"], "error: unknown method 'foo'; choose one of ce,"),
        (["method=trimming"], "error: method 'trimming' needs method_options drop_share."),
        (["method_options#drop=1", "method=trimming"], "error: method 'trimming' has no option drop;"),
        (["batch_size=9"], "error: no batch to train on: 4 cases and batch_size 9"),
    ],
)
def test_settings_that_cannot_be_meant_end_in_the_reason(radiographs, capsys, settings, expected):
    assert train(radiographs, settings=[*SMALL, *settings]) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith(expected)]
    assert not (radiographs / "run" / "last.pt").exists()


def test_a_mask_of_another_size_than_its_picture_is_named(radiographs, capsys):
    Image.fromarray(np.full((20, 40), 15, np.uint8)).save(radiographs / "m1.png")
    assert train(radiographs) == 2
    assert "error: c1: 'label' has 20 x 40 pixels, its image 40 x 40" in capsys.readouterr().err
