"""What MONAI bundles lack for training: checkpoints one can resume from, and mixed precision on any
device."""

import hashlib
import json
import logging
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.inferers import Inferer, SimpleInferer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from medseg.errors import BundleError, InputError, why
from medseg.files import atomic_path
from medseg.networks.fitting import unfitting
from medseg.training.resuming import (
    CHANGED,
    VARIANT,
    differences,
    load_optimizer,
    settings_of,
    take_new_learning_rate,
)

_logger = logging.getLogger(__name__)


class AutocastInferer(Inferer):
    """Run `inferer` under autocast on the device of its input, and return float32 logits.

    MONAI's own `amp` setting is written for CUDA only. bfloat16 needs no loss scaling, and processors with
    bfloat16 instructions train about three times faster with it. `enabled=False` gives plain float32.
    """

    def __init__(
        self, inferer: Inferer | None = None, enabled: bool = True, dtype: torch.dtype = torch.bfloat16
    ):
        self.inferer = inferer or SimpleInferer()
        self.enabled = _true_or_false("enabled", enabled)
        self.dtype = dtype

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.autocast(inputs.device.type, dtype=self.dtype, enabled=self.enabled):
            outputs = self.inferer(inputs, network, *args, **kwargs)
        return outputs.float()


def bfloat16_pays(device: torch.device | str) -> bool:
    """Whether a training is faster in bfloat16 there: on a graphics card, and on a processor with
    instructions for it (avx512_bf16, amx_bf16). Others compute it by way of float32, which is slower.

    False as well where PyTorch cannot say what the processor has (no torch.cpu.get_capabilities).
    """
    if torch.device(device).type == "cuda":
        return True
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


class Checkpoints:
    """A trainer handler that keeps `last.pt` (everything) and `model.pt` (best weights), and resumes from
    `last.pt`.

    After every epoch, with learning rate and validation already done, it writes `last.pt`: network,
    optimizer, lr_scheduler, scaler, epoch, iteration, the evaluator's best metric and, of a trainer that
    learns more than its network (medseg.training.noisy.trainer.NoisyLabelTrainer), its `method_state()`. When
    the validation of that epoch was the best so far it also writes `model.pt`, a plain state dict (best = the
    evaluator's key metric). Both are written to a temporary name and renamed, by rank 0 only.

    With `resume=True` and a `last.pt` in `directory`, training continues after its epoch; without that file
    it starts anew. Each epoch is seeded by `seed` + epoch (shuffle order, augmentation, dropout), so a
    resumed run equals an uninterrupted one. Several ranks draw different augmentations: the rank enters the
    seed. `resume="changed"` also continues a training of other cases, batch size, seed or learning rate, at
    the new ones; `resume=True` says which it is and refuses. `variant` names what changed the bundle's own
    recipe; it is recorded, and a training of one is never continued as another. `average`: a running mean of
    the network's weights (ignite's EMAHandler has one); then `model.pt` holds the mean, which is what the
    evaluator has to look at, and `last.pt` both. `save_interval`: write `last.pt` after so many epochs and
    after the last one, where epochs take less time than the file.

    A `last.pt` of another network, or one that cannot be read, raises BundleError before anything is changed.
    In a bundle's own models folder, metadata.json gets the SHA-256 of every new `model.pt`.
    """

    LAST = "last.pt"
    BEST = "model.pt"

    def __init__(
        self,
        directory: str | os.PathLike[str],
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any = None,
        evaluator: Engine | None = None,
        resume: bool | str = False,
        seed: int = 0,
        variant: str | None = None,
        average: nn.Module | None = None,
        save_interval: int = 1,
    ) -> None:
        self.directory = Path(directory)
        self.network = network.module if isinstance(network, DistributedDataParallel) else network
        self.average = average
        if save_interval < 1:
            raise InputError(f"save_interval is {save_interval}; expected 1 (every epoch) or more.")
        self.save_interval = save_interval
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.resume = resume if resume == CHANGED else _true_or_false("resume", resume)
        self.seed = seed
        self.variant = variant

    def attach(self, engine: Engine) -> None:
        loader = getattr(engine, "data_loader", None)
        if isinstance(loader, DataLoader) and len(loader) == 0:  # MONAI would warn and do nothing
            raise InputError(
                f"no batch to train on: {len(loader.dataset)} cases and batch_size {loader.batch_size}, and "
                "incomplete batches are dropped; choose a smaller batch_size."
            )
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)

    def _start(self, engine: Engine) -> None:
        if self.resume and (self.directory / self.LAST).exists():
            self._load(engine)
        # Added only now, so that it runs after the learning-rate and validation handlers, whatever their
        # order.
        if not engine.has_event_handler(self._save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _seed_epoch(self, engine: Engine) -> None:
        seed = (self.seed + engine.state.epoch) * 1000 + engine.state.rank
        random.seed(seed)
        torch.manual_seed(seed)
        # Transforms own their random state; worker processes instead derive theirs from torch's seed.
        set_rnd(engine.state.dataloader.dataset, seed)

    def _save(self, engine: Engine) -> None:
        if engine.state.rank != 0:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        weights = self.network.state_dict()
        _require_finite(weights, f"the training diverged in epoch {engine.state.epoch}, which is not kept")
        best = {}
        if self.evaluator is not None:
            best = {
                "metric": self.evaluator.state.best_metric,
                "epoch": self.evaluator.state.best_metric_epoch,
            }
            if best["epoch"] == engine.state.epoch:
                save_weights(self._shown().state_dict(), self.directory / self.BEST)
        if engine.state.epoch % self.save_interval and engine.state.epoch < engine.state.max_epochs:
            return
        state = {
            "network": weights,
            "average": self.average.state_dict() if self.average is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else {},
            "scaler": engine.scaler.state_dict() if engine.scaler is not None else {},
            "trainer": {"epoch": engine.state.epoch, "iteration": engine.state.iteration},
            "best": {key: float(value) for key, value in best.items()},
            "method": engine.method_state() if hasattr(engine, "method_state") else {},
            "settings": self._settings(engine),
        }
        save_atomically(state, self.directory / self.LAST)

    def _shown(self) -> nn.Module:
        """The network whose weights are judged and kept."""
        return self.network if self.average is None else self.average

    def _settings(self, engine: Engine) -> dict[str, Any]:
        return settings_of(engine, self.optimizer, self.seed, self.variant)

    def _load(self, engine: Engine) -> None:
        path = self.directory / self.LAST
        state = load_checkpoint(path)
        _check_parts(state, path)
        epoch = state["trainer"]["epoch"]
        if epoch >= engine.state.max_epochs:
            raise BundleError(
                f"{path} is at epoch {epoch} of {engine.state.max_epochs}; nothing is left to train. Raise "
                f"'epochs'."
            )
        # Files of earlier versions have no "settings" and no "method"; a plain trainer needs none.
        before, now = state.get("settings", {}), self._settings(engine)
        changed = differences(before, now)
        if before.get(VARIANT, now[VARIANT]) != now[VARIANT]:
            raise BundleError(
                f"{path} was trained as variant {before[VARIANT]}, now {now[VARIANT]}. Resume with the same, "
                "or train anew in another folder."
            )
        if changed and self.resume != CHANGED:
            raise BundleError(
                f"{path} was trained with other settings: {'; '.join(changed)}. Resume with the same, train "
                f"anew in another folder, or go on with the new ones: `resume={CHANGED}`."
            )
        if hasattr(engine, "load_method_state"):
            engine.load_method_state(state.get("method", {}))
        load_weights(self.network, state["network"], path)
        if self.average is not None:  # a file without one was trained without
            load_weights(self.average, state.get("average") or state["network"], path)
        try:
            laid_out_anew = load_optimizer(
                state["optimizer"], state["lr_scheduler"], self.optimizer, self.lr_scheduler
            )
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{path}: its optimizer or learning rates are not those of this training ({why(error)}). "
                "Delete or replace it."
            ) from error
        if not laid_out_anew:
            take_new_learning_rate(before, now, self.optimizer, self.lr_scheduler)
        if engine.scaler is not None and state["scaler"]:
            engine.scaler.load_state_dict(state["scaler"])
        engine.state.epoch, engine.state.iteration = epoch, state["trainer"]["iteration"]
        if self.evaluator is not None and state["best"]:
            self.evaluator.state.best_metric = state["best"]["metric"]
            self.evaluator.state.best_metric_epoch = int(state["best"]["epoch"])
        _logger.info("Resumed from %s after epoch %d.", path, epoch)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` so that a killed run leaves either the old file or the new one, never a part.

    OSError that names `path` when the disk is full.
    """
    with atomic_path(path) as temporary:
        _save(state, temporary)


def _save(state: dict[str, Any], temporary: Path) -> None:
    # Through a file of Python's, since torch's own writer says "file write failed" whatever the reason is.
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # it closes its zip file although the disk is full
            raise error.__context__ from None
        raise


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state dict as :func:`save_atomically` does; metadata.json of the bundle that `path` lies in, if
    in any, gets its SHA-256 under `weights_sha256`."""
    metadata = path.parent.parent / "configs" / "metadata.json"
    if path.parent.name != "models" or not metadata.is_file():
        save_atomically(weights, path)
        return
    content = json.loads(metadata.read_text(encoding="utf-8"))
    with atomic_path(path) as temporary:
        _save(weights, temporary)
        content["weights_sha256"] = hashlib.sha256(temporary.read_bytes()).hexdigest()
        with atomic_path(metadata) as text:  # both take their place one right after the other
            text.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the tensors and plain values stored in `path`, on the CPU; nothing in the file is executed.

    Raises BundleError when the file is damaged or holds anything but tensors and plain values. torch writes a
    zip file with a checksum of every tensor and does not compare it when it reads.
    """
    is_whole = not path.is_file() or zipfile.is_zipfile(path)
    try:
        if is_whole:
            with zipfile.ZipFile(path) as parts:
                packed = [
                    info.filename for info in parts.infolist() if info.compress_type != zipfile.ZIP_STORED
                ]
                if packed:  # they may hold a thousand times the size of the file
                    raise ValueError(f"{packed[0]} in it is compressed, which torch never does")
                damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} in it is another one: the file is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle ends in almost any of Python's errors
        reason = why(error) if is_whole else "it is cut off, or another kind of file"
        raise BundleError(f"{path} is no readable checkpoint ({reason}). Delete or replace it.") from error


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Load `weights` into `network`, all of them or none; a mismatch raises BundleError that names the first
    one."""
    differing = unfitting(network, weights)
    if differing:
        raise BundleError(
            f"{path} belongs to another network: {len(differing)} tensors do not fit, first "
            f"{differing[0]}. Use the network_def it was trained with, or another directory."
        )
    network.load_state_dict(weights)


PARTS = ("network", "optimizer", "lr_scheduler", "scaler", "trainer", "best")
LATER_PARTS = ("method", "settings", "average")
"""Of last.pt, a dict each; the later ones are not in files of earlier versions."""


def _check_parts(state: Any, path: Path) -> None:
    """BundleError for what was read of a last.pt and is not one, whole, with finite weights."""
    missing = [name for name in PARTS if not isinstance(state, dict) or name not in state]
    if missing:
        raise BundleError(f"{path} is no training checkpoint: {', '.join(sorted(missing))} missing in it.")
    wrong = [name for name in (*PARTS, *LATER_PARTS) if not isinstance(state.get(name, {}), dict)]
    wrong += [
        f"trainer {name}"
        for name in ("epoch", "iteration")
        if not isinstance(state["trainer"], dict) or not _is_count(state["trainer"].get(name))
    ]
    if isinstance(state["best"], dict) and state["best"] and set(state["best"]) != {"metric", "epoch"}:
        wrong.append("best")
    if wrong:
        raise BundleError(
            f"{path} is damaged: {', '.join(wrong)} in it is not what it should be. Replace it."
        )
    _require_finite(state["network"], f"{path} holds weights of a training that diverged")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require_finite(weights: dict[str, Any], what: str) -> None:
    for name, tensor in weights.items():
        if (
            isinstance(tensor, torch.Tensor)
            and tensor.is_floating_point()
            and not bool(tensor.isfinite().all())
        ):
            raise BundleError(
                f"{what}: {name} is not finite (NaN or infinity). Try a lower learning_rate, or amp=false."
            )


def _true_or_false(name: str, value: bool) -> bool:
    # On MONAI's command line `--resume false` arrives as the text "false", which Python takes for true.
    if not isinstance(value, bool):
        raise BundleError(
            f"{name} is {value!r}; write True or False, with a capital letter on the command line."
        )
    return value
