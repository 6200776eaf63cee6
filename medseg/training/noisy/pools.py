"""Over which samples weights are compared: the batch, a large group in small pieces, a memory, or several
processes.

Every pool takes `rows`, a function that runs network and quality module on one slice of the batch and returns
its PoolTable and predictions, and an Objective, and does the backward pass itself. Scores are made by the
objective from the features of the whole pool at once, so that features can be standardised over it. Pools are
classes because one of them has a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.errors import InputError
from medseg.training.noisy.weights import Judged, Objective, PoolTable, stack_tables

Rows = Callable[[slice], tuple[PoolTable, torch.Tensor]]


@dataclass(frozen=True)
class PoolStep:
    """What one step leaves for the log: loss (), weights and scores (N, S), table and predictions of this
    process's samples."""

    loss: torch.Tensor
    weights: torch.Tensor
    scores: torch.Tensor
    table: PoolTable
    prediction: torch.Tensor


class BatchPool:
    """The paper's: softmax over the mini-batch, one backward pass for both networks."""

    def backward(self, rows: Rows, count: int, objective: Objective, networks: list[nn.Module]) -> PoolStep:
        table, prediction = rows(slice(0, count))
        judged = objective(table)
        judged.loss.backward()
        return PoolStep(
            judged.loss.detach(), judged.weights, judged.scores, table.detach(), prediction.detach()
        )

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        del state  # only QueuePool remembers anything between steps


class TwoPassPool(BatchPool):
    """The exact gradient of one large batch, with the memory of `micro_batch` samples.

    Pass 1 runs the whole batch without gradient, micro-batch by micro-batch, and takes the derivative of the
    objective with respect to every sample's loss and features. Pass 2 runs each micro-batch again and
    back-propagates losses and features times these numbers. Both passes draw the same random numbers
    (dropout), and batch norm updates its running statistics in pass 2 only. Equal to BatchPool up to
    rounding, on one condition: networks do not mix samples. Batch norm does; it then normalises over the
    micro-batch, as any accumulation of gradients would make it. Costs one forward pass more.
    """

    def __init__(self, micro_batch: int = 1) -> None:
        if micro_batch < 1:
            raise InputError(f"pool 'two_pass' got micro_batch={micro_batch}; it needs at least 1 sample.")
        self.micro_batch = micro_batch

    def backward(self, rows: Rows, count: int, objective: Objective, networks: list[nn.Module]) -> PoolStep:
        pieces = [slice(i, min(i + self.micro_batch, count)) for i in range(0, count, self.micro_batch)]
        states, tables = [], []
        with torch.no_grad(), running_statistics_kept(networks):
            for piece in pieces:
                states.append(_random_state())
                tables.append(rows(piece)[0])
        table = stack_tables(tables).detach()
        judged, (of_losses, of_features, *of_head) = _derivatives(table, objective)
        for parameter, gradient in zip(objective.head, of_head, strict=True):
            (parameter * gradient).sum().backward()
        predictions = []
        for piece, state in zip(pieces, states, strict=True):
            _restore_random_state(state)
            own, prediction = rows(piece)
            _surrogate(own, of_losses[piece], of_features[piece]).backward()
            predictions.append(prediction.detach())
        return PoolStep(judged.loss.detach(), judged.weights, judged.scores, table, torch.cat(predictions))


class QueuePool(BatchPool):
    """The batch compared with the last `length` samples of earlier steps; for batches of 1 or 2.

    The objective runs over batch *and* queue: over the batch alone, every score would be pushed down.
    Remembered losses grow stale as the network learns, so pairs older than `max_age` steps are dropped, as
    are those of a case that is in the batch. Scaled so that equal scores give the plain mean over the batch.
    """

    def __init__(self, length: int = 32, max_age: int = 100) -> None:
        if length < 1 or max_age < 1:
            raise InputError(f"pool 'queue' got length={length}, max_age={max_age}; both must be at least 1.")
        self.length, self.max_age = length, max_age
        self.tables: list[PoolTable] = []

    def backward(self, rows: Rows, count: int, objective: Objective, networks: list[nn.Module]) -> PoolStep:
        table, prediction = rows(slice(0, count))
        remembered = [old.rows(~torch.isin(old.case, table.case)) for old in self.tables[-self.max_age :]]
        pool = stack_tables([table, *remembered])
        pool = pool.rows(slice(0, count + self.length))
        judged = objective(pool)
        scale = len(torch.unique(pool.case)) / len(torch.unique(table.case))
        (judged.loss * scale).backward()
        # Newest first, so that what falls off the end of the pool is the oldest.
        self.tables = [table.detach(), *self.tables][: self.max_age]
        own = judged.weights[:count] * scale
        loss = (own * table.losses.detach()).sum() / own.shape[1]
        return PoolStep(loss, own, judged.scores[:count], table.detach(), prediction.detach())

    def state_dict(self) -> dict:
        return {"tables": [{f.name: getattr(table, f.name) for f in fields(table)} for table in self.tables]}

    def load_state_dict(self, state: dict) -> None:
        self.tables = [PoolTable(**table) for table in state["tables"]]


class GatherPool(BatchPool):
    """The batches of all processes as one pool; needs batches of equal size (a sampler with even_divisible).

    Every process takes the derivatives of the same objective from the gathered numbers and back-propagates
    those of its own rows, multiplied by the number of processes because DistributedDataParallel averages
    gradients over them. Network and quality module must both be wrapped. Without an initialised process group
    it is the batch pool.
    """

    def backward(self, rows: Rows, count: int, objective: Objective, networks: list[nn.Module]) -> PoolStep:
        if process_count() == 1:
            return super().backward(rows, count, objective, networks)
        table, prediction = rows(slice(0, count))
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        own = slice(rank * count, (rank + 1) * count)
        pool = stack_tables([PoolTable(**columns) for columns in _gathered_columns(table.detach(), world)])
        judged, (of_losses, of_features, *of_head) = _derivatives(pool, objective)
        surrogate = world * _surrogate(table, of_losses[own], of_features[own])
        # Every process has the whole gradient of the score's own parameters: their average is the same.
        surrogate = surrogate + sum((p * g).sum() for p, g in zip(objective.head, of_head, strict=True))
        surrogate.backward()
        return PoolStep(
            judged.loss.detach(), judged.weights[own], judged.scores[own], table.detach(), prediction.detach()
        )


POOLS: dict[str, type[BatchPool]] = {
    "batch": BatchPool,
    "two_pass": TwoPassPool,
    "queue": QueuePool,
    "gather": GatherPool,
}


def of_all_processes(columns: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each of these tensors of rows with the rows of every process, so that all decide alike; on the
    processor. Without a process group they are returned as they are."""
    if process_count() == 1:
        return list(columns)
    found: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, [column.cpu() for column in columns])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def process_count() -> int:
    """How many processes train together; 1 without a process group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def _derivatives(table: PoolTable, objective: Objective) -> tuple[Judged, tuple[torch.Tensor, ...]]:
    """The objective of a detached table, and its derivatives: by losses (N, S), features (N, F) and each
    parameter of `objective.head`; 0 where it does not depend on them."""
    losses, features = table.losses.clone().requires_grad_(), table.features.clone().requires_grad_()
    judged = objective(replace(table, losses=losses, features=features))
    leaves = (losses, features, *objective.head)
    found = torch.autograd.grad(judged.loss, leaves, allow_unused=True, materialize_grads=True)
    return judged, found


def _surrogate(table: PoolTable, of_losses: torch.Tensor, of_features: torch.Tensor) -> torch.Tensor:
    """A number whose gradient is the objective's, for the rows of `table`."""
    return (of_losses * table.losses).sum() + (of_features * table.features).sum()


@contextmanager
def running_statistics_kept(networks: list[nn.Module]):
    """Batch norm in training mode normalises as usual but leaves its running mean, variance and counter
    alone."""
    norms = [
        m
        for network in networks
        for m in network.modules()
        if isinstance(m, _BatchNorm) and m.track_running_stats
    ]
    kept = [(norm, [buffer.clone() for buffer in norm.buffers()]) for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in kept:
            for buffer, value in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(value)


def _random_state() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _restore_random_state(state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


def _gathered_columns(table: PoolTable, world: int) -> list[dict[str, torch.Tensor]]:
    columns: list[dict[str, torch.Tensor]] = [{} for _ in range(world)]
    for field in fields(table):
        own = getattr(table, field.name).contiguous()
        # gloo does not gather booleans
        sent = own.to(torch.uint8) if own.dtype == torch.bool else own
        received = [torch.empty_like(sent) for _ in range(world)]
        torch.distributed.all_gather(received, sent)
        for process, values in enumerate(received):
            columns[process][field.name] = values.to(own.dtype)
    return columns
