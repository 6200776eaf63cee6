"""One site for a process of the tests, its users, and what they upload."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from web_visits import answered, client_of, do_the_work, send
from zip_files import zip_of

from medseg.files import write_json

OFFERED = ("ct_head_neck", "cxr_anatomy", "eye_lesion", "hip_osteoporosis")


@pytest.fixture(scope="session")
def site_dir(tmp_path_factory) -> Path:
    """The folder of a site; Django is set up for it, once for all tests of this process."""
    pytest.importorskip("django", reason="the web application needs medseg[serve]")
    from medseg.serve.web.run import ServeRequest, prepare, set_up_django

    folder = tmp_path_factory.mktemp("site")
    prepare(ServeRequest(folder, bundles=OFFERED))
    os.environ["MEDSEG_WEB_URL"] = "http://testserver"
    set_up_django()
    from django.conf import settings
    from django.test.utils import setup_test_environment

    setup_test_environment()  # answers then tell the template's values
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # else a second each
    return folder


@pytest.fixture(scope="session")
def bright(site_dir, bright_bundle) -> str:
    """``bright_bundle`` as the site's pages name it; from now on it is offered."""
    from medseg.serve.web.site import BUNDLES_VARIABLE, the_site

    os.environ[BUNDLES_VARIABLE] = ",".join((str(bright_bundle), *OFFERED))
    the_site.cache_clear()
    return str(bright_bundle)


@pytest.fixture
def site_says(site_dir):
    """A function that writes keys into site.json for the length of a test."""
    from medseg.serve.web.site import the_site

    def say(**keys) -> None:
        write_json(keys, site_dir / "site.json")
        the_site.cache_clear()

    yield say
    (site_dir / "site.json").unlink(missing_ok=True)
    the_site.cache_clear()


@pytest.fixture
def account(site_dir):
    """A function that makes an account of a role and returns its (name, password)."""
    from medseg.serve.web.accounts import new_account

    def make(role: str = "user") -> tuple[str, str]:
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        return name, new_account(name, role)

    return make


@pytest.fixture
def logged_in(account):
    """A function that makes an account and returns a client that is logged in as it."""
    from django.test import Client

    def make(role: str = "user", **settings) -> Client:
        name, password = account(role)
        client = Client(**settings)
        assert client.login(username=name, password=password)
        client.username = name
        return client

    return make


@pytest.fixture
def client(logged_in):
    return logged_in()


@pytest.fixture(scope="session")
def ct_zip(tmp_path_factory) -> bytes:
    """A CT of 12 slices with a block of 800 HU, as a zip of its files: what bright_bundle contours."""
    import numpy as np

    from medseg.phantoms.series import stack_geometry, write_series

    geometry = stack_geometry((12, 32, 40), gaps_mm=1.5, pixel_spacing_mm=(1.5, 1.5))
    volume = np.full(geometry.shape, -200.0, np.float32)
    volume[3:9, 8:20, 10:30] = 800.0
    folder = tmp_path_factory.mktemp("ct")
    write_series(volume, geometry, folder)
    return zip_of({path.name: path.read_bytes() for path in sorted(folder.iterdir())})


@pytest.fixture
def upload():
    return send


@pytest.fixture
def study(upload, ct_zip):
    """A function that uploads the CT for a client; returns the study's address."""

    def make(client, **fields) -> str:
        answer = upload(client, {"ct.zip": ct_zip}, **fields)
        assert answer.status_code == 302, answer.content.decode()[-800:]
        return answer.url

    return make


@pytest.fixture
def work(bright):
    """A function that does what a worker process does until nothing waits."""
    return do_the_work


@pytest.fixture(scope="session")
def finished(site_dir, ct_zip, bright):
    """(client, address) of one job that is done, for tests that only look."""
    client = client_of("looks")
    study = send(client, {"ct.zip": ct_zip}, title="looked at").url
    return client, answered(client, study, image="series:s0001", bundle=bright)


@pytest.fixture
def contoured(study, bright):
    """A function that uploads the CT, contours it, and returns the job's address."""
    return lambda client, **fields: answered(
        client, study(client), image="series:s0001", bundle=bright, **fields
    )
