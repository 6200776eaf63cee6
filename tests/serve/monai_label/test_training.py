"""Labels train a copy of the bundle, and only a better one is taken; strategies go by what was scored."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from plain_bundle import WINDOW, edit

from medseg.audit.worklist import WORKLIST
from medseg.bundles.find import find_bundle
from medseg.bundles.queue import Queue
from medseg.bundles.trust import trust
from medseg.bundles.weights import read_weights
from medseg.cases.nifti import write_volume
from medseg.errors import InputError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry
from medseg.serve.monai_label.chores import do
from medseg.serve.monai_label.images import FolderImages
from medseg.serve.monai_label.inference import Inference
from medseg.serve.monai_label.labels import Labels, Submission
from medseg.serve.monai_label.models import FIRST
from medseg.serve.monai_label.people import Person
from medseg.serve.monai_label.service import Service
from medseg.serve.monai_label.strategies import NothingKnown
from medseg.serve.monai_label.tasks import CHORE_TASK, LEASE_S

ANN = Person("ann", "admin")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three NIfTI phantoms, "a" to "c", with their markers."""
    folder, markers = tmp_path_factory.mktemp("images"), {}
    for number, name in enumerate("abc"):
        geometry = stack_geometry((20, 32, 36), gaps_mm=3.5, pixel_spacing_mm=(2.5, 2.5))
        phantom = chiral_phantom(geometry)
        write_volume(phantom.volume_hu + 10 * number, geometry, folder / f"{name}.nii.gz")
        markers[name] = phantom.masks["Marker"], geometry
    return folder, markers


def made_bundle(bright_bundle, folder, threshold):
    """``bright_bundle`` with another threshold, of its window of -1000 to 1000 HU as 0 to 1, and a slope so
    small that a few steps of training move it: at 0.875 (750 HU) it is right, at 0.45 it takes the whole
    body."""
    import torch

    from medseg.training.checkpoints import save_weights

    shutil.copytree(bright_bundle, folder)
    for name in ("train", "evaluate"):
        edit(folder / "configs" / f"{name}.json", of_one_series)
    weights = {"weight": torch.full((1, 1, 1, 1, 1), 0.01), "bias": torch.tensor([-0.01 * threshold])}
    save_weights(weights, folder / "models" / "model.pt")
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata.pop("weights_sha256", None)
    path.write_text(json.dumps(metadata))
    trust(find_bundle(folder))
    return folder


SEVERAL = ("LoadSeriesd", "RandDropSeriesd", "RandSeriesLookd")


def of_one_series(config):
    """A config without its steps for PET and MR, however deep they stand."""
    if isinstance(config, dict):
        if str(config.get("_target_")).endswith("StackSeriesd"):
            return WINDOW
        return {key: of_one_series(value) for key, value in config.items()}
    if isinstance(config, list):
        left = [step for step in config if not _is_of_several(step)]
        return [of_one_series(step) for step in left]
    return config


def _is_of_several(step) -> bool:
    return isinstance(step, dict) and str(step.get("_target_")).rpartition(".")[2] in SEVERAL


@pytest.fixture
def service_of(images, bright_bundle, tmp_path):
    def make(threshold=0.875, **options) -> Service:
        bundle = made_bundle(bright_bundle, tmp_path / "bright", threshold)
        return Service(str(images[0]), [bundle], tmp_path / "state", **options)

    return make


def label_all(service, images):
    for name, (marker, geometry) in images[1].items():
        submission = Submission(marker.astype(np.int16), geometry, {"GTV": 1}, "ann")
        service.labels.save(service.images.get(name), submission)


def done(service, job):
    """The job as the process that does chores leaves it."""
    claimed = service.chores.claim("test", tasks=[CHORE_TASK])
    assert claimed.id == job.id
    do(service, claimed)
    return service.chores.get(job.id)


def test_a_training_that_makes_it_better_is_taken_into_use_with_its_history(service_of, images):
    service = service_of(0.45)
    label_all(service, images)
    before = service.models.get("bright")
    job = done(service, service.put("train", ANN, model="bright", epochs=10, validation=0.2))
    assert job.state == "done", job.reason
    result = job.result
    assert result["accepted"] and result["score_after"] > result["score_before"], result
    assert [epoch for epoch, _ in result["curve"]] == list(range(1, 11))
    assert max(value for _, value in result["curve"]) > 0.8, "of the validation within training, on boxes"
    stats = service.train_stats("bright")
    assert (stats["epoch"], stats["total_epochs"]) == (10, 10) and stats["best_metric"] == result[
        "score_after"
    ]
    now = service.models.get("bright")
    assert (
        now.version == result["version"] != FIRST
        and now.bundle.weights_sha256 != before.bundle.weights_sha256
    )
    assert len(result["validation"]) == 1 and len(result["training"]) == 2
    assert not set(result["validation"]) & set(result["training"])
    assert len(result["labels"]) == 3
    assert before.bundle.weights_sha256 == find_bundle(before.bundle.folder).weights_sha256
    service.models.choose("bright", FIRST)
    assert service.models.get("bright").bundle.weights_sha256 == before.bundle.weights_sha256
    assert service.train_stats("bright")["history"][0]["version"] == result["version"]
    # A worker that takes bundles by folder may run the new version: its code is what the operator trusted.
    from medseg.bundles.trust import trusted_bundle

    assert trusted_bundle(now.task).weights_sha256 == now.bundle.weights_sha256


@pytest.mark.slow  # two processes that load torch, one of them to be killed
def test_killing_the_trainer_leaves_the_model_as_it_was_and_the_training_goes_on_later(service_of, images):
    service = service_of(0.45)
    label_all(service, images)
    before = service.models.get("bright")
    job = service.put("train", ANN, model="bright", epochs=30, validation=0.2)
    command = [sys.executable, "-m", "medseg.serve.monai_label.chores", "--studies", str(images[0])]
    command += ["--bundles", str(before.bundle.folder), "--state", str(service.places.state)]
    kept = service.places.models / "bright" / f".training-{job.id}" / "ckpt" / "last.pt"
    with subprocess.Popen(command) as trainer:
        while not kept.exists():
            assert trainer.poll() is None
            time.sleep(0.005)
        trainer.send_signal(signal.SIGKILL)
    assert service.chores.get(job.id).state == "running", "it was killed in the middle"
    again = Service(str(images[0]), [before.bundle.folder], service.places.state)
    assert [model.version for model in again.models.versions("bright")] == [FIRST]
    assert again.models.get("bright").bundle.weights_sha256 == before.bundle.weights_sha256
    assert read_weights(again.models.get("bright").bundle)
    later = Queue(service.places.chores, now=lambda: time.time() + 10 * LEASE_S)
    claimed = later.claim("test", tasks=[CHORE_TASK])
    assert claimed.id == job.id
    again.chores = later
    do(again, claimed)
    ended = later.get(job.id)
    assert ended.state == "done", ended.reason
    epochs = [epoch for epoch, _ in ended.result["curve"]]
    assert epochs == sorted(set(epochs)) and epochs[-1] == 30
    assert again.models.get("bright").version == ended.result.get("version", FIRST)


def test_a_training_that_makes_it_no_better_changes_nothing(service_of, images):
    service = service_of()
    label_all(service, images)
    job = done(service, service.put("train", ANN, model="bright", epochs=1, validation=0.2))
    assert job.state == "done", job.reason
    assert not job.result["accepted"] and "version" not in job.result
    assert service.models.get("bright").version == FIRST
    assert [path.name for path in (service.places.models / "bright").iterdir()] == ["validation.json"]


def test_too_few_labels_are_said_and_a_half_training_is_no_version(service_of, images):
    service = service_of()
    name = "a"
    marker, geometry = images[1][name]
    submission = Submission(marker.astype(np.int16), geometry, {"GTV": 1}, "ann")
    service.labels.save(service.images.get(name), submission)
    job = done(service, service.put("train", ANN, model="bright", epochs=1))
    assert job.state == "failed" and "labels of 1 patients" in job.reason
    place = service.places.models / "bright"
    assert not list(place.glob(".training-*")), "copies of images are removed"
    (place / ".training-killed" / "bright").mkdir(parents=True)
    assert [model.version for model in service.models.versions("bright")] == [FIRST]
    done(service, service.put("train", ANN, model="bright", epochs=1))
    assert not list(place.glob(".training-*")), "what a killed one left, too"


def test_several_annotators_are_fused_and_a_choice_counts_alone(images, tmp_path):
    from medseg.serve.monai_label.export import choose_labels

    labels, image = Labels(tmp_path / "labels"), FolderImages(images[0], tmp_path / "up").get("a")
    marker, geometry = images[1]["a"]
    careless = np.ones_like(marker)
    for who, mask in (("ann", marker), ("ben", marker), ("cas", careless)):
        labels.save(image, Submission(mask.astype(np.int16), geometry, {"GTV": 1}, who))
    fused = choose_labels(image, labels.of(image), [], "majority")
    assert np.array_equal(fused.masks["GTV"], marker) and len(fused.versions) == 3
    only = choose_labels(image, labels.of(image), ["cas"], "majority")
    assert only.masks["GTV"].all() and len(only.versions) == 1
    labels.note(labels.of(image)[2].id, {"chosen": "2026"}, "rev")
    assert choose_labels(image, labels.of(image), [], "staple").masks["GTV"].all()
    assert choose_labels(image, labels.of(image), ["zoe"], "majority") is None


def test_uncertain_and_diverse_go_by_scores_and_say_what_to_do_without(service_of, images):
    service = service_of()
    with pytest.raises(NothingKnown, match="POST /scoring/uncertain"):
        service.next_sample("uncertain", {}, ANN)
    for method in ("uncertain", "diverse"):
        job = done(service, service.put("score", ANN, model="bright", method=method))
        assert job.state == "done" and job.result["scored"] == 3, job
    scores = service.scores("bright")
    chosen = service.next_sample("uncertain", {}, ANN)
    assert chosen["id"] == max(scores, key=lambda name: (scores[name]["entropy"], name))
    assert "nat" in chosen["reason"] and 0 <= chosen["score"] <= np.log(2)
    marker, geometry = images[1]["a"]
    submission = Submission(marker.astype(np.int16), geometry, {"GTV": 1}, "ann")
    service.labels.save(service.images.get("a"), submission)
    assert service.next_sample("diverse", {}, ANN)["id"] == "c", "20 HU away from a, b only 10"
    assert service.next_sample("first", {}, ANN)["id"] == "b"
    assert service.next_sample("first", {}, Person("ben", "annotator"))["id"] == "a"


def test_suspect_gives_the_worst_label_of_an_audit_with_its_reason_in_mm(service_of, images, tmp_path):
    audit = tmp_path / "audit"
    audit.mkdir()
    words = "contracted: 4.2 mm smaller than predicted"
    rows = [
        {"rank": 1, "case": "b", "structure": "GTV", "score": 0.9, "words": "closed", "image": "b.nii.gz"},
        {
            "rank": 2,
            "case": "patient 3",
            "structure": "GTV",
            "score": 0.8,
            "words": words,
            "image": "c.nii.gz",
        },
        {"rank": 3, "case": "a", "structure": "GTV", "score": 0.1, "words": "fine", "image": "a.nii.gz"},
    ]
    (audit / "audit.json").write_text(json.dumps({"findings": rows}))
    (audit / "worklist.csv").write_text(",".join(WORKLIST) + "\nb,GTV,0.9,closed,accepted,rev,,\n")
    service = service_of(audit=audit)
    chosen = service.next_sample("suspect", {}, ANN)
    assert (chosen["id"], chosen["structure"], chosen["rank"]) == ("c", "GTV", 2)
    assert chosen["reason"] == f"GTV: {words}"
    marker, geometry = images[1]["c"]
    submission = Submission(marker.astype(np.int16), geometry, {"GTV": 1}, "ann")
    service.labels.save(service.images.get("c"), submission)
    assert service.next_sample("suspect", {}, ANN)["id"] == "a", "corrected since the audit"


def test_passes_of_dropout_that_contradict_each_other_are_as_uncertain_as_knowing_nothing():
    import torch

    from medseg.serve.monai_label.scoring import entropy, wake_dropout

    sure = torch.full((1, 2, 2, 2), 100.0)
    assert entropy(sure) == entropy(sure, sure) == pytest.approx(0)
    assert entropy(sure, -sure) == pytest.approx(np.log(2)) == entropy(0 * sure)
    network = torch.nn.Sequential(torch.nn.BatchNorm3d(1), torch.nn.Dropout3d(0.5)).eval()
    assert wake_dropout(network) and network[1].training and not network[0].training
    assert not wake_dropout(torch.nn.Sequential(torch.nn.BatchNorm3d(1), torch.nn.Dropout3d(0.0)).eval())


def test_old_answers_go_and_jobs_of_another_door_in_the_same_queue_stay(tmp_path):
    long_ago = Queue(tmp_path / "jobs.sqlite", now=lambda: time.time() - 30 * 86400)
    folders = [tmp_path / "results" / "old", tmp_path / "web" / "old"]
    for folder in folders:
        folder.mkdir(parents=True)
        long_ago.submit({"bundle": "bright", "output_dir": str(folder)})
        long_ago.finish(long_ago.claim("w", tasks=["bright"]).id, "w", {})
    queue = Queue(tmp_path / "jobs.sqlite")
    Inference(queue, tmp_path / "results").clear(7)
    assert [job.payload["output_dir"] for job in queue.jobs()] == [str(folders[1])]
    assert [folder.exists() for folder in folders] == [False, True]


def test_images_that_come_later_are_listed_without_making_anybody_wait(tmp_path, monkeypatch):
    geometry = stack_geometry((4, 8, 8))
    write_volume(np.zeros(geometry.shape, np.int16), geometry, tmp_path / "a.nii.gz")
    images = FolderImages(tmp_path, tmp_path / "uploads")
    write_volume(np.zeros(geometry.shape, np.int16), geometry, tmp_path / "b.nii.gz")
    assert images.ids() == ["a"]
    monkeypatch.setattr("medseg.serve.monai_label.images.LIST_LASTS_S", 0.0)
    assert images.ids() in (["a"], ["a", "b"]), "the list as it was, unless the thread was quick"
    while images.ids() != ["a", "b"]:
        time.sleep(0.01)


def test_without_an_audit_suspect_says_so(service_of):
    with pytest.raises(NothingKnown, match="medseg audit"):
        service_of().next_sample("suspect", {}, ANN)


def test_a_fixed_validation_set_stays_as_it_was(images, tmp_path):
    from medseg.serve.monai_label.export import Chosen
    from medseg.serve.monai_label.images import Image
    from medseg.serve.monai_label.training import fixed_validation

    def some(*names):
        return [Chosen(Image(name, f"{name}.nii", {}), {}, ()) for name in names]

    first = fixed_validation(tmp_path / "m", some("a", "b", "c", "d", "e"), 0.4)
    assert len(first) == 2
    assert fixed_validation(tmp_path / "m", some("a", "b", "c", "d", "e", "f", "g"), 0.9) == first
    with pytest.raises(InputError, match="at least one on either side"):
        fixed_validation(tmp_path / "m", some("x", "y"), 0.4)
