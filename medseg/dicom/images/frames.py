"""Compressed frames, decoded in a process of its own that may crash, hang or run out of memory without harm.

It starts with the first compressed frame (about half a second), serves all that follow, and ends with this
process. One that dies, or takes longer than the limit ``decode_seconds``, is replaced.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from typing import Any, BinaryIO, cast

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGLSLossless, JPEGLSNearLossless

from medseg import limits
from medseg.dicom.images import decoder

PLUGINS = {
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "gdcm",
    JPEG2000: "gdcm",
}
"""Decoders that most rarely fail on damaged streams: gdcm aborts on JPEG-LS, openjpeg hangs on JPEG 2000."""

OPTIONS = ("rows", "columns", "samples_per_pixel", "bits_allocated", "bits_stored", "pixel_representation")
KEYWORDS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")


class _Died(Exception):
    """The decoder's process ended without an answer."""


class _Process:
    """The running program. ``served``: how many frames it has answered."""

    def __init__(self) -> None:
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self.served, self.owner = 0, os.getpid()
        self._running = subprocess.Popen(
            [sys.executable, decoder.__file__, str(limits.most("decode_bytes"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def ask(self, words: dict[str, Any], frame: bytes) -> np.ndarray:
        """The decoded frame; ValueError with the decoder's words, _Died when there is no answer in time."""
        seconds = limits.most("decode_seconds")
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._running.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            decoder.send(cast(BinaryIO, self._running.stdin), words, frame)
            answer = decoder.receive(cast(BinaryIO, self._running.stdout))
        except OSError:
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            self._running.kill()
            self._running.wait()
        if late.is_set():
            raise ValueError(f"not decoded within {seconds} seconds (MEDSEG_LIMIT_DECODE_SECONDS)")
        if answer is None:
            raise _Died
        self.served += 1
        reply, content = answer
        if "error" in reply:
            raise ValueError(reply["error"])
        return np.frombuffer(content, dtype=reply["dtype"]).reshape(reply["shape"])

    @property
    def is_ours(self) -> bool:
        """False in a process that was forked since: the pipes belong to its parent."""
        return self.owner == os.getpid() and self._running.poll() is None

    def end(self) -> None:
        if self.owner == os.getpid():
            self._running.kill()
            self._running.communicate()


_lock = threading.Lock()
_process: _Process | None = None


def decode_frame(header: Dataset, frame: bytes) -> np.ndarray:
    """Stored numbers [row, column] of one encapsulated frame, of which ``header`` says size, bits and syntax;
    of three samples per pixel the colours, converted to RGB, [row, column, 3].

    Raises ValueError for a frame that cannot be decoded, within the limits of time and memory.
    """
    syntax = header.file_meta.TransferSyntaxUID
    words: dict[str, Any] = {
        name: int(header[keyword].value) for name, keyword in zip(OPTIONS, KEYWORDS, strict=True)
    }
    words["planar_configuration"] = int(header.get("PlanarConfiguration") or 0)
    words["photometric_interpretation"] = str(header.PhotometricInterpretation)
    words |= {"transfer_syntax": str(syntax), "plugin": PLUGINS.get(syntax, "")}
    with _lock:
        while True:
            process = _running()
            is_fresh = process.served == 0
            try:
                return process.ask(words, frame)
            except _Died:
                _end()
                if is_fresh:  # one that served before may have been harmed by an earlier frame
                    raise ValueError("the decoder crashed; the stream is damaged") from None


def _running() -> _Process:
    global _process
    if _process is None or not _process.is_ours:
        _process = _Process()
    return _process


@atexit.register
def _end() -> None:
    global _process
    if _process is not None:
        _process.end()
        _process = None


def _after_fork() -> None:
    global _lock, _process
    _lock, _process = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
