"""Quality weights find right labels among eroded and dilated ones, and do no harm."""

import dataclasses
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet

from medseg.errors import InputError
from medseg.losses.per_sample import BCEPerSample, DiceBCEPerSample
from medseg.networks.quality import QualityModule
from medseg.phantoms.chest_film import make_radiograph
from medseg.training.noisy.learners import Batch, Parts
from medseg.training.noisy.noise import Corruption, apply
from medseg.training.noisy.quality_weights import QualityWeights, case_number
from medseg.training.noisy.trainer import NoisyLabelTrainer
from medseg.training.noisy.watch import rank_correlation

KINDS = ("clean", "dilate", "erode", "dilate", "clean", "erode", "dilate", "erode")
"""By the number of the patient, over and over: a quarter right, as many labels larger as smaller ones."""


def phantoms(count: int, kinds=KINDS, side: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, labels of which some are wrong, and which are right."""
    films = [make_radiograph(number, side) for number in range(count)]
    sizes = {"clean": {}, "dilate": {"size": 2.6}, "erode": {"size": 2.6}}
    labels = [
        apply(Corruption(kinds[n % len(kinds)], sizes[kinds[n % len(kinds)]]), film.masks, (1, 1))
        for n, film in enumerate(films)
    ]
    images = np.stack([film.image[None] for film in films])
    right = torch.tensor([kinds[n % len(kinds)] == "clean" for n in range(count)])
    return torch.from_numpy(images), torch.from_numpy(np.stack(labels)).float(), right


def learner_of(standardise: bool, losses: torch.Tensor, **options) -> QualityWeights:
    """A learner whose segmenter says nothing, so that each case has the loss that it is given."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 1)
    quality = QualityModule(2, 4, backbone=((8,), (16,), (32,), (32,)), standardise=standardise)
    parts = Parts(network, torch.optim.SGD(network.parameters(), 0.0), SimpleInferer(), BCEPerSample())
    learner = QualityWeights(parts, quality, **{"listen": 0.0, "decay_from": 1.0, **options})
    table = learner._table

    def given(batch: Batch, piece: slice):
        made, prediction = table(batch, piece)
        chosen = losses[batch.cases[piece]][:, None]
        return dataclasses.replace(made, losses=made.losses * 0 + chosen, score_losses=chosen), prediction

    learner._table = given
    return learner


def taught(learner: QualityWeights, images, labels, steps: int) -> torch.Tensor:
    """Scores of all cases after so many steps of 16 of them, in evaluation."""
    for step in range(steps):
        index = torch.randperm(len(images))[:16]
        seen = torch.cat([images[index], labels[index]], 1)
        batch = Batch(
            images[index], labels[index], seen, index, 1, progress=(step + 1) / steps, warming_up=True
        )
        learner.optimizers["quality"].zero_grad()
        learner.backward(batch)
        learner.optimizers["quality"].step()
        if step % 3 == 2:
            learner.epoch_completed()
    with torch.no_grad():
        return learner.quality.eval()(torch.cat([images, labels], 1))[:, 0]


def share_above(scores: torch.Tensor, right: torch.Tensor) -> float:
    """AUROC: how often a right label scores above a wrong one."""
    return float((scores[right][:, None] > scores[~right]).double().mean())


LOSSES = {"clean": 0.05, "dilate": 0.15, "erode": 0.15}


def losses_by_kind(means: dict[str, float]) -> torch.Tensor:
    """Of 48 cases, spread by a fifth around the mean of their kind."""
    spread = torch.exp(0.2 * torch.randn(48, generator=torch.Generator().manual_seed(0)))
    return torch.tensor([means[KINDS[n % len(KINDS)]] for n in range(48)]) * spread


@pytest.mark.parametrize("objective", ["weighted", "regress"])
def test_right_labels_score_highest_where_larger_and_smaller_ones_have_the_larger_losses(objective):
    """The losses do not rise or fall with the area of the label, so the area is no answer."""
    images, labels, right = phantoms(48)
    losses, areas = losses_by_kind(LOSSES), labels.flatten(1).mean(1)
    assert abs(rank_correlation(areas, losses)) < 0.5
    scores = taught(learner_of(True, losses, objective=objective), images, labels, 60)
    assert share_above(scores, right) > 0.95
    assert abs(rank_correlation(scores, areas)) < 0.5


def test_raw_features_follow_the_area_where_larger_labels_cost_most_and_standardised_ones_do_not():
    """The collapse of the published form: eroded labels, wrong too, are taken for the best."""
    images, labels, right = phantoms(48)
    losses, areas = losses_by_kind({**LOSSES, "dilate": 0.2, "erode": 0.1}), labels.flatten(1).mean(1)
    smaller = torch.tensor([KINDS[n % len(KINDS)] != "dilate" for n in range(48)])
    repaired = taught(learner_of(True, losses), images, labels, 30)
    assert share_above(repaired, right) > 0.95
    raw = taught(learner_of(False, losses), images, labels, 30)
    assert share_above(raw[smaller], right[smaller]) < 0.2
    assert rank_correlation(raw, areas) < -0.9


def deaf_learner(**options) -> tuple[QualityWeights, Callable[[float, bool], torch.Tensor]]:
    """A learner whose scores are random numbers and stay so; and a function that lets an epoch of one step
    pass and gives its weights."""
    images, labels, _ = phantoms(16)
    learner = learner_of(True, torch.rand(16, generator=torch.manual_seed(3)), **options)
    learner.rates = [0.0]
    torch.nn.init.normal_(learner.quality.head.weight)
    pairs = torch.cat([images, labels], 1)

    def epoch(progress: float, warming_up: bool) -> torch.Tensor:
        batch = Batch(images, labels, pairs, torch.arange(16), 1, progress, warming_up)
        weights = learner.backward(batch).weights
        learner.epoch_completed()
        return weights

    return learner, epoch


@pytest.fixture
def heard(caplog, monkeypatch):
    """What the learners log; a tracking run in the same process switches off every logger that there is."""
    monkeypatch.setattr(logging.getLogger("medseg.training.noisy.quality_weights"), "disabled", False)
    return caplog


@pytest.mark.parametrize("listened_before", [False, True])
def test_a_module_that_learned_nothing_weighs_nothing_and_says_so_once(heard, listened_before):
    """Also where that was seen while labels still counted alike, and nothing was said."""
    learner, epoch = deaf_learner()
    if listened_before:
        epoch(0.2, True)
        assert learner.trusted.tolist() == [False] and not heard.text
    for progress in (0.5, 0.6):
        weights = epoch(progress, False)
    # The first of these epochs is the one in which nothing is known yet, the second the one that is told.
    assert weights.tolist() == pytest.approx([1 / 16] * 16)
    assert learner.trusted.tolist() == [False]
    assert heard.text.count("are not used: their rank correlation with the losses is") == 1


def test_without_the_fallback_scores_are_used_whatever_they_say_and_nobody_says_otherwise(heard):
    _, epoch = deaf_learner(fallback=False)
    assert epoch(0.5, False).std() > 0.01 and epoch(0.6, False).std() > 0.01
    assert "not used" not in heard.text


def test_the_module_has_a_learning_rate_of_its_own_that_falls_to_zero():
    images, labels, _ = phantoms(4)
    learner = learner_of(True, torch.rand(4), decay_from=0.5)
    rates = []
    for progress in (0.25, 0.5, 0.75, 1.0):
        pairs = torch.cat([images, labels], 1)
        learner.backward(Batch(images, labels, pairs, torch.arange(4), 1, progress, warming_up=True))
        rates.append(learner.optimizers["quality"].param_groups[0]["lr"])
    assert rates == pytest.approx([3e-3, 3e-3, 1.5e-3, 0])


def test_before_it_listens_the_module_learns_nothing():
    images, labels, _ = phantoms(4)
    learner = learner_of(True, torch.rand(4), listen=0.5)
    pairs = torch.cat([images, labels], 1)
    for progress, moved in ((0.5, False), (0.6, True)):
        learner.optimizers["quality"].zero_grad()
        learner.backward(Batch(images, labels, pairs, torch.arange(4), 1, progress, warming_up=True))
        gradient = learner.quality.head.weight.grad
        assert (gradient is not None and bool(gradient.any())) == moved


def test_cross_entropy_judges_whatever_the_segmenter_learns_from():
    images, labels, _ = phantoms(4)
    network = torch.nn.Conv2d(1, 3, 1)
    parts = Parts(network, torch.optim.SGD(network.parameters(), 0.0), SimpleInferer(), DiceBCEPerSample())
    learner = QualityWeights(parts, QualityModule(2, 4))
    batch = Batch(images, labels, torch.cat([images, labels], 1), torch.arange(4), 1, 1.0, warming_up=True)
    outcome = learner.backward(batch)
    expected = BCEPerSample()(outcome.prediction, labels)
    torch.testing.assert_close(outcome.judged, expected)
    assert (outcome.losses > outcome.judged + 0.1).all()


def test_where_most_labels_are_too_large_a_few_that_are_known_right_turn_the_scores():
    """Three quarters dilated, and the losses on their side, as after training on them."""
    images, labels, right = phantoms(48, kinds=("clean", "dilate", "dilate", "dilate"))
    losses = torch.where(right, 0.15, 0.05)
    misled = taught(learner_of(True, losses), images, labels, 60)
    anchors = [n for n in range(48) if right[n]][:4]
    learner = learner_of(True, losses, anchors=[str(n) for n in anchors])
    # Cases are numbers here; by name they are the checksums of these.
    learner.anchors = torch.tensor(anchors)
    helped = taught(learner, images, labels, 60)
    others = torch.ones(48, dtype=torch.bool)
    others[anchors] = False
    assert share_above(misled, right) < 0.2
    assert share_above(helped[others], right[others]) > 0.9
    assert learner.direction.tolist() == [-1.0] and learner.trusted.tolist() == [True]
    assert case_number("p7") == case_number("p7") != case_number("p8")


def epoch_of(names: list[str], anchors: list[str] | str) -> None:
    """One epoch of one step of these cases, with these anchors."""
    images, labels, _ = phantoms(len(names))
    network = torch.nn.Conv2d(1, 3, 1)
    parts = Parts(network, torch.optim.SGD(network.parameters(), 0.0), SimpleInferer(), BCEPerSample())
    learner = QualityWeights(parts, QualityModule(2, 4), anchors=anchors)
    cases = torch.tensor([case_number(name) for name in names])
    learner.backward(Batch(images, labels, torch.cat([images, labels], 1), cases, 1, 0.1, warming_up=True))
    learner.epoch_completed()


def test_anchors_that_are_no_cases_are_named(heard):
    names = ["p0", "p1", "p2", "p3"]
    with pytest.raises(InputError, match=r"no anchor came up in the first epoch; .* got p7, p8\."):
        epoch_of(names, ["p8", "p7"])
    epoch_of(names, ["p0", "p1", "p9"])
    assert "did not come up in the first epoch: p9." in heard.text
    heard.clear()
    epoch_of(names, ["p0", "p1"])
    assert not heard.text


def test_anchors_are_a_list_of_two_or_more():
    with pytest.raises(InputError, match="one anchor; give at least two"):
        epoch_of(["p0"], ["p0", "p0"])
    with pytest.raises(InputError, match="anchors is 'p0'; give a list of case names"):
        epoch_of(["p0"], "p0")


def trained_dice(method: str, images, labels, options: dict) -> float:
    """Mean Dice on twelve other patients after 144 steps of sixteen images; about ten seconds."""
    torch.manual_seed(0)
    network = UNet(2, 1, 3, (8, 16, 32, 32), (2, 2, 2), num_res_units=1, norm="batch")
    optimizer = torch.optim.AdamW(network.parameters(), 2e-2)
    data = [
        {"image": image, "label": label, "case_id": str(n)}
        for n, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    trainer = NoisyLabelTrainer(
        device=torch.device("cpu"),
        max_epochs=36,
        train_data_loader=DataLoader(data, batch_size=16, shuffle=True),
        network=network,
        optimizer=optimizer,
        decollate=False,
        method=method,
        method_options=options,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=144, pct_start=0.15)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: schedule.step())
    trainer.run()
    films = [make_radiograph(1000 + n, 64) for n in range(12)]
    truth = torch.from_numpy(np.stack([film.masks for film in films]))
    with torch.no_grad():
        found = network.eval()(torch.from_numpy(np.stack([film.image[None] for film in films]))) > 0
    both = (found & truth).sum((2, 3)).double()
    return float((2 * both / (found.sum((2, 3)) + truth.sum((2, 3))).clamp(min=1)).mean())


def test_end_to_end_quality_weights_beat_the_plain_loss_at_three_quarters_wrong():
    images, labels, _ = phantoms(64)
    quality = QualityModule(2, 4, backbone=((8,), (16,), (32,), (32,)))
    plain = trained_dice("dice_ce", images, labels, {})
    weighted = trained_dice("qam_ocm", images, labels, {"quality": quality})
    assert weighted > plain + 0.05


def test_a_quality_module_is_needed():
    network = torch.nn.Conv2d(1, 3, 1)
    parts = Parts(network, torch.optim.SGD(network.parameters(), 0.0), SimpleInferer(), BCEPerSample())
    with pytest.raises(InputError, match="need method_options 'quality'"):
        QualityWeights(parts)
    with pytest.raises(InputError, match="'quality' is 3; it must be a QualityModule"):
        QualityWeights(parts, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"listen": "late"}, "listen is late; it must be at least 0 and below 1"),
        ({"judge": torch.nn.BCEWithLogitsLoss()}, r"judge is BCEWithLogitsLoss\(\); it must be"),
    ],
)
def test_options_that_cannot_be_meant_are_named(options, message):
    with pytest.raises(InputError, match=message):
        learner_of(True, torch.rand(4), **options)
