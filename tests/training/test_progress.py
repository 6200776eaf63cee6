"""A training says where it is, not more often than asked, and when it will be through."""

from __future__ import annotations

import logging

import pytest
from ignite.engine import Engine

from medseg.training import ProgressLog
from medseg.training.progress import duration


def lines(caplog, seconds_per_batch, every_s, epochs=2, batches=5, done_before=0):
    """What is logged by a training of ``batches`` batches an epoch, each of so many seconds."""
    now = [100.0]

    def step(engine, batch):
        now[0] += seconds_per_batch

    engine = Engine(step)
    if done_before:
        engine.load_state_dict({"epoch": done_before, "max_epochs": epochs, "epoch_length": batches})
    ProgressLog(every_s, clock=lambda: now[0]).attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run(range(batches), max_epochs=epochs)
    return [record.getMessage() for record in caplog.records if record.name == "medseg.training.progress"]


def test_a_slow_epoch_speaks_between_its_ends(caplog):
    # 10 s a batch, a line every 20 s at most: after batches 2 and 4; 50 s an epoch, one more to go.
    assert lines(caplog, 10.0, every_s=20.0) == [
        "epoch 1 of 2: batch 2 of 5",
        "epoch 1 of 2: batch 4 of 5",
        "epoch 1 of 2 done: 50 s each, 50 s to go",
        "epoch 2 of 2: batch 2 of 5",
        "epoch 2 of 2: batch 4 of 5",
        "epoch 2 of 2 done: 50 s each, 0 s to go",
    ]


def test_a_quick_epoch_is_one_line(caplog):
    assert len(lines(caplog, 0.1, every_s=30.0, epochs=3)) == 3


def test_a_resumed_training_counts_only_its_own_epochs(caplog):
    said = lines(caplog, 60.0, every_s=1e9, epochs=4, done_before=2)
    assert said == ["epoch 3 of 4 done: 5 min each, 5 min to go", "epoch 4 of 4 done: 5 min each, 0 s to go"]


@pytest.mark.parametrize(("seconds", "words"), [(8.2, "8 s"), (720, "12 min"), (12600, "3.5 h")])
def test_durations_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words
