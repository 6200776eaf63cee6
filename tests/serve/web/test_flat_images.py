"""Radiographs in DICOM, and photographs, from the upload to what is taken home, by the shipped bundles."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from chest_files import write_dx
from eye_files import write_photo
from PIL import Image
from web_visits import answered, client_of, send

from medseg.phantoms.chest_film import make_radiograph

CR = "1.2.840.10008.5.1.4.1.1.1"


def chest_file(path, **header) -> bytes:
    pixels = np.rint(make_radiograph(3, side=192).image * 4095).astype(np.uint16)
    return write_dx(path, pixels, BodyPartExamined="CHEST", **header).read_bytes()


@pytest.fixture(scope="module")
def films(site_dir, tmp_path_factory):
    """(client, {modality: address}) of a chest film as DX and one as CR, both contoured."""
    client, folder = client_of("films"), tmp_path_factory.mktemp("films")
    kinds = {"DX": {}, "CR": {"SOPClassUID": CR, "Modality": "CR"}}
    jobs = {}
    for modality, header in kinds.items():
        study = send(client, {"film": chest_file(folder / modality, **header)}).url
        page = client.get(study).content.decode()
        assert modality in page and page.index("suggested") < page.index("hip_osteoporosis")
        jobs[modality] = answered(client, study, image="pictures:p0001", bundle="cxr_anatomy")
    return client, jobs


@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_a_chest_film_in_dicom_gets_its_anatomy_on_its_own_pixels(films, modality):
    client, jobs = films
    answer = client.get(jobs[modality])
    page, case = answer.content.decode(), answer.context["case"]
    assert 'id="opacity"' in page and "Lung_L" in page and "Mediastinum" in page
    picture = client.get(f"{jobs[modality]}cases/{case}/picture").content
    assert Image.open(io.BytesIO(picture)).size == (192, 192)
    files = f"{jobs[modality]}cases/{case}/files/"
    seg = pydicom.dcmread(io.BytesIO(b"".join(client.get(f"{files}SEG.dcm").streaming_content)))
    assert seg.Modality == "SEG" and (seg.Rows, seg.Columns) == (192, 192)
    layers = answer.context["layers"]
    assert len(layers) >= 3
    for layer in layers:
        shown = np.asarray(Image.open(io.BytesIO(client.get(layer["url"]).content)))
        assert np.count_nonzero(shown[..., 3]) == layer["row"]["area_pixels"] > 100


@pytest.mark.slow
def test_a_photograph_of_an_eye_gets_its_lesions_as_layers(client, site_dir, tmp_path):
    write_photo(tmp_path, "eye", 5, side=256)
    study = send(client, {"eye.png": (tmp_path / "images" / "eye.png").read_bytes()}).url
    job = answered(client, study, image="pictures:p0001", bundle="eye_lesion")
    said = client.get(f"{job}progress").json()
    assert said["state"] == "done", said["reason"]
    answer = client.get(job)
    case = answer.context["case"]
    assert answer.context["layers"] and 'id="opacity"' in answer.content.decode()
    picture = Image.open(io.BytesIO(client.get(f"{job}cases/{case}/picture").content))
    assert picture.size == (256, 256) and picture.mode == "RGB"
