"""Radiographs among the images of a server: contoured, corrected and kept on their own pixels."""

from __future__ import annotations

import gzip
import io
import json
import shutil

import nibabel
import numpy as np
import pydicom
import pytest
from chest_files import write_dx
from label_server import parts_of, start_server, stop_server
from PIL import Image

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.errors import InputError
from medseg.phantoms.chest_film import make_radiograph
from medseg.serve.monai_label.description import info
from medseg.serve.monai_label.inference import Question
from medseg.serve.monai_label.models import served_of
from medseg.serve.monai_label.service import Service

NAMES = {"Lung_R": 1, "Lung_L": 2, "Mediastinum": 3, "AirWay_Prox": 4}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """(a running server, its folder): a DX of 0.2 mm x 0.4 mm and a PNG of the same chest, and a mask of it,
    which is no film."""
    folder = tmp_path_factory.mktemp("films")
    grey = make_radiograph(3, side=128).image
    pixels = np.rint(grey * 4095).astype(np.uint16)
    write_dx(folder / "chest.dcm", pixels, ImagerPixelSpacing=[0.2, 0.4], BodyPartExamined="CHEST")
    Image.fromarray((pixels // 16).astype(np.uint8)).save(folder / "plain.png")
    (folder / "note.txt").write_text("no film")
    server = start_server(folder, ["cxr_anatomy"], tmp_path_factory.mktemp("state"))
    yield server, folder
    stop_server(server)


def nifti(content):
    """(voxels [slice, row, column], affine) of a compressed file."""
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    return np.asarray(image.dataobj).transpose(2, 1, 0), image.affine


def infer(server, image, query=""):
    return server.form("POST", f"/infer/cxr_anatomy?image={image}{query}", {"params": "{}"})


@pytest.fixture(scope="module")
def answer(films):
    parts = parts_of(infer(films[0], "chest"))
    return json.loads(parts["params"][2]), *nifti(parts["image"][2])


def test_films_are_offered_by_id_and_downloaded_as_one_slice(films):
    server, _ = films
    assert set(server.ask("GET", "/datastore/?output=all").json["objects"]) == {"chest", "plain"}
    model = server.ask("GET", "/info/").json["models"]["cxr_anatomy"]
    assert model["dimension"] == 2 and model["labels"] == NAMES
    film = nibabel.Nifti1Image.from_bytes(server.ask("GET", "/datastore/image?image=chest").body)
    assert film.shape == (128, 128, 1) and np.allclose(film.header.get_zooms()[:2], (0.4, 0.2))


@pytest.mark.slow
def test_a_film_gets_the_masks_of_medseg_segment(films, answer, tmp_path):
    told, values, affine = answer
    segment(Request(films[1] / "chest.dcm", "cxr_anatomy", tmp_path, formats=("png",)))
    lung = np.asarray(Image.open(next(tmp_path.rglob("Lung_L.png")))) > 0
    assert values.shape == (1, 128, 128) and lung.sum() > 100
    # Of two structures on one pixel the first one shows.
    covered = (values[0] > 0) & (values[0] < told["label_names"]["Lung_L"])
    assert np.array_equal(values[0] == told["label_names"]["Lung_L"], lung & ~covered)
    # NIfTI's x grows to the patient's right and y forwards: columns go to the left, rows down.
    assert np.allclose(np.diag(affine)[:2], (-0.4, -0.2))
    assert told["areas_pixels"]["Lung_L"] == lung.sum() and "volumes_cc" not in told
    assert told["areas_cm2"]["Lung_L"] == pytest.approx(lung.sum() * 0.2 * 0.4 / 100, abs=0.01)


@pytest.mark.slow
def test_a_corrected_film_is_kept_as_a_version_and_taken_home_as_seg(films, answer):
    server, _ = films
    _, values, affine = answer
    drawn = np.zeros_like(values, dtype=np.uint8)
    drawn[0, 10:20, 30:60] = 1
    file = nibabel.Nifti1Image(drawn.transpose(2, 1, 0), affine)
    params = {"client_id": "ann", "label_info": [{"name": "Lung_R", "idx": 1}]}
    kept = server.form(
        "PUT",
        "/datastore/label?image=chest",
        {"params": json.dumps(params)},
        {"label": ("label.nii", file.to_bytes())},
    )
    assert kept.status == 200, kept.body
    label = kept.json["label"]
    again, _ = nifti(server.ask("GET", f"/datastore/label?label={label}").body)
    assert np.array_equal(again, drawn)
    seg = pydicom.dcmread(
        io.BytesIO(server.ask("GET", f"/datastore/label?label={label}&output=dicom_seg").body)
    )
    assert np.array_equal(seg.pixel_array.reshape(128, 128), drawn[0])
    refused = server.ask("GET", f"/datastore/label?label={label}&output=rtstruct")
    assert refused.status == 422 and "a radiograph has none" in refused.json["detail"]


@pytest.mark.parametrize(
    "image, query, words",
    [
        ("chest", "&output=rtstruct", "a radiograph has none"),
        ("plain", "&output=dicom_seg", "a NIfTI or picture file"),
    ],
)
def test_what_a_film_has_no_form_for_is_refused_in_a_line(films, image, query, words):
    refused = infer(films[0], image, query)
    assert refused.status == 422 and words in refused.json["detail"]


def test_a_picture_file_is_contoured_and_its_area_is_in_pixels_alone(films):
    told = infer(films[0], "plain", "&output=json").json
    assert told["areas_pixels"]["Lung_L"] > 100 and told["areas_cm2"]["Lung_L"] is None


def test_labels_of_films_train_nothing_and_a_dicomweb_server_offers_none(films, tmp_path):
    refused = films[0].ask("POST", "/train/cxr_anatomy", {})
    assert refused.status == 422 and "use medseg train" in refused.json["detail"]
    with pytest.raises(InputError, match="give a folder of CR, DX"):
        Service("http://127.0.0.1:9/dicom-web", ["cxr_anatomy"], tmp_path / "state")
    assert served_of(["cxr_anatomy"], str(films[1]))[0] == ("cxr_anatomy",)
    assert served_of(["cxr_anatomy"], "http://127.0.0.1:9/dicom-web")[0] == ()


def test_each_model_takes_and_is_trained_on_its_own_kind_of_image(studies, films, sides_bundle, tmp_path):
    folder = shutil.copytree(studies.folder, tmp_path / "studies")
    shutil.copy(films[1] / "chest.dcm", folder)
    service = Service(str(folder), [sides_bundle, "cxr_anatomy"], tmp_path / "state")
    films_model, volumes_model = (service.models.get(name) for name in ("cxr_anatomy", "sides"))
    with pytest.raises(InputError, match="takes a radiograph, and image CT is a volume"):
        Question(films_model, service.images.get("CT"), "ann")
    with pytest.raises(InputError, match="takes a volume, and image chest is a radiograph"):
        Question(volumes_model, service.images.get("chest"), "ann")
    assert service.ids_for(films_model) == ["chest"] and "chest" not in service.ids_for(volumes_model)
    assert set(info(service)["trainers"]) == {"sides"}
