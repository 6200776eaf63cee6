"""From the browser onto the disk: plain, in pieces, cut off, too large, full of rubbish."""

from __future__ import annotations

import json
import pickle
import shutil
import uuid

import pytest
from zip_files import zip_of


def begin(client, sizes, **said):
    names = [f"{number}.dcm" for number in range(len(sizes))]
    body = json.dumps({"names": names, "sizes": sizes, **said})
    return client.post("/uploads/", body, content_type="application/json")


def send(client, id_, number, offset, piece):
    return client.post(f"/uploads/{id_}/{number}/{offset}", piece, content_type="application/octet-stream")


def studies_dir_is_empty(site_dir) -> bool:
    from medseg.serve.web.models import Study

    known = set(Study.objects.values_list("id", flat=True))
    return all(path.name in known for path in (site_dir / "studies").iterdir())


def test_an_upload_in_pieces_is_the_file_that_was_sent(client, ct_zip):
    half = len(ct_zip) // 2
    answer = begin(client, [len(ct_zip)], title="in pieces")
    assert answer.status_code == 201
    id_ = answer.json()["id"]
    assert send(client, id_, 0, 0, ct_zip[:half]).json() == {"size": half}
    assert client.get(f"/uploads/{id_}/").json() == {"sizes": [half]}
    early = client.post(f"/uploads/{id_}/finish")
    assert early.status_code == 400 and early.json()["reason"] == "incomplete"
    # The same piece again, as after an answer that was lost on its way, does no harm.
    again = send(client, id_, 0, 0, ct_zip[:half])
    assert again.status_code == 409 and again.json() == {"size": half}
    assert send(client, id_, 0, half, ct_zip[half:]).json() == {"size": len(ct_zip)}
    address = client.post(f"/uploads/{id_}/finish").json()["url"]
    page = client.get(address).content.decode()
    assert "CT × 12" in page and "in pieces" in page
    assert client.get(f"/uploads/{id_}/").status_code == 404  # it is a study now


def test_more_bytes_than_announced_and_files_that_were_not_are_refused(client):
    id_ = begin(client, [10]).json()["id"]
    assert send(client, id_, 0, 0, b"x" * 11).status_code == 413
    assert send(client, id_, 1, 0, b"x").status_code == 400
    assert client.get(f"/uploads/{id_}/").json() == {"sizes": [0]}


def test_nobody_adds_to_an_upload_of_somebody_else(logged_in):
    owner, other = logged_in(), logged_in()
    id_ = begin(owner, [10]).json()["id"]
    assert send(other, id_, 0, 0, b"x").status_code == 404
    assert other.get(f"/uploads/{id_}/").status_code == 404
    assert other.post(f"/uploads/{id_}/finish").status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"[]",
        b"{}",
        b'{"names": ["a"], "sizes": ["x"]}',
        b'{"names": [], "sizes": []}',
        b'{"names": ["a"], "sizes": [-1]}',
        b'{"names": ["a"], "sizes": [1, 2]}',
    ],
)
def test_an_announcement_that_makes_no_sense_is_refused(client, said):
    answer = client.post("/uploads/", said, content_type="application/json")
    assert answer.status_code == 400 and answer.json()["reason"] == "nothing"


def test_a_full_disk_refuses_an_upload_before_its_first_byte(client, site_dir, site_says):
    free = shutil.disk_usage(site_dir).free
    site_says(free_bytes=free + 2**30)
    answer = begin(client, [1000])
    assert answer.status_code == 413 and answer.json()["reason"] == "disk full"
    site_says(max_bytes=999)
    answer = begin(client, [1000])
    assert answer.status_code == 413 and answer.json()["reason"] == "too large"
    site_says(max_files=2)
    assert begin(client, [1, 1, 1]).json()["reason"] == "too many files"
    assert begin(client, [1, 1]).status_code == 201


def test_a_disk_that_fills_up_during_an_upload_is_said_and_loses_nothing(client, monkeypatch):
    import errno

    from medseg.serve.web import uploads

    id_ = begin(client, [10]).json()["id"]
    assert send(client, id_, 0, 0, b"12345").json() == {"size": 5}
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(uploads, "add_piece", full)
        answer = send(client, id_, 0, 5, b"67890")
        assert answer.status_code == 507 and answer.json()["reason"] == "disk full"
    assert send(client, id_, 0, 5, b"67890").json() == {"size": 10}


def test_what_others_have_announced_is_no_longer_free(client, site_dir, site_says):
    free = shutil.disk_usage(site_dir).free
    site_says(free_bytes=0, max_bytes=free)
    share = int(free * 0.3)
    assert begin(client, [share]).status_code == 201
    second = begin(client, [share])
    assert second.status_code == 413 and second.json()["reason"] == "disk full"
    from medseg.serve.web.models import Study
    from medseg.serve.web.retention import delete_study

    for unfinished in Study.objects.filter(ready=False):
        delete_study(unfinished)


def test_the_plain_form_is_counted_while_it_comes_in(client, upload, site_says, site_dir):
    site_says(max_bytes=100_000)
    big = upload(client, {"a.dcm": bytes(99_000), "b.dcm": bytes(2_000)})
    assert big.status_code == 413 and b"larger" not in big.content and b'role="alert"' in big.content
    site_says(max_files=1)
    assert upload(client, {"a.dcm": b"x", "b.dcm": b"y"}).status_code == 413
    assert studies_dir_is_empty(site_dir)


def test_the_plain_form_of_nobody_is_not_stored(site_dir):
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test import Client

    stranger = Client()
    answer = stranger.post("/upload/", {"files": [SimpleUploadedFile("a.dcm", bytes(10_000))]})
    assert answer.status_code == 302 and answer.url.startswith("/log-in/")
    assert not list((site_dir / "incoming").iterdir())


def test_a_bad_zip_is_refused_by_the_name_of_the_reason_and_leaves_nothing(client, upload, site_dir):
    answer = upload(client, {"u.zip": zip_of({"../../evil.dcm": b"x"})})
    assert answer.status_code == 400 and b"leads out of it" in answer.content
    assert studies_dir_is_empty(site_dir)


class Evil:
    """Unpickling this would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["model.pt", "ct.dcm", "image.nii.gz", "a.png"])
def test_a_pickle_is_never_opened_whatever_it_is_called(client, upload, tmp_path, name):
    trap = tmp_path / "trap"
    answer = upload(client, {name: pickle.dumps(Evil(str(trap)))})
    assert answer.status_code == 400 and b"no DICOM" in answer.content
    assert not trap.exists()


def test_files_are_known_by_their_content_and_refused_ones_are_named(client, upload, ct_zip):
    import io

    from PIL import Image

    picture = io.BytesIO()
    Image.new("L", (64, 48), 90).save(picture, "PNG")
    files = {"ct.bin": ct_zip, "film.dat": picture.getvalue(), "letter.pdf": b"%PDF-1.4 ...."}
    page = client.get(upload(client, files).url).content.decode()
    assert "CT × 12" in page and "film.dat" in page
    assert "1 files were not used" in page and "letter.pdf: no DICOM, NIfTI, PNG or JPEG" in page


def test_names_in_a_zip_never_become_names_on_the_disk(client, upload, ct_zip, site_dir):
    odd = f"odd-{uuid.uuid4().hex}"
    answer = upload(client, {f"{odd}.zip": ct_zip}, title=odd)
    assert answer.status_code == 302
    assert not [path for path in site_dir.rglob("*") if odd in path.name]
