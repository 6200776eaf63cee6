"""A lock names who holds it, ends with its process, and leaves no file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from medseg.errors import InputError
from medseg.files import Lock, held, mark, may_be_alive, remove_free_locks

HOLD = """
import sys, time
from pathlib import Path
from medseg.files import Lock
print(Lock(Path(sys.argv[1])).take() or "taken", flush=True)
time.sleep(900)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path/.lock-CT."""
    command = [sys.executable, "-c", HOLD, f"{tmp_path / '.lock-CT'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_names_the_process_that_holds_it_and_ends_with_it_however_that_ends(tmp_path, holder):
    lock = Lock(tmp_path / ".lock-CT")
    assert re.match(rf"process {holder.pid} on .+, since \d\d:\d\d:\d\d$", lock.take())
    holder.kill()
    holder.wait()
    assert lock.take() is None
    assert "process" in Lock(tmp_path / ".lock-CT").take()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_outlives_a_killed_holder_does_not_hold_its_lock(tmp_path):
    fork = "import os\nchild = os.fork()\nif child: print(child, flush=True)\ntime.sleep(900)"
    command = [sys.executable, "-c", HOLD.replace("time.sleep(900)", fork), f"{tmp_path / '.lock-CT'}"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "taken\n"
    child = int(parent.stdout.readline())
    try:
        holder = Lock(tmp_path / ".lock-CT").take()
        assert str(parent.pid) in holder, "the child lets go of nothing of its parent's"
        parent.kill()
        parent.wait()
        os.kill(child, 0)
        deadline = time.monotonic() + 10  # the child may not have had its turn since it was forked
        while (again := Lock(tmp_path / ".lock-CT").take()) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert again is None
    finally:
        parent.kill()
        os.kill(child, signal.SIGKILL)


def test_of_locks_left_in_a_folder_only_those_that_are_held_stay(tmp_path, holder):
    (tmp_path / ".lock-MR").write_text("of a killed process")
    remove_free_locks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-CT"]
    assert str(holder.pid) in Lock(tmp_path / ".lock-CT").take()


def test_what_another_process_writes_is_refused_by_its_name(tmp_path, holder):
    words = f"OUT is being written by another run .process {holder.pid} on"
    with pytest.raises(InputError, match=words), held(tmp_path / ".lock-CT", "OUT"):
        pass
    with pytest.raises(ZeroDivisionError), held(tmp_path / ".lock-MR", "OUT"):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [".lock-CT"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".lock-CT").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="lock-CT"):
        Lock(tmp_path / ".lock-CT").take()
    assert (tmp_path / "victim").read_text() == "kept"


def test_of_marks_only_those_of_dead_processes_of_this_computer_are_dead():
    host, process, began = mark().rsplit("-", 2)
    assert process == str(os.getpid())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert may_be_alive(mark()) and may_be_alive(f"{mark()}.RS.dcm")
    assert may_be_alive("another.computer-1-1") and may_be_alive("no mark at all")
    assert not may_be_alive(f"{host}-{dead.pid}-{began}")
    assert not may_be_alive(f"{host}-{process}-1"), "the number was given out again"


def test_a_lock_holds_on_a_full_disk_where_it_cannot_say_whose_it_is(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with held(tmp_path / ".lock-CT", "OUT"):
        monkeypatch.undo()
        with pytest.raises(InputError, match="another run"), held(tmp_path / ".lock-CT", "OUT"):
            pass
    assert list(tmp_path.iterdir()) == []
