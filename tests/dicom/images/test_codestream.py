"""Compressed frames with damaged headers are refused before a decoder, which they could crash, sees them."""

from __future__ import annotations

import struct

import pytest
from pydicom.encaps import generate_frames

from medseg.dicom.images.codestream import check_codestream


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def jpeg(
    rows=32, columns=36, components=1, precision=16, counts=(0, 2, 1) + (0,) * 13, end=b"\xff\xd9"
) -> bytes:
    """A lossless JPEG (SOF3) as the standard lays it out, with a Huffman table of three codes and no image
    data."""
    frame = struct.pack(">BHHB", precision, rows, columns, components) + b"\x01\x11\x00" * components
    table = b"\x00" + bytes(counts) + bytes(sum(counts))
    scan = bytes([components]) + b"\x01\x00" * components + b"\x01\x00\x00"
    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan) + b"\x12\x34" + end


def j2k(rows=32, columns=36, components=1, tile=64) -> bytes:
    size = (
        struct.pack(">HIIIIIIIIH", 0, columns, rows, 0, 0, tile, tile, 0, 0, components)
        + b"\x0f\x01\x01" * components
    )
    return b"\xff\x4f" + segment(0x51, size) + b"\xff\xd9"


def test_frames_of_the_size_in_the_dicom_header_pass():
    check_codestream(jpeg(), 32, 36)
    check_codestream(j2k(), 32, 36)
    check_codestream(b"\0" * 64, 32, 36)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (jpeg(rows=33), "33 x 36 pixels of 1 samples; the header says 32 x 36"),
        (jpeg(components=3), "of 3 samples"),
        (jpeg(precision=48), "header is damaged"),
        (jpeg(counts=(3,) + (0,) * 15), "header is damaged"),
        (jpeg(end=b""), "no end"),
        (jpeg()[:20], "header is damaged"),
        (jpeg().replace(b"\xff\xc4\x00\x16", b"\xff\xc4\xff\xff"), "header is damaged"),
        (j2k(columns=2**31), "pixels of 1 samples"),
        (j2k(components=4), "of 4 samples"),
        (j2k(tile=0), "tiles of no size"),
        (j2k()[:30], "cut off"),
    ],
)
def test_frames_that_contradict_the_dicom_header_or_are_damaged_are_refused(frame, words):
    with pytest.raises(ValueError, match=words):
        check_codestream(frame, 32, 36)


def test_real_frames_pass_and_a_wrong_size_does_not(shared_data):
    import pydicom

    for name in ("JPLL", "JLSL", "JLSN", "J2KR", "J2KI", "RLE"):
        dataset = pydicom.dcmread(shared_data / f"odd_dicom/compressed_ct/CT1_{name}.dcm")
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        check_codestream(frame, 512, 512)
        if name != "RLE":
            with pytest.raises(ValueError, match="512 x 512 pixels of 1 samples; the header says 512 x 256"):
                check_codestream(frame, 512, 256)
