"""A zip of somebody else's: what is refused, by which name, and how much of it was unpacked by then."""

from __future__ import annotations

import io
import stat
import struct
import zipfile

import pytest

from medseg.serve.web.archives import Budget, RefusedUpload, unpack

MB = 2**20


def packed(path, files: dict[str, bytes], compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def budget(**limits) -> Budget:
    return Budget(**{"max_files": 100, "max_bytes": 50 * MB, "max_ratio": 50.0, **limits})


def refusal(path, **limits) -> str:
    out = path.parent / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(RefusedUpload) as caught:
        list(unpack(path, out, budget(**limits)))
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_files_get_invented_names_and_keep_their_content(tmp_path):
    path = packed(tmp_path / "u.zip", {"a/1.dcm": b"one", "b/1.dcm": b"two", "a/": b""})
    out = tmp_path / "out"
    out.mkdir()
    found = list(unpack(path, out, budget()))
    assert [name for _, name in found] == ["a/1.dcm", "b/1.dcm"]
    assert [file.read_bytes() for file, _ in found] == [b"one", b"two"]
    assert sorted(file.name for file in out.iterdir()) == ["u.zip_000001", "u.zip_000002"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/passwd", "C:/evil", "..\\evil"])
def test_a_name_that_leads_out_of_the_zip_is_refused(tmp_path, name):
    assert refusal(packed(tmp_path / "u.zip", {name: b"x"})) == "traversing name"
    assert not (tmp_path / "evil").exists()


def test_an_encrypted_zip_is_refused(tmp_path):
    path = packed(tmp_path / "u.zip", {"1.dcm": b"x"})
    content = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # bit 0 of the flags says encrypted
        content[content.index(magic) + flags] |= 1
    path.write_bytes(content)
    assert refusal(path) == "encrypted zip"


@pytest.mark.parametrize(
    "inner", [b"PK\x03\x04....", b"Rar!....", b"7z\xbc\xaf....", b"BZh9....", b"\xfd7zXZ\0"]
)
def test_an_archive_in_an_archive_is_refused_whatever_it_is_called(tmp_path, inner):
    assert refusal(packed(tmp_path / "u.zip", {"ct.dcm": inner})) == "nested zip"


def test_a_link_is_refused(tmp_path):
    path = tmp_path / "u.zip"
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assert refusal(path) == "link"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = packed(tmp_path / "u.zip", {"zeros": bytes(40 * MB)})
    assert path.stat().st_size < MB / 10
    assert refusal(path) == "zip bomb"
    # The ratio is asked for from 10 MB on, so little more than that has been written.
    assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 11 * MB


def test_a_small_file_of_one_value_may_shrink_as_much_as_it_likes(tmp_path):
    path = packed(tmp_path / "u.zip", {"air.dcm": bytes(2 * MB)})
    out = tmp_path / "out"
    out.mkdir()
    assert [file.stat().st_size for file, _ in unpack(path, out, budget())] == [2 * MB]


def test_bytes_are_counted_and_not_believed(tmp_path):
    path = packed(tmp_path / "u.zip", {"a": b"x" * 5000}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 10)  # the list says ten bytes
    path.write_bytes(content)
    assert refusal(path, max_bytes=1000) in ("too large", "damaged zip")
    assert refusal(packed(tmp_path / "v.zip", {"a": b"x" * 5000}), max_bytes=4999) == "too large"


def test_files_are_counted_over_all_zips_of_an_upload(tmp_path):
    files = {f"{number}.dcm": b"x" for number in range(4)}
    first, second = packed(tmp_path / "a.zip", files), packed(tmp_path / "b.zip", files)
    out, shared = tmp_path / "out", budget(max_files=7)
    out.mkdir()
    assert len(list(unpack(first, out, shared))) == 4
    with pytest.raises(RefusedUpload, match="more than 7 files"):
        list(unpack(second, out, shared))


def test_a_list_of_millions_of_entries_is_not_even_read(tmp_path):
    path = tmp_path / "u.zip"
    listed = 50 * MB
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, listed, 0, 0)
    path.write_bytes(b"PK\x03\x04" + bytes(100) + end)
    assert refusal(path) == "too many files"
    wide = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 10**7, 10**7, 10**9, 0)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 1, 0, 0)
    path.write_bytes(b"PK\x03\x04" + bytes(100) + wide + end)
    assert refusal(path) == "too many files"


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_half_a_zip_is_called_damaged(tmp_path, cut):
    path = packed(tmp_path / "u.zip", {f"{n}.dcm": bytes(range(256)) * 50 for n in range(20)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    assert refusal(path) == "damaged zip"


def test_a_zip_whose_content_is_altered_is_called_damaged(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.dcm", b"A" * 1000)
    path = tmp_path / "u.zip"
    path.write_bytes(out.getvalue().replace(b"A" * 50, b"B" * 50, 1))
    assert refusal(path) == "damaged zip"
