"""Lengths that lie: one bit of a structure set changed, and what it would have lost."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest

from medseg.dicom import read_rtstruct, read_series, read_structure_set, write_rtstruct
from medseg.dicom.nesting import end_of_sequence
from medseg.errors import InputError
from medseg.phantoms.series import stack_geometry, write_series

SHAPE = (6, 24, 26)
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
REFERENCE = b"\x08\0\x55\x11"
FIRST_OF_A_CONTOUR = b"\x06\x30\x16\x00"
CONTOUR_SEQUENCE = b"\x06\x30\x40\x00"
CONTOUR_DATA = b"\x06\x30\x50\x00"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(series, structure set of two boxes on slices 1 to 4, its bytes)"""
    folder = tmp_path_factory.mktemp("case")
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE), folder / "CT")
    series = read_series(folder / "CT")
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:5, 5:15, 5:15] = True
    path = write_rtstruct({"GTV": mask, "PTV": mask}, series, folder / "RS.dcm")
    return series, mask, path.read_bytes()


def places(raw: bytes, mark: bytes, before: bytes = b"") -> list[int]:
    """Where ``mark`` stands; where items start whose content begins with ``before``."""
    found, place = [], raw.find(mark)
    while place >= 0:
        if raw[place + 8 :].startswith(before):
            found.append(place)
        place = raw.find(mark, place + 1)
    return found


@pytest.mark.parametrize("bit", range(1, 18))
def test_no_bit_of_a_contour_items_length_loses_a_voxel_without_a_word(case, bit, tmp_path):
    series, _, raw = case
    for start in places(raw, ITEM, FIRST_OF_A_CONTOUR):
        bad = bytearray(raw)
        bad[start + 4 + bit // 8] ^= 1 << bit % 8
        (tmp_path / "bad.dcm").write_bytes(bad)
        with pytest.raises(InputError, match="damaged DICOM"):
            read_rtstruct(tmp_path / "bad.dcm", series)


@pytest.mark.parametrize("mark", [CONTOUR_SEQUENCE, CONTOUR_DATA], ids=["sequence", "coordinates"])
@pytest.mark.parametrize("change", [-16, -2, 2, 16, 4000, 1 << 30])
def test_no_length_of_a_sequence_or_its_coordinates_loses_a_voxel_without_a_word(
    case, mark, change, tmp_path
):
    series, _, raw = case
    for start in places(raw, mark):
        (length,) = struct.unpack_from("<I", raw, start + 4)
        bad = bytearray(raw)
        struct.pack_into("<I", bad, start + 4, max(length + change, 0))
        (tmp_path / "bad.dcm").write_bytes(bad)
        with pytest.raises(InputError, match="damaged DICOM"):
            read_rtstruct(tmp_path / "bad.dcm", series)


def test_a_file_cut_off_in_its_last_contours_is_refused(case, tmp_path):
    series, _, raw = case
    (tmp_path / "cut.dcm").write_bytes(raw[: places(raw, ITEM, FIRST_OF_A_CONTOUR)[-1]])
    with pytest.raises(InputError, match="damaged DICOM .*more than there is room for"):
        read_rtstruct(tmp_path / "cut.dcm", series)


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
@pytest.mark.parametrize("undefined", [True, False], ids=["delimiters", "lengths"])
def test_sound_files_of_every_encoding_pass(case, implicit, undefined, tmp_path):
    series, mask, raw = case
    (tmp_path / "RS.dcm").write_bytes(raw)
    dataset = pydicom.dcmread(tmp_path / "RS.dcm")
    for row in dataset.ROIContourSequence:
        row["ContourSequence"].is_undefined_length = undefined
        for contour in row.ContourSequence:
            contour.is_undefined_length_sequence_item = undefined
    dataset["ROIContourSequence"].is_undefined_length = undefined
    uid = pydicom.uid
    syntax = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "odd.dcm", implicit_vr=implicit, little_endian=True)
    assert np.array_equal(read_rtstruct(tmp_path / "odd.dcm", series)["PTV"], mask)


def test_sequences_nested_deeper_than_any_set_has_them_are_damage(case, tmp_path):
    _, _, raw = case
    item = b"\x08\x00\x15\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    (tmp_path / "deep.dcm").write_bytes(raw + item * 20000)
    with pytest.raises(InputError, match=r"deep\.dcm"):
        read_structure_set(tmp_path / "deep.dcm")


def implicit_element(tag: bytes, value: bytes) -> bytes:
    return tag + struct.pack("<I", len(value)) + value


def test_a_length_that_looks_like_a_letter_is_no_value_representation():
    content = implicit_element(ITEM, implicit_element(REFERENCE, b"1" * 66))  # 66: a B and a zero
    content += implicit_element(SEQUENCE_END, b"")
    assert end_of_sequence(content, 0, implicit=False) == len(content)


def test_items_of_an_unknown_sequence_are_read_by_how_they_are_encoded():
    inside = REFERENCE + b"UI\x06\x001.2.3\0"
    for stored in (inside, implicit_element(REFERENCE, b"1.2.3\0")):
        sequence = b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff" + implicit_element(ITEM, stored)
        content = implicit_element(ITEM, inside + sequence + implicit_element(SEQUENCE_END, b""))
        content += implicit_element(SEQUENCE_END, b"")
        assert end_of_sequence(content, 0, implicit=False) == len(content)


def test_a_damaged_value_representation_takes_four_bytes_of_length_as_in_pydicom():
    content = implicit_element(ITEM, b"\x08\0\x50\x11UI\2\0001\0" + REFERENCE + b"\x02I\x06\x001.2.3\0")
    with pytest.raises(InputError, match="more than there is room for"):
        end_of_sequence(content + implicit_element(SEQUENCE_END, b""), 0, implicit=False)
