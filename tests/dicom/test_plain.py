"""Headers read in one go. Referee: pydicom's own reading of the same file, element by element."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from medseg.dicom import find_series
from medseg.dicom.opening import PIXEL_TAGS, Source
from medseg.dicom.plain import plain_decimals, read_plain, value_of
from medseg.phantoms.series import stack_geometry, write_series

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def slice_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "CT"
    write_series(np.zeros(SHAPE), stack_geometry(SHAPE), folder)
    return sorted(folder.iterdir())[0]


@pytest.fixture
def changed(slice_file, tmp_path):
    """A function that saves the slice with other values, in another syntax: (name, syntax, KEYWORD=value)."""

    def save(name="slice.dcm", syntax=ExplicitVRLittleEndian, **values):
        dataset = pydicom.dcmread(slice_file)
        pixels = dataset.PixelData
        dataset.update(values)
        items = values.get("ReferencedImageSequence")
        if items:
            ends_are_marked = items[0].is_undefined_length_sequence_item
            dataset["ReferencedImageSequence"].is_undefined_length = ends_are_marked
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == JPEG2000Lossless:
            dataset.PixelData = pydicom.encaps.encapsulate([pixels])
            dataset["PixelData"].is_undefined_length = True
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        pydicom.dcmwrite(tmp_path / name, dataset, implicit_vr=implicit, little_endian=little)
        return tmp_path / name

    return save


def read(path, known=None):
    """(the data set or None, where its source stands)"""
    with path.open("rb") as file:
        source = Source(file, 0)
        return read_plain(file, source, PIXEL_TAGS, {} if known is None else known), source.tell()


def nested(undefined: bool) -> dict:
    item, inner = Dataset(), Dataset()
    inner.CodeValue, item.ReferencedSOPInstanceUID = "113100", "1.2.3"
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    inner.is_undefined_length_sequence_item = item.is_undefined_length_sequence_item = undefined
    item["PurposeOfReferenceCodeSequence"].is_undefined_length = undefined
    return {"ReferencedImageSequence": Sequence([item, item])}


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless])
def test_every_element_is_what_pydicom_reads(changed, syntax, undefined):
    path = changed(
        syntax=syntax, PatientName="Müller", SpecificCharacterSet="ISO_IR 100", **nested(undefined)
    )
    known = {}
    for _ in range(2):  # the second time out of what is known
        found, place = read(path, known)
        sequence = found.get_item("ReferencedImageSequence")
        assert isinstance(sequence, RawDataElement) and (sequence.length == 0xFFFFFFFF) == undefined
        with path.open("rb") as file:
            expected = pydicom.dcmread(file, stop_before_pixels=True)
            assert place == file.tell()
        assert found == expected and found.file_meta == expected.file_meta
        assert [element.VR for element in found] == [element.VR for element in expected]
        assert found.original_encoding == expected.original_encoding
        assert found.original_character_set == expected.original_character_set
        assert found.PatientName.family_name == "Müller"
        assert found.ReferencedImageSequence[1].PurposeOfReferenceCodeSequence[0].CodeValue == "113100"


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_left_to_pydicom(changed, syntax):
    assert read(changed(syntax=syntax))[0] is None


@pytest.mark.parametrize("keep", [0, 131, 140, 300, -600])
def test_a_file_that_ends_before_its_pixels_is_left_to_pydicom(slice_file, tmp_path, keep):
    (tmp_path / "cut.dcm").write_bytes(slice_file.read_bytes()[:keep])
    assert read(tmp_path / "cut.dcm")[0] is None


def test_what_says_one_encoding_and_has_another_is_left_to_pydicom(changed):
    for said, other in ((b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"), (b"1\0", b"2\0")):
        path = changed()
        content = path.read_bytes()
        path.write_bytes(content.replace(said, other, 1))
        assert path.read_bytes() != content and read(path)[0] is None


def test_a_sequence_whose_item_ends_elsewhere_is_left_to_pydicom(changed):
    path = changed(**nested(undefined=True))
    content = path.read_bytes()
    assert read(path)[0] is not None
    path.write_bytes(content.replace(b"\xfe\xff\x0d\xe0", b"\xfe\xff\x0d\xe1", 1))
    assert read(path)[0] is None


CHARACTER_SET = b"\x08\0\x05\0CS\x0a\0ISO_IR 192"


@pytest.mark.parametrize(
    ("sound", "damaged"),
    [
        (b"\x02\0\0\0UL", b"\x02\0\0\0FD"),
        (b"\x02\0\x10\0UI", b"\x02\0\x10\0FD"),
        (b"\x08\0\x05\0CS", b"\x08\0\x05\0LT"),
        (b"\x08\0\x00\x01SH", b"\x08\0\x00\x01\x02H"),
    ],
    ids=["length of the file meta", "transfer syntax", "character set", "within a sequence"],
)
def test_a_value_representation_that_cannot_be_is_left_to_pydicom(changed, sound, damaged):
    path = changed(SpecificCharacterSet="ISO_IR 192", **nested(undefined=True))
    content = path.read_bytes()
    assert read(path)[0] is not None and content.count(sound) in (1, 2)
    path.write_bytes(content.replace(sound, damaged))
    assert read(path)[0] is None


def test_tags_out_of_order_are_left_to_pydicom(changed):
    path = changed(SpecificCharacterSet="ISO_IR 192", **nested(undefined=True))
    content = path.read_bytes()
    patient = content.index(b"\x10\0\x10\0PN")  # behind the sequence, whose text pydicom then reads as Latin
    moved = content[:patient].replace(CHARACTER_SET, b"") + CHARACTER_SET + content[patient:]
    assert read(path)[0] is not None and len(moved) == len(content)
    path.write_bytes(moved)
    assert read(path)[0] is None and pydicom.dcmread(path).SpecificCharacterSet == "ISO_IR 192"


def test_a_sequence_with_a_character_set_of_its_own_is_left_to_pydicom(changed):
    values = nested(undefined=True)
    values["ReferencedImageSequence"][0].SpecificCharacterSet = "ISO_IR 192"
    assert read(changed(**values))[0] is None


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
def test_a_value_within_a_sequence_has_the_sign_of_the_pixels(changed, undefined):
    values = nested(undefined)
    values["ReferencedImageSequence"][0].add_new("RealWorldValueFirstValueMapped", "SS", -5)
    found, _ = read(changed(syntax=ImplicitVRLittleEndian, PixelRepresentation=1, **values))
    assert found.ReferencedImageSequence[0].RealWorldValueFirstValueMapped == -5


def test_damaged_values_are_not_shared_by_slices_either(changed):
    known, path = {}, changed()
    path.write_bytes(
        path.read_bytes().replace(b"\x28\0\x10\0US\2\0\x08\0", b"\x28\0\x10\0US\4\0\x08\0\x08\0")
    )
    one, other = read(path, known)[0], read(path, known)[0]
    one.Rows[0] = 5
    assert other.Rows == [8, 8]


def test_a_value_of_one_slice_is_never_that_of_another(changed):
    known = {}
    one, two = changed("one.dcm", PatientID="A"), changed("two.dcm", PatientID="A")
    first, second, third = (read(path, known)[0] for path in (one, two, changed("c.dcm", PatientID="B")))
    assert (first.PatientID, second.PatientID, third.PatientID) == ("A", "A", "B")
    second.PatientID, second.ImageType[0] = "C", "DERIVED"
    assert first.PatientID == read(one, known)[0].PatientID == "A"
    assert first.ImageType[0] == read(one, known)[0].ImageType[0] == "ORIGINAL"


def test_the_same_bytes_in_another_character_set_are_another_name(changed):
    known, names = {}, []
    for number, character_set in enumerate(("ISO_IR 192", "ISO_IR 100")):
        path = changed(f"{number}.dcm", SpecificCharacterSet="ISO_IR 192", PatientName="Müller")
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 192", character_set.encode()))
        names.append(str(read(path, known)[0].PatientName))
    assert names == ["Müller", "MÃ¼ller"]


def test_a_damaged_value_is_told_although_others_were_sound(changed, tmp_path):
    for name in ("a.dcm", "b.dcm", "c.dcm"):
        path = changed(name, SOPInstanceUID=f"1.2.{ord(name[0])}")
        if name == "b.dcm":  # Rows, US, of four bytes: two numbers where one is expected
            rows = b"\x28\x00\x10\x00US"
            path.write_bytes(path.read_bytes().replace(rows + b"\2\0\x08\0", rows + b"\4\0\x08\0\x08\0"))
    found = find_series(tmp_path)
    assert [note.path.name for note in found.broken] == ["b.dcm"] and "Rows" in found.broken[0].why
    assert [record.path.name for files in found.series.values() for record in files.records] == [
        "a.dcm",
        "c.dcm",
    ]


def test_headers_above_a_limit_are_left_to_whoever_counts(slice_file, monkeypatch):
    assert read(slice_file)[0] is not None
    for name, value in (("HEADER_BYTES", "200"), ("ELEMENTS", "1000")):  # a hundredth outside sequences: 10
        monkeypatch.setenv(f"MEDSEG_LIMIT_{name}", value)
        assert read(slice_file)[0] is None
        monkeypatch.delenv(f"MEDSEG_LIMIT_{name}")


@pytest.mark.parametrize(
    ("stored", "numbers"),
    [
        (b"1.5\\-2\\+3e1 ", [1.5, -2, 30]),
        (b".5\0", [0.5]),
        (b"", None),
        (b"1\\", None),
        (b"1_0", None),
        (b"nan", None),
        (b"1e999", None),
        (b"1 2", None),
    ],
)
def test_only_plain_decimals_are_read_without_pydicom(stored, numbers):
    dataset = Dataset()
    raw = RawDataElement(pydicom.tag.Tag("PixelSpacing"), "DS", len(stored), stored, 0, False, True)
    dataset[raw.tag] = raw
    assert plain_decimals(dataset, "PixelSpacing") == numbers
    assert plain_decimals(dataset, "SliceThickness") is None


def test_a_value_is_that_of_get():
    dataset = Dataset()
    dataset.Rows = 5
    assert value_of(dataset, "Rows") == 5
    assert value_of(dataset, "Columns") is None and value_of(dataset, "Columns", 7) == 7


def test_a_slice_of_another_encoding_is_still_found(changed):
    path = changed(syntax=DeflatedExplicitVRLittleEndian)
    assert len(find_series(path).series) == 1
