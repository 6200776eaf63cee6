"""Pages follow the kind of a result and of its image: labels, boxes and outlines on flat pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest

from medseg.cases.photograph import open_photograph
from medseg.cases.radiograph import open_radiograph
from medseg.cases.results import Boxes, Labels, Structures
from medseg.structures.structure import Structure


@pytest.fixture
def film(tmp_path):
    from PIL import Image

    path = tmp_path / "film.png"
    grey = (np.arange(120)[:, None] + np.arange(100)[None]).astype(np.uint8)
    Image.fromarray(grey).save(path)
    return path


@pytest.fixture
def told(client):
    """A function that makes a finished job of a result, as a worker would leave it; returns its address."""
    from django.contrib.auth.models import User

    from medseg.bundles.record import result_record, write_record
    from medseg.serve.web.models import Job, Study
    from medseg.serve.web.tasks import the_queue

    def make(result, write=lambda folder: None) -> str:
        study = Study.objects.create(owner=User.objects.get(username=client.username), title="t", ready=True)
        queue = the_queue()
        id_ = queue.submit({"bundle": "phantom"}, priority=9)
        assert queue.claim("test", tasks=["phantom"]).id == id_ and queue.finish(id_, "test", {})
        job = Job.objects.create(id=id_, study=study, owner=study.owner, bundle="phantom", folder_name="f")
        folder = job.folder / "case"
        folder.mkdir(parents=True)
        write(folder)
        known = {
            "status": "done",
            "source": result.case.source,
            "bundle": {"name": "phantom", "version": "1"},
        }
        write_record({**known, **result_record(result, folder)}, folder / "run.json")
        return f"/jobs/{id_}/"

    return make


def test_labels_are_shown_as_numbers_with_their_remark(client, told, film):
    case = open_radiograph(film)
    chances, intervals = {"osteoporosis": 0.734, "normal": 0.266}, {"osteoporosis": (0.61, 0.8375)}
    labels = Labels(case, chances, {"T-score": (-2.6, "")}, intervals, "look <b>again</b>")
    page = client.get(told(labels)).content.decode()
    assert "73.4 %" in page and "26.6 %" in page and "-2.6" in page
    assert page.count("61.0 % – 83.8 %") == 1  # of the class that has one
    assert "look &lt;b&gt;again&lt;/b&gt;" in page and "no diagnosis" in page
    assert '<meter min="0" max="1" value="0.734"' in page
    from medseg.serve.web.models import Job
    from medseg.serve.web.pdf import lines_of
    from medseg.serve.web.tasks import results

    job = Job.objects.get(folder_name="f", owner__username=client.username)
    report = "\n".join(lines_of(job, *results(job)[0]))
    assert "0.7340 (0.6100 to 0.8375)" in report and "! look <b>again</b>" in report


def test_boxes_lie_where_the_network_said_whatever_the_language(client, told, film):
    case = open_radiograph(film)
    boxes = Boxes(
        case,
        np.array([[[10, 20], [40.5, 70]], [[50, 5], [60, 15]]]),
        np.array([0.4, 0.9]),
        ("nodule", "mass"),
    )
    address = told(boxes)
    for language in ("en", "zh-hant"):
        client.post("/language/", {"language": language, "next": "/"})
        page = client.get(address).content.decode()
        assert 'viewBox="0 0 100 120"' in page  # 100 columns, 120 rows
        assert re.search(r'<rect x="20\.0" y="10\.0" width="50\.0" height="30\.5"', page)
        assert page.index("mass") < page.index("nodule")  # the highest score first


def test_no_box_is_an_answer(client, told, film):
    page = client.get(
        told(Boxes(open_radiograph(film), np.zeros((0, 2, 2)), np.zeros(0), ()))
    ).content.decode()
    assert "Nothing was found." in page


@pytest.mark.parametrize("kind", ["radiograph", "photograph"])
def test_structures_on_a_picture_are_layers_with_a_slider(client, told, film, kind):
    from PIL import Image

    if kind == "photograph":
        Image.open(film).convert("RGB").save(film)
        case = open_photograph(film)
    else:
        case = open_radiograph(film)
    mask = np.zeros(case.shape, bool)
    mask[30:50, 20:60] = True

    def write(folder):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "Lung_L.png")

    address = told(Structures(case, {Structure("Lung_L"): mask}), write)
    page = client.get(address).content.decode()
    assert 'id="opacity"' in page and "Lung_L" in page and "800 px" in page
    picture = client.get(f"{address}cases/case/picture")
    assert picture["Content-Type"] == "image/png" and len(picture.content) > 100
    import io

    layer = np.asarray(Image.open(io.BytesIO(client.get(f"{address}cases/case/overlays/Lung_L.png").content)))
    assert layer.shape == (*case.shape, 4)
    assert np.array_equal(layer[..., 3] == 255, mask)
    assert client.get(f"{address}cases/case/overlays/other.png").status_code == 404


def test_the_pages_work_where_the_viewer_from_npm_is_not_installed(finished, monkeypatch):
    from medseg.serve.web import result_pages

    client, job = finished
    monkeypatch.setattr(result_pages, "has_viewer", lambda: False)
    page = client.get(job).content.decode()
    assert "not installed on this site" in page and "viewer.js" not in page and 'id="slice"' in page
    monkeypatch.setattr(result_pages, "has_viewer", lambda: True)
    assert "viewer.js" in client.get(job).content.decode()


def test_a_pet_lies_in_colour_over_the_place_where_it_is_hot(tmp_path):
    import io

    from patient_series import CENTRE_LPS_MM, ball, ct_geometry, write_patient
    from PIL import Image

    from medseg.cases.nifti import write_mask
    from medseg.serve.web.slices import slice_png
    from medseg.serve.web.viewing import SUV_WINDOW, view_of
    from medseg.transforms.saving import SUV_WINDOW as OF_THE_PREVIEW

    assert SUV_WINDOW == OF_THE_PREVIEW
    patient, case = write_patient(tmp_path / "patient"), tmp_path / "out" / "case"
    case.mkdir(parents=True)
    geometry = ct_geometry()
    write_mask(ball(geometry), geometry, case / "GTV.nii.gz")
    record = {"source": str(patient / "CT"), "structures": [{"name": "GTV"}]}
    plain = view_of(case, record)
    assert not plain.about["fused"]
    (case.parent / ".view_case").rename(tmp_path / "plain")
    further = {"pt": str(patient / "PET"), "registration 1": str(patient / "REG.dcm")}
    view = view_of(case, {**record, "further_sources": further})
    assert view.about["fused"]
    index = round(float(CENTRE_LPS_MM[2] - geometry.origins_lps_mm[0, 2]) / 3.0)
    pixels = [
        np.asarray(Image.open(io.BytesIO(slice_png(view, "axial", index, "bone", {0}, fused=fused))), float)
        for fused in (False, True)
    ]
    redder = pixels[1][..., 0] - pixels[1][..., 2]
    rows, columns = np.nonzero(redder > 60)
    # 80 mm are drawn on 640 pixels; the ball's middle lies at (x 8, y -4) from the image's own.
    assert np.allclose([columns.mean(), rows.mean()], [320 + 8 * 8, 320 - 8 * 4], atol=12)
    assert np.ptp(pixels[0], axis=2).max() < 260 and (np.ptp(pixels[0][200:400, 200:400], axis=2) < 1).all()
