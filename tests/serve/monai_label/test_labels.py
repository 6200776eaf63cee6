"""What annotators submitted is kept: side by side, in versions, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from medseg.errors import GeometryError, InputError, StructureError
from medseg.phantoms.series import stack_geometry
from medseg.serve.monai_label.images import Image
from medseg.serve.monai_label.labels import (
    FINAL,
    ORIGINAL,
    Labels,
    Submission,
    UnknownLabel,
    current,
    newest_of_each,
    plain_notes,
)

GEOMETRY = stack_geometry((4, 6, 5))
IMAGE = Image("patient/../../etc", "ct.nii.gz", {})


def values(*voxels, number=1):
    array = np.zeros(GEOMETRY.shape, dtype=np.int16)
    for voxel in voxels:
        array[voxel] = number
    return array


def submission(array, annotator="ann", **options):
    return Submission(array, GEOMETRY, options.pop("names", {"Parotid_R": 1}), annotator, **options)


@pytest.fixture
def labels(tmp_path):
    return Labels(tmp_path / "labels")


def test_a_second_submission_leaves_the_first_as_it_was(labels):
    first = labels.save(IMAGE, submission(values((0, 0, 0))))
    before = first.file.read_bytes()
    second = labels.save(IMAGE, submission(values((1, 1, 1)), parent=first.id))
    assert [version.id for version in labels.of(IMAGE)] == [first.id, second.id]
    assert first.file.read_bytes() == before and hashlib.sha256(before).hexdigest() == first.sha256
    assert labels.get(first.id).masks(GEOMETRY)["Parotid_R"].sum() == 1
    assert (second.parent, second.origin, second.annotator) == (first.id, "by hand", "ann")


def test_several_annotators_stay_side_by_side_and_each_has_a_newest_version(labels):
    for annotator, voxel in (("ann", (0, 0, 0)), ("ben", (1, 0, 0)), ("ann", (2, 0, 0))):
        labels.save(IMAGE, submission(values(voxel), annotator))
    newest = newest_of_each(labels.of(IMAGE))
    assert sorted(newest) == ["ann", "ben"]
    assert newest["ann"].masks(GEOMETRY)["Parotid_R"][2, 0, 0]
    assert current(labels.of(IMAGE), annotator="ben").annotator == "ben"
    assert current(labels.of(IMAGE), tag=ORIGINAL) is None


def test_a_reviewers_choice_counts_before_a_newer_version_and_a_withdrawn_one_not_at_all(labels):
    first = labels.save(IMAGE, submission(values((0, 0, 0))))
    second = labels.save(IMAGE, submission(values((1, 0, 0)), "ben"))
    assert current(labels.of(IMAGE)).id == second.id
    labels.note(first.id, {"chosen": "2026-11-26T12:00:00+00:00"}, by="rev")
    assert current(labels.of(IMAGE)).id == first.id
    labels.note(first.id, {"withdrawn": "2026-11-26T13:00:00+00:00"}, by="rev")
    assert current(labels.of(IMAGE)).id == second.id
    assert first.file.exists(), "a withdrawn label is kept"


def test_no_image_id_leaves_the_folder_of_labels(labels):
    version = labels.save(IMAGE, submission(values((0, 0, 0))))
    assert version.folder.parent.parent == labels.folder
    assert labels.get(version.id).image == "patient/../../etc"


def test_another_process_sees_what_was_saved(labels):
    version = labels.save(IMAGE, submission(values((0, 0, 0))))
    other = Labels(labels.folder)
    assert other.get(version.id).sha256 == version.sha256
    newer = labels.save(IMAGE, submission(values((1, 0, 0))))
    assert current(other.of(IMAGE)).id == newer.id


@pytest.mark.parametrize(
    ("array", "options", "error", "words"),
    [
        (values((0, 0, 0), number=2), {}, StructureError, "holds the values 2"),
        (np.zeros((1, 2, 3), dtype=np.int16), {}, InputError, "for an image of"),
        (values(), {"tag": "best"}, InputError, "expected one of final, original"),
        (values(), {"names": {"A": 1, "a": 2}}, StructureError, "two structures are called"),
        (values(), {"names": {"A\\B": 1}}, StructureError, "structure name"),
    ],
)
def test_a_label_that_says_nothing_of_its_image_is_refused(labels, array, options, error, words):
    with pytest.raises(error, match=words):
        labels.save(IMAGE, submission(array, **options))
    assert labels.all() == []


def test_uneven_slices_are_refused_and_nothing_half_written_stays(labels):
    uneven = stack_geometry((4, 6, 5), gaps_mm=[1.0, 2.0, 5.0])
    with pytest.raises(GeometryError, match="uneven"):
        labels.save(IMAGE, Submission(values(), uneven, {"A": 1}, "ann"))
    assert list((labels.folder / IMAGE.key).iterdir()) == []


def test_a_parent_must_be_a_label_of_the_same_image(labels):
    first = labels.save(IMAGE, submission(values()))
    with pytest.raises(InputError, match="another image"):
        labels.save(Image("other", "o.nii", {}), submission(values(), parent=first.id))
    with pytest.raises(UnknownLabel):
        labels.save(IMAGE, submission(values(), parent="20260101T000000-aaaaaaaaaaaa"))


def test_notes_cannot_forge_a_choice():
    assert plain_notes('{"comment": "good"}') == {"comment": "good"}
    for text in ('{"chosen": "now"}', "[1]", "{", '{"a": "' + "b" * 70_000 + '"}'):
        with pytest.raises(InputError):
            plain_notes(text)


KILLED = """
import numpy as np, sys
from medseg.phantoms.series import stack_geometry
from medseg.serve.monai_label.images import Image
from medseg.serve.monai_label.labels import Labels, Submission
geometry = stack_geometry((40, 128, 128))
labels = Labels(__import__("pathlib").Path(sys.argv[1]))
array = np.random.default_rng(0).integers(0, 2, geometry.shape).astype(np.int16)
image = Image("patient/../../etc", "ct.nii.gz", {})
print("ready", flush=True)
while True:
    labels.save(image, Submission(array, geometry, {"A": 1}, "ann"))
"""


def test_killing_the_writer_loses_no_version_and_leaves_no_half_one(labels):
    kept = labels.save(IMAGE, submission(values((0, 0, 0))))
    for pause_s in (0.02, 0.13):
        script = [sys.executable, "-c", KILLED, str(labels.folder)]
        with subprocess.Popen(script, stdout=subprocess.PIPE, env=os.environ) as writer:
            writer.stdout.readline()
            time.sleep(pause_s)
            writer.send_signal(signal.SIGKILL)
    for version in Labels(labels.folder).all():
        assert hashlib.sha256(version.file.read_bytes()).hexdigest() == version.sha256
    again = Labels(labels.folder).save(IMAGE, submission(values((1, 0, 0))))
    assert {kept.id, again.id} <= {version.id for version in Labels(labels.folder).all()}
    assert not [path for path in again.folder.parent.iterdir() if path.name.startswith(".partial")]
    assert FINAL == again.tag
