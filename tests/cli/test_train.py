"""medseg train on small pictures: methods with settings of their own, and failures that say what is wrong in
one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.cli.main import main

SMALL = [
    "epochs=1",
    "batch_size=2",
    "image_size=[32,32]",
    "network_def#channels=[4,4,4,4,4]",
    "device=cpu",
    "amp=false",
]


TRAIN_ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from medseg.cli.main import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["train", *arguments])
    print("RESULT", json.dumps([code, said.getvalue()]), flush=True)
sys.exit(code)
"""
"""Exits with the last run's code, so that an abort at the end of the process is seen."""


def write_radiographs(folder: Path) -> Path:
    """Six pictures of 40 x 40 with all four structures in their bit fields; the last two validate."""
    folder.mkdir()
    rng, cases = np.random.default_rng(0), []
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(folder / f"i{number}.png")
        field = np.zeros((40, 40), np.uint8)
        for bit in range(4):
            field[8 * bit : 8 * bit + 10, 10:30] |= 1 << bit
        Image.fromarray(field).save(folder / f"m{number}.png")
        names = ["Lung_R", "Lung_L", "Mediastinum", "AirWay_Prox"]
        cases.append(
            {"image": f"i{number}.png", "label": f"m{number}.png", "case_id": f"c{number}", "present": names}
        )
    (folder / "list.json").write_text(json.dumps({"training": cases[:4], "validation": cases[4:]}))
    return folder


def train(*runs: tuple[Path, Path, list[str]]) -> list[tuple[int, str]]:
    """Exit code and what was written to stderr of each (data, output, settings), all in one new process; a
    setting that begins with dashes is an option of the command.

    A process of its own, because the bundle's logging.conf takes over the streams; one for several runs,
    because most of its time goes into loading torch and MONAI. The last run ends the process.
    """
    arguments = []
    for data, out, settings in runs:
        options = [setting for setting in settings if setting.startswith("--")]
        given = {one.partition("=")[0]: one for one in (*SMALL, *settings) if one not in options}
        sets = [word for one in given.values() for word in ("--set", one)]
        datalist = ["--data", f"{data}", "--datalist", f"{data / 'list.json'}"]
        arguments.append(["cxr_anatomy", *datalist, "-o", f"{out}", *sets, *options])
    command = [sys.executable, "-c", TRAIN_ONE_AFTER_THE_OTHER, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    results = [tuple(json.loads(line)) for line in lines]
    assert len(results) == len(runs) and done.returncode == results[-1][0], done.stderr
    assert "Traceback" not in done.stdout + "".join(said for _, said in results)
    return results


TRIMMING = ["method=trimming", "method_options#drop_share=0.25"]
TRAINED = {
    "trimming": TRIMMING,
    "plain": [],
    "noisy": ["--noisy", "epochs=2"],
    "noisy, by another method": ["--noisy", "method=loss_history"],
    "variant": ["--variant=unet"],
}
REFUSED = {
    "error: unknown method 'foo'; choose one of ce,": ["method=foo"],
    "error: method 'trimming' needs method_options drop_share.": ["method=trimming"],
    "error: no batch to train on: 4 cases and batch_size 9": ["batch_size=9"],
    "error: bundle cxr_anatomy: epochs=0: expected a whole number from 1.": ["epochs=0"],
    "error: bundle cxr_anatomy: seed=-1: expected a whole number from 0.": ["seed=-1"],
    "error: bundle cxr_anatomy: learning_rate=0: expected a number above 0.": ["learning_rate=0"],
    "error: bundle cxr_anatomy: method=null: would change nothing": ["method=null"],
    "error: bundle cxr_anatomy: medseg.networks.ResUNetSE cannot be built with": [
        "network_def#spatial_dims=7"
    ],
    "error: bundle cxr_anatomy: @network_def.to(@device) cannot be built with": ["device=tpu"],
    "error: 'network_def#_target_=os.system': what a config calls": ["network_def#_target_=os.system"],
    "error: --set ckpt_dir: use -o": ["ckpt_dir=elsewhere"],
    "error: nothing was trained:": ["run=[]"],
    "error: the training diverged in epoch 1, which is not kept:": ["learning_rate=1e30"],
    "error: bundle cxr_anatomy: no variant 'unnet'; expected one of unet. Did": ["--variant=unnet"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, dict[str, tuple[int, str]]]:
    """The folder of all runs of TRAINED and REFUSED, and what each ended with."""
    folder = tmp_path_factory.mktemp("runs")
    data, settings = write_radiographs(folder / "data"), TRAINED | REFUSED
    ends = train(*((data, folder / f"run{number}", given) for number, given in enumerate(settings.values())))
    return folder, dict(zip(settings, ends, strict=True))


def checkpoint_of(runs, name: str) -> dict:
    folder, ends = runs
    assert ends[name][0] == 0, ends[name][1]
    last = folder / f"run{list(ends).index(name)}" / "last.pt"
    return torch.load(last, map_location="cpu", weights_only=True)


def method_of(runs, name: str) -> dict:
    """What the checkpoint of a run says of its method."""
    return checkpoint_of(runs, name)["method"]


def test_a_method_with_a_setting_of_its_own_trains_and_settings_that_cannot_be_meant_end_in_the_reason(runs):
    folder, ends = runs
    assert method_of(runs, "trimming")["name"] == "trimming" and "note: no model.pt" in ends["trimming"][1]
    for number, expected in enumerate(REFUSED, len(TRAINED)):
        code, said = ends[expected]
        assert code == 2 and [line for line in said.splitlines() if line.startswith(expected)], expected
        assert not (folder / f"run{number}" / "last.pt").exists()


def test_noisy_trains_a_quality_module_beside_the_network_and_without_it_there_is_none(runs):
    plain, noisy = method_of(runs, "plain"), method_of(runs, "noisy")
    assert plain["name"] == "dice_ce" and not plain["learner"]["modules"]
    assert noisy["name"] == "qam_ocm" and noisy["learner"]["memory"]["trusted"] is not None
    # The last layer starts at zero, so anything else was learned in this run.
    assert noisy["learner"]["modules"]["quality"]["head.weight"].abs().max() > 1e-4
    assert noisy["learner"]["optimizers"]["quality"]["state"]


def test_a_method_that_is_named_goes_before_noisy(runs):
    named = method_of(runs, "noisy, by another method")
    assert named["name"] == "loss_history" and len(named["learner"]["memory"]["history"]) == 4


def test_a_variant_of_the_bundle_is_trained_and_recorded(runs):
    plain, unet = (checkpoint_of(runs, name) for name in ("plain", "variant"))
    assert [state["settings"]["variant"] for state in (plain, unet)] == ["none", "unet"]
    assert len(unet["network"]) < len(plain["network"]), "no residual units, no squeeze-and-excitation"


def test_noisy_on_a_bundle_that_cannot_weigh_labels_says_so(tmp_path, capsys):
    code = main(["train", "ct_head_neck", "--noisy", "--data", f"{tmp_path}", "-o", f"{tmp_path / 'out'}"])
    said = capsys.readouterr().err
    assert code == 2 and "ct_head_neck: train.json has no setting 'method'" in said
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten_and_a_mask_of_another_size_than_its_picture_is_named(tmp_path):
    data, wrong = write_radiographs(tmp_path / "data"), write_radiographs(tmp_path / "wrong")
    Image.fromarray(np.full((20, 40), 15, np.uint8)).save(wrong / "m1.png")
    (tmp_path / "run").mkdir()
    last = tmp_path / "run" / "last.pt"
    last.write_bytes(b"of an earlier run")
    again, misfit = train((data, tmp_path / "run", TRIMMING), (wrong, tmp_path / "other", []))
    assert again[0] == 2 and "would be overwritten; add --resume" in again[1]
    assert last.read_bytes() == b"of an earlier run"
    assert misfit[0] == 2 and "error: c1: 'label' has 20 x 40 pixels, its image 40 x 40" in misfit[1]


# ---- tables of an evaluation appear whole ------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, OSError(28, "No space left on device")])
def test_an_evaluation_that_fails_leaves_no_half_written_table(error, monkeypatch, tmp_path, capsys):
    def run_config(bundle, configs, run_id, settings):
        (Path(settings["output_dir"]) / "metrics.csv").write_text("case,dice\n")
        if error:
            raise error

    monkeypatch.setattr("medseg.bundles.config.run_config", run_config)
    out = tmp_path / "out"
    code = main(["evaluate", "cxr_anatomy", "--data", f"{tmp_path}", "-o", f"{out}"])
    if error:
        assert code == 2 and capsys.readouterr().err == f"error: {out}: No space left on device\n"
        assert not out.exists()
    else:
        assert code == 0 and [path.name for path in out.iterdir()] == ["metrics.csv"]
