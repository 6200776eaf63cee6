"""Over which samples weights are compared: the batch, a large group in small pieces, a memory, or several
processes.

Every pool takes `rows`, a function that runs network and quality module on one slice of the batch and returns
its PoolTable and predictions, and does the backward pass itself. Pools are classes because one of them has a
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
import torch.distributed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medseg.errors import InputError
from medseg.training.noisy.weights import PoolTable, stack_tables, weighted_objective

Rows = Callable[[slice], tuple[PoolTable, torch.Tensor]]


@dataclass(frozen=True)
class PoolStep:
    """What one step leaves for the log: loss (), weights (N, S) and table of this process's samples,
    predictions."""

    loss: torch.Tensor
    weights: torch.Tensor
    table: PoolTable
    prediction: torch.Tensor


class BatchPool:
    """The paper's: softmax over the mini-batch, one backward pass for both networks."""

    def backward(self, rows: Rows, count: int, strength: float | None, networks: list[nn.Module]) -> PoolStep:
        table, prediction = rows(slice(0, count))
        loss, weights = weighted_objective(table, strength)
        loss.backward()
        return PoolStep(loss.detach(), weights, table.detach(), prediction.detach())

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        del state  # only QueuePool remembers anything between steps


class TwoPassPool(BatchPool):
    """The exact gradient of one large batch, with the memory of `micro_batch` samples.

    Pass 1 runs the whole batch without gradient, micro-batch by micro-batch, and takes the derivative of the
    weighted loss with respect to every sample's loss and score. Pass 2 runs each micro-batch again and
    back-propagates losses and scores times these numbers. Both passes draw the same random numbers (dropout),
    and batch norm updates its running statistics in pass 2 only. Equal to BatchPool up to rounding, on one
    condition: networks do not mix samples. Batch norm does; it then normalises over the micro-batch, as any
    accumulation of gradients would make it. Costs one forward pass more.
    """

    def __init__(self, micro_batch: int = 1) -> None:
        if micro_batch < 1:
            raise InputError(f"pool 'two_pass' got micro_batch={micro_batch}; it needs at least 1 sample.")
        self.micro_batch = micro_batch

    def backward(self, rows: Rows, count: int, strength: float | None, networks: list[nn.Module]) -> PoolStep:
        pieces = [slice(i, min(i + self.micro_batch, count)) for i in range(0, count, self.micro_batch)]
        states, tables = [], []
        with torch.no_grad(), running_statistics_kept(networks):
            for piece in pieces:
                states.append(_random_state())
                tables.append(rows(piece)[0])
        table = stack_tables(tables).detach()
        leaves = table.losses.clone().requires_grad_(), table.scores.clone().requires_grad_()
        with torch.enable_grad():
            loss, weights = weighted_objective(replace(table, losses=leaves[0], scores=leaves[1]), strength)
            of_losses, of_scores = torch.autograd.grad(loss, leaves)
        predictions = []
        for piece, state in zip(pieces, states, strict=True):
            _restore_random_state(state)
            piece_table, prediction = rows(piece)
            surrogate = (of_losses[piece] * piece_table.losses).sum() + (
                of_scores[piece] * piece_table.scores
            ).sum()
            surrogate.backward()
            predictions.append(prediction.detach())
        return PoolStep(loss.detach(), weights, table, torch.cat(predictions))


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

    def backward(self, rows: Rows, count: int, strength: float | None, networks: list[nn.Module]) -> PoolStep:
        table, prediction = rows(slice(0, count))
        remembered = [old.rows(~torch.isin(old.case, table.case)) for old in self.tables[-self.max_age :]]
        pool = stack_tables([table, *remembered])
        pool = pool.rows(slice(0, count + self.length))
        loss, weights = weighted_objective(pool, strength)
        scale = len(torch.unique(pool.case)) / len(torch.unique(table.case))
        (loss * scale).backward()
        # Newest first, so that what falls off the end of the pool is the oldest.
        self.tables = [table.detach(), *self.tables][: self.max_age]
        own = (weights[:count] * table.losses.detach()).sum() / weights.shape[1] * scale
        return PoolStep(own, weights[:count] * scale, table.detach(), prediction.detach())

    def state_dict(self) -> dict:
        return {"tables": [{f.name: getattr(table, f.name) for f in fields(table)} for table in self.tables]}

    def load_state_dict(self, state: dict) -> None:
        self.tables = [PoolTable(**table) for table in state["tables"]]


class GatherPool(BatchPool):
    """The batches of all processes as one pool; needs batches of equal size (a sampler with even_divisible).

    Every process computes the same weighted loss from the gathered numbers, in which only its own rows carry
    gradient; it is multiplied by the number of processes because DistributedDataParallel averages gradients
    over them. Network and quality module must both be wrapped. Without an initialised process group it is the
    batch pool.
    """

    def backward(self, rows: Rows, count: int, strength: float | None, networks: list[nn.Module]) -> PoolStep:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return super().backward(rows, count, strength, networks)
        table, prediction = rows(slice(0, count))
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        tables = [PoolTable(**columns) for columns in _gathered_columns(table.detach(), world)]
        tables[rank] = table
        loss, weights = weighted_objective(stack_tables(tables), strength)
        (loss * world).backward()
        return PoolStep(
            loss.detach(), weights[rank * count : (rank + 1) * count], table.detach(), prediction.detach()
        )


POOLS: dict[str, type[BatchPool]] = {
    "batch": BatchPool,
    "two_pass": TwoPassPool,
    "queue": QueuePool,
    "gather": GatherPool,
}


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
