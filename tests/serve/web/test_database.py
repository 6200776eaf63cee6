"""The site's own tables on a real PostgreSQL server, from the first account to the deleted study."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from postgres_server import postgres_server

from medseg.errors import InputError
from medseg.files import write_json

pytest.importorskip("django", reason="the web application needs medseg[serve]")
from medseg.serve.web.database import database  # noqa: E402
from medseg.serve.web.site import Site, load_site  # noqa: E402

VISIT = """
import json, sys
from pathlib import Path
from medseg.serve.web.run import ServeRequest, prepare, set_up_django

folder, ct = map(Path, sys.argv[1:])
prepare(ServeRequest(folder, bundles=("ct_head_neck",)))
set_up_django()
from django.db import connection
from django.test.utils import setup_test_environment
setup_test_environment()
from web_visits import client_of, send

client = client_of("anna")
study = send(client, {"ct.zip": ct.read_bytes()}).url
job = client.post(study + "contour", {"image": "series:s0001", "bundle": "ct_head_neck"}).url
said = {"vendor": connection.vendor, "state": client.get(job + "progress").json()["state"]}
said["listed"] = "a study" in client.get("/").content.decode()
said["trail"] = client.get("/trail/").content.decode().count("<td>contour</td>")
client.post(study + "delete")
said |= {"after": client.get(study).status_code, "torch": "torch" in sys.modules}
print(json.dumps(said))
"""


def test_a_url_becomes_what_django_asks_for(tmp_path):
    said = database(Site(tmp_path, database="postgresql://me:p%40ss@db.example:5433/site?sslmode=require"))
    named = {key: said[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}
    assert named == {"NAME": "site", "USER": "me", "PASSWORD": "p@ss", "HOST": "db.example", "PORT": "5433"}
    assert said["OPTIONS"] == {"sslmode": "require"}
    assert database(Site(tmp_path))["NAME"] == tmp_path / "web.sqlite3"


@pytest.mark.parametrize("url", ["mysql://a/b", "web.sqlite3", "postgresql://host"])
def test_another_kind_of_database_is_refused(tmp_path, url):
    write_json({"database": url}, tmp_path / "site.json")
    with pytest.raises(InputError, match="database is no address like postgresql://"):
        database(load_site(tmp_path))


def test_a_visit_from_the_account_to_the_deletion_on_postgresql(ct_zip, tmp_path):
    (tmp_path / "ct.zip").write_bytes(ct_zip)
    (tmp_path / "site").mkdir()
    with postgres_server() as url:
        write_json({"database": url, "queue": url}, tmp_path / "site" / "site.json")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDSEG_WEB")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-c", VISIT, str(tmp_path / "site"), str(tmp_path / "ct.zip")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {
        "vendor": "postgresql",
        "state": "waiting",
        "listed": True,
        "trail": 1,
        "after": 404,
        "torch": False,
    }
    assert not (tmp_path / "site" / "web.sqlite3").exists()
