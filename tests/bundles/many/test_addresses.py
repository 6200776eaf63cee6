"""Cases of a DICOMweb server are listed page by page and fetched one by one; a password is refused."""

from __future__ import annotations

import pydicom
import pytest
from chiral_cases import chiral_series

from medseg.bundles.many import addresses
from medseg.dicom import read_series
from medseg.errors import InputError

ROOT = "https://archive/dicom-web"


def row(number):
    uids = {"0020000D": f"1.2.{number}", "0020000E": f"1.3.{number}", "00201209": 34}
    return {tag: {"Value": [value]} for tag, value in uids.items()}


class Server:
    """Three CT series, of which the second can be fetched."""

    def __init__(self, folder):
        self.folder, self.pages = folder, []

    def search_for_series(self, search_filters, limit, offset):
        assert search_filters == {"Modality": "CT"}
        self.pages.append(offset)
        return [row(number) for number in range(3)][offset : offset + limit]

    def iter_series(self, study, series):
        if series != "1.3.1":
            raise ConnectionError(f"no answer from {ROOT}")
        return map(pydicom.dcmread, sorted(self.folder.iterdir()))


@pytest.fixture
def server(tmp_path, monkeypatch):
    chiral_series(tmp_path / "CT")
    found = Server(tmp_path / "CT")
    monkeypatch.setattr(addresses, "_client", lambda url: found)
    monkeypatch.setattr(addresses, "PAGE", 2)
    return found


def test_every_series_of_the_modality_is_listed_though_the_server_answers_in_pages(server):
    cases, _ = addresses.listed(ROOT, "CT")
    assert server.pages == [0, 2] and [size for _, _, size in cases] == [34, 34, 34]
    assert [files.name for files, _, _ in cases] == ["1.3.0", "1.3.1", "1.3.2"]
    assert cases[1][0].address == f"{ROOT}/studies/1.2.1/series/1.3.1"


def test_a_series_is_fetched_whole_and_gone_afterwards_and_its_files_are_always_the_same(server):
    files = addresses.listed(ROOT, "CT")[0][1][0]
    seen = []
    for _ in range(2):
        with addresses.fetched(files, "CT") as here:
            folder = addresses.Path(here.source)
            seen.append((here.source, [path.stat().st_mtime for path in sorted(folder.iterdir())]))
            assert read_series(folder).geometry.shape == (34, 64, 72) and here.address == files.address
        assert not folder.exists()
    assert seen[0] == seen[1]


def test_a_server_that_does_not_answer_fails_the_case(server):
    files = addresses.listed(ROOT, "CT")[0][2][0]
    with pytest.raises(InputError, match="archive/dicom-web: ConnectionError"):
        with addresses.fetched(files, "CT"):
            raise AssertionError("there is nothing to look at")


def test_a_password_in_an_address_is_refused_and_not_repeated(server):
    with pytest.raises(InputError, match="netrc") as refused:
        addresses.listed("https://user:secret@archive/dicom-web", "CT")
    assert "secret" not in str(refused.value)


def test_an_address_without_series_is_refused(server):
    server.search_for_series = lambda **_: []
    with pytest.raises(InputError, match="no CT series found"):
        addresses.listed(ROOT, "CT")
