"""The watch warns of constant and black answers, and average precision is scikit-learn's."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from sklearn.metrics import average_precision_score

from medseg.errors import InputError
from medseg.training import ForegroundWatch, PixelAveragePrecision


def label(lesion: bool = True) -> torch.Tensor:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:4, 2:4] = float(lesion)
    return truth


def watched(answer: torch.Tensor, caplog) -> tuple[str, dict]:
    """What is logged, and the metrics, after a validation in which the network gives ``answer``."""
    evaluator = Engine(lambda engine, batch: [{"pred": answer[0], "label": batch["label"][0]}])
    evaluator.data_loader = [{"label": label()}]
    trainer = Engine(lambda engine, batch: evaluator.run(evaluator.data_loader))
    ForegroundWatch(evaluator).attach(trainer)
    with caplog.at_level(logging.WARNING, logger="medseg.training.foreground"):
        trainer.run([0])
    return caplog.text, evaluator.state.metrics


def test_a_constant_answer_is_warned_about(caplog):
    text, metrics = watched(torch.full((1, 1, 8, 8), 0.3), caplog)
    assert "every pixel of an image the same probability" in text
    assert metrics["predicted_share"] == 0 and metrics["true_share"] == 4 / 64


def test_black_masks_are_warned_about_and_so_are_full_ones(caplog):
    text, _ = watched(0.3 * label() + 0.1, caplog)
    assert "no pixel reaches a probability of 0.5" in text and "6.2 % of the pixels" in text
    caplog.clear()
    text, metrics = watched(0.9 - 0.1 * label(), caplog)
    assert "100 % of all pixels are taken for lesions" in text and metrics["predicted_share"] == 1


def test_a_sound_answer_is_left_in_peace(caplog):
    text, metrics = watched(0.8 * label() + 0.1, caplog)
    assert text == "" and metrics["predicted_share"] == metrics["true_share"] == 4 / 64


def test_a_validation_set_without_a_lesion_is_an_error_before_the_first_step():
    evaluator = Engine(lambda engine, batch: [])
    evaluator.data_loader = [{"label": label(False)}, {"label": torch.full((1, 1, 8, 8), torch.nan)}]
    steps = []
    trainer = Engine(lambda engine, batch: steps.append(batch))
    ForegroundWatch(evaluator).attach(trainer)
    with pytest.raises(InputError, match="no label of the validation set has a lesion"):
        trainer.run([0])
    assert not steps


def test_average_precision_is_scikit_learns_ties_and_all():
    torch.manual_seed(0)
    scores = (torch.rand(3, 1, 20, 20) * 10).round() / 10
    truth = (torch.rand(3, 1, 20, 20) < 0.2 + 0.5 * (scores > 0.7)).float()
    truth[2] = 0
    metric = PixelAveragePrecision()
    metric(scores, truth)
    theirs = [average_precision_score(truth[n].numpy().ravel(), scores[n].numpy().ravel()) for n in range(2)]
    assert metric.get_buffer()[:2, 0].tolist() == pytest.approx(theirs)
    assert torch.isnan(metric.get_buffer()[2, 0]) and metric.aggregate() == pytest.approx(np.mean(theirs))


def test_average_precision_of_nothing_known_is_nan():
    metric = PixelAveragePrecision()
    metric(torch.rand(1, 1, 4, 4), torch.full((1, 1, 4, 4), torch.nan))
    assert np.isnan(metric.aggregate())
    with pytest.raises(InputError, match="the prediction's shape"):
        metric(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 5))


def test_an_image_without_a_lesion_answers_in_the_same_numbers_as_one_with():
    # Of two processes that exchange float32 and float64 one dies.
    metric = PixelAveragePrecision()
    for truth in (label(), label(False)):
        metric(torch.rand(1, 1, 8, 8), truth)
    assert {part.dtype for part in metric._buffers[0]} == {torch.float64}
