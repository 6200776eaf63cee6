"""``medseg serve`` as an operator runs it: what it refuses, what it starts, and that all of it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from medseg.bundles.find import bundle_folders, find_bundle
from medseg.errors import BundleError, InputError
from medseg.files import write_json

pytest.importorskip("django", reason="the web application needs medseg[serve]")
from medseg.cli.serve import ROLES  # noqa: E402
from medseg.serve.web.run import ServeRequest, commands, prepare, serve  # noqa: E402
from medseg.serve.web.site import load_site  # noqa: E402


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name in (
        "MEDSEG_WEB_DATA",
        "MEDSEG_WEB_BUNDLES",
        "MEDSEG_WEB_URL",
        "MEDSEG_QUEUE",
        "DJANGO_SETTINGS_MODULE",
    ):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_a_host_that_others_reach_needs_https(tmp_path):
    with pytest.raises(InputError, match="travel in the open"):
        prepare(ServeRequest(tmp_path, host="0.0.0.0"))
    write_json({"public_url": "https://contours.example"}, tmp_path / "site.json")
    site = prepare(ServeRequest(tmp_path, host="0.0.0.0"))
    assert site.is_https and (tmp_path.stat().st_mode & 0o777) == 0o700


def test_only_bundles_that_may_run_are_served(tmp_path):
    with pytest.raises(BundleError, match="no bundle 'nonsense'"):
        prepare(ServeRequest(tmp_path, bundles=("nonsense",)))
    site = prepare(ServeRequest(tmp_path))
    with_weights = {name for name in bundle_folders() if find_bundle(name).has_weights}
    assert set(site.bundles) == with_weights and "cxr_anatomy" in with_weights


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"colour": "blue"}, "unknown key 'colour'"),
        ({"keep_days": "long"}, "keep_days is 'long'"),
        ({"max_files": 1.5}, "max_files is 1.5"),
        ({"max_files": True}, "max_files is True"),
        ({"max_files": 0}, "max_files is 0"),
        ({"keep_days": 0}, "keep_days is 0"),
        ({"targets": [{"name": "a", "host": "h", "port": 70_000, "ae_title": "A"}]}, "port 70000 is none"),
        ({"targets": [{"name": "a", "host": "h", "port": 1, "ae_title": "A" * 17}]}, "at most 16"),
        ({"pacs": [{"name": "a"}]}, "pacs"),
        ({"pacs": [{"name": "a", "url": "file:///etc"}]}, "pacs"),
        ({"targets": [{"name": "a", "host": "h", "port": 1, "ae_title": "A", "password": "x"}]}, "targets"),
        ({"deidentify": "sometimes"}, "deidentify 'sometimes'"),
        ({"ohif_url": "javascript:alert(1)"}, "ohif_url"),
    ],
)
def test_a_site_that_makes_no_sense_is_refused_by_its_key(tmp_path, said, words):
    write_json(said, tmp_path / "site.json")
    with pytest.raises(InputError, match=words):
        load_site(tmp_path)


def test_a_taken_port_is_refused_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="choose another `port`"):
            serve(ServeRequest(tmp_path, port=taken.getsockname()[1]), print)


def test_a_queue_with_a_password_stands_on_no_command_line(tmp_path):
    write_json({"queue": "postgresql://medseg:secret@db/jobs"}, tmp_path / "site.json")
    site = prepare(ServeRequest(tmp_path, workers=3))
    started = commands(ServeRequest(tmp_path, workers=3), site)
    assert len(started) == 4 and "secret" not in str([kept.command for kept in started])


def test_the_command_line_knows_the_roles_of_the_site(site_dir):
    from medseg.serve.web import access

    assert ROLES == access.ROLES


def test_the_web_processes_never_load_torch(site_dir):
    script = "import sys\nfor name in ('torch', 'monai'): sys.modules[name] = None\n"
    script += "import medseg.serve.web.wsgi, medseg.serve.web.urls\n"
    environment = {**os.environ, "MEDSEG_WEB_DATA": str(site_dir)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_tables_are_as_the_models_say(site_dir):
    from django.core.management import call_command

    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def children(parent: int) -> list[int]:
    """Processes that ``parent`` started, and theirs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found + [grandchild for child in found for grandchild in children(child)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_sigterm_ends_the_server_and_all_its_workers(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "medseg", "serve", "--data", str(tmp_path / "site"), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDSEG_WEB")}
    process = subprocess.Popen(
        [*command, "--bundles", "cxr_anatomy"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert f"medseg is at http://127.0.0.1:{port}" in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/log-in/", timeout=60) as answer:
            assert b"Research use only" in answer.read()
        started = children(process.pid)
        assert len(started) >= 4  # gunicorn, its two processes, one worker
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in started):
            time.sleep(0.1)
        assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
        assert (tmp_path / "site" / "secret_key").stat().st_mode & 0o777 == 0o600
    finally:
        process.kill()
