"""The running mean of the weights, against numbers computed by hand."""

import pytest
import torch
from ignite.engine import Engine, Events

from medseg.training import RunningMean


def run(steps: range, momentum: float) -> float:
    """The mean, 0 before `steps`, of a weight that is 1 after each of them."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    mean, engine = RunningMean(network, momentum), Engine(lambda engine, batch: None)
    torch.nn.init.ones_(network.weight)
    mean.attach(engine)
    for number in steps:
        engine.state.iteration = number
        engine.fire_event(Events.ITERATION_COMPLETED)
    return float(mean.ema_model.weight)


def test_the_first_steps_count_for_more():
    # 1 - (1 - 9/11) (1 - 9/12) (1 - 9/13)
    assert run(range(1, 4), momentum=0.002) == pytest.approx(1 - 2 / 11 * 3 / 12 * 4 / 13, abs=1e-6)


def test_later_ones_count_by_the_momentum():
    # From step 4490 on 9 / (10 + step) is below 0.002.
    assert run(range(5000, 5010), momentum=0.002) == pytest.approx(1 - 0.998**10, abs=1e-6)


def test_the_share_goes_by_the_number_of_the_step_where_a_training_was_resumed():
    expected = 1.0
    for step in range(11, 21):
        expected *= 1 - 9 / (10 + step)
    assert run(range(11, 21), momentum=0.002) == pytest.approx(1 - expected, abs=1e-5)


def test_another_share_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        RunningMean(torch.nn.Linear(1, 1), momentum=1.5)
