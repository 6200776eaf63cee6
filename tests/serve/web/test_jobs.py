"""From an uploaded image to its contours, and what a user can do on the way."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from medseg.dicom import read_rtstruct, read_series


def case_files(client, address) -> str:
    return f"{address}cases/s0001/files/"


def test_the_rtstruct_of_the_site_is_the_one_of_medseg_segment(finished, bright_bundle, ct_zip, tmp_path):
    from medseg.bundles.cohort import segment
    from medseg.bundles.request import Request

    client, address = finished
    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "ct")
    segment(Request(tmp_path / "ct", bright_bundle, tmp_path / "out"))
    answer = client.get(f"{case_files(client, address)}RS.dcm")
    assert answer["Content-Type"] == "application/dicom" and "attachment" in answer["Content-Disposition"]
    (tmp_path / "web.dcm").write_bytes(b"".join(answer.streaming_content))
    series = read_series(tmp_path / "ct")
    ours = read_rtstruct(tmp_path / "web.dcm", series)
    theirs = read_rtstruct(tmp_path / "out" / "ct" / "RS.dcm", series)
    assert list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert np.count_nonzero(ours["GTV"]) == 6 * 12 * 20  # the block of ct_zip, voxel by voxel


def test_everything_comes_as_one_zip_that_says_what_it_is_for(finished):
    client, address = finished
    answer = client.get(f"{address}everything.zip")
    with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        assert "Research use only" in archive.read("RESEARCH_USE_ONLY.txt").decode()
        record = archive.read("s0001/run.json").decode()
        report = archive.read("s0001/report.pdf")
    wanted = {"RS.dcm", "SEG.dcm", "GTV.nii.gz", "preview.png", "run.json", "report.pdf"}
    assert wanted <= {name.removeprefix("s0001/") for name in names}
    assert report.startswith(b"%PDF-")
    assert json.loads(record)["status"] == "done"
    from medseg.serve.web.site import the_site

    assert str(the_site().data_dir) not in record  # where the server keeps things is nobody's business


def test_the_page_shows_volumes_the_run_record_and_the_research_notice(finished):
    client, address = finished
    page = client.get(address).content.decode()
    assert "Research use only, not a medical device." in page
    assert "GTV" in page and "4.9 cc" in page  # 1440 voxels of 1.5 mm
    assert "Weights (SHA-256)" in page and "report.pdf" in page
    assert "Nobody has reviewed this result." in page


def test_one_click_opens_the_study_in_ohif_where_the_site_has_one(finished, site_says):
    client, address = finished
    assert b"Open in OHIF" not in client.get(address).content
    site_says(ohif_url="https://ohif.example/viewer?StudyInstanceUIDs={study}")
    answer = client.get(address)
    uid = answer.context["record"]["input"]["StudyInstanceUID"]
    assert f'href="https://ohif.example/viewer?StudyInstanceUIDs={uid}"' in answer.content.decode()


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ("axis=axial&index=5", True),
        ("axis=coronal&index=14", False),
        ("axis=axial&index=5&window=bone", False),
        ("axis=axial&index=5&chosen=1", False),
    ],
)
def test_a_slice_follows_plane_window_and_structures(finished, query, same):
    client, address = finished
    address += "cases/s0001/slice?"
    usual = client.get(address + "axis=axial&index=5")
    answer = client.get(address + query)
    assert answer["Content-Type"] == "image/png" and answer.content[:4] == b"\x89PNG"
    assert (answer.content == usual.content) == same


@pytest.mark.parametrize(
    "query",
    [
        "axis=up",
        "index=99999",
        "index=-4",
        "index=x",
        "window=../../etc",
        "show=9999",
        "show=x",
        "axis=axial&index=²",
    ],
)
def test_a_slice_that_there_is_not_becomes_one_that_there_is(finished, query):
    client, address = finished
    assert client.get(f"{address}cases/s0001/slice?{query}").status_code == 200


def test_the_viewer_gets_the_image_and_labels_on_one_grid(finished, tmp_path):
    import nibabel

    client, address = finished
    for name in ("image", "labels"):
        answer = client.get(f"{address}cases/s0001/volumes/{name}.nii.gz")
        (tmp_path / f"{name}.nii.gz").write_bytes(b"".join(answer.streaming_content))
    image, labels = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("image", "labels"))
    assert np.array_equal(image.affine, labels.affine)
    block = np.asarray(labels.dataobj)
    assert np.count_nonzero(block == 1) == 1440
    assert (np.asarray(image.dataobj)[block == 1] == 800).all()
    assert client.get(f"{address}cases/s0001/volumes/../run.json").status_code == 404


def test_a_waiting_job_says_its_place_and_can_be_cancelled(client, study):
    address = study(client)
    form = {"image": "series:s0001", "bundle": "ct_head_neck"}
    first, second = (client.post(f"{address}contour", form).url for _ in range(2))
    said = client.get(f"{second}progress").json()
    assert said["state"] == "waiting"
    assert said["position"] == client.get(f"{first}progress").json()["position"] + 1
    assert b"Position in the queue" in client.get(second).content
    assert client.get(f"{second}cases/s0001/files/RS.dcm").status_code == 404
    for job in (first, second):
        assert client.post(f"{job}cancel").url == job
        assert client.get(f"{job}progress").json()["state"] == "cancelled"


def test_a_job_that_fails_says_why_without_paths_of_the_server(client, contoured):
    # The region that is asked for lies far outside of the image.
    box = {
        "within_x0": "900",
        "within_x1": "950",
        "within_y0": "0",
        "within_y1": "10",
        "within_z0": "0",
        "within_z1": "9",
    }
    address = contoured(client, **box)
    said = client.get(f"{address}progress").json()
    assert said["state"] == "failed" and "/studies/" not in said["reason"] and said["reason"]
    page = client.get(address).content.decode()
    assert "failed" in page and "Delete the job" in page


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bundle", "mm_gtv", "does not offer that bundle"),
        ("bundle", "/etc", "does not offer that bundle"),
        ("bundle", "cxr_anatomy", "does not take this image"),
        ("image", "series:s0002", "has no such image"),
        ("image", "series:../../x", "has no such image"),
        ("image", "nonsense", "has no such image"),
        ("ctv_margin_mm", "-1", "expected a number"),
        ("ptv_margin_mm", "5", "ptv_margin_mm"),
        ("ctv_margin_mm", "nan", "expected a number"),
        ("within_x0", "$(reboot)", "expected a number"),
        ("within_roi", "r0001:GTV", "has no such image"),
    ],
)
def test_a_form_that_makes_no_sense_queues_nothing(client, study, field, value, words):
    from medseg.serve.web.models import Job

    address = study(client)
    before = Job.objects.count()
    form = {"image": "series:s0001", "bundle": "ct_head_neck", field: value}
    answer = client.post(f"{address}contour", form)
    assert answer.status_code == 400 and words in answer.content.decode()
    assert Job.objects.count() == before


def test_a_structure_of_an_uploaded_set_is_the_region(
    client, upload, contoured, ct_zip, bright, work, tmp_path
):
    from medseg.dicom import write_rtstruct

    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        archive.extractall(tmp_path / "ct")
        files = {name: archive.read(name) for name in archive.namelist()}
    mask = np.zeros((12, 32, 40), bool)
    mask[2:10, 6:22, 8:20] = True  # half of the block
    write_rtstruct({"Half": mask}, read_series(tmp_path / "ct"), tmp_path / "RS.dcm")
    address = upload(client, {**files, "RS.dcm": (tmp_path / "RS.dcm").read_bytes()}).url
    assert b"Half" in client.get(address).content
    form = {"image": "series:s0001", "bundle": bright, "within_roi": "r0001:Half"}
    job = client.post(f"{address}contour", form).url
    work()
    page = client.get(job).content.decode()
    assert "2.4 cc" in page  # 6 x 12 x 10 voxels of 1.5 mm


def test_an_image_without_anything_on_it_is_an_answer_and_no_failure(client, upload, bright, work, tmp_path):
    from medseg.phantoms.series import stack_geometry, write_series

    geometry = stack_geometry((8, 24, 24), gaps_mm=2)
    write_series(np.full(geometry.shape, -200.0, np.float32), geometry, tmp_path / "ct")
    address = upload(client, {path.name: path.read_bytes() for path in (tmp_path / "ct").iterdir()}).url
    job = client.post(f"{address}contour", {"image": "series:s0001", "bundle": bright}).url
    work()
    page = client.get(job).content.decode()
    assert "empty" in page and "RS.dcm" in page and "no SEG.dcm" in page


def test_an_uneven_stack_is_contoured_and_shown_though_nifti_cannot_hold_it(
    client, upload, bright, work, tmp_path
):
    from medseg.phantoms.series import stack_geometry, write_series

    geometry = stack_geometry((8, 24, 24), gaps_mm=[2, 2, 2, 3, 3, 3, 3])
    volume = np.full(geometry.shape, -200.0, np.float32)
    volume[2:6, 6:18, 6:18] = 800.0
    write_series(volume, geometry, tmp_path / "ct")
    address = upload(client, {path.name: path.read_bytes() for path in (tmp_path / "ct").iterdir()}).url
    job = client.post(f"{address}contour", {"image": "series:s0001", "bundle": bright}).url
    work()
    said = client.get(f"{job}progress").json()
    assert said["state"] == "done", said["reason"]
    page = client.get(job).content.decode()
    assert "RS.dcm" in page and "GTV.nii.gz" not in page
    assert client.get(f"{job}cases/s0001/slice?axis=coronal").status_code == 200


# ---- the end of things -------------------------------------------------------------------------------------


def test_deleting_a_study_leaves_nothing_of_it_on_the_disk_and_in_the_queue(client, contoured, site_dir):
    from medseg.bundles.queue import UnknownJob
    from medseg.serve.web.models import Event, Job, Study
    from medseg.serve.web.tasks import the_queue

    address = contoured(client)
    job = Job.objects.get(id=address.split("/")[2])
    study_id, marks = job.study_id, (job.study_id, job.id, job.folder_name)
    assert (site_dir / "studies" / study_id).is_dir()
    answer = client.post(f"/studies/{study_id}/delete", follow=True)
    assert b"is deleted" in answer.content
    assert not [path for path in site_dir.rglob("*") if any(mark in str(path) for mark in marks)]
    assert not Study.objects.filter(id=study_id).exists() and not Job.objects.filter(id=job.id).exists()
    with pytest.raises(UnknownJob):
        the_queue().get(job.id)
    # What happened is still told, by ids.
    told = Event.objects.filter(user=client.username).values_list("action", "about")
    assert ("study deleted", study_id) in told and ("contour", job.id) in told


def test_a_job_can_be_deleted_alone(client, contoured):
    address = contoured(client)
    answer = client.post(f"{address}delete")
    assert answer.url.startswith("/studies/") and client.get(answer.url).status_code == 200
    assert client.get(address).status_code == 404


def test_what_is_too_old_goes_and_what_is_not_stays(client, contoured, study, site_says, site_dir):
    from datetime import timedelta

    from django.utils import timezone

    from medseg.serve.web.models import Study
    from medseg.serve.web.retention import sweep

    old, new = contoured(client), study(client)
    study_id = client.get(old).context["study"].id
    Study.objects.filter(id=study_id).update(created=timezone.now() - timedelta(days=8))
    site_says(keep_days=9)
    sweep()
    assert client.get(old).status_code == 200
    site_says(keep_days=7)
    sweep()
    assert client.get(old).status_code == 404 and client.get(new).status_code == 200
    assert not (site_dir / "studies" / study_id).exists()


def test_what_a_killed_worker_or_upload_leaves_is_swept(site_dir, client, contoured):
    import os

    from medseg.serve.web.models import Job
    from medseg.serve.web.retention import sweep

    job = Job.objects.get(id=contoured(client).split("/")[2])
    orphan, stray = site_dir / "studies" / "nobodys", job.folder.parent / "gone"
    for folder in (orphan, stray):
        folder.mkdir()
        os.utime(folder, (1, 1))
    sweep()
    assert not orphan.exists() and not stray.exists() and (job.folder / "s0001" / "RS.dcm").is_file()
