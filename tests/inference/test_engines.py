"""Engines give torch's answer, are compiled once, and say in one line what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer

from medseg.bundles.find import bundle_folders
from medseg.errors import InputError
from medseg.inference import engines
from medseg.inference.engines import engine_for, engine_name
from medseg.inference.sliding_window import SlidingWindow
from medseg.networks import ResUNetSE

pytest.importorskip("openvino")
BUNDLES = {
    name: folder for name, folder in bundle_folders().items() if (folder / "models" / "model.pt").is_file()
}


def body_like(size):
    """A smooth ellipsoid with structures in it, between 0 and 1: nothing a network would call noise."""
    torch.manual_seed(0)
    places = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    inside = (sum(place**2 / part for place, part in zip(places, (0.7, 0.5, 1.0), strict=False)) < 1).float()
    coarse = torch.rand(1, 1, *(max(n // 8, 2) for n in size))
    texture = torch.nn.functional.interpolate(
        coarse, size, mode="bilinear" if len(size) == 2 else "trilinear"
    )[0, 0]
    return (inside * (0.35 + 0.4 * texture))[None, None]


@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_openvino_gives_the_masks_of_torch_for_every_bundle(name):
    config = json.loads((Path(BUNDLES[name]) / "configs" / "inference.json").read_text())
    parser = ConfigParser(config)
    network, inferer = (parser.get_parsed_content(part) for part in ("network_def", "inferer"))
    if isinstance(inferer, SimpleInferer):
        pytest.skip("it answers for the whole image and takes no engine")
    roi = getattr(inferer, "inferer", inferer).roi_size  # that of the one within a FlipAverage
    network.eval().load_state_dict(torch.load(BUNDLES[name] / "models" / "model.pt", weights_only=True))
    metadata = json.loads((Path(BUNDLES[name]) / "configs" / "metadata.json").read_text())
    channels = metadata["network_data_format"]["inputs"]["image"]["num_channels"]
    image = body_like(roi).repeat_interleave(channels, dim=1)
    answers = [
        SlidingWindow(roi, overlap=0.25, mode="gaussian", engine=engine)(image, network)
        for engine in ("torch", "openvino")
    ]
    masks = [answer >= 0 for answer in answers]
    # OpenVINO's sums are less exact than torch's: single logits between -65 and 10 were up to 0.4 off (torch:
    # 0.00004).
    assert (answers[0].sigmoid() - answers[1].sigmoid()).abs().mean() < 1e-3
    assert (masks[0] != masks[1]).float().mean() < 1e-3


def test_a_network_is_compiled_once_and_again_when_its_weights_change():
    network = torch.nn.Conv3d(1, 2, 3).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    first = engine_for("openvino", network, "cpu")
    before = first(image).clone()
    assert engine_for("openvino", network, "cpu") is first and list(first.compiled) == [(1, 1, 8, 8, 8)]
    network.load_state_dict({name: tensor + 1 for name, tensor in network.state_dict().items()})
    after = engine_for("openvino", network, "cpu")(image)
    with torch.no_grad():
        assert (after - network(image)).abs().max() < 1e-5 < (after - before).abs().max()


LISTENING = """
import sys
called = []
def listen(event, arguments):
    if event in ("os.fork", "socket.connect", "socket.getaddrinfo"):
        called.append(event)
sys.addaudithook(listen)
"""
COMPILES = """
import threading, torch
import medseg
import mlflow  # as MONAI does
from medseg.inference.engines import engine_for
image, network = torch.ones(1, 1, 8, 8, 8), torch.nn.Conv3d(1, 1, 3).eval()
with torch.no_grad():
    assert (engine_for("openvino", network, "cpu")(image) - network(image)).abs().max() < 1e-5
for thread in threading.enumerate():
    assert thread is threading.current_thread() or thread.daemon, thread
from mlflow.telemetry import get_telemetry_client
print(called, get_telemetry_client())
"""


def said_of(script: str, home) -> str:
    silent = ("CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    environment = {**environment, "HOME": f"{home}", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING + script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_compiling_a_network_reports_to_nobody_and_forks_nothing(tmp_path):
    pytest.importorskip("openvino_telemetry")
    assert said_of(COMPILES, tmp_path) == "[] None"
    assert not (tmp_path / "intel").exists()  # where the telemetry of OpenVINO keeps who reports


def test_the_check_that_nobody_is_told_can_fail(tmp_path):
    assert said_of("import os\nif not os.fork(): os._exit(0)\nprint(called)", tmp_path) == "['os.fork']"


def test_auto_takes_openvino_on_a_processor_where_it_is_installed_and_torch_elsewhere(monkeypatch):
    assert engine_name("auto", "cpu") == "openvino" and engine_name("auto", "cuda") == "torch"
    with pytest.raises(InputError, match="runs on the processor, not on cuda"):
        engine_name("openvino", "cuda")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert engine_name("auto", "cpu") == "torch"
    with pytest.raises(
        InputError, match="not installed: pip install 'medseg\\[openvino\\]', or use `engine=torch`"
    ):
        engine_name("openvino", "cpu")


def small_network():
    torch.manual_seed(0)
    layers = [torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.InstanceNorm3d(8), torch.nn.LeakyReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Conv3d(8, 2, 3, padding=1)).eval()


@pytest.mark.skipif("BF16" not in engines.processor_formats(), reason="a processor without bfloat16")
def test_bfloat16_keeps_its_three_digits_of_torchs_answer_and_is_not_what_auto_takes():
    network, image = small_network(), body_like((16, 16, 16))
    with torch.no_grad():
        exact = network(image)
    spread = float(exact.std())
    apart = {
        name: float((engine_for(name, network, "cpu")(image) - exact).abs().mean()) / spread
        for name in ("auto", "openvino-bf16")
    }
    assert apart["auto"] < 1e-4 and 5e-4 < apart["openvino-bf16"] < 2e-2
    assert engine_name("openvino-bf16", "cpu") == "openvino-bf16" and engine_name("auto", "cpu") == "openvino"


def test_bfloat16_is_refused_where_the_processor_or_openvino_lacks_it(monkeypatch):
    monkeypatch.setattr(engines, "processor_formats", lambda: ("FP32", "INT8"))
    with pytest.raises(InputError, match="this processor has no bfloat16 instructions .*`engine=openvino`"):
        engine_name("openvino-bf16", "cpu")
    with pytest.raises(InputError, match="openvino-bf16 runs on the processor, not on cuda"):
        engine_name("openvino-bf16", "cuda")
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="engine openvino-bf16 is not installed: pip install"):
        engine_name("openvino-bf16", "cpu")


@pytest.mark.parametrize(
    "norm", [("INSTANCE", {"affine": True}), ("GROUP", {"num_groups": 2}), "BATCH"], ids=str
)
def test_a_network_of_medseg_traced_without_computing_answers_as_torch_does(norm, monkeypatch):
    torch.manual_seed(0)
    network = ResUNetSE(3, 1, 2, channels=(4, 8, 8, 8, 8), norm=norm).eval()
    image, traced = torch.randn(2, 1, 16, 32, 32), []
    trace = torch.jit.trace
    monkeypatch.setattr(
        torch.jit, "trace", lambda net, x, **how: traced.append(tuple(x.shape)) or trace(net, x, **how)
    )
    answer = engine_for("openvino", network, "cpu")(image)
    with torch.no_grad():
        assert (answer - network(image)).abs().max() < 1e-3 * network(image).abs().max()
    engine_for("openvino", torch.nn.Conv3d(1, 1, 3).eval(), "cpu")(image)
    assert traced == [(0, 1, 16, 32, 32), (2, 1, 16, 32, 32)]  # what is not medseg's is traced as it runs


def compiling() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "medseg-compile"]


def test_a_network_compiled_in_a_thread_answers_as_torch_does_and_is_not_compiled_again(monkeypatch):
    network, image = small_network(), torch.randn(1, 1, 8, 16, 16)
    done = []
    compiles = engines._compile
    monkeypatch.setattr(engines, "_compile", lambda *what: done.append(what[1]) or compiles(*what))
    window = SlidingWindow((8, 16, 16), engine="openvino")
    window.begin(network, 1, "cpu")
    answer = window(image, network)  # waits for the thread
    window.begin(network, 1, "cpu")
    with torch.no_grad():
        assert (answer - network(image)).abs().max() < 1e-4
    assert done == [(1, 1, 8, 16, 16)]


def test_what_goes_wrong_in_the_thread_is_said_by_the_call_and_torch_has_nothing_to_begin():
    wrong = SlidingWindow((8, 8, 8), engine="openvino")
    network = torch.nn.Conv3d(3, 1, 3).eval()
    wrong.begin(network, 1, "cpu")  # one channel for a network of three
    for thread in compiling():
        thread.join()
    with pytest.raises(InputError, match="cannot convert Conv3d .*to have 3 channels, but got 1"):
        wrong(torch.zeros(1, 1, 8, 8, 8), network)
    SlidingWindow((8, 8, 8), engine="torch").begin(network, 1, "cpu")
    assert not compiling()


def test_a_network_that_openvino_cannot_convert_is_named_with_the_way_out():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return (
                torch.fft.fftn(x).real.cummax(2)[0] if x.numpy().any() else torch.linalg.eigvals(x[0, 0]).real
            )

    with pytest.raises(InputError, match="cannot convert Odd .*use `engine=torch`"):
        engine_for("openvino", Odd(), "cpu")(torch.zeros(1, 1, 4, 4, 4))


COMPILED_AFTER_A_WHILE = """
import warnings
import torch
from medseg.inference.engines import engine_for
from medseg.networks import ResUNetSE
net = ResUNetSE(spatial_dims=3, in_channels=1, out_channels=1, channels=(4, 8), strides=(2,)).eval()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    engine = engine_for("openvino", net, "cpu")
engine(torch.zeros(1, 1, 8, 8, 8))
"""


def test_what_torch_says_of_tracing_is_not_heard_after_the_case_has_failed():
    words = [sys.executable, "-W", "always", "-c", COMPILED_AFTER_A_WHILE]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Tracer" not in done.stderr and "jit.trace" not in done.stderr


def test_what_is_still_compiled_can_be_waited_for():
    engine = engine_for("openvino", torch.nn.Conv3d(1, 1, 3).eval(), "cpu")
    engine.begin((1, 1, 8, 8, 8))
    engines.finish_compiling()
    assert list(engine.compiled) == [(1, 1, 8, 8, 8)]
