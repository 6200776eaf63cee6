"""What computes a network's answer: torch, or OpenVINO, which on a processor takes a fraction of torch's
time."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from medseg.errors import InputError
from medseg.inference.norms import norms_in_parts

# torch announces that tracing will go; the branches traced are checks of sizes. For good, and when this is
# loaded: what Python offers for a while, catch_warnings, is one for all threads, a network is traced while
# a case is read, and what is set within such a while is forgotten at its end.
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
warnings.filterwarnings("ignore", message=".*torch.jit.trace")

ENGINE_NAMES = ("auto", "torch", "openvino", "openvino-bf16")


COMPILING = "medseg-compile"
"""Name of the threads that compile."""


def finish_compiling() -> None:
    """Wait for networks that are still compiled, as when a case failed meanwhile. A process would wait for
    them at its end, where nobody keeps torch's warnings from the terminal any more."""
    for thread in threading.enumerate():
        if thread.name == COMPILING:
            thread.join()


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
    takes a third of the time of a window and moves 0.3 to 0.8 % of the structures' voxels
    (tools/benchmarks/inference/run.py engines); so it is an engine of its own, which a user asks for.
    """

    network: nn.Module
    name: str = "openvino"
    precision: str = "f32"
    compiled: dict[tuple[int, ...], Any] = field(default_factory=dict)
    compiling: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        with self.compiling:
            run = self._compiled(tuple(batch.shape))
        return torch.from_numpy(run(batch.contiguous().numpy(), share_outputs=True)[0])

    def begin(self, shape: tuple[int, ...]) -> None:
        """Compile for batches of this shape in a thread, unless that is done; a call meanwhile waits for it.

        One run is part of it, since OpenVINO takes its memory with the first. What goes wrong is said by the
        call, which then tries again.
        """
        if shape in self.compiled:
            return

        def work() -> None:
            with self.compiling, suppress(Exception):
                if shape not in self.compiled:
                    self._compiled(shape)(np.zeros(shape, np.float32))

        threading.Thread(target=work, name=COMPILING).start()

    def _compiled(self, shape: tuple[int, ...]):
        if shape not in self.compiled:
            self.compiled[shape] = _compile(self.network, shape, self.precision)
        return self.compiled[shape]


def _compile(network: nn.Module, shape: tuple[int, ...], precision: str):
    with _without_telemetry():
        import openvino

    # Parameters made under inference_mode cannot be traced outside it, nor others inside it: plain tensors
    # work in both.
    with torch.inference_mode(False), torch.no_grad(), norms_in_parts(network):
        try:
            traced = torch.jit.trace(network, torch.zeros(_traced_shape(network, shape)), check_trace=False)
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


def _traced_shape(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Networks of medseg are traced with a batch of no images: the same steps are noted and nothing is
    computed, which spares about half of the processor time that a ResUNetSE takes to compile. What others
    do with an empty batch is not known."""
    return (0, *shape[1:]) if type(network).__module__.startswith("medseg.networks.") else shape


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


ENGINES: dict[str, Callable[[nn.Module], Engine]] = {
    "torch": TorchEngine,
    "openvino": OpenVINOEngine,
    "openvino-bf16": partial(OpenVINOEngine, name="openvino-bf16", precision="bf16"),
}


@cache
def processor_formats() -> tuple[str, ...]:
    """The number formats that OpenVINO computes in on this processor: FP32, and BF16 where there are
    instructions for it. Elsewhere OpenVINO would take a wish for bfloat16 and compute in float32."""
    with _without_telemetry():
        import openvino
    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def engine_name(wanted: str, device: torch.device | str) -> str:
    """The engine that ``wanted`` (one of ENGINE_NAMES) means on this device: auto takes OpenVINO in float32
    on a processor.

    InputError for an unknown name, for OpenVINO where it is not installed, for OpenVINO on a GPU, and for
    bfloat16 on a processor without it.
    """
    if wanted not in ENGINE_NAMES:
        raise InputError(f"engine {wanted!r}: expected one of {', '.join(ENGINE_NAMES)}.")
    on_processor, installed = torch.device(device).type == "cpu", find_spec("openvino") is not None
    if wanted == "auto":
        return "openvino" if on_processor and installed else "torch"
    if wanted == "torch":
        return wanted
    if not installed:
        raise InputError(
            f"engine {wanted} is not installed: pip install 'medseg[openvino]', or use `engine=torch`."
        )
    if not on_processor:
        raise InputError(
            f"engine {wanted} runs on the processor, not on {device}: use `device=cpu` or `engine=torch`."
        )
    if wanted == "openvino-bf16" and "BF16" not in processor_formats():
        raise InputError(
            "engine openvino-bf16: this processor has no bfloat16 instructions (avx512_bf16, amx_bf16); use "
            "`engine=openvino`, which computes in float32."
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
