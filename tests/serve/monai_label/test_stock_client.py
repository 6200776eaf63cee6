"""The stock client of monailabel 0.8.5 drives this server through all of its calls, unchanged.

It is one file of the wheel and needs nothing of the server beside it. Without the wheel the test is skipped:

    pip download --no-deps monailabel==0.8.5 && unzip -q monailabel-0.8.5*.whl -d wheel
    MEDSEG_MONAILABEL=wheel pytest tests/serve/monai_label/test_stock_client.py
"""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest


@pytest.fixture
def stock():
    """The client's module."""
    folder = os.environ.get("MEDSEG_MONAILABEL")
    if not folder:
        pytest.skip(
            "the wheel of monailabel 0.8.5 is not here: set MEDSEG_MONAILABEL to where it is unpacked"
        )
    pytest.importorskip("cgi", reason="the stock client needs Python's cgi, which ended with 3.12")
    path = Path(folder) / "monailabel" / "client" / "client.py"
    spec = importlib.util.spec_from_file_location("stock_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(stock, server, tmp_path):
    return stock.MONAILabelClient(f"http://127.0.0.1:{server.port}", str(tmp_path), client_id="stock")


def values_of(file):
    image = nibabel.load(file)
    return np.asarray(image.dataobj).transpose(2, 1, 0)


def test_it_asks_who_is_there_and_which_image_is_next(client):
    assert client.auth_enabled() is False
    assert client.info()["models"]["sides"]["labels"]["Parotid_R"] == 2
    assert client.next_sample("first", {})["id"] == "CT"


def test_it_contours_an_image_and_a_session_and_submits_what_it_got(client, studies, tmp_path):
    file, params = client.infer("sides", "CT", {"result_extension": ".nii.gz"})
    assert params["label_names"] == {"Parotid_R": 1}
    values = values_of(file)
    marker = studies.phantom.masks["Marker"]
    assert 2 * (marker & (values == 1)).sum() / (marker.sum() + (values == 1).sum()) > 0.9
    session = client.create_session(str(studies.folder / "second.nii.gz"))["session_id"]
    assert client.get_session(session)["name"] == session
    again, _ = client.infer("sides", "second", {}, session_id=session)
    assert np.array_equal(values_of(again), values)
    client.remove_session(session)
    label = tmp_path / "label.nii.gz"
    label.write_bytes(Path(file).read_bytes())
    saved = client.save_label("CT", str(label), params={"label_info": [{"name": "Parotid_R", "idx": 1}]})
    assert saved["image"] == "CT"
    row = client.datastore()["objects"]["CT"]
    assert saved["label"] in [one["id"] for one in row["versions"]]
    assert np.array_equal(values_of(client.download_label(saved["label"], "final")), values)


def test_it_adds_an_image_and_starts_and_ends_a_training(client, stock, studies):
    name = f"upload {time.time_ns()}"
    added = client.upload_image(str(studies.folder / "second.nii.gz"), name)["image"]
    assert added in client.datastore()["objects"]
    task = client.train_start("sides", {"max_epochs": 1})
    assert task["status"] in ("SCHEDULED", "RUNNING")
    assert client.train_status()["id"] == task["id"]
    client.train_stop()
    assert client.train_status(check_if_running=True) is False


def test_errors_reach_it_with_their_words(client, stock):
    with pytest.raises(stock.MONAILabelClientException) as error:
        client.infer("spleen", "CT", {})
    assert "this server runs sides" in error.value.msg
