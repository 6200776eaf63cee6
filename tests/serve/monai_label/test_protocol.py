"""3D Slicer's and OHIF's own requests, as their clients send them, and what they need of the answers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pydicom
import pytest
from label_server import parts_of

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request


def nifti(content):
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    return np.asarray(image.dataobj).transpose(2, 1, 0), image.affine


def infer(server, image="CT", query="", **params):
    fields = {"params": json.dumps({"client_id": "ann", **params})}
    return server.form("POST", f"/infer/sides?image={image}{query}", fields)


@pytest.fixture(scope="module")
def truth(studies, sides_bundle, tmp_path_factory):
    """The right parotid by ``medseg segment``, read by nibabel."""
    out = tmp_path_factory.mktemp("truth")
    segment(Request(studies.folder / "CT", str(sides_bundle), out, formats=("nifti",)))
    image = nibabel.load(next(out.rglob("Parotid_R.nii.gz")))
    return np.asarray(image.dataobj).transpose(2, 1, 0) > 0, image.affine


def test_info_has_what_slicer_and_ohif_read(server):
    info = server.ask("GET", "/info/").json
    assert info["models"]["sides"]["labels"] == {"Brainstem": 1, "Parotid_R": 2, "Parotid_L": 3}
    assert info["models"]["sides"]["type"] == "segmentation" and info["models"]["sides"]["dimension"] == 3
    assert info["labels"] == ["Brainstem", "Parotid_R", "Parotid_L", "GTV"]
    assert info["models"]["pointed"]["type"] == "deepgrow", "points are drawn for it"
    assert info["train_stats"] == {}
    assert info["datastore"]["total"] >= 2
    assert set(info["strategies"]) == {"first", "random", "uncertain", "diverse", "suspect"}
    assert server.ask("GET", "/auth/").json["enabled"] is False


def test_slicer_gets_the_only_structure_that_is_there_as_number_1_with_its_name(server, truth):
    parts = parts_of(infer(server, result_extension=".nii.gz", device="cpu", largest_cc=False))
    name, kind, content = parts["image"]
    assert (name, kind) == ("sides.nii.gz", "application/gzip")
    assert parts["params"][1] == "application/json"
    params = json.loads(parts["params"][2])
    assert params["label_names"] == {"Parotid_R": 1} and params["ignored"] == ["largest_cc"]
    assert {"job", "position", "expected_wait_s", "took_s"} == set(params["queue"])
    values, affine = nifti(content)
    assert set(np.unique(values)) == {0, 1}
    # Voxel by voxel what medseg segment writes, in the same place.
    assert np.array_equal(values == 1, truth[0]) and truth[0].any()
    assert np.allclose(affine, truth[1])


def test_ohif_gets_uncompressed_nrrd_bytes_by_the_numbers_of_info(server, truth):
    params = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    answer = infer(server, query="&output=image", restore_label_idx=False, **params)
    header, _, voxels = answer.body.partition(b"\n\n")
    assert answer.status == 200 and b"encoding: raw" in header and b"type: unsigned char" in header
    values = np.frombuffer(voxels, dtype=np.uint8).reshape(truth[0].shape)
    assert set(np.unique(values)) == {0, 2} and np.array_equal(values == 2, truth[0])
    assert json.loads(answer.headers["x-medseg-label-names"]) == {"Parotid_R": 2}


def test_a_script_gets_json_rtstruct_and_seg_by_medseg(server, truth):
    told = infer(server, query="&output=json").json
    assert told["label_names"] == {"Parotid_R": 1} and told["volumes_cc"]["Parotid_R"] > 1
    rtstruct = pydicom.dcmread(io.BytesIO(infer(server, query="&output=rtstruct").body))
    assert [row.ROIName for row in rtstruct.StructureSetROISequence] == [
        "Brainstem",
        "Parotid_R",
        "Parotid_L",
    ]
    drawn = [row.ReferencedROINumber for row in rtstruct.ROIContourSequence if "ContourSequence" in row]
    assert drawn == [2]
    seg = pydicom.dcmread(io.BytesIO(infer(server, query="&output=dicom_seg").body))
    by_number = {row.SegmentNumber: row.SegmentLabel for row in seg.SegmentSequence}
    used = {
        row.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for row in seg.PerFrameFunctionalGroupsSequence
    }
    assert {by_number[number] for number in used} == {"Parotid_R"}
    assert int(seg.pixel_array.sum()) == int(truth[0].sum())


def middle(mask):
    """The voxel of a mask nearest to its middle, as [column, row, slice]."""
    places = np.argwhere(mask)
    nearest = places[np.linalg.norm(places - places.mean(0), axis=1).argmin()]
    return nearest[::-1].tolist()


def test_a_click_of_slicers_smart_edit_is_a_point_in_mm_and_finds_what_it_lies_in(server, studies):
    marker, geometry = studies.phantom.masks["Marker"], studies.phantom.geometry
    column, row, number = click = middle(marker)
    fields = {"params": json.dumps({"label": "GTV", "foreground": [click], "background": []})}
    parts = parts_of(server.form("POST", "/infer/pointed?image=CT", fields))
    values, _ = nifti(parts["image"][2])
    told = json.loads(parts["params"][2])
    assert told["label_names"] == {"GTV": 1} and "foreground" not in told["ignored"]
    assert 2 * (marker & (values == 1)).sum() / (marker.sum() + (values == 1).sum()) > 0.9
    records = [json.loads(path.read_text()) for path in server.state.rglob("results/*/*/run.json")]
    (found,) = [record["clicks"] for record in records if "clicks" in record]
    expected = geometry.origins_lps_mm[number] + np.array([1.25 * column, 1.5 * row, 0])
    assert np.allclose(found["at"], [expected], atol=1e-3)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"foreground": [[1, 2, 99]]}, "outside of an image of (72, 64, 34)"),
        ({"foreground": [[1, 2]]}, "expected at most 100 voxels"),
        ({"foreground": [[1, 2, 3.5]]}, "expected at most 100 voxels"),
        ({"foreground": "all"}, "expected at most 100 voxels"),
        ({"foreground": [[1, 2, 3]], "background": [[9, 9, 9]]}, "remove those outside"),
        ({"foreground": [[1, 2, 3]], "within": "0,1,0,1,0,1"}, "not both"),
    ],
)
def test_clicks_that_cannot_be_meant_are_refused(server, params, words):
    answer = server.form("POST", "/infer/pointed?image=CT", {"params": json.dumps(params)})
    assert answer.status == 422 and words in answer.json["detail"]


def test_a_bundle_without_clicks_says_so(server):
    answer = infer(server, foreground=[[1, 2, 3]])
    assert answer.status == 422 and "sides takes no points" in answer.json["detail"]


def test_a_session_is_contoured_and_belongs_to_nobody_elses_folder(server, studies, truth):
    content = (studies.folder / "second.nii.gz").read_bytes()
    made = server.form("PUT", "/session/", {"client_id": "ann"}, {"files": ("../../x.nii.gz", content)}).json
    session = made["session_id"]
    assert "path" not in made["session_info"]
    assert server.ask("GET", f"/session/{session}").status == 200
    answer = infer(server, image="anything", query=f"&session_id={session}")
    values, _ = nifti(parts_of(answer)["image"][2])
    assert np.array_equal(values == 1, truth[0])
    assert server.ask("DELETE", f"/session/{session}").status == 200
    assert server.ask("GET", f"/session/{session}").status == 404


def test_an_image_is_downloaded_as_one_file_with_a_check_sum(server, studies):
    answer = server.ask("GET", "/datastore/image?image=CT")
    image = nibabel.Nifti1Image.from_bytes(answer.body)
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), studies.phantom.volume_hu)
    assert 'filename="CT.nii"' in answer.headers["content-disposition"]
    digest = hashlib.sha256(answer.body).hexdigest()
    assert server.ask("HEAD", f"/datastore/image?image=CT&check_sum=SHA256:{digest}").status == 200
    assert server.ask("HEAD", f"/datastore/image?image=CT&check_sum=SHA256:{'0' * 64}").status == 404


def submit(server, content, name="label.nii.gz", info=None, client="ann", image="CT"):
    params = {"client_id": client, **({"label_info": info} if info else {})}
    fields = {"params": json.dumps(params)}
    return server.form("PUT", f"/datastore/label?image={image}", fields, {"label": (name, content)})


def test_slicers_and_ohifs_labels_are_kept_side_by_side_and_come_back(server, truth):
    _, affine = truth
    drawn = np.zeros(truth[0].shape, dtype=np.int16)
    drawn[5, 10:20, 10:20] = 7
    image = nibabel.Nifti1Image(drawn.transpose(2, 1, 0), affine)
    content = gzip.compress(image.to_bytes())
    by_ann = submit(server, content, "/tmp/tmpx.nii.gz", [{"name": "Parotid_L", "idx": 7}])
    assert by_ann.status == 200, by_ann.body
    by_ben = submit(server, (drawn == 7).astype(np.uint8).tobytes(), "label.bin", client="ben")
    one, other = by_ann.json["label"], by_ben.json["label"]
    assert one != other
    told = server.ask("GET", "/datastore/?output=all").json["objects"]["CT"]
    assert {"ann", "ben"} <= {row["annotator"] for row in told["versions"]}
    assert told["labels"]["final"]["info"]["id"] == other
    back, _ = nifti(server.ask("GET", f"/datastore/label?label={one}&tag=final").body)
    assert np.array_equal(back, drawn)
    assert server.ask("GET", f"/datastore/label/info?label={one}&tag=final").json["label_names"] == {
        "Parotid_L": 7
    }
    assert server.ask("GET", f"/datastore/label/info?label={other}&tag=").json["label_names"] == {
        "Brainstem": 1
    }
    chosen = server.form(
        "PUT", f"/datastore/label/info?label={one}&chosen=true", {"info": '{"comment": "ok"}'}
    )
    assert chosen.json["notes"]["comment"] == "ok"
    assert server.ask("GET", "/datastore/label/info?label=CT&tag=final").json["id"] == one
    rtstruct = server.ask("GET", f"/datastore/label?label={one}&output=rtstruct")
    dataset = pydicom.dcmread(io.BytesIO(rtstruct.body))
    roi = dataset.StructureSetROISequence[0]
    assert (roi.ROIName, "ROIContourSequence" in dataset) == ("Parotid_L", True)
    assert roi.ROIGenerationAlgorithm == "SEMIAUTOMATIC", "ann had a model's answer before"
    assert server.ask("DELETE", f"/datastore/label?id={one}&tag=final").status == 200
    assert server.ask("GET", "/datastore/label/info?label=CT&tag=final").json["id"] == other
    assert server.ask("GET", f"/datastore/label?label={one}&tag=final").status == 200, "withdrawn, and kept"


def test_strategies_choose_and_say_why(server):
    first = server.ask("POST", "/activelearning/first", {"client_id": "zoe"}).json
    assert first["id"] == "CT" and first["name"] == "CT.nii" and "path" not in first
    again = [server.ask("POST", "/activelearning/random", {"seed": 3}).json["id"] for _ in range(2)]
    assert again[0] == again[1]
    for name in ("uncertain", "diverse", "suspect"):
        assert server.ask("POST", f"/activelearning/{name}", {}).status in (200, 409)
    assert server.ask("POST", "/activelearning/epistemic", {}).status == 404


def test_a_job_can_be_left_alone_looked_at_and_cancelled(server):
    asked = infer(server, image="second", wait=False, within="-60,60,-80,40,60,160")
    assert asked.status == 202
    job = asked.json["job"]
    assert asked.json["position"] >= 0
    stands = server.ask("GET", f"/infer/jobs/{job}").json
    assert stands["state"] in ("waiting", "running", "done")
    assert server.ask("DELETE", f"/infer/jobs/{job}").json["state"] in ("cancelled", "done")
    assert server.ask("GET", "/infer/jobs/nothing").status == 404


def test_the_process_that_answers_has_loaded_no_torch(server):
    maps = server.memory_maps()
    assert "sqlite" in maps and "libtorch" not in maps


# ---- many at once ------------------------------------------------------------------------------------------

ANNOTATORS = 20


def ball(number: int) -> np.ndarray:
    """A body of 0 HU with a bright bar of its own width and place."""
    volume = np.full((16, 24, 40), 0, dtype=np.int16)
    volume[4:12, 6:18, number : number + 4 + number % 3] = 1000
    return volume


def as_file(array) -> bytes:
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.5, 1.5, 1.5, 1.0]))
    image.set_qform(image.affine, code=1)
    return gzip.compress(image.to_bytes(), 1)


def contoured(server, number: int) -> tuple[int, np.ndarray]:
    name = f"annotator {number}"
    files = {"files": ("image.nii.gz", as_file(ball(number)))}
    session = server.form("PUT", "/session/", {"client_id": name}, files).json["session_id"]
    params = {"params": json.dumps({"client_id": name, "result_extension": ".nrrd"})}
    path = f"/infer/sides?image=&session_id={session}&output=image"
    answer = server.form("POST", path, params, {}, {"Connection": "close"})
    assert answer.status == 200, answer.body
    server.ask("DELETE", f"/session/{session}")
    voxels = answer.body.partition(b"\n\n")[2]
    return number, np.frombuffer(voxels, dtype=np.uint8).reshape(16, 24, 40) > 0


def test_twenty_at_once_get_their_own_masks_and_info_answers_meanwhile(server):
    took_ms, ended = [], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            began = time.perf_counter()
            assert server.ask("GET", "/info/").status == 200
            took_ms.append((time.perf_counter() - began) * 1000)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(ANNOTATORS) as people:
            found = list(people.map(lambda number: contoured(server, number), range(ANNOTATORS)))
    finally:
        ended.set()
        watcher.join()
    for number, mask in found:
        assert np.array_equal(mask, ball(number) > 600), number
    assert len(found) == ANNOTATORS and len(took_ms) > 3
    print(f"/info/ during inference: median {np.median(took_ms):.0f} ms, worst {max(took_ms):.0f} ms")
    assert np.median(took_ms) < 1000


def test_the_same_question_of_two_people_is_two_jobs_and_of_one_is_one(server):
    def ask(name):
        fields = {"params": json.dumps({"client_id": name, "wait": False})}
        return server.form("POST", "/infer/sides?image=second", fields).json["job"]

    assert ask("ann") == ask("ann") != ask("ben")
