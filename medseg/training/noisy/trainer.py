"""A MONAI trainer that a bundle's train.json names, in which labels may be weighted, trimmed or corrected."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from medseg.errors import BundleError, InputError
from medseg.losses.per_sample import BCEPerSample, DiceBCEPerSample, PerSampleLoss
from medseg.losses.robust import GeneralisedCE, InverseFrequencyBCE, NoiseRobustDice, TLoss
from medseg.training.noisy.learners import (
    Batch,
    CoTeaching,
    EqualWeights,
    LossHistory,
    Outcome,
    Parts,
    Trimming,
    build,
)
from medseg.training.noisy.pools import process_count
from medseg.training.noisy.quality_weights import QualityWeights, case_number
from medseg.training.noisy.relabel import Adele, ConfidentLearning
from medseg.training.noisy.watch import PoolRecord, collapse_warning, diagnose

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """A name's meaning: the loss, the learner, the learner's settings and the warm-up, all of which a config
    may override."""

    loss: Callable[[], PerSampleLoss]
    learner: type[EqualWeights] = EqualWeights
    options: dict[str, Any] = field(default_factory=dict)
    warmup: float = 0.0


PUBLISHED = {"listen": 0.0, "decay_from": 1.0, "fallback": False}
"""The letter of the paper: one objective for both networks from the first step. Its quality module has
standardise=False."""

METHODS: dict[str, Method] = {
    "ce": Method(BCEPerSample),
    "weighted_ce": Method(InverseFrequencyBCE),
    "dice_ce": Method(DiceBCEPerSample),
    "gce": Method(GeneralisedCE),
    "nr_dice": Method(NoiseRobustDice),
    "t_loss": Method(TLoss),
    "trimming": Method(DiceBCEPerSample, Trimming, warmup=0.5),
    "loss_history": Method(DiceBCEPerSample, LossHistory, warmup=0.5),
    "co_teaching": Method(BCEPerSample, CoTeaching),
    "adele": Method(BCEPerSample, Adele),
    "confident_learning": Method(BCEPerSample, ConfidentLearning),
    "qam": Method(DiceBCEPerSample, QualityWeights, {"strength": None}, warmup=1 / 3),
    "qam_ocm": Method(DiceBCEPerSample, QualityWeights, {"strength": 2.0}, warmup=1 / 3),
    "qam_published": Method(BCEPerSample, QualityWeights, {**PUBLISHED, "strength": None}),
    "qam_ocm_published": Method(BCEPerSample, QualityWeights, {**PUBLISHED, "strength": 2.0}),
}

PLAIN = ("ce", "dice_ce")
"""Methods that beside a ``loss_function`` mean plain training with that loss."""

EMPTY_CHANNELS = ("keep", "unknown")


class NoisyLabelTrainer(SupervisedTrainer):
    """SupervisedTrainer with `method`, one of METHODS; with "ce" it is plain training in the same loop.

    `method_options`: settings of the method's learner (for example {"drop_share": 0.25}; for the QAM methods
    "quality" and, if wanted, its "optimizer"). `loss_function`: a PerSampleLoss instead of the method's own;
    methods that are nothing but another loss are refused beside it.
    `warmup`: share of all steps with equal weights, None for the method's own (0 = the paper of QAM).
    `empty_channels`: "keep" takes a label channel without foreground at its word; "unknown" takes it for not
    contoured, right where every image shows the structure and an empty label can only be an error.
    `case_key`: samples of a batch with the same entry are patches of one case, scored once. `noisy_key`: 1
    for samples whose label was corrupted on purpose, only for the log. `quality_keys`: what the quality
    module sees; for training on patches give it the whole case at low resolution ("case_image",
    "case_label").

    After every epoch engine.state.metrics holds the WeightDiagnostics of the epoch and the means of the parts
    of a loss that says them, where MONAI's
    StatsHandler and TensorBoardStatsHandler find them. engine.state.output holds "sample_loss" and
    "sample_weight" (N,) of the step. The events FORWARD, LOSS and BACKWARD_COMPLETED fire together after the
    gradients are made, since some methods run several networks, some twice. Mixed precision:
    medseg.training.checkpoints.AutocastInferer, not `amp`. medseg.training.checkpoints.Checkpoints stores and
    resumes the method's networks, optimizers and memory along with the network.
    """

    def __init__(
        self,
        *args: Any,
        method: str = "qam_ocm",
        method_options: dict[str, Any] | None = None,
        loss_function: PerSampleLoss | None = None,
        warmup: float | None = None,
        empty_channels: str = "keep",
        case_key: str = "case_id",
        noisy_key: str = "noisy",
        quality_keys: Sequence[str] = (Keys.IMAGE, Keys.LABEL),
        **kwargs: Any,
    ) -> None:
        chosen = build("method", method, METHODS)
        if loss_function is not None and chosen.learner is EqualWeights and method not in PLAIN:
            raise InputError(
                f"method '{method}' is nothing but a loss, and this training names its own "
                f"({type(loss_function).__name__}), which would be taken instead. Leave out one of the two; "
                f"a method beside a loss is {' or '.join(PLAIN)} (plain training) or one that weighs labels."
            )
        loss = loss_function if loss_function is not None else chosen.loss()
        if not isinstance(loss, PerSampleLoss):
            raise InputError(
                f"loss_function is {type(loss).__name__}; it must be a PerSampleLoss of medseg, (B,) values."
            )
        warmup = chosen.warmup if warmup is None else warmup
        if not 0 <= warmup < 1:
            raise InputError(f"warmup is {warmup}; it is a share of all steps, at least 0 and below 1.")
        if empty_channels not in EMPTY_CHANNELS:
            raise InputError(
                f"empty_channels is '{empty_channels}'; choose one of {', '.join(EMPTY_CHANNELS)}."
            )
        super().__init__(*args, loss_function=loss, **kwargs)
        if self.amp or self.compile or self.accumulation_steps != 1:
            raise InputError(
                "NoisyLabelTrainer takes no amp, compile or accumulation_steps; use "
                "medseg.training.checkpoints.AutocastInferer for mixed precision and the pool 'two_pass' "
                "for large batches."
            )
        self.method, self.warmup, self.empty_channels = method, warmup, empty_channels
        self.case_key, self.noisy_key, self.quality_keys = case_key, noisy_key, tuple(quality_keys)
        options = {**chosen.options, **(method_options or {})}
        _check_options(method, chosen.learner, options)
        loss.to(self.state.device)
        parts = Parts(self.network, self.optimizer, self.inferer, loss)
        self.learner = chosen.learner(parts, **options)
        _check_processes(method, self.learner)
        for module in self.learner.modules.values():
            module.to(self.state.device)
        self._epoch_pools: list[PoolRecord] = []
        self._epoch_parts: list[dict[str, torch.Tensor]] = []

    def method_state(self) -> dict[str, Any]:
        """What medseg.training.checkpoints.Checkpoints stores beside network and optimizer."""
        return {"name": self.method, "learner": self.learner.state_dict()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Resume from method_state(). Raises BundleError for a run of another method."""
        if state.get("name") != self.method:
            raise BundleError(
                f"the checkpoint was trained with method '{state.get('name', 'none')}', this run uses "
                f"'{self.method}'; use the same method or another directory."
            )
        self.learner.load_state_dict(state["learner"])
        for module in self.learner.modules.values():
            module.to(self.state.device)

    def _iteration(self, engine: NoisyLabelTrainer, batchdata: dict[str, torch.Tensor]) -> dict:
        if batchdata is None:
            raise InputError("the training data loader gave no batch.")
        inputs, targets = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        batch = engine._batch(inputs, targets, batchdata)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        for name, optimizer in engine.learner.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            if name != "quality":  # the quality module has a learning rate of its own
                for group in optimizer.param_groups:
                    group["lr"] = engine.optimizer.param_groups[0]["lr"]
        for module in engine.learner.modules.values():
            module.train()
        outcome = engine.learner.backward(batch)
        engine.state.output[Keys.PRED] = outcome.prediction
        engine.state.output[Keys.LOSS] = outcome.loss
        engine.state.output["sample_loss"] = outcome.losses
        engine.state.output["sample_weight"] = outcome.weights
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.optimizer.step()
        for optimizer in engine.learner.optimizers.values():
            optimizer.step()
        engine._log(outcome, batchdata)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _batch(self, inputs: torch.Tensor, targets: torch.Tensor, batchdata: dict[str, Any]) -> Batch:
        images, labels = torch.as_tensor(inputs), torch.as_tensor(targets)
        images, labels = _plain(images), _plain(labels).float()
        if self.empty_channels == "unknown":
            empty = labels.nan_to_num().flatten(2).amax(-1) <= 0
            labels = labels.masked_fill(empty.reshape(*empty.shape, *[1] * (labels.ndim - 2)), torch.nan)
        quality_input = None
        if "quality" in self.learner.modules:
            seen = [_plain(batchdata[key]).to(self.state.device).float() for key in self.quality_keys]
            quality_input = torch.cat(seen, dim=1)
        steps = self.state.max_epochs * self.state.epoch_length
        return Batch(
            images=images,
            labels=labels,
            quality_input=quality_input,
            cases=self._case_numbers(batchdata, len(images)).to(self.state.device),
            epoch=self.state.epoch,
            progress=self.state.iteration / steps,
            warming_up=self.state.iteration <= self.warmup * steps,
        )

    def _case_numbers(self, batchdata: dict[str, Any], count: int) -> torch.Tensor:
        names = batchdata.get(self.case_key)
        if names is None:
            return torch.arange(count) + count * self.state.iteration
        return torch.tensor([case_number(name) for name in names], dtype=torch.int64)

    def _log(self, outcome: Outcome, batchdata: dict[str, Any]) -> None:
        noisy = batchdata.get(self.noisy_key)
        self._epoch_pools.append(
            PoolRecord(
                weights=outcome.weights.float().cpu(),
                losses=(outcome.losses if outcome.judged is None else outcome.judged).float().cpu(),
                scores=None if outcome.scores is None else outcome.scores.float().cpu(),
                areas=None if outcome.areas is None else outcome.areas.float().cpu(),
                known_noisy=None if noisy is None else torch.as_tensor(noisy).flatten().cpu(),
            )
        )
        self._epoch_parts.append(dict(self.loss_function.parts))
        if self.state.iteration % self.state.epoch_length:
            return
        self.learner.epoch_completed()
        for name in self._epoch_parts[0]:
            values = torch.cat([parts[name].float().cpu() for parts in self._epoch_parts])
            self.state.metrics[f"loss, {name}"] = float(values.mean())
        self._epoch_parts = []
        diagnostics = diagnose(self._epoch_pools, self.learner.strength)
        self._epoch_pools = []
        measured = {name: value for name, value in asdict(diagnostics).items() if value == value}
        self.state.metrics.update(measured)
        warning = collapse_warning(diagnostics) if "quality" in self.learner.modules else None
        if warning:
            _logger.warning("Epoch %d: %s", self.state.epoch, warning)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A MetaTensor without its metadata, whose bookkeeping costs more than a small network's layers."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def _check_processes(method: str, learner: EqualWeights) -> None:
    """InputError where several processes would train what they have to share each by itself."""
    count, apart = process_count(), learner.apart()
    if count > 1 and apart:
        raise InputError(
            f"method '{method}' in {count} processes: each would {apart}. Train in one process, or choose a "
            "method that needs nothing beside the network, such as ce or trimming."
        )


def _check_options(method: str, learner: type[EqualWeights], options: dict[str, Any]) -> None:
    known = [name for name in inspect.signature(learner.__init__).parameters if name not in ("self", "parts")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"method '{method}' has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}."
        )
    required = [
        name
        for name, parameter in inspect.signature(learner.__init__).parameters.items()
        if name in known and parameter.default is parameter.empty and name not in options
    ]
    if required:
        raise InputError(f"method '{method}' needs method_options {', '.join(required)}.")
