"""A program of its own that decodes compressed images: frames come in by standard input, arrays go out.

Decoders are written in C and C++, and damaged streams abort them, hang them or make them take all memory
(gdcm 3.2 ends the whole process, with an exception that nobody can catch, for one damaged JPEG 2000 stream in
some hundreds). Here only this process ends. :mod:`medseg.dicom.images.frames` runs it; it imports pydicom and
numpy, and nothing of medseg, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import warnings
from typing import Any, BinaryIO

LENGTHS = struct.Struct("<QQ")
"""Of the words (JSON) and of the bytes that follow them, in both directions."""


def send(pipe: BinaryIO, words: dict[str, Any], content: bytes) -> None:
    """One message: lengths, words, content."""
    text = json.dumps(words).encode()
    pipe.write(LENGTHS.pack(len(text), len(content)) + text)
    pipe.write(content)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None when the other side is gone."""
    head = pipe.read(LENGTHS.size)
    if len(head) < LENGTHS.size:
        return None
    words, content = LENGTHS.unpack(head)
    text, rest = pipe.read(words), pipe.read(content)
    return (json.loads(text), rest) if len(rest) == content else None


def decode(words: dict[str, Any], frame: bytes):
    """The stored numbers [row, column] of one frame as pydicom decodes it; colours are converted to RGB."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    options: dict[str, Any] = dict(words)
    options |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    decoder = get_decoder(options.pop("transfer_syntax"))
    prefers = options.pop("plugin")
    plugin = prefers if prefers in decoder.available_plugins else ""
    stored, _ = decoder.as_array(
        encapsulate([frame]),
        index=0,
        raw=words["samples_per_pixel"] == 1,
        decoding_plugin=plugin,
        **options,
    )
    return stored


def main() -> None:
    """Answer frames until standard input ends. ``sys.argv[1]``: most bytes of memory."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
    except (ImportError, ValueError, OSError):  # not everywhere; time is limited all the same
        pass
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not stand between the answers
    while (message := receive(sys.stdin.buffer)) is not None:
        try:
            stored = decode(*message)
            reply = {"shape": stored.shape, "dtype": stored.dtype.str}
            content = stored.tobytes()
        except Exception as error:  # whatever it is, the other side names the file
            reply = {"error": f"{type(error).__name__}: {error}"}
            content = b""
        send(answers, reply, content)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file, whose names must not hide those of other packages
    main()
