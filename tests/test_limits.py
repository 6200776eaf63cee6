"""Inputs that ask for more than they hold are refused before anything is allocated, and fast."""

from __future__ import annotations

import binascii
import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medseg import limits
from medseg.cases.nifti import read_mask, write_mask
from medseg.cases.radiograph import open_radiograph
from medseg.dicom import find_series, read_series, read_structure_set
from medseg.errors import InputError
from medseg.files import load_json
from medseg.phantoms.series import stack_geometry, write_series
from medseg.shapes.scanline import rasterise

MB = 1 << 20
ZEROS_STAND = "zeros stand where data elements should"


@pytest.fixture
def slice_file(tmp_path) -> Path:
    """One slice of 32 x 36 pixels with the values 0, 1, 2, … in a folder of its own."""
    volume = np.arange(32 * 36, dtype=np.float32).reshape(1, 32, 36)
    return Path(write_series(volume, stack_geometry(volume.shape), tmp_path / "ct", RescaleIntercept=0)[0])


def refused(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_limit_is_changed_by_its_variable_and_a_wrong_one_is_named(monkeypatch):
    assert limits.most("picture_pixels") == 8192 * 8192
    limits.check("picture_pixels", 8192 * 8192, "a picture")
    monkeypatch.setenv("MEDSEG_LIMIT_PICTURE_PIXELS", "99")
    assert "100 pixels, at most 99 are read" in refused(limits.check, "picture_pixels", 100, "a picture")
    monkeypatch.setenv("MEDSEG_LIMIT_PICTURE_PIXELS", "many")
    assert "MEDSEG_LIMIT_PICTURE_PIXELS is 'many'" in refused(limits.most, "picture_pixels")


# ---- holes, and elements without end -----------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"\x08\x00\x05\x00\0\0\0\0", bytes(128) + b"DICM"], ids=["bare", "DICM"])
def test_a_sparse_file_of_3_gb_is_refused_at_its_first_zeros(tmp_path, start):
    path = tmp_path / "RS.dcm"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(3000 * MB)
    (broken,) = find_series(tmp_path).broken
    assert ZEROS_STAND in broken.why
    assert ZEROS_STAND in refused(read_structure_set, path)


def test_zeros_behind_the_pixels_of_a_slice_are_not_read(slice_file):
    with slice_file.open("ab") as file:
        file.truncate(3000 * MB)
    assert read_series(slice_file.parent).volume()[0, 31, 35] == 32 * 36 - 1


def test_elements_are_counted_outside_sequences_and_within(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_LIMIT_ELEMENTS", "5000")
    empty = b"\x08\x00\x05\x00\0\0\0\0"
    outside = tmp_path / "RS.dcm"
    outside.write_bytes(empty * 51)
    assert "over 50 data elements outside sequences" in refused(read_structure_set, outside)
    inside = tmp_path / "RS2.dcm"
    content = struct.pack("<HHI", 0xFFFE, 0xE000, 8 * 6000) + empty * 6000
    inside.write_bytes(empty + struct.pack("<HHI", 0x3006, 0x0020, len(content)) + content)
    assert "a sequence holds: 5001 data elements" in refused(read_structure_set, inside)


def test_sequences_nested_ten_thousand_deep_are_refused(tmp_path):
    opening = struct.pack("<HHIHHI", 0x3006, 0x0020, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    path = tmp_path / "RS.dcm"
    path.write_bytes(b"\x08\x00\x05\x00\0\0\0\0" + opening * 10_000)
    assert "RecursionError" in refused(read_structure_set, path)
    assert "RecursionError" in find_series(tmp_path).broken[0].why


# ---- compressed streams ------------------------------------------------------------------------------------


def deflated(path: Path, more: bytes = b"", zeros: int = 0) -> None:
    """Write a slice deflated, with ``more`` and ``zeros`` in the place of its pixels where they are given."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    raw = buffer.getvalue()
    start = 144 + struct.unpack("<I", raw[140:144])[0]
    if zeros:
        body = zlib.decompress(raw[start:], -15)
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        raw = raw[:start] + squeezer.compress(body[: body.rfind(b"\xe0\x7f\x10\x00")] + more)
        raw += b"".join(squeezer.compress(bytes(MB)) for _ in range(zeros // MB)) + squeezer.flush()
    path.write_bytes(raw)


def test_a_sound_deflated_slice_is_read(slice_file):
    deflated(slice_file)
    assert read_series(slice_file.parent).volume()[0, 0, 5] == 5


def test_a_deflated_bomb_in_the_place_of_pixels_is_not_inflated(slice_file, monkeypatch):
    monkeypatch.setenv("MEDSEG_LIMIT_HEADER_BYTES", str(MB))
    deflated(slice_file, b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 64 * MB), 64 * MB)
    series = read_series(slice_file.parent)  # its header is sound
    assert "MEDSEG_LIMIT_HEADER_BYTES" in refused(series.volume)


def test_a_deflated_bomb_before_the_pixels_is_refused_when_files_are_looked_for(slice_file, monkeypatch):
    monkeypatch.setenv("MEDSEG_LIMIT_HEADER_BYTES", str(MB))
    deflated(slice_file, b"\x29\x00\x10\x10OB\0\0" + struct.pack("<I", 64 * MB), 64 * MB)
    assert "MEDSEG_LIMIT_HEADER_BYTES" in find_series(slice_file.parent).broken[0].why


def test_a_gz_file_is_read_only_as_far_as_its_header_says(tmp_path):
    geometry = stack_geometry((6, 32, 32))
    plain = write_mask(np.ones(geometry.shape, bool), geometry, tmp_path / "m.nii").read_bytes()
    packed = tmp_path / "m.nii.gz"
    packed.write_bytes(gzip.compress(plain + bytes(1000)))
    assert read_mask(packed, geometry).all()
    packed.write_bytes(gzip.compress(plain + bytes(2 * MB)))
    assert "behind its voxels the file holds" in refused(read_mask, packed, geometry)


@pytest.mark.parametrize(
    "sides, said", [((32767,) * 3, "35181150961663 voxels"), ((800,) * 3, "cut off")], ids=["2 TB", "2 GB"]
)
@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
def test_a_nifti_header_that_declares_more_than_the_file_can_hold_is_refused(tmp_path, name, sides, said):
    geometry = stack_geometry((6, 32, 32))
    raw = bytearray(write_mask(np.ones(geometry.shape, bool), geometry, tmp_path / "s.nii").read_bytes())
    raw[40:56] = struct.pack("<8h", 3, *sides, 1, 1, 1, 1)
    path = tmp_path / name
    path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert said in refused(read_mask, path, geometry)


def test_run_lengths_that_cannot_hold_the_declared_pixels_are_refused(slice_file):
    dataset = pydicom.dcmread(slice_file)
    dataset.compress(RLELossless)
    dataset.Rows, dataset.Columns = 8000, 8000  # 128 MB of pixels in some kB of run lengths
    dataset.save_as(slice_file)
    assert "of run lengths cannot hold" in find_series(slice_file.parent).broken[0].why


@pytest.mark.parametrize("rows, frames", [(65535, 1), (8000, 9)], ids=["one large picture", "many"])
def test_absurd_sizes_of_a_compressed_image_are_refused_before_it_is_decoded(slice_file, rows, frames):
    dataset = pydicom.dcmread(slice_file)
    dataset.compress(JPEG2000Lossless)
    dataset.Rows = dataset.Columns = rows
    dataset.NumberOfFrames = frames
    dataset.save_as(slice_file)
    assert "MEDSEG_LIMIT_" in find_series(slice_file.parent).broken[0].why


def test_a_png_that_declares_100_million_pixels_is_refused(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", binascii.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path = tmp_path / "film.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))
    assert "MEDSEG_LIMIT_PICTURE_PIXELS" in refused(open_radiograph, path)


# ---- decoders ----------------------------------------------------------------------------------------------


def compressed(path: Path, frame: bytes | None = None) -> bytes:
    """Write a slice as JPEG 2000, with ``frame`` as its stream where that is given; the stream it had."""
    dataset = pydicom.dcmread(path)
    dataset.compress(JPEG2000Lossless)
    sound = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    if frame is not None:
        dataset.PixelData = encapsulate([frame])
    dataset.save_as(path)
    return sound


def test_a_decoder_that_dies_is_one_error_and_the_next_image_is_read(slice_file, monkeypatch, tmp_path):
    from medseg.dicom.images import decoder, frames

    dying = tmp_path / "decoder.py"
    dying.write_text("import os, sys; sys.stdin.buffer.read(16); os.abort()")
    compressed(slice_file)
    series = read_series(slice_file.parent)
    frames._end()
    monkeypatch.setattr(decoder, "__file__", str(dying))
    assert "the decoder crashed; the stream is damaged" in refused(series.volume)
    monkeypatch.undo()
    assert series.volume()[0, 0, 7] == 7


def test_a_decoder_that_hangs_is_ended_after_the_limit(slice_file, monkeypatch, tmp_path):
    from medseg.dicom.images import decoder, frames

    hanging = tmp_path / "decoder.py"
    hanging.write_text("import time; time.sleep(600)")
    compressed(slice_file)
    series = read_series(slice_file.parent)
    frames._end()
    monkeypatch.setattr(decoder, "__file__", str(hanging))
    monkeypatch.setenv("MEDSEG_LIMIT_DECODE_SECONDS", "1")
    assert "not decoded within 1 seconds" in refused(series.volume)
    monkeypatch.undo()
    assert series.volume()[0, 0, 7] == 7


# ---- text and contours -------------------------------------------------------------------------------------


def test_json_too_deep_or_too_large_is_a_value_error_that_says_so(tmp_path, monkeypatch):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_json(path)
    monkeypatch.setenv("MEDSEG_LIMIT_TEXT_BYTES", "10")
    with pytest.raises(ValueError, match="at most 10 are read"):
        load_json(path)


def test_a_contour_that_runs_to_and_fro_without_end_is_refused():
    rows = np.tile([0.0, 511.0], 40_000)  # 80 000 edges across 511 rows: 41 million crossings
    zigzag = np.stack([rows, np.linspace(0, 511, rows.size)], axis=1)
    assert "MEDSEG_LIMIT_CROSSINGS" in refused(rasterise, [zigzag], (512, 512))
