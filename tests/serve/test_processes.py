"""What a door starts is started again when it ends, and ends with the door."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.errors import InputError
from medseg.serve import processes
from medseg.serve.processes import Kept, check_certificate, check_free, end_all

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def kept():
    """A function that makes a kept process; all of them are gone after the test."""
    made: list[Kept] = []

    def make(command) -> Kept:
        made.append(Kept("one", command))
        return made[-1]

    yield make
    end_all(made)
    assert not any(one.runs for one in made)


def test_a_process_that_dies_is_started_at_once_and_then_after_pauses_that_double(kept):
    told = []

    def tell(event, *level, process, **values):
        told.append((event, values.get("code")))

    one = kept([sys.executable, "-c", "raise SystemExit(3)"])
    one.look(tell)
    one.process.wait()
    one.look(tell)  # it died, and runs again
    assert told == [("started", None), ("died", 3), ("started", None)] and one.deaths == 1
    for pause_s in (1.0, 2.0):
        one.process.wait()
        one.look(tell)
        assert told[-1] == ("died", 3) and one.process is None
        assert one.next_at - time.monotonic() == pytest.approx(pause_s, abs=0.3)
        one.next_at = 0.0
        one.look(tell)


def test_another_command_ends_the_old_process_and_the_same_one_does_not(kept):
    one = kept(SLEEPS)
    one.look()
    first = one.process
    one.change(list(SLEEPS))
    assert one.process is first and first.poll() is None
    one.change([*SLEEPS, "other"])
    one.look()
    assert first.poll() is not None and one.runs and one.process is not first


def test_what_ignores_sigterm_is_killed_after_its_grace_with_what_it_started(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    script = "trap '' TERM; sleep 600 & echo $! > child; mv child up; wait"
    one = kept(["sh", "-c", f"cd {tmp_path}; {script}"])
    one.look()
    while not (tmp_path / "up").exists():
        time.sleep(0.01)
    end_all([one])
    assert one.process.returncode == -signal.SIGKILL
    assert is_gone(int((tmp_path / "up").read_text()))


def is_gone(process: int) -> bool:
    """Within a while; what nobody waits for may stay as a zombie."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{process}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system call is Linux's")
def test_a_tied_process_ends_when_the_one_that_started_it_is_killed():
    script = """
import signal, subprocess
from medseg.serve.processes import module_command
child = subprocess.Popen(module_command("http.server", "--bind", "127.0.0.1", "0"), stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    until = time.monotonic() + 30  # a new process has no words until it has become the program
    while b"http.server" not in Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert is_gone(child)


def test_a_taken_port_and_a_host_that_is_nowhere_are_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="choose another `port`"):
            check_free("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="port 99999: expected 1 to 65535"):
        check_free("127.0.0.1", 99_999)
    for elsewhere in ("no-such-host.invalid", "192.0.2.1"):  # the second is nobody's: RFC 5737
        with pytest.raises(InputError, match="choose another `host`"):
            check_free(elsewhere, 8000)


def test_what_is_no_certificate_is_refused_before_anything_listens(tmp_path):
    file = tmp_path / "label.pem"
    file.write_text("no certificate")
    with pytest.raises(InputError, match="cannot be used"):
        check_certificate(file, file)
    with pytest.raises(InputError, match="No such file"):
        check_certificate(tmp_path / "none.pem", file)
