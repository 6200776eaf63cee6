"""What a person at the terminal sees of a training between two epochs, and when it will be through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ignite.engine import Engine, Events

_logger = logging.getLogger(__name__)


class ProgressLog:
    """A trainer handler that logs where a training is: within an epoch at most every ``every_s`` seconds, and
    after each epoch how long all of them will take.

    Lines, not a bar, so that a log file holds them too. ``clock`` gives seconds.
    """

    def __init__(self, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic):
        self.every_s = every_s
        self.clock = clock
        self.started_s = self.said_s = 0.0
        self.first_epoch = 0

    def attach(self, engine: Engine) -> None:
        """MONAI's call to every handler of a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._within_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)

    def _start(self, engine: Engine) -> None:
        self.started_s = self.said_s = self.clock()
        self.first_epoch = engine.state.epoch  # what a resumed training had done before

    def _within_epoch(self, engine: Engine) -> None:
        state = engine.state
        batch = state.iteration - (state.epoch - 1) * state.epoch_length
        if batch == state.epoch_length or self.clock() - self.said_s < self.every_s:
            return
        self._say(f"epoch {state.epoch} of {state.max_epochs}: batch {batch} of {state.epoch_length}")

    def _after_epoch(self, engine: Engine) -> None:
        state = engine.state
        per_epoch_s = (self.clock() - self.started_s) / (state.epoch - self.first_epoch)
        left_s = (state.max_epochs - state.epoch) * per_epoch_s
        self._say(
            f"epoch {state.epoch} of {state.max_epochs} done: {duration(per_epoch_s)} each, "
            f"{duration(left_s)} to go"
        )

    def _say(self, words: str) -> None:
        self.said_s = self.clock()
        _logger.info(words)


def duration(seconds: float) -> str:
    """For people: "8 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
