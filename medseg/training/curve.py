"""How good a training was after each validation, as a file that outlives it."""

from __future__ import annotations

import csv
from pathlib import Path

from ignite.engine import Engine, Events


class MetricCurve:
    """An evaluator handler that adds a row "epoch,value" to ``file`` after each validation of a training.

    ``metric``: a name among the evaluator's metrics. A resumed training goes on with the file.
    """

    def __init__(self, file: str | Path, metric: str):
        self.file, self.metric = Path(file), metric

    def attach(self, engine: Engine) -> None:
        """MONAI's call to every handler of an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self._add)

    def _add(self, engine: Engine) -> None:
        value = engine.state.metrics.get(self.metric)
        if value is not None:
            with open(self.file, "a", newline="") as stream:
                csv.writer(stream).writerow((engine.state.epoch, round(float(value), 4)))


def read_curve(file: str | Path) -> list[tuple[int, float]]:
    """[(epoch, value)] of a file by MetricCurve, the last of each epoch; [] where there is none."""
    if not Path(file).exists():
        return []
    with open(file, newline="") as stream:
        rows = [row for row in csv.reader(stream) if len(row) == 2]
    return sorted({int(epoch): float(value) for epoch, value in rows}.items())
