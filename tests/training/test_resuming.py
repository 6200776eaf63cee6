"""A resumed training is the same training, or says what is another one; checkpoints with damaged bytes are
found."""

from __future__ import annotations

import hashlib
import json
import zipfile

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.optimizers import WarmupCosineSchedule

from medseg.errors import BundleError, InputError, system_error_line
from medseg.training.checkpoints import Checkpoints, load_checkpoint, save_atomically, save_weights
from medseg.training.resuming import CHANGED


def cases(root: str, count: int = 4) -> list[dict]:
    return [
        {"case_id": f"c{n}", "image": f"{root}/ct/c{n}.nii.gz", "label": f"{root}/gtv/c{n}.nii.gz"}
        for n in range(count)
    ]


def train(
    directory, epochs=2, *, data=None, rate=0.5, seed=1, batch=2, resume=False, schedule="step", variant=None
):
    """Train one number by SGD with gradient 1; returns it and the learning rate of the last step."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 10.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    schedulers = torch.optim.lr_scheduler
    scheduler = {
        "step": lambda: schedulers.StepLR(optimizer, 1, gamma=0.5),
        "one cycle": lambda: schedulers.OneCycleLR(optimizer, rate, total_steps=8, cycle_momentum=False),
        "one cycle of the epochs": lambda: schedulers.OneCycleLR(optimizer, rate, total_steps=epochs + 1),
        "cosine of the epochs": lambda: schedulers.CosineAnnealingLR(optimizer, epochs),
        "polynomial of the epochs": lambda: schedulers.PolynomialLR(optimizer, epochs),
        "warm-up and cosine of the epochs": lambda: WarmupCosineSchedule(optimizer, 1, epochs),
    }[schedule]()
    data = cases("/data") if data is None else data
    loader = DataLoader(CacheDataset(data, progress=False), batch_size=batch, num_workers=0)
    used = []

    def step(engine, batch):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        network.weight.sum().backward()
        optimizer.step()

    engine = Engine(step)
    engine.data_loader, engine.scaler = loader, None
    engine.state.max_epochs, engine.state.rank, engine.state.dataloader = epochs, 0, loader
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: scheduler.step())
    Checkpoints(directory, network, optimizer, scheduler, resume=resume, seed=seed, variant=variant).attach(
        engine
    )
    engine.run(loader, max_epochs=epochs)
    return float(network.weight.detach()), used


def test_a_training_of_the_same_settings_goes_on_though_its_data_moved(tmp_path):
    weight, used = train(tmp_path / "whole", 2)
    assert used == [0.5, 0.5, 0.25, 0.25] and weight == 10 - 1.5  # two batches an epoch, the rate halves
    train(tmp_path / "two", 1)
    weight, used = train(tmp_path / "two", 2, data=cases("/another/disk"), resume=True)
    assert used == [0.25, 0.25] and weight == 10 - 1.5


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 2}, "seed 1, now 2"),
        ({"rate": 0.1}, "learning rate 0.5, now 0.1"),
        ({"batch": 1}, "batch size 2, now 1"),
        ({"data": cases("/data", 6)}, "cases 4, now 6"),
        ({"data": cases("/data")[::-1]}, "other cases in the datalist, or in another order"),
        (
            {"data": [{**case, "label": case["image"]} for case in cases("/data")]},
            "other cases in the datalist",
        ),
    ],
)
def test_another_setting_is_named_and_refused_until_it_is_meant(other, words, tmp_path):
    train(tmp_path, 1)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(BundleError, match=f"trained with other settings: .*{words}.*`resume=changed`"):
        train(tmp_path, 2, resume=True, **other)
    assert (tmp_path / "last.pt").read_bytes() == before
    train(tmp_path, 2, resume=CHANGED, **other)
    assert load_checkpoint(tmp_path / "last.pt")["trainer"]["epoch"] == 2
    with pytest.raises(BundleError, match="at epoch 2 of 2"):  # the new settings are now the known ones
        train(tmp_path, 2, resume=True, **other)


@pytest.mark.parametrize("resume", [True, CHANGED])
def test_a_training_of_one_variant_is_never_continued_as_another(resume, tmp_path):
    train(tmp_path, 1, variant="source_unet")
    with pytest.raises(BundleError, match="trained as variant source_unet, now none. Resume with the same"):
        train(tmp_path, 2, resume=resume)
    train(tmp_path, 2, resume=True, variant="source_unet")
    assert load_checkpoint(tmp_path / "last.pt")["settings"]["variant"] == "source_unet"


def test_every_change_is_named_at_once(tmp_path):
    train(tmp_path, 1)
    with pytest.raises(BundleError, match="seed 1, now 2; learning rate 0.5, now 0.1; cases 4, now 2"):
        train(tmp_path, 2, resume=True, seed=2, rate=0.1, data=cases("/data", 2))


@pytest.mark.parametrize("schedule", ["step", "one cycle"])
def test_a_new_learning_rate_is_obeyed_and_the_schedule_goes_on_where_it_was(schedule, tmp_path):
    _, whole = train(tmp_path / "whole", 3, schedule=schedule)
    train(tmp_path / "part", 1, schedule=schedule)
    _, rest = train(tmp_path / "part", 3, schedule=schedule, rate=0.05, resume=CHANGED)
    assert rest == pytest.approx([rate / 10 for rate in whole[2:]])


@pytest.mark.parametrize("schedule", ["one cycle", "cosine", "polynomial", "warm-up and cosine"])
def test_more_epochs_go_on_with_the_schedule_of_as_many(schedule, tmp_path):
    schedule = f"{schedule} of the epochs"
    _, whole = train(tmp_path / "whole", 6, schedule=schedule)
    train(tmp_path / "part", 3, schedule=schedule)
    _, rest = train(tmp_path / "part", 6, schedule=schedule, resume=True)
    assert rest == pytest.approx(whole[6:]) and len(rest) == 6


def test_a_checkpoint_of_an_earlier_version_says_nothing_and_is_resumed(tmp_path):
    train(tmp_path, 1)
    state = load_checkpoint(tmp_path / "last.pt")
    del state["settings"]
    save_atomically(state, tmp_path / "last.pt")
    train(tmp_path, 2, seed=9, resume=True)


DAMAGED_PARTS = {
    "optimizer": ["text", {}],
    "lr_scheduler": [[1]],
    "trainer": [{}, {"epoch": -1, "iteration": 0}, {"epoch": "x", "iteration": 0}],
    "best": [[1], {"a": 1.0}],
    "settings": [[1]],
    "method": [[1]],
    "network": [[1], {}, {"weight": torch.tensor([[float("nan")]])}],
}


@pytest.mark.parametrize(
    ("part", "value"), [(part, value) for part, values in DAMAGED_PARTS.items() for value in values]
)
def test_a_checkpoint_whose_parts_are_not_what_they_should_be_is_refused_in_one_line(part, value, tmp_path):
    train(tmp_path, 1)
    path = tmp_path / "last.pt"
    save_atomically({**load_checkpoint(path), part: value}, path)
    before = path.read_bytes()
    with pytest.raises(BundleError, match="last.pt") as caught:
        train(tmp_path, 2, resume=True)
    assert "\n" not in str(caught.value) and path.read_bytes() == before


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"weight": torch.ones(1, 1)}])
def test_a_file_that_holds_no_training_is_refused_in_one_line(content, tmp_path):
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(BundleError, match="no training checkpoint: best, lr_scheduler, network"):
        train(tmp_path, 2, resume=True)


def test_a_training_that_diverges_ends_and_keeps_the_epoch_before(tmp_path):
    weight, _ = train(tmp_path, 1)
    with pytest.raises(BundleError, match=r"the training diverged in epoch 2, .*weight is not finite"):
        train(tmp_path, 2, rate=float("inf"), resume=CHANGED)
    assert float(load_checkpoint(tmp_path / "last.pt")["network"]["weight"]) == weight


def test_a_word_that_is_no_way_to_resume_is_refused(tmp_path):
    with pytest.raises(BundleError, match="resume is 'other'"):
        train(tmp_path, 1, resume="other")


def test_changed_bytes_of_a_tensor_are_found_though_torch_does_not_see_them(tmp_path):
    path, weights = tmp_path / "last.pt", torch.linspace(0, 1, 5000)
    save_atomically({"network": {"layer": weights}}, path)
    raw = bytearray(path.read_bytes())
    start = raw.find(weights[100:200].numpy().tobytes())
    raw[start + 4] ^= 0x55
    path.write_bytes(raw)
    assert not torch.equal(torch.load(path, weights_only=True)["network"]["layer"], weights)
    with pytest.raises(BundleError, match="last.pt is no readable checkpoint .*the file is damaged"):
        load_checkpoint(path)


def test_a_checkpoint_that_is_cut_anywhere_is_refused_in_one_line(tmp_path):
    path = tmp_path / "last.pt"
    save_atomically({"network": {"layer": torch.linspace(0, 1, 500)}}, path)
    whole = path.read_bytes()
    assert zipfile.is_zipfile(path)
    for share in (0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BundleError, match="no readable checkpoint") as refusal:
            load_checkpoint(path)
        assert "\n" not in str(refusal.value)


def test_a_checkpoint_that_is_compressed_is_refused_before_it_is_inflated(tmp_path):
    path = tmp_path / "last.pt"
    save_atomically({"network": {"layer": torch.zeros(1 << 20)}}, path)
    with zipfile.ZipFile(path) as whole:
        parts = [(name, whole.read(name)) for name in whole.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in parts:
            bomb.writestr(name, content)
    with pytest.raises(BundleError, match="is compressed, which torch never does"):
        load_checkpoint(path)


def test_weights_trained_into_a_bundle_are_those_that_its_metadata_names(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text('{"version": "0.1.0", "authors": "Müller"}')
    save_weights({"layer": torch.ones(3)}, tmp_path / "models" / "model.pt")
    digest = hashlib.sha256((tmp_path / "models" / "model.pt").read_bytes()).hexdigest()
    metadata = json.loads((tmp_path / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata == {"version": "0.1.0", "authors": "Müller", "weights_sha256": digest}
    save_weights({"layer": torch.ones(3)}, tmp_path / "model.pt")  # not in a bundle
    assert sorted(p.name for p in tmp_path.iterdir()) == ["configs", "model.pt", "models"]


def test_a_file_that_the_disk_has_no_room_for_is_named_in_one_line(tmp_path, room_of_10_kb):
    path = tmp_path / "last.pt"
    with pytest.raises(OSError) as error:
        save_atomically({"layer": torch.ones(100_000)}, path)
    assert system_error_line(error.value) == f"{path}: File too large"
    assert list(tmp_path.iterdir()) == []


def test_no_batch_is_still_refused(tmp_path):
    loader = DataLoader(CacheDataset([], progress=False), batch_size=2, num_workers=0)
    engine = Engine(lambda engine, batch: None)
    engine.data_loader = loader
    with pytest.raises(InputError, match="no batch to train on"):
        Checkpoints(tmp_path, torch.nn.Identity(), None).attach(engine)
