"""``/infer``: a question to a model, and the answer in the form that 3D Slicer, OHIF or a script wants."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from django.http import HttpResponse, JsonResponse

from medseg.bundles.queue import QueuedJob, UnknownJob
from medseg.cases.nifti import write_volume
from medseg.errors import InputError
from medseg.serve.monai_label.answers import Refused, file_answer, media_type, multipart
from medseg.serve.monai_label.dicomweb import DicomWebImages
from medseg.serve.monai_label.door import Asking
from medseg.serve.monai_label.images import Image, geometry_of
from medseg.serve.monai_label.inference import Question, case_record, file_of, masks_of
from medseg.serve.monai_label.label_files import compose, write_nrrd
from medseg.serve.monai_label.models import Model
from medseg.serve.monai_label.people import Person
from medseg.serve.monai_label.service import Service

OUTPUTS = ("", "all", "image", "json", "dicom_seg", "rtstruct")
EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
CLICKS, MOST_CLICKS = ("foreground", "background"), 100
USED = (
    "allow",
    "client_id",
    "device",
    "label_info",
    "model_version",
    "restore_label_idx",
    "result_compress",
    "result_dtype",
    "result_extension",
    "store",
    "wait",
    "within",
    *CLICKS,
)
"""What a client may send along; the answer lists what else it sent."""

MOST_WAIT_S = 600.0


class InferViews:
    """The views of ``/infer/``."""

    def __init__(self, service: Service, most_wait_s: float = MOST_WAIT_S):
        self.service, self.most_wait_s = service, most_wait_s

    def infer(self, asking: Asking, model: str) -> HttpResponse:
        """POST: contour an image or session; answers when that is done, or at once, ``wait`` false."""
        output = asking.query("output")
        if output not in OUTPUTS:
            raise Refused(400, f"output {output[:40]!r}: expected one of {', '.join(OUTPUTS[1:])}.")
        question = self._question(asking, model, output)
        began = time.monotonic()
        job_id = self.service.inference.ask(question)
        state = self.service.inference.state(job_id)
        if asking.params.get("wait") is False:
            return JsonResponse(state, status=202)
        job = self.service.inference.wait(job_id, self.most_wait_s)
        waited = {"position": state["position"], "expected_wait_s": state["expected_wait_s"]}
        queue = {"job": job_id, **waited, "took_s": round(time.monotonic() - began, 3)}
        return self._answer(asking, question, job, output, queue)

    def _question(self, asking: Asking, name: str, output: str) -> Question:
        params = asking.params
        version = params.get("model_version")
        model = self.service.models.get(name, None if version is None else str(version))
        if asking.files:
            raise InputError("a file is not taken here; open a session with it first (PUT /session/).")
        session = asking.query("session_id")
        if session:
            found = self.service.sessions.get(session)
            if not asking.person.owns(found.owner):
                raise Refused(404, "no such session; it has ended, or never was.")
            image = found.as_image()
        else:
            image = self.service.images.local(asking.query("image"))
        kind = output if output in ("dicom_seg", "rtstruct") else "image"
        within = params.get("within") or None
        box = None if within is None else str(within)
        allow = tuple(name.strip() for name in str(params.get("allow") or "").split(",") if name.strip())
        return Question(model, image, asking.person.name, kind, box, allow, points_of(params, image))

    def _answer(
        self, asking: Asking, question: Question, job: QueuedJob, output: str, queue: Mapping[str, Any]
    ) -> HttpResponse:
        if output in ("dicom_seg", "rtstruct"):
            file = file_of(job, output)
            headers = {}
            if asking.params.get("store") is True:
                headers["X-Medseg-Stored"] = self._store(file)
            return file_answer(file, file.name, headers)
        about = {"model": question.model.words, "queue": queue, "warnings": case_record(job)["warnings"]}
        ignored = sorted(set(asking.params) - set(USED))
        if ignored:
            about["ignored"] = ignored
        return _map_answer(asking.params, question.model, question.image, job, output, about)

    def _store(self, file: Path) -> str:
        if not isinstance(self.service.images, DicomWebImages):
            raise InputError("store: the images of this server are not on a DICOMweb server.")
        self.service.images.store(file)
        return "true"

    # ---- jobs that somebody does not wait for --------------------------------------------------------------

    def job(self, asking: Asking, job: str) -> HttpResponse:
        """GET: where a job stands."""
        self._mine(job, asking.person)
        return JsonResponse(self.service.inference.state(job))

    def cancel(self, asking: Asking, job: str) -> HttpResponse:
        """DELETE: nobody wants it any more."""
        self._mine(job, asking.person)
        self.service.inference.queue.cancel(job)
        return JsonResponse(self.service.inference.state(job))

    def _mine(self, job_id: str, person: Person) -> None:
        if not person.owns(self.service.inference.queue.get(job_id).owner):
            raise UnknownJob(f"no job {job_id[:40]!r}; it was removed, or never was.")


def points_of(params: Mapping[str, Any], image: Image) -> tuple[tuple[float, float, float], ...]:
    """The clicks of DeepGrow's clients in LPS mm: ``foreground``, a list of voxels [column, row, slice].

    InputError for what is no such list, for a voxel outside of the image, and for clicks on what is *not*
    looked for (``background``), which no bundle takes.
    """
    for key in CLICKS:
        clicks = params.get(key) or []
        if not isinstance(clicks, list) or len(clicks) > MOST_CLICKS or not all(map(_is_voxel, clicks)):
            raise InputError(f"{key}: expected at most {MOST_CLICKS} voxels [column, row, slice].")
    if params.get("background"):
        raise InputError("background: bundles take points inside what they look for; remove those outside.")
    clicks = params.get("foreground") or []
    if not clicks:
        return ()
    geometry = geometry_of(image)
    outside = [
        click
        for click in clicks
        if not all(0 <= n < size for n, size in zip(click, geometry.shape[::-1], strict=True))
    ]
    if outside:
        raise InputError(
            f"foreground: voxel {outside[0]} lies outside of an image of {geometry.shape[::-1]}."
        )
    points = [geometry.points_lps_mm(number, np.array([[row, column]]))[0] for column, row, number in clicks]
    return tuple(tuple(round(float(value), 3) for value in point) for point in points)


def _is_voxel(click: Any) -> bool:
    return isinstance(click, list) and len(click) == 3 and all(type(number) is int for number in click)


def _map_answer(
    params: Mapping[str, Any], model: Model, image: Image, job: QueuedJob, output: str, about: dict[str, Any]
) -> HttpResponse:
    """A label map, numbered as its reader takes it: without gaps and with its names for 3D Slicer; by the
    model's own numbers for a reader that gets no names (OHIF)."""
    gapless = params.get("restore_label_idx", True) is not False and output != "image"
    values, names, hidden = compose(masks_of(job, image), model.labels, gapless=gapless)
    rows = case_record(job)["structures"]
    told = {"label_names": names, **_sizes(rows), **about}
    if hidden:
        told["hidden_voxels"] = hidden
    if output == "json":
        return JsonResponse(told)
    extension = str(params.get("result_extension") or ".nii.gz")
    if extension not in EXTENSIONS:
        raise InputError(f"result_extension {extension[:20]!r}: expected one of {', '.join(EXTENSIONS)}.")
    name, geometry = f"{model.name}{extension}", geometry_of(image)
    with tempfile.TemporaryDirectory() as folder:
        write = write_nrrd if extension == ".nrrd" else write_volume
        content = write(values, geometry, Path(folder) / name).read_bytes()
    if output == "image":
        answer = HttpResponse(content, content_type=media_type(name))
        answer["Content-Disposition"] = f'attachment; filename="{name}"'
        answer["X-Medseg-Label-Names"] = json.dumps(names)
        return answer
    return multipart(told, name, content)


def _sizes(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """{"volumes_cc": {structure: size}} of a volume; "areas_pixels" and "areas_cm2" of a radiograph, the
    latter None where its spacing is not known."""
    kinds = {"volumes_cc": "volume_cc", "areas_pixels": "area_pixels", "areas_cm2": "area_cm2"}
    return {
        told: {row["name"]: row[key] for row in rows}
        for told, key in kinds.items()
        if all(key in row for row in rows)
    }
