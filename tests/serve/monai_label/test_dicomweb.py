"""A DICOMweb server's images are contoured and what people drew is stored back, against a real Orthanc."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from label_server import start_server, stop_server
from orthanc_server import orthanc

from medseg.dicom import read_rtstruct, read_series
from medseg.errors import InputError
from medseg.serve.monai_label.dicomweb import DicomWebImages
from medseg.serve.monai_label.images import UnknownImage


@pytest.fixture(scope="module")
def archive(studies, program, tmp_path_factory):
    """Orthanc with the phantom's CT: (URL, StudyInstanceUID, SeriesInstanceUID)."""
    with orthanc(tmp_path_factory.mktemp("orthanc"), program("Orthanc")) as url:
        files = [pydicom.dcmread(path) for path in sorted((studies.folder / "CT").glob("*.dcm"))]
        DICOMwebClient(url).store_instances(files)
        yield url, files[0].StudyInstanceUID, files[0].SeriesInstanceUID


@pytest.fixture(scope="module")
def door(archive, sides_bundle, tmp_path_factory):
    server = start_server(archive[0], [sides_bundle], tmp_path_factory.mktemp("dicomweb"))
    yield server
    stop_server(server)


def modalities(url, study):
    rows = DICOMwebClient(url).search_for_series(study)
    return sorted(row["00080060"]["Value"][0] for row in rows)


@pytest.mark.slow
def test_ohif_contours_a_series_by_its_uid_in_the_order_of_its_slices(door, archive, studies):
    series = archive[2]
    assert list(door.ask("GET", "/datastore/?output=all").json["objects"]) == [series]
    params = {"result_extension": ".nrrd", "result_dtype": "uint8", "restore_label_idx": False}
    answer = door.form("POST", f"/infer/sides?image={series}&output=image", {"params": json.dumps(params)})
    assert answer.status == 200, answer.body
    values = np.frombuffer(answer.body.partition(b"\n\n")[2], dtype=np.uint8)
    values = values.reshape(studies.phantom.geometry.shape)
    marker = studies.phantom.masks["Marker"]
    assert set(np.unique(values)) == {0, 2}
    overlap = 2 * (marker & (values == 2)).sum() / (marker.sum() + (values == 2).sum())
    assert overlap > 0.9


def test_a_submitted_label_is_stored_back_as_structure_set_and_segmentation(door, archive, studies, tmp_path):
    url, study, series = archive
    marker = studies.phantom.masks["Marker"]
    fields = {"params": json.dumps({"client_id": "ann", "label_info": [{"name": "Parotid_R", "idx": 1}]})}
    files = {"label": ("label.bin", marker.astype(np.uint8).tobytes())}
    saved = door.form("PUT", f"/datastore/label?image={series}", fields, files).json
    assert saved["stored"] == ["rtstruct", "dicom_seg"], saved
    assert modalities(url, study) == ["CT", "RTSTRUCT", "SEG"]
    client = DICOMwebClient(url)
    row = next(r for r in client.search_for_series(study) if r["00080060"]["Value"][0] == "RTSTRUCT")
    client.retrieve_series(study, row["0020000E"]["Value"][0])[0].save_as(tmp_path / "RS.dcm")
    read = read_rtstruct(tmp_path / "RS.dcm", read_series(studies.folder / "CT"))
    assert np.array_equal(read["Parotid_R"], marker)


def test_a_models_answer_is_stored_when_asked(door, archive):
    url, study, series = archive
    before = modalities(url, study).count("RTSTRUCT")
    answer = door.form("POST", f"/infer/sides?image={series}&output=rtstruct", {"params": '{"store": true}'})
    assert answer.headers["x-medseg-stored"] == "true"
    assert modalities(url, study).count("RTSTRUCT") == before + 1


def test_the_proxy_lets_dicomweb_through_and_nothing_else(door, archive):
    url, study, series = archive
    found = door.ask("GET", f"/proxy/dicom/qido/studies?StudyInstanceUID={study}").json
    assert found[0]["0020000D"]["Value"] == [study]
    mine = door.ask("GET", f"/proxy/dicom/wado/studies/{study}/series/{series}/metadata").json
    assert len(mine) == len(
        requests.get(f"{url}/studies/{study}/series/{series}/metadata", timeout=30).json()
    )
    kind = {"Accept": 'multipart/related; type="application/octet-stream"'}
    instance = mine[0]["00080018"]["Value"][0]
    path = f"studies/{study}/series/{series}/instances/{instance}/frames/1"
    frame = door.ask("GET", f"/proxy/dicom/wado/{path}", headers=kind)
    assert frame.status == 200 and len(frame.body) > 64 * 72 * 2
    for path in (
        "wado/../system",
        "wado/system",
        "qido/studies/../../system",
        "wado/http://elsewhere/studies",
    ):
        assert door.ask("GET", f"/proxy/dicom/{path}").status == 404, path
    assert door.ask("POST", "/proxy/dicom/wado/instances").status == 404
    assert door.ask("DELETE", f"/proxy/dicom/wado/studies/{study}").status == 405


def test_a_server_that_does_not_answer_and_a_series_that_is_not_there_are_said(archive, tmp_path):
    with pytest.raises(InputError, match="DICOMweb server"):
        DicomWebImages("http://127.0.0.1:9/dicom-web", tmp_path, tries=1)
    images = DicomWebImages(archive[0], tmp_path)
    with pytest.raises(UnknownImage):
        images.local("1.2.3/../../etc")
    fetched = images.local(archive[2])
    assert Path(fetched.source).parent == tmp_path and len(list(Path(fetched.source).iterdir())) == 34
