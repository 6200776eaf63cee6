"""Training of the mm_gtv bundle on tiny random CTs without PET and MR, as a user has them: resume,
determinism, refusals, two processes, evaluation."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.networks.nets import UNet

from medseg.errors import BundleError
from medseg.training.checkpoints import (
    AutocastInferer,
    Checkpoints,
    bfloat16_pays,
    load_checkpoint,
    save_atomically,
)

BUNDLE = Path(__file__).resolve().parents[2] / "monai_bundles" / "mm_gtv"
TINY_NETWORK = {
    "_target_": "medseg.networks.ResUNetSE",
    "spatial_dims": 3,
    "in_channels": 5,
    "out_channels": 1,
    "channels": [2, 4],
    "strides": [2],
    "dropout": 0.2,
}


class Killed(Exception):
    """Stands for the end of a process in the middle of an epoch."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> dict[str, str]:
    """Four training and two validation volumes of random noise with a brighter box, and their datalist."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    entries = []
    (
        folder / "case4"
    ).mkdir()  # a case named like a folder of the data set, which MONAI's list loader takes for a path
    for number in range(6):
        label = np.zeros((18, 20, 16), np.uint8)
        label[6 : 10 + number % 3, 7:12, 5:11] = 1
        image = (rng.normal(0, 60, label.shape) + 150 * label).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{number}_ct.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / f"{number}_gtv.nii.gz")
        case = {"image": f"{number}_ct.nii.gz", "label": f"{number}_gtv.nii.gz", "case_id": f"case{number}"}
        entries.append(case)
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"training": entries[:4], "validation": entries[4:]}))
    return {"dataset_dir": str(folder), "datalist": str(datalist)}


def tiny_overrides(dataset: dict[str, str], ckpt_dir: Path, **overrides) -> dict:
    settings = {
        "bundle_root": str(BUNDLE),
        "ckpt_dir": str(ckpt_dir),
        "output_dir": str(ckpt_dir / "eval"),
        "device": "$torch.device('cpu')",
        "network_def": TINY_NETWORK,
        "grid_size": [8, 8, 8],
        "spacing_mm": [4.0, 4.0, 4.0],
        "val_margin_mm": 100.0,
        "epochs": 4,
        "val_interval": 1,
        "learning_rate": 0.02,
    }
    return {**settings, **dataset, **overrides}


def workflow(dataset, ckpt_dir: Path, *overlays: str, **overrides) -> ConfigWorkflow:
    made = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / name) for name in ("train.json", *overlays)],
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        workflow_type="train",
        logging_file=False,
        **tiny_overrides(dataset, ckpt_dir, **overrides),
    )
    made.initialize()
    return made


def kill_at(run: ConfigWorkflow, iteration: int) -> None:
    """Train, and stop like a killed process when `iteration` is done."""
    trainer = run.parser.get_parsed_content("train#trainer")

    def stop() -> None:
        raise Killed

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), stop)
    with pytest.raises(Killed):
        trainer.run()


def same_tree(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tree(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same_tree(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    workflow(dataset, folder).run()
    return folder


def test_resume_after_a_kill_equals_the_uninterrupted_run(dataset, uninterrupted, tmp_path):
    kill_at(workflow(dataset, tmp_path), iteration=5)  # two batches an epoch: in the middle of epoch 3
    assert load_checkpoint(tmp_path / "last.pt")["trainer"] == {"epoch": 2, "iteration": 4}
    workflow(dataset, tmp_path, resume=True).run()
    for name in ("last.pt", "model.pt"):  # weights, optimizer, scheduler, counters, best metric
        assert same_tree(load_checkpoint(tmp_path / name), load_checkpoint(uninterrupted / name)), name


def test_resumed_run_does_not_let_a_worse_model_replace_the_best(dataset, uninterrupted, tmp_path):
    kill_at(workflow(dataset, tmp_path), iteration=5)
    state = load_checkpoint(tmp_path / "last.pt")
    state["best"] = {"metric": 0.999, "epoch": 1.0}  # better than anything that follows
    save_atomically(state, tmp_path / "last.pt")
    before = (tmp_path / "model.pt").read_bytes()
    workflow(dataset, tmp_path, resume=True).run()
    assert (tmp_path / "model.pt").read_bytes() == before
    assert load_checkpoint(tmp_path / "last.pt")["best"] == {"metric": 0.999, "epoch": 1.0}


def test_the_seed_decides_the_run(dataset, uninterrupted, tmp_path):
    def first_epoch(name: str, seed: int) -> dict:
        run = workflow(dataset, tmp_path / name, seed=seed)
        kill_at(run, iteration=3)
        return load_checkpoint(tmp_path / name / "last.pt")["network"]

    once = first_epoch("a", seed=1)
    assert same_tree(once, first_epoch("b", seed=1))
    assert not same_tree(once, first_epoch("c", seed=2))


def test_best_weights_are_a_plain_state_dict_of_the_epoch_with_the_best_validation(uninterrupted):
    state, best = load_checkpoint(uninterrupted / "last.pt"), load_checkpoint(uninterrupted / "model.pt")
    assert best.keys() == state["network"].keys()
    assert 1 <= state["best"]["epoch"] <= 4
    assert same_tree(best, state["network"]) == (state["best"]["epoch"] == 4)


def test_checkpoint_of_another_network_is_refused_in_one_line(dataset, uninterrupted, tmp_path):
    (tmp_path / "last.pt").write_bytes((uninterrupted / "last.pt").read_bytes())
    wider = {**TINY_NETWORK, "channels": [3, 4]}
    run = workflow(dataset, tmp_path, network_def=wider, resume=True, epochs=9)
    before = {
        name: tensor.clone() for name, tensor in run.parser.get_parsed_content("network").state_dict().items()
    }
    with pytest.raises(BundleError, match="belongs to another network.*first 'encoders.0") as refusal:
        run.parser.get_parsed_content("train#trainer").run()
    assert "\n" not in str(refusal.value)
    assert same_tree(run.parser.get_parsed_content("network").state_dict(), before)


def test_finished_training_is_not_resumed(dataset, uninterrupted, tmp_path):
    (tmp_path / "last.pt").write_bytes((uninterrupted / "last.pt").read_bytes())
    with pytest.raises(BundleError, match="at epoch 4 of 4"):
        workflow(dataset, tmp_path, resume=True).parser.get_parsed_content("train#trainer").run()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04half a file"])
def test_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="no readable checkpoint"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"network": Payload()}, tmp_path / "last.pt")
    with pytest.raises(BundleError, match="no readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "executed").exists()


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    save_atomically({"epoch": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_atomically({"epoch": 2, "cannot be stored": (n for n in range(3))}, path)
    assert load_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_text_false_of_the_command_line_is_not_taken_for_true(tmp_path):
    with pytest.raises(BundleError, match="resume is 'false'; write True or False"):
        Checkpoints(tmp_path, torch.nn.Identity(), optimizer=None, resume="false")


def test_autocast_runs_in_bfloat16_and_returns_float32():
    seen = []
    layer = torch.nn.Conv2d(1, 1, 1)
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    x = torch.rand(1, 1, 4, 4)
    assert AutocastInferer()(x, layer).dtype == torch.float32
    assert AutocastInferer(enabled=False)(x, layer).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]


def test_bfloat16_is_taken_on_processors_with_instructions_for_it_and_on_graphics_cards(monkeypatch):
    processor = torch.device("cpu")
    for has, pays in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has, raising=False)
        assert bfloat16_pays(processor) is pays
        assert bfloat16_pays("cpu") is pays and bfloat16_pays(torch.device("cuda")) is True
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert bfloat16_pays(processor) is False, "an older PyTorch cannot say"


def test_bundle_satisfies_monai_s_properties_for_training(dataset, tmp_path):
    assert workflow(dataset, tmp_path).check_properties() == []
    assert workflow(dataset, tmp_path, "evaluate.json").check_properties() == []


def test_evaluation_writes_the_dice_of_each_case_on_its_own_grid(dataset, uninterrupted):
    run = workflow(dataset, uninterrupted, "evaluate.json", spacing_mm=[5.0, 5.0, 5.0])
    run.run()
    evaluator = run.parser.get_parsed_content("validate#evaluator")
    assert evaluator.state.output[0]["pred"].shape == (1, 18, 20, 16)
    with open(uninterrupted / "eval" / "val_dice_raw.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == ["case4", "case5"]
    mean = np.mean([float(row[1]) for row in rows[1:]])
    assert evaluator.state.metrics["val_dice"] == pytest.approx(mean, abs=1e-4)


def test_evaluation_looks_only_within_the_margin_around_the_tumour(dataset, uninterrupted, tmp_path):
    run = workflow(dataset, uninterrupted, "evaluate.json", val_margin_mm=8.0, output_dir=str(tmp_path))
    run.run()
    # case5: tumour of 4 + 5 % 3 = 6, 5 and 6 voxels, plus 8 mm = 2 voxels on each side.
    evaluator = run.parser.get_parsed_content("validate#evaluator")
    assert evaluator.state.output[0]["pred"].shape == (1, 10, 9, 10)


def test_evaluation_with_weights_of_another_network_fails(dataset, tmp_path):
    torch.save(UNet(3, 1, 1, (2, 4), (2,)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(RuntimeError):
        workflow(dataset, tmp_path, "evaluate.json").run()


def test_tensorboard_writes_only_when_asked(dataset, tmp_path):
    pytest.importorskip("tensorboard")
    workflow(dataset, tmp_path / "off", epochs=1).run()
    workflow(dataset, tmp_path / "on", epochs=1, tensorboard=True).run()
    assert not list(tmp_path.glob("off/**/events*"))
    assert list(tmp_path.glob("on/eval/**/events*"))


@pytest.mark.slow
def test_two_processes_train_one_model_and_only_the_first_writes(dataset, tmp_path):
    overrides = tiny_overrides(dataset, tmp_path, epochs=2, batch_size=1)
    overrides.pop("device")
    arguments = [part for key, value in overrides.items() for part in (f"--{key}", str(value))]
    configs = [str(BUNDLE / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nnodes=1",
        "--nproc_per_node=2",
    ]
    command += [
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        str(configs),
        "--logging_file",
        "False",
        *arguments,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(BUNDLE.parents[1])
    # About one run in thirteen, torch's own threads abort the second process with just these words; then it
    # runs again.
    for _ in range(2):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=800, env=environment, check=False
        )
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["trainer"] == {
        "epoch": 2,
        "iteration": 4,
    }  # four cases over two processes: two batches an epoch
    assert not any(name.startswith("module.") for name in load_checkpoint(tmp_path / "model.pt"))
    assert (done.stdout + done.stderr).count("Key metric: val_dice best value") == 2  # rank 1 keeps quiet
