"""Two structure sets of one study against each other, in the browser."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from medseg.dicom import read_series, write_rtstruct


@pytest.fixture
def two_sets(client, upload, ct_zip, tmp_path):
    """(client, study id) of the CT with a block drawn twice, the second time one slice shorter."""
    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "ct")
        files = {name: archive.read(name) for name in archive.namelist()}
    series = read_series(tmp_path / "ct")
    mask = np.zeros((12, 32, 40), bool)
    mask[3:9, 8:20, 10:30] = True
    for name, last in (("A", 9), ("B", 8)):
        drawn = mask.copy()
        drawn[last:] = False
        write_rtstruct({"GTV": drawn}, series, tmp_path / f"{name}.dcm")
        files[f"{name}.dcm"] = (tmp_path / f"{name}.dcm").read_bytes()
    return client, upload(client, files).url.split("/")[2]


def test_two_sets_give_the_report_of_medseg_compare(two_sets):
    client, study = two_sets
    page = client.get(f"/compare/?study={study}").content.decode()
    assert "A.dcm" in page and "B.dcm" in page
    form = {"study": study, "series": "s0001", "reference": "set:r0001", "other": "set:r0002"}
    answer = client.post("/compare/make", form)
    page = client.get(answer.url).content.decode()
    assert "Open the report" in page, page
    report = client.get(f"{answer.url}report")
    text = b"".join(report.streaming_content).decode()
    # 6 and 5 slices of the same block: Dice is 2 * 5 / (6 + 5) = 0.909.
    assert "0.909" in text and "Research use only" in text
    assert (
        "sandbox" in report["Content-Security-Policy"]
        and "script-src" not in report["Content-Security-Policy"]
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reference", "set:r0009"),
        ("other", "job:x:y"),
        ("other", "/etc/passwd"),
        ("series", "s0009"),
        ("tolerance_mm", "-1"),
        ("tolerance_mm", "two"),
        ("tolerance_mm", "nan"),
    ],
)
def test_what_there_is_not_is_not_compared(two_sets, field, value):
    client, study = two_sets
    form = {"study": study, "series": "s0001", "reference": "set:r0001", "other": "set:r0002", field: value}
    assert client.post("/compare/make", form).status_code == 400


def test_sets_without_a_common_structure_say_so_on_the_page(client, upload, ct_zip, tmp_path):
    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "ct")
        files = {name: archive.read(name) for name in archive.namelist()}
    mask = np.zeros((12, 32, 40), bool)
    mask[3:9, 8:20, 10:30] = True
    for name in ("Heart", "Liver"):
        write_rtstruct({name: mask}, read_series(tmp_path / "ct"), tmp_path / f"{name}.dcm")
        files[f"{name}.dcm"] = (tmp_path / f"{name}.dcm").read_bytes()
    study = upload(client, files).url.split("/")[2]
    form = {"study": study, "series": "s0001", "reference": "set:r0001", "other": "set:r0002"}
    answer = client.post("/compare/make", form)
    page = client.get(answer.url).content.decode()
    assert 'role="alert"' in page and "/studies/" + study not in page.split("<section")[1]
    assert client.get(f"{answer.url}report").status_code == 404
