"""train.json with multi_gpu_train.json is the same training in several processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from eye_files import write_dataset
from PIL import Image

from medseg.bundles.find import bundle_folders
from medseg.phantoms.hip import make_hip

TINY = {"epochs": 2, "val_interval": 1, "batch_size": 2}


def config(bundle: str, name: str) -> dict:
    return json.loads((bundle_folders()[bundle] / "configs" / f"{name}.json").read_text())


@pytest.mark.parametrize("bundle", bundle_folders())
def test_several_processes_train_the_network_that_one_does_and_its_quality_module(bundle):
    one, several = config(bundle, "train"), config(bundle, "multi_gpu_train")
    assert several["network"]["module"] == one["network"], "with `pretrained` too"
    assert several.get("quality", {}).get("module") == one.get("quality")
    assert set(one["initialize"]) <= set(several["initialize"])
    own = {"network", "quality", "device", "rank", "initialize"}
    assert one.keys() & several.keys() <= own, "all others are those of one process"


def run_in_two(bundle: str, data: Path, out: Path, **settings) -> subprocess.CompletedProcess:
    folder = bundle_folders()[bundle]
    files = [str(folder / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]
    places = {"dataset_dir": data, "datalist": data / "datalist.json", "ckpt_dir": out, "output_dir": out}
    places |= {"meta_file": folder / "configs" / "metadata.json", "bundle_root": folder}
    arguments = [part for key, value in (places | settings).items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    command += ["--nproc_per_node=2", "-m", "monai.bundle", "run", "--config_file", str(files)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(folder.parents[1])
    command += ["--logging_file", "False", *arguments]
    # torch's own threads sometimes abort a process with just these words; then it runs again.
    for _ in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=800, env=environment, check=False
        )
        if "terminate called without an active exception" not in done.stderr:
            break
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_dataset(folder)
    return folder


@pytest.mark.slow
def test_two_processes_weigh_labels_by_one_quality_module(photos, tmp_path):
    small = {**TINY, "longest_side": 96, "patch_size": [64, 64], "batch_size": 1, "method": "qam_ocm"}
    done = run_in_two("eye_lesion", photos, tmp_path, **small)
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["method"]["name"] == "qam_ocm" and state["trainer"]["epoch"] == 2
    names = state["method"]["learner"]["modules"]["quality"]
    assert names and not any(name.startswith("module.") for name in names)


@pytest.mark.slow
def test_two_processes_that_would_learn_a_loss_each_are_refused(photos, tmp_path):
    small = {**TINY, "longest_side": 96, "patch_size": [64, 64], "batch_size": 1, "method": "co_teaching"}
    done = run_in_two("eye_lesion", photos, tmp_path, **small, method_options={"drop_share": 0.5})
    assert done.returncode != 0 and not (tmp_path / "last.pt").exists()
    said = re.findall(r"medseg\.errors\.InputError: (.*)", done.stderr)
    assert said and said[0].startswith("method 'co_teaching' in 2 processes: each would train peer by itself")


@pytest.mark.slow
@pytest.mark.parametrize(("balance_by", "drawn"), [(["label", "device"], "by weight"), ([], "shared")])
def test_two_processes_draw_hips_by_label_and_machine_as_one_does(balance_by, drawn, tmp_path):
    cases = []
    for number in range(12):
        t_score, device = (-4.0, 0.5)[number % 2], "AB"[number // 2 % 2]
        film = make_hip(number, t_score, pixels=64).image
        Image.fromarray(np.rint(film * 65535).astype(np.uint16)).save(tmp_path / f"{number}.png")
        case = {"image": f"{number}.png", "case_id": str(number), "side": "L", "label": int(t_score < -2.5)}
        cases.append({**case, "device": device} if drawn == "by weight" else case)
    content = {"training": cases[:8], "validation": cases[8:]}
    (tmp_path / "datalist.json").write_text(json.dumps(content))
    done = run_in_two(
        "hip_osteoporosis", tmp_path, tmp_path, **TINY, image_size=[64, 64], balance_by=balance_by
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    # Eight films: four of each process, two batches of two; two epochs.
    assert state["trainer"] == {"epoch": 2, "iteration": 4}
