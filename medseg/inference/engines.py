"""What computes a network's answer: torch, or OpenVINO, which on a processor takes a fraction of torch's
time."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import nn

from medseg.errors import InputError
from medseg.inference.norms import norms_in_parts

ENGINE_NAMES = ("auto", "torch", "openvino")


class Engine(Protocol):
    """A network ready to run: a batch (B, C, *spatial) float32 in, float32 logits of the network's own shape
    out.

    The answer may lie in memory that the next call fills again: use or copy it first.
    """

    name: str

    def __call__(self, batch: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class TorchEngine:
    """The network as torch runs it: float32 on a processor, float16 autocast on a CUDA GPU.

    On a processor bfloat16 is left out: it moves 0.3 to 0.9 % of the structures' voxels across the threshold
    (tools/benchmarks/inference/run.py engines). Channels-last gained nothing there.
    """

    network: Callable[[torch.Tensor], torch.Tensor]
    name: str = "torch"

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        with torch.autocast(batch.device.type, dtype=torch.float16, enabled=batch.device.type == "cuda"):
            return self.network(batch).float()


@dataclass(frozen=True)
class OpenVINOEngine:
    """The network compiled by OpenVINO, in memory, for each input shape that occurs; float32 like torch's.

    ``precision``: "f32" or "bf16". OpenVINO would choose bfloat16 by itself where the processor has it, which
    halves the time of a window and moves 0.3 to 0.8 % of the structures' voxels
    (tools/benchmarks/inference/run.py engines).
    """

    network: nn.Module
    name: str = "openvino"
    precision: str = "f32"
    compiled: dict[tuple[int, ...], Any] = field(default_factory=dict)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        shape = tuple(batch.shape)
        if shape not in self.compiled:
            self.compiled[shape] = _compile(self.network, shape, self.precision)
        return torch.from_numpy(self.compiled[shape](batch.contiguous().numpy(), share_outputs=True)[0])


def _compile(network: nn.Module, shape: tuple[int, ...], precision: str):
    with _without_telemetry():
        import openvino

    # Parameters made under inference_mode cannot be traced outside it, nor others inside it: plain tensors
    # work in both.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(), norms_in_parts(network):
        warnings.simplefilter(
            "ignore"
        )  # torch announces that tracing will go; the branches traced are checks of sizes
        try:
            traced = torch.jit.trace(network, torch.zeros(shape), check_trace=False)
            model = _converted(traced, shape)
        except (
            Exception
        ) as error:  # whatever a network of somebody else does when traced: RuntimeError, its own errors...
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"engine openvino cannot convert {type(network).__name__} ({reason}); use `engine=torch`."
            ) from error
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    return openvino.Core().compile_model(model, "CPU", options)


@contextmanager
def _without_telemetry():
    """OpenVINO loaded here takes the stub that it brings for an installation without its telemetry.

    Its telemetry reports the mere import over the internet, and does so from a thread that forks this
    process: with torch's and OpenVINO's threads in it, and memory short, that ends in a segmentation fault
    (`tools/fuzzing/memory.py`).
    """
    name = "openvino_telemetry"
    loaded = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # an import of it now fails
    try:
        yield
    finally:
        del sys.modules[name]
        if loaded:
            sys.modules[name] = loaded


def _converted(traced: torch.jit.ScriptModule, shape: tuple[int, ...]):
    """OpenVINO's model of a traced network, by OpenVINO's own reader of such networks.

    Its ``convert_model`` calls the same reader, but reports every use over the internet unless the user has
    opted out.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    reader = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # must outlive the conversion
    model = reader.convert(reader.load(decoder))
    model.reshape(list(shape))
    return model


ENGINES: dict[str, Callable[[nn.Module], Engine]] = {"torch": TorchEngine, "openvino": OpenVINOEngine}


def engine_name(wanted: str, device: torch.device | str) -> str:
    """The engine that ``wanted`` (auto, torch, openvino) means on this device: auto takes OpenVINO on a
    processor.

    InputError for an unknown name, for OpenVINO where it is not installed, and for OpenVINO on a GPU.
    """
    if wanted not in ENGINE_NAMES:
        raise InputError(f"engine {wanted!r}: expected one of {', '.join(ENGINE_NAMES)}.")
    on_processor, installed = torch.device(device).type == "cpu", find_spec("openvino") is not None
    if wanted == "auto":
        return "openvino" if on_processor and installed else "torch"
    if wanted == "openvino" and not installed:
        raise InputError(
            "engine openvino is not installed: pip install 'medseg[openvino]', or use `engine=torch`."
        )
    if wanted == "openvino" and not on_processor:
        raise InputError(
            f"engine openvino runs on the processor, not on {device}: use `device=cpu` or `engine=torch`."
        )
    return wanted


def engine_for(
    wanted: str, network: Callable[[torch.Tensor], torch.Tensor], device: torch.device | str
) -> Engine:
    """The engine for a network on a device. One is kept per network and its weights, so compiling is done
    once.

    Anything callable that is no torch module (a function, an engine) runs as it is.
    """
    name = engine_name(wanted, device)
    if not isinstance(network, nn.Module):
        return TorchEngine(network)
    return _engine(name, network, _state(network))


@lru_cache(maxsize=8)  # a bundle may hold several: folds, or TotalSegmentator's five models
def _engine(name: str, network: nn.Module, _weights: tuple) -> Engine:
    return ENGINES[name](network)


def _state(network: nn.Module) -> tuple:
    """Changes when weights are loaded or trained on, since torch counts every change in place."""
    tensors = [*network.parameters(), *network.buffers()]
    return network.training, *((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
