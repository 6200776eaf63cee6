"""A look at compressed frames before a decoder sees them: damaged headers crash or hang some decoders."""

from __future__ import annotations

import struct

JPEG_FRAME_MARKERS = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
"""Start of frame of JPEG (ITU-T T.81, table B.1) and, 0xF7, of JPEG-LS (T.87)."""


def check_codestream(frame: bytes, rows: int, columns: int, samples: int = 1) -> None:
    """Raise ValueError unless a JPEG, JPEG-LS or JPEG 2000 frame says that it holds rows x columns pixels of
    so many samples.

    A frame of another kind (RLE) is not looked at. The end of a JPEG stream must be there too.
    """
    if frame[:4] == b"\xff\x4f\xff\x51":
        if len(frame) < 42:
            raise ValueError("the JPEG 2000 header is cut off")
        (left, top), (width, height) = struct.unpack(">II", frame[16:24]), struct.unpack(">II", frame[8:16])
        tile_width, tile_height = struct.unpack(">II", frame[24:32])
        (components,) = struct.unpack(">H", frame[40:42])
        found = (height - top, width - left, components)
        if min(tile_width, tile_height) < 1:
            raise ValueError("JPEG 2000 tiles of no size; the header is damaged")
    elif frame[:2] == b"\xff\xd8":
        found = _jpeg_size(frame)
        if b"\xff\xd9" not in frame[-64:]:
            raise ValueError("the JPEG stream has no end; it is cut off")
    else:
        return
    if found != (rows, columns, samples):
        said = "{} x {} pixels of {} samples".format(*found)
        raise ValueError(f"the stream holds {said}; the header says {rows} x {columns} of {samples}")


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """(rows, columns, components) from the frame header, once every segment up to the scan has been walked
    through."""
    size = None
    place = 2
    while place + 4 <= len(frame):
        mark, kind = frame[place], frame[place + 1]
        (length,) = struct.unpack(">H", frame[place + 2 : place + 4])
        if mark != 0xFF or length < 2 or place + 2 + length > len(frame):
            break
        body = frame[place + 4 : place + 2 + length]
        if kind in JPEG_FRAME_MARKERS and size is None:
            precision, height, width, components = struct.unpack(">BHHB", body[:6])
            # One grey component is stored whole; of colours, two or four pixels may share theirs.
            samplings = (0x11,) if components == 1 else (0x11, 0x21, 0x12, 0x22)
            if not 2 <= precision <= 16 or len(body) != 6 + 3 * components or body[7] not in samplings:
                break
            size = (height, width, components)
        elif kind == 0xC4 and not _sound_huffman_tables(body):
            break
        elif kind == 0xDA:
            if size is None or body[0] != size[2] or len(body) != 4 + 2 * body[0]:
                break
            return size
        elif kind in JPEG_FRAME_MARKERS:
            break
        place += 2 + length
    raise ValueError("the JPEG header is damaged")


def _sound_huffman_tables(body: bytes) -> bool:
    """True when the tables of a DHT segment fill it exactly and no code is longer than its length allows
    (T.81 C.2)."""
    place = 0
    while place < len(body):
        counts = body[place + 1 : place + 17]
        if len(counts) < 16 or body[place] & 0x0F > 3 or body[place] >> 4 > 1:
            return False
        if sum(count / 2 ** (bits + 1) for bits, count in enumerate(counts)) > 1:
            return False
        place += 17 + sum(counts)
    return place == len(body)
