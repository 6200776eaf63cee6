"""An image is looked at before anything is contoured, and what is drawn on it is where the bundle looks."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from web_visits import send

from medseg.phantoms.series import stack_geometry, write_series
from medseg.serve.web.slices import slice_png
from medseg.serve.web.viewing import view_of, view_of_image


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)])
def test_an_index_of_the_view_lies_where_its_voxel_does(tmp_path, orientation):
    geometry = stack_geometry(
        (12, 32, 40),
        gaps_mm=3.0,
        pixel_spacing_mm=(2.0, 1.5),
        orientation=orientation,
        centre_lps_mm=(5, -7, 11),
    )
    volume = np.full(geometry.shape, -200.0, np.float32)
    volume[4, 9, 30] = 800.0
    write_series(volume, geometry, tmp_path / "ct")
    view = view_of_image(tmp_path / "views" / "s0001", tmp_path / "ct")
    place = np.argwhere(view.volume > 500)
    assert len(place) == 1
    found = np.array(view.about["affine_lps"]) @ [*place[0], 1.0]
    assert np.allclose(found[:3], geometry.points_lps_mm(4, np.array([[9, 30]]))[0], atol=0.01)


def test_only_the_owner_and_reviewers_look_at_an_image(client, logged_in, study):
    look = f"{study(client)}look/series/s0001/"
    assert client.get(look).status_code == 200
    assert client.get(f"{look}slice?axis=coronal")["Content-Type"] == "image/png"
    assert logged_in().get(look).status_code == logged_in().get(f"{look}slice").status_code == 404
    page = logged_in("reviewer").get(look).content.decode()
    assert "draw.js" not in page and 'name="bundle"' not in page  # looks, and contours nothing


@pytest.mark.parametrize("address", ["series/s0009", "pictures/p0001", "sets/r0001", "series/..%2F..%2Fx"])
def test_what_cannot_be_looked_at_is_no_fault_of_the_server(client, study, address):
    assert client.get(f"{study(client)}look/{address}/").status_code in (400, 404)


def test_an_image_that_is_damaged_is_refused_in_a_line(client, ct_zip, tmp_path):
    geometry = stack_geometry((6, 16, 16), gaps_mm=[2, 2, 9, 2, 2])
    write_series(np.zeros(geometry.shape, np.float32), geometry, tmp_path / "ct")
    study = send(client, {path.name: path.read_bytes() for path in (tmp_path / "ct").iterdir()}).url
    answer = client.get(f"{study}look/series/s0001/")
    assert answer.status_code in (200, 400) and b"Traceback" not in answer.content
    assert b"missing" in client.get(study).content


def test_a_box_of_a_volume_is_drawn_on_the_slices_that_it_cuts(tmp_path):
    geometry = stack_geometry((12, 32, 40), gaps_mm=1.5, pixel_spacing_mm=(1.5, 1.5))
    write_series(np.full(geometry.shape, -200.0, np.float32), geometry, tmp_path / "ct")
    low = geometry.points_lps_mm(3, np.array([[8, 10]]))[0] - 0.75
    high = geometry.points_lps_mm(8, np.array([[19, 29]]))[0] + 0.75
    found = {"class": "nodule", "score": 0.9, "low": low.tolist(), "high": high.tolist()}
    record = {"source": str(tmp_path / "ct"), "boxes": {"unit": "LPS mm", "found": [found]}}
    (tmp_path / "out" / "case").mkdir(parents=True)
    view = view_of(tmp_path / "out" / "case", record)
    assert np.allclose(view.about["boxes"][0]["low"], [2.5, 7.5, 9.5], atol=0.01)

    def orange(index: int) -> np.ndarray:
        pixels = np.asarray(Image.open(io.BytesIO(slice_png(view, "axial", index, "bone", set()))))
        return np.argwhere((pixels == (255, 158, 27)).all(axis=2))

    assert len(orange(1)) == len(orange(10)) == 0
    drawn = orange(5)
    # 40 columns of 1.5 mm are drawn on 640 pixels: columns 10 to 29 are pixels 160 to 480, rows 8 to 19 are
    # 128 to 320.
    inside = drawn[(drawn[:, 0] >= 126) & (drawn[:, 1] >= 158)]
    assert np.allclose(inside.max(axis=0), [320, 480], atol=2)
    assert np.abs(drawn[:, 1] - 160).min() <= 1 and np.abs(drawn[:, 0] - 128).min() <= 1


# ---- points ------------------------------------------------------------------------------------------------


@pytest.fixture
def offers_mm_gtv(site_dir, monkeypatch):
    from medseg.serve.web.site import BUNDLES_VARIABLE, the_site

    monkeypatch.setenv(BUNDLES_VARIABLE, "mm_gtv")
    the_site.cache_clear()
    yield
    monkeypatch.undo()
    the_site.cache_clear()


def test_points_go_into_the_job_as_they_were_drawn(client, study, offers_mm_gtv):
    from medseg.serve.web.models import Job
    from medseg.serve.web.tasks import the_queue

    address = study(client)
    assert b'name="at"' in client.get(address).content
    form = {"image": "series:s0001", "bundle": "mm_gtv", "at": "1.5,-2,30; 4,5,6"}
    job = client.post(f"{address}contour", form).url.split("/")[2]
    assert the_queue().get(job).payload["at"] == [[1.5, -2.0, 30.0], [4.0, 5.0, 6.0]]
    the_queue().cancel(job)
    for wrong in ("1,2", "1,2,x", "1,2,3,4", ";".join(["1,2,3"] * 30), "1,2,nan"):
        assert client.post(f"{address}contour", {**form, "at": wrong}).status_code == 400
    assert Job.objects.filter(study__owner__username=client.username).count() == 1


def test_a_bundle_that_takes_no_points_says_so(client, study, bright):
    form = {"image": "series:s0001", "bundle": bright, "at": "1,2,3"}
    answer = client.post(f"{study(client)}contour", form)
    assert answer.status_code == 400 and b"takes no points" in answer.content
