"""The curve of a training outlives it, and a resumed training goes on with it."""

from __future__ import annotations

from ignite.engine import Engine

from medseg.training import MetricCurve, read_curve


def validated(file, epoch, **metrics):
    """An evaluator as MONAI's ValidationHandler runs it after an epoch of the trainer."""
    evaluator = Engine(lambda engine, batch: engine.state.metrics.update(metrics))
    MetricCurve(file, "val_dice").attach(evaluator)
    evaluator.state.epoch = epoch - 1
    evaluator.run([0], max_epochs=epoch)


def test_each_validation_adds_its_epoch_and_one_that_is_repeated_counts_once(tmp_path):
    file = tmp_path / "curve.csv"
    assert read_curve(file) == []
    for epoch, dice in ((1, 0.25), (2, 0.5), (2, 0.75)):
        validated(file, epoch, val_dice=dice)
    validated(file, 3, another=1.0)
    assert read_curve(file) == [(1, 0.25), (2, 0.75)]
