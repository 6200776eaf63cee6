"""Files appear whole or not at all, hold plain values, and unfinished ones do not outlive their process."""

from __future__ import annotations

import csv
import errno
import json
import os
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

from medseg.errors import InputError, system_error_line
from medseg.files import (
    atomic_path,
    load_json,
    make_folder,
    mark,
    no_empty_folders,
    own_folder,
    plain,
    staging_folder,
    write_csv,
    write_json,
)


def test_a_staging_folder_vanishes_with_its_block_whatever_happens(tmp_path):
    with pytest.raises(ZeroDivisionError), staging_folder(tmp_path / "out") as staging:
        (staging / "CT").mkdir()
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_stays(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with staging_folder(tmp_path) as own:
        host, process, began = own.name.rsplit("-", 2)
        left = tmp_path / f"{host}-{dead.pid}-{began}"
        reused = tmp_path / f"{host}-{process}-1"  # our number, of a process that began at another time
        elsewhere = tmp_path / ".partial-another.computer-1-1"
        for folder in (left, reused, elsewhere):
            (folder / "CT").mkdir(parents=True)
        (tmp_path / f"{left.name}.ct.nii.gz").write_bytes(b"half a CT")
        assert own.exists()
    with staging_folder(tmp_path) as own:
        assert {path.name for path in tmp_path.iterdir()} == {own.name, elsewhere.name}


def test_a_file_is_written_beside_none_that_a_killed_process_left_half(tmp_path):
    script = "import os, signal, sys; from medseg.files import atomic_path\n"
    script += (
        "with atomic_path(sys.argv[1]) as half: half.write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    out = tmp_path / "ct.nii.gz"
    assert subprocess.run([sys.executable, "-c", script, f"{out}"], check=False).returncode == -9
    (half,) = tmp_path.iterdir()
    assert half.name.endswith(".ct.nii.gz") and half.name.startswith(".")
    with atomic_path(out) as temporary:
        temporary.write_bytes(b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("ct.nii.gz", b"whole")]


def test_a_fifo_gets_the_finished_bytes_and_stays_a_fifo(tmp_path):
    out = tmp_path / "report.json"
    os.mkfifo(out)
    reader = subprocess.Popen(["cat", f"{out}"], stdout=subprocess.PIPE)
    write_json({"dsc": 1}, out)
    assert json.loads(reader.communicate(timeout=300)[0]) == {"dsc": 1}
    assert stat.S_ISFIFO(out.stat().st_mode) and list(tmp_path.iterdir()) == [out]


def test_a_fifo_that_nobody_reads_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.files._READER_WITHIN_S", 0.2)
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(InputError, match="is a FIFO that no process reads"):
        write_json({}, tmp_path / "report.json")
    assert stat.S_ISFIFO((tmp_path / "report.json").stat().st_mode)


def test_a_link_to_a_device_is_written_into_and_stays_a_link(tmp_path):
    (tmp_path / "null.json").symlink_to("/dev/null")
    write_json({}, tmp_path / "null.json")
    assert (tmp_path / "null.json").is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_neither_a_link_nor_what_it_points_at_is_replaced_nor_a_folder_or_socket(tmp_path):
    target, link, dangling = tmp_path / "plan.json", tmp_path / "link.json", tmp_path / "dangling.json"
    target.write_text("clinical")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "nowhere")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(f"{tmp_path / 'socket'}")
    for out, words in (
        (link, "is a link"),
        (dangling, "is a link"),
        (tmp_path, "is a folder"),
        (tmp_path / "socket", "is a socket"),
    ):
        with pytest.raises(InputError, match=words):
            write_json({}, out)
    assert link.is_symlink() and dangling.is_symlink() and target.read_text() == "clinical"
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_is_said_of_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "ct.nii.gz"):
        raise OSError(errno.ENOSPC, "No space left on device")  # what a write says: no file
    assert system_error_line(caught.value) == f"{tmp_path / 'ct.nii.gz'}: No space left on device"
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "ct.nii.gz") as temporary:
        raise OSError(errno.ENOSPC, "No space left on device", f"{temporary}")
    assert system_error_line(caught.value) == f"{tmp_path / 'ct.nii.gz'}: No space left on device"
    with pytest.raises(OSError, match="other.dcm"), atomic_path(tmp_path / "ct.nii.gz"):
        raise OSError(errno.ENOENT, "No such file", "other.dcm")  # another file's trouble stays its own


def test_a_disk_too_full_for_a_slice_is_said_in_one_line_and_not_by_a_traceback(tmp_path, room_of_10_kb):
    from medseg.phantoms.series import stack_geometry, write_series

    volume_hu = np.zeros((1, 90, 90), np.int16)  # 16 200 bytes
    with pytest.raises(OSError) as caught:
        write_series(volume_hu, stack_geometry(volume_hu.shape), tmp_path / "CT")
    words = system_error_line(caught.value)
    assert words.startswith(f"{tmp_path / 'CT'}") and words.endswith(".dcm: File too large")
    assert list((tmp_path / "CT").iterdir()) == []


def test_an_output_folder_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "out").write_text("a file")
    for folder in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(InputError, match=f"^{tmp_path / 'out'} is a file; expected a folder"):
            make_folder(folder)
        with pytest.raises(InputError, match="is a file; expected a folder"), staging_folder(folder):
            pass


def test_an_output_folder_is_one_runs_own_and_says_whose(tmp_path):
    (tmp_path / "out").mkdir()
    half = tmp_path / "out" / f".partial-{mark().rsplit('-', 1)[0]}-1.last.pt"
    half.write_bytes(b"of a process that is gone")
    with own_folder(tmp_path / "out"):
        assert not half.exists()
        with pytest.raises(InputError, match=f"being written by another run .process {os.getpid()} on"):
            with own_folder(tmp_path / "out"):
                pass
    with own_folder(tmp_path / "new"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; expected a folder"), own_folder(tmp_path / "file"):
        pass


def test_an_output_folder_that_was_made_for_nothing_goes_and_one_that_was_there_stays(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with staging_folder(tmp_path / name):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    out = tmp_path / "a.json"
    write_json({"before": 1}, out)
    with pytest.raises(ZeroDivisionError), atomic_path(out) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert json.loads(out.read_text()) == {"before": 1}
    assert list(tmp_path.iterdir()) == [out]


def test_what_json_does_not_have_is_refused_and_the_old_file_stays(tmp_path):
    out = tmp_path / "a.json"
    write_json({"name": "Kopf"}, out)
    for bad, error in (({"dsc": float("nan")}, ValueError), ({"path": tmp_path}, TypeError)):
        with pytest.raises(error):
            write_json(bad, out)
    assert out.read_text(encoding="utf-8") == '{\n "name": "Kopf"\n}\n'


def test_numpys_numbers_become_plain_ones_and_what_is_not_finite_becomes_nothing(tmp_path):
    given = {"dsc": np.float32(0.5), "n": np.int64(3), "mm": (1.23456789, np.inf), "shape": np.array([2, 3])}
    assert plain(given) == {"dsc": 0.5, "n": 3, "mm": [1.234568, None], "shape": [2, 3]}
    assert plain("text") == "text" and plain(True) is True and plain(None) is None
    write_json(plain(given), tmp_path / "a.json")


def test_a_table_has_every_column_rounded_figures_and_no_formulas(tmp_path):
    rows = [
        {"name": "=SUM(A1)", "dsc": np.float64(1 / 3), "n": np.int64(-2)},
        {"name": "肺", "dsc": float("nan")},
        {"name": None, "dsc": -float("inf"), "n": 1},
    ]
    write_csv(rows, ["name", "dsc", "n"], tmp_path / "t.csv")
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "dsc", "n"],
            ["'=SUM(A1)", "0.333333", "-2"],
            ["肺", "nan", ""],
            ["", "-inf", "1"],
        ]
    with pytest.raises(ValueError, match="extra"):
        write_csv([{"extra": 1}], ["name"], tmp_path / "t.csv")


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="none does not exist; make it first"):
        write_csv([], ["name"], tmp_path / "none" / "t.csv")


def test_folders_that_a_block_made_and_left_empty_are_gone_and_others_stay(tmp_path):
    there, new, full = (tmp_path / name for name in ("there", "new", "full"))
    there.mkdir()
    never = tmp_path / "never"
    with pytest.raises(KeyboardInterrupt), no_empty_folders(new / "inner", new, full, there, never):
        (new / "inner").mkdir(parents=True)
        full.mkdir()
        (full / "a.txt").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "there"]


def test_json_with_the_mark_that_some_editors_put_before_it_is_the_same_json(tmp_path):
    (tmp_path / "rois.json").write_bytes(b'\xef\xbb\xbf{"GTV": ["gtv.*"]}')
    assert load_json(tmp_path / "rois.json") == {"GTV": ["gtv.*"]}


def test_a_path_that_is_no_utf_8_is_written_and_comes_back_the_same(tmp_path):
    source = os.fsdecode(b"CT_\xff")
    write_json({"source": source}, tmp_path / "run.json")
    assert load_json(tmp_path / "run.json") == {"source": source}
    write_csv([{"case": source}], ("case",), tmp_path / "volumes.csv")
    assert (tmp_path / "volumes.csv").read_text().splitlines() == ["case", "CT_\\udcff"]
