"""Each native library alone at work, in a process whose heap glibc checks at every free: which of them writes
where it should not?

    python tools/fuzzing/heap.py --streams 500

Memory is filled with junk when it is taken and given back, and Python's objects come from the same heap. A
part that damages the heap ends with glibc's words ("free(): invalid pointer"), at the latest when its process
ends. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mutations import damage_bytes

CHECKED = {
    "LD_PRELOAD": "libc_malloc_debug.so.0",
    "GLIBC_TUNABLES": "glibc.malloc.check=3",
    "MALLOC_CHECK_": "3",
    "MALLOC_PERTURB_": "165",
    "PYTHONMALLOC": "malloc",
    "OMP_NUM_THREADS": "1",
}


def geometry(_streams: int) -> None:
    """contourpy and shapely: outlines of noise and their union."""
    import contourpy
    import shapely

    chance = np.random.default_rng(0)
    for _ in range(200):
        lines = contourpy.contour_generator(z=chance.random((40, 44)), name="serial").lines(0.5)
        shapely.union_all([shapely.Polygon(line).buffer(0) for line in lines if len(line) > 3])


def scipy(_streams: int) -> None:
    """Labels, distances, filters and trees of noise."""
    from scipy import ndimage
    from scipy.spatial import cKDTree

    chance = np.random.default_rng(0)
    for _ in range(100):
        mask = chance.random((20, 30, 30)) > 0.6
        ndimage.label(mask)
        ndimage.distance_transform_edt(mask)
        ndimage.maximum_filter1d(mask, 5)
        cKDTree(np.argwhere(mask)).query(chance.random((99, 3)) * 20)


def torch_steps(_streams: int) -> None:
    """60 training steps, every second of which raises inside autograd."""
    import torch

    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(_context, values):
            return values * 1

        @staticmethod
        def backward(_context, _gradient):
            raise ValueError("from within autograd")

    network = _network()
    optimizer = torch.optim.Adam(network.parameters())
    for number in range(60):
        optimizer.zero_grad()
        answer = network(torch.rand(4, 1, 64, 64))
        try:
            (Raises.apply(answer) if number % 2 else answer).mean().backward()
            optimizer.step()
        except ValueError:
            pass


def openvino(_streams: int) -> None:
    """A network compiled five times and asked twenty times each."""
    import torch

    from medseg.inference.engines import OpenVINOEngine

    for _ in range(5):
        engine = OpenVINOEngine(_network().eval())
        for _ in range(20):
            engine(torch.rand(1, 1, 64, 64))


def _network():
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))


def decoding(syntax: str, plugin: str) -> Callable[[int], None]:
    """Damaged streams of 32 x 36 pixels through one decoder, from the number in MEDSEG_HEAP_FROM on; each
    says its number first, so that the parent knows which one ended the process."""

    def part(streams: int) -> None:
        from pydicom.encaps import encapsulate
        from pydicom.pixels import get_decoder

        decoder, (sound, options) = get_decoder(syntax), _sound_stream(syntax)
        for number in range(int(os.environ.get("MEDSEG_HEAP_FROM", "0")), streams):
            print(number, flush=True)
            stream = encapsulate([damage_bytes(sound, random.Random(f"heap {number}"))[0]])
            try:
                decoder.as_array(stream, index=0, raw=True, decoding_plugin=plugin, **options)
            except Exception:  # refused, as it should be
                pass

    return part


def _sound_stream(syntax: str) -> tuple[bytes, dict]:
    import pydicom
    from pydicom.encaps import generate_frames
    from pydicom.examples import ct

    dataset = pydicom.dcmread(io.BytesIO(Path(ct.filename).read_bytes()))
    dataset.PixelData = np.ascontiguousarray(dataset.pixel_array[:32, :36]).tobytes()
    dataset.Rows, dataset.Columns = 32, 36
    dataset.compress(syntax)
    options = {
        name: dataset[keyword].value
        for name, keyword in (
            ("rows", "Rows"),
            ("columns", "Columns"),
            ("samples_per_pixel", "SamplesPerPixel"),
            ("bits_allocated", "BitsAllocated"),
            ("bits_stored", "BitsStored"),
            ("pixel_representation", "PixelRepresentation"),
            ("photometric_interpretation", "PhotometricInterpretation"),
        )
    }
    options |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    return next(generate_frames(dataset.PixelData, number_of_frames=1)), options


J2K, JLS = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"

PARTS: dict[str, Callable[[int], None]] = {
    "contourpy, shapely": geometry,
    "scipy": scipy,
    "torch, raising in autograd": torch_steps,
    "openvino": openvino,
    "JPEG 2000, gdcm": decoding(J2K, "gdcm"),
    "JPEG 2000, openjpeg": decoding(J2K, "pylibjpeg"),
    "JPEG-LS, pyjpegls": decoding(JLS, "pyjpegls"),
}


def ends(name: str, streams: int, seconds: float) -> Iterator[tuple[str, str]]:
    """(what it was at, how its process ended) of each process of a part: one, and one more behind every
    stream that ended the last."""
    begin = 0
    while True:
        command = [sys.executable, __file__, "--streams", str(streams), "--part", name]
        environment = {**os.environ, **CHECKED, "MEDSEG_HEAP_FROM": str(begin)}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
            )
            code, out, said = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as late:
            code, out, said = None, (late.stdout or b"").decode(), "no end"
        numbers = [line for line in out.split() if line.isdecimal()]
        last = said.strip().splitlines()[-1:] or [""]
        if "END" in out.split() and code == 0:
            yield (f"{begin} to {numbers[-1]}" if numbers else "whole"), "sound"
            return
        yield (numbers[-1] if numbers else "whole"), f"{code}: {last[0][:100]}"
        if not numbers or int(numbers[-1]) + 1 >= streams or "END" in out.split():
            return
        begin = int(numbers[-1]) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=500, help="damaged streams for each decoder")
    parser.add_argument("--seconds", type=float, default=3600, help="at most, for one process")
    parser.add_argument("--part", choices=PARTS, help="do its work here, unchecked")
    parser.add_argument("--only", choices=PARTS, help="check this part alone")
    options = parser.parse_args()
    if options.part:
        PARTS[options.part](options.streams)
        print("END", flush=True)
        return
    print("| library | at | its process ended |\n|---|---|---|", flush=True)
    for name in [options.only] if options.only else PARTS:
        for place, end in ends(name, options.streams, options.seconds):
            print(f"| {name} | {place} | {end} |", flush=True)


if __name__ == "__main__":
    main()
