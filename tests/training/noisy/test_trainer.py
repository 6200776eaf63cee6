"""The trainer a bundle names: every method trains, plain training is unchanged, runs resume, failures are one
line."""

import json
import logging

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.handlers import StatsHandler
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet

from medseg.errors import BundleError, InputError
from medseg.losses.per_sample import BCEPerSample, DicePerSample
from medseg.networks.quality import QualityModule
from medseg.training.checkpoints import Checkpoints, load_checkpoint
from medseg.training.noisy.learners import Batch, LossHistory, Parts, two_groups
from medseg.training.noisy.quality_weights import QualityWeights
from medseg.training.noisy.trainer import METHODS, NoisyLabelTrainer

CHANNELS = 2
QUALITY = QualityModule(2, 1 + CHANNELS, backbone=((4,),))


def samples(count=8, size=(16, 16)):
    """Noise with a brighter box; the labels of every second sample are wrong: its box is cut in half."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        label = np.zeros((CHANNELS, *size), np.float32)
        label[0, 3:11, 4:12], label[1, 6:9, 6:9] = 1, 1
        image = rng.normal(0, 0.3, (1, *size)) + label.sum(0)
        label[:, 7:] *= number % 2
        sample = {"image": torch.tensor(image, dtype=torch.float32), "label": torch.tensor(label)}
        made.append({**sample, "case_id": f"c{number}", "noisy": 1 - number % 2})
    return made


def method_options(method: str, dims: int = 2) -> dict:
    torch.manual_seed(0)
    if method in METHODS and METHODS[method].learner is QualityWeights:
        quality = QualityModule(dims, 1 + CHANNELS, backbone=((4,), (8,)))
        return {"quality": quality, "optimizer": torch.optim.Adam(quality.parameters(), 1e-2)}
    needed = {"trimming": {"drop_share": 0.5}, "co_teaching": {"drop_share": 0.5, "ramp_epochs": 2}}
    return {**needed, "confident_learning": {"teacher_epochs": 2}}.get(method, {})


def make_trainer(method="ce", epochs=3, data=None, trainer=NoisyLabelTrainer, norm="batch", **settings):
    data = data or samples()
    torch.manual_seed(0)
    dims = data[0]["image"].ndim - 1
    network = UNet(dims, 1, CHANNELS, (4, 8), (2,), num_res_units=1, norm=norm, dropout=0.1)
    if trainer is NoisyLabelTrainer:
        settings = {"method": method, "method_options": method_options(method, dims), **settings}
    batch_size = settings.pop("batch_size", 4)
    return trainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=batch_size, shuffle=True),
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 1e-2),
        decollate=False,
        **settings,
    )


def run(trainer, *handlers):
    for handler in handlers:
        handler.attach(trainer)
    torch.manual_seed(1)
    trainer.run()
    return trainer


def weights_of(trainer) -> torch.Tensor:
    return torch.cat([value.float().flatten() for value in trainer.network.state_dict().values()])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_logs(method):
    losses = []
    trainer = make_trainer(method, epochs=6)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output["loss"]))
    )
    run(trainer)
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert trainer.state.output["sample_weight"].sum() == pytest.approx(1.0)
    assert trainer.state.output["pred"].shape == (4, CHANNELS, 16, 16)
    metrics = trainer.state.metrics
    assert {"effective_share", "largest_ratio", "weight_known_clean", "weight_known_noisy"} <= metrics.keys()
    assert ("saturated_share" in metrics) == (method.startswith("qam") or method == "loss_history")


def test_plain_training_is_monais_own_loop_to_the_last_bit():
    plain = run(make_trainer(trainer=SupervisedTrainer, loss_function=BCEPerSample()))
    ours = run(make_trainer("ce"))
    assert torch.equal(weights_of(plain), weights_of(ours))


def test_two_groups_by_hand_and_on_a_normal_distribution():
    # Below 0 and 1, above 10: cut halfway between 1 and 10, means 0.5 and 10, squares within 2 x 0.25 of
    # three values.
    assert two_groups([10.0, 0.0, 1.0]) == (5.5, 9.5, pytest.approx((0.5 / 3) ** 0.5))
    assert two_groups([2.0, 2.0, 2.0]) == (2.0, 0.0, 0.0) and two_groups([7.0]) == (7.0, 0.0, 0.0)
    _, distance, deviation = two_groups(np.random.default_rng(0).normal(size=100_000).tolist())
    assert distance / deviation == pytest.approx(2.65, abs=0.02)


@pytest.mark.parametrize(("wrong", "weighted"), [(0.25, True), (0.75, True), (0.0, False)])
def test_a_loss_history_weights_the_smaller_losses_only_where_losses_fall_into_two_groups(wrong, weighted):
    """Forty cases whose losses are given: normal around 1, and around 3 for the wrong labels."""
    rng, network = np.random.default_rng(0), torch.nn.Linear(1, 1)
    parts = Parts(network, torch.optim.SGD(network.parameters(), 0.0), SimpleInferer(), BCEPerSample())
    learner, known_wrong = LossHistory(parts), np.arange(40) < 40 * wrong
    given = torch.tensor(np.exp(rng.normal(np.where(known_wrong, 3.0, 1.0), 0.2)))
    learner.predict = lambda batch, labels: (labels, given * network.bias.exp())
    batch = Batch(
        torch.zeros(40, 1), torch.zeros(40, 1), None, torch.arange(40), 1, progress=1.0, warming_up=False
    )
    weights = learner.backward(batch).weights.numpy()
    assert weights.sum() == pytest.approx(1)
    if weighted:
        # tanh(2) of the way to e^4 against e^-4, from the means of the groups; the single cases lie around
        # them.
        assert weights[~known_wrong].min() > 500 * weights[known_wrong].max()
    else:
        assert weights == pytest.approx(np.full(40, 1 / 40))


@pytest.mark.parametrize(
    "method", ["weighted_ce", "dice_ce", "t_loss", "trimming", "loss_history", "co_teaching", "qam_published"]
)
def test_a_method_is_not_plain_training(method):
    assert not torch.equal(
        weights_of(run(make_trainer("ce"))), weights_of(run(make_trainer(method, warmup=0.0)))
    )


def test_during_the_warm_up_weights_are_equal_and_afterwards_not():
    seen = []
    trainer = make_trainer("qam_ocm_published", epochs=6, warmup=0.5)  # 12 steps: 6 of them equal
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append(float(engine.state.output["sample_weight"].std())),
    )
    run(trainer)
    assert max(seen[:6]) == 0 and min(seen[6:]) > 0, "the module listened from the first step on"


def test_the_log_reaches_monais_stats_handler(capfd):
    handler = StatsHandler(name="stats", output_transform=lambda output: output["loss"], iteration_log=False)
    run(make_trainer("qam_ocm", epochs=2), handler)
    printed = "".join(capfd.readouterr())
    assert "Epoch[2] Metrics" in printed and "effective_share" in printed and "weight_known_noisy" in printed


def test_collapsed_weights_are_reported(caplog, monkeypatch):
    # A tracking run in the same process (alembic, below MLflow) switches off every logger that there is.
    monkeypatch.setattr(logging.getLogger("medseg.training.noisy.trainer"), "disabled", False)
    caplog.set_level(logging.WARNING, logger="medseg.training.noisy.trainer")
    trainer = make_trainer("qam_published", epochs=2, warmup=0.0)
    torch.nn.init.normal_(trainer.learner.quality.head.weight, std=1e4)
    run(trainer)
    assert "Epoch 1: the weights rest on" in caplog.text


RESUMED = ["t_loss", "loss_history", "co_teaching", "adele", "confident_learning", "qam_ocm", "queue"]


@pytest.mark.parametrize("method", RESUMED)
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_same_weights(method, tmp_path):
    def made(folder, resume=False):
        name, options = ("qam_ocm", {"pool": "queue"}) if method == "queue" else (method, {})
        settings = {"method_options": {**method_options(name), **options}, "warmup": 0.1}
        if name == "qam_ocm":  # so that weights are uneven before the kill, in so few steps
            settings["method_options"] |= {"listen": 0.0, "fallback": False}
        trainer = make_trainer(name, epochs=5, **settings)
        if method == "adele":  # so that the teachers appear before and after the kill
            trainer.learner.curve = [[0.1, 0.0], [0.5, 0.0], [0.6, 0.0]]
        Checkpoints(folder, trainer.network, trainer.optimizer, resume=resume, seed=7).attach(trainer)
        return trainer

    whole = made(tmp_path / "whole")
    whole.run()
    killed = made(tmp_path / "killed")

    def kill():
        raise KeyboardInterrupt

    killed.add_event_handler(Events.ITERATION_COMPLETED(once=7), kill)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    resumed = made(tmp_path / "killed", resume=True)
    resumed.run()
    assert torch.equal(weights_of(whole), weights_of(resumed))
    a, b = (load_checkpoint(tmp_path / name / "last.pt")["method"] for name in ("whole", "killed"))
    assert json.dumps(a, default=lambda t: t.tolist()) == json.dumps(b, default=lambda t: t.tolist())


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    def made(method, **options):
        trainer = make_trainer(method, **options)
        Checkpoints(tmp_path, trainer.network, trainer.optimizer, resume=True).attach(trainer)
        return trainer

    made("ce", epochs=1).run()
    with pytest.raises(BundleError, match="trained with method 'ce', this run uses 'co_teaching'"):
        made("co_teaching").run()


def test_a_config_file_names_the_trainer():
    config = {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": CHANNELS,
            "channels": [4, 8],
            "strides": [2],
        },
        "quality": {"_target_": "medseg.networks.QualityModule", "spatial_dims": 2, "in_channels": 3},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "quality_optimizer": {
            "_target_": "torch.optim.Adam",
            "params": "$@quality.parameters()",
            "lr": 0.001,
        },
        "trainer": {
            "_target_": "medseg.training.noisy.NoisyLabelTrainer",
            "device": "$torch.device('cpu')",
            "max_epochs": 1,
            "train_data_loader": "$monai.data.DataLoader(@data, batch_size=4)",
            "network": "@network",
            "optimizer": "@optimizer",
            "method": "qam_ocm",
            "method_options": {"quality": "@quality", "optimizer": "@quality_optimizer", "strength": 1.0},
            "decollate": False,
        },
        "imports": ["$import torch", "$import monai"],
    }
    parser = ConfigParser(config)
    parser["data"] = samples()
    trainer = parser.get_parsed_content("trainer")
    trainer.run()
    assert trainer.learner.strength == 1.0


def test_an_empty_channel_is_a_statement_or_unknown_as_asked():
    data = samples(4)
    for sample in data:
        sample["label"][1] = 0.0
    seen = {}
    for choice in ("keep", "unknown"):
        trainer = make_trainer("ce", data=data, epochs=1, empty_channels=choice)
        original = trainer.learner.backward
        trainer.learner.backward = lambda batch, o=original, c=choice: (
            seen.update({c: batch.labels}) or o(batch)
        )
        run(trainer)
    assert not seen["keep"].isnan().any()
    assert seen["unknown"][:, 1].isnan().all() and not seen["unknown"][:, 0].isnan().any()


def test_per_class_scores_and_a_loss_of_their_own():
    options = method_options("qam_ocm")
    quality = QualityModule(2, 1 + CHANNELS, scores=CHANNELS, backbone=((4,), (8,)))
    options = {"quality": quality, "optimizer": torch.optim.Adam(quality.parameters(), 1e-2)}
    trainer = make_trainer("qam_ocm", method_options={**options, "per_class": True, "judge": DicePerSample()})
    run(trainer)
    assert trainer.state.output["sample_weight"].sum() == pytest.approx(1.0)
    wrong = make_trainer("qam_ocm", method_options={**options}, warmup=0.0)
    with pytest.raises(InputError, match=r"gives 2 scores per sample for 1 loss"):
        run(wrong)


def test_in_3d_the_case_is_scored_and_batches_of_one_patch_can_be_pooled():
    rng = np.random.default_rng(0)
    data = []
    for number in range(8):  # two patches of each of four cases; the second one is background
        label = torch.zeros(CHANNELS, 8, 8, 8)
        label[:, 2:6, 2:6, 2:6] = float(number % 2 == 0)
        image = torch.tensor(rng.normal(size=(1, 8, 8, 8)), dtype=torch.float32) + label[:1]
        whole = {
            "case_image": torch.rand(1, 8, 8, 8),
            "case_label": torch.full((CHANNELS, 8, 8, 8), float(number // 2)),
        }
        data.append({"image": image, "label": label, "case_id": f"case{number // 2}", **whole})
    options = {**method_options("qam_ocm", 3), "pool": "two_pass", "pool_options": {"micro_batch": 1}}
    trainer = make_trainer(
        "qam_ocm",
        data=data,
        epochs=3,
        norm="instance",
        batch_size=8,
        method_options=options,
        warmup=0.0,
        quality_keys=("case_image", "case_label"),
    )
    run(trainer)
    weights = dict.fromkeys((f"case{n}" for n in range(4)), 0.0)
    pairs = list(
        zip(trainer.state.batch["case_id"], trainer.state.output["sample_weight"].tolist(), strict=True)
    )
    for case in weights:
        first, second = (weight for name, weight in pairs if name == case)
        assert first == pytest.approx(second), "both patches carry their case's weight"
    assert trainer.state.output["sample_weight"].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "magic"}, "unknown method 'magic'; choose one of ce, weighted_ce"),
        ({"method": "trimming", "method_options": {}}, "needs method_options drop_share"),
        (
            {"method": "trimming", "method_options": {"drop_share": 1.0}},
            "drop_share is 1.0; it must be at least 0",
        ),
        ({"method": "ce", "method_options": {"q": 1}}, "'ce' has no option q; it has none"),
        ({"method": "qam_ocm", "method_options": {}}, "need method_options 'quality'"),
        (
            {"method": "qam_ocm", "method_options": {"quality": QUALITY, "objective": "x"}},
            "objective 'x'; choose",
        ),
        ({"method": "qam_ocm", "method_options": {"quality": QUALITY, "decay_from": 0}}, "decay_from is 0"),
        ({"method": "qam_ocm", "method_options": {"quality": QUALITY, "anchors": ["a"]}}, "one anchor; give"),
        ({"method": "ce", "warmup": 1.5}, "warmup is 1.5"),
        ({"method": "ce", "empty_channels": "drop"}, "choose one of keep, unknown"),
        ({"method": "ce", "loss_function": torch.nn.BCEWithLogitsLoss()}, "must be a PerSampleLoss"),
        (
            {"method": "gce", "loss_function": BCEPerSample()},
            r"method 'gce' is nothing but a loss, and this training names its own \(BCEPerSample\)",
        ),
        ({"method": "ce", "accumulation_steps": 2}, "the pool 'two_pass' for large batches"),
    ],
)
def test_settings_that_cannot_be_meant_end_in_one_line(settings, message):
    with pytest.raises(InputError, match=message):
        make_trainer(**settings)


def test_an_unknown_pool_lists_the_pools():
    with pytest.raises(InputError, match="unknown pool 'pond'; choose one of batch, two_pass, queue, gather"):
        make_trainer("qam_ocm", method_options={**method_options("qam_ocm"), "pool": "pond"})


def test_a_label_of_another_size_than_the_image_is_named():
    data = [{**sample, "label": sample["label"][:, :8]} for sample in samples()]
    with pytest.raises(
        InputError, match=r"logits of shape \(4, 2, 16, 16\) and a label of shape \(4, 2, 8, 16\)"
    ):
        run(make_trainer("ce", data=data))
