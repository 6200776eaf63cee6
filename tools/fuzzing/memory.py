"""A small network trained and run while memory runs short: who says so, and who dies?

    python tools/fuzzing/memory.py

Every try is a fork of a process that has loaded torch, and may take a given number of MB more address space
than it has. It ends with an answer, with an exception, or by a signal: a dead process, which in a test run or
a server takes all others with it. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

LIMITS_MB = [*range(0, 120, 6), *range(120, 900, 30)]
LONGEST_TRY_S = 120


def make_network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.ReLU(), nn.Conv3d(8, 1, 3))


def train() -> None:
    """Four steps of a network on two threads of torch."""
    torch.set_num_threads(2)
    network, image = make_network(), torch.rand(2, 1, 16, 16, 16)
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(4):
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()


def compile_as_medseg() -> None:
    """OpenVINO compiled and run as `medseg segment` does."""
    from medseg.inference.engines import OpenVINOEngine

    OpenVINOEngine(make_network().eval())(torch.rand(1, 1, 16, 16, 16))


def compile_with_telemetry() -> None:
    """The same by OpenVINO's own documented calls, with its telemetry."""
    import openvino

    model = openvino.convert_model(make_network().eval(), example_input=torch.zeros(1, 1, 16, 16, 16))
    openvino.compile_model(model, "CPU")(torch.zeros(1, 1, 16, 16, 16).numpy())


PARTS = {
    "torch, four steps of training": train,
    "OpenVINO as medseg loads it": compile_as_medseg,
    "OpenVINO with its telemetry": compile_with_telemetry,
}


def address_space() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def try_once(part: Callable[[], None], more_mb: int) -> str:
    """How a fork ends that may take so many MB more."""
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        signal.alarm(LONGEST_TRY_S)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + (more_mb << 20),) * 2)
        try:
            part()
        except BaseException:  # whatever it is, it was said
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return "answers" if os.WEXITSTATUS(status) == 0 else "exceptions"


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    from medseg.inference import engines  # noqa: F401  loaded before the forks, like torch

    print("| part | tries | ends |\n|---|--:|---|")
    for name, part in PARTS.items():
        ends = Counter(try_once(part, limit) for limit in LIMITS_MB)
        said = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        print(f"| {name} | {len(LIMITS_MB)} | {said} |", flush=True)


if __name__ == "__main__":
    main()
