"""A running mean of a network's weights, which answers better than the weights of the last step."""

from __future__ import annotations

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn


class RunningMean(EMAHandler):
    """ignite's EMAHandler: after every step ``ema_model`` goes by a share towards ``model``.

    The share is ``momentum``, and more in the first steps, 9 / (10 + step), so that a short training is not
    judged by its start. ignite's own warm-up counts from where a training was resumed; this one goes by the
    step's number, so a resumed training equals an uninterrupted one. Source of the shares: the moving
    average of TensorFlow, min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, model: nn.Module, momentum: float = 0.002) -> None:
        super().__init__(model, momentum=momentum)

    def attach(self, engine: Engine) -> None:  # type: ignore[override]
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._follow)

    def _follow(self, engine: Engine) -> None:
        engine.state.ema_momentum = max(self.momentum, 9 / (10 + engine.state.iteration))
        self._update_ema_model(engine, "ema_momentum")
