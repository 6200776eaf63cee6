"""One case through one bundle's own inference.json: what every door calls."""

from __future__ import annotations

import hashlib
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.bundles.config import build, load_config, load_network
from medseg.bundles.find import Bundle
from medseg.bundles.kinds import FORMATS, formats_of
from medseg.bundles.record import (
    is_done,
    publish,
    read_record,
    remove_outputs,
    require_free,
    result_record,
    write_record,
)
from medseg.cases.region import region_file
from medseg.cases.results import Result
from medseg.cases.volume import fingerprint_sha256, source_path
from medseg.errors import InputError, MedsegError, noted_in, system_error_line
from medseg.files import staged_elsewhere
from medseg.inference.engines import ENGINE_NAMES, engine_name
from medseg.inference.sliding_window import SlidingWindow
from medseg.transforms import ALLOWABLE_AT_THE_GATE, case_folder

OWN_FIELDS = {
    "device": "device",
    "engine": "engine",
    "output_dir": "output_dir",
    "formats": "formats",
    "within": "within",
    "allow": "allow",
    "dataset_dir": "input",
    "bundle_root": "bundle",
}
"""Ids of inference.json and the field of a Request that sets each; a second way would contradict it."""

NOT_USED = {
    "bundle_name",
    "bundle_version",
    "checkpoint",
    "dataloader",
    "dataset",
    "evaluator",
    "handlers",
    "imports",
    "network",
    "progress",
    "run",
}
"""Ids that say what the bundle is or serve MONAI's own command line; here they would change nothing, or
lie."""

NEEDS_REGION = (
    "this bundle learned from crops around tumours and was given the whole image; contours far from a tumour "
    "are likely. Say where to look: `within`."
)


@dataclass(frozen=True)
class Request:
    """What a user asks of ``medseg segment``; one to one with its options. ``settings``: overrides of
    inference.json.

    No ``formats`` means RTSTRUCT and preview for DICOM, NIfTI and preview for a NIfTI file, which has no
    series to refer to, PNG and preview for a radiograph.
    """

    input: Path
    bundle: str
    output_dir: Path
    _: KW_ONLY
    formats: tuple[str, ...] = ()
    device: str = "auto"
    engine: str = "auto"
    within: str | None = None
    allow: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        from medseg.dicom import ALLOWABLE

        known = (*ALLOWABLE, *ALLOWABLE_AT_THE_GATE)
        faults = [name for name in self.allow if name not in known]
        if faults:
            raise InputError(f"fault {', '.join(map(repr, faults))}: expected some of {', '.join(known)}.")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise InputError(
                f"format {', '.join(map(repr, unknown))}: expected some of {', '.join(FORMATS)}."
            )
        if self.within is not None and not self.within.strip():
            raise InputError("within is empty; leave it out to contour the whole image.")
        for key in self.settings:
            name = key.replace("::", "#").split("#")[0]
            if name in OWN_FIELDS:
                raise InputError(f"setting {key}: use `{OWN_FIELDS[name]}` for it.")
            if name in NOT_USED:
                raise InputError(f"setting {key}: has no effect on medseg segment.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device {self.device!r}: expected auto, cpu or cuda.")
        if self.engine not in ENGINE_NAMES:
            raise InputError(f"engine {self.engine!r}: expected one of {', '.join(ENGINE_NAMES)}.")


class Pipeline:
    """A bundle's preprocessing, network, inferer and postprocessing, built once and used for every case."""

    def __init__(
        self,
        bundle: Bundle,
        request: Request,
        formats: Sequence[str],
        staging_dir: Path,
        progress: bool = False,
    ):
        import torch

        # Files are written here and moved when a case is complete, so that a killed run leaves no half case.
        self.staging_dir = staging_dir
        self.result_kind = bundle.result_kind
        device = request.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "device cuda: no CUDA GPU is available to torch here; use `device=cpu` or `device=auto`."
            )
        overrides = {
            "device": device,
            "output_dir": str(self.staging_dir),
            "formats": list(formats),
            "progress": progress,
            **({"within": request.within} if request.within else {}),
            **({"allow": list(request.allow)} if request.allow else {}),
            **({} if request.engine == "auto" else {"engine": request.engine}),  # auto: what the bundle says
            **request.settings,
        }
        parser = load_config(bundle, "inference", overrides)
        self.device = torch.device(device)
        self.network = load_network(bundle, parser, self.device)
        self.inferer = build(bundle, parser, "inferer")
        self.engine = (
            engine_name(self.inferer.engine, device) if isinstance(self.inferer, SlidingWindow) else "torch"
        )
        self.preprocessing = build(bundle, parser, "preprocessing")
        self.postprocessing = build(bundle, parser, "postprocessing")

    def prepare(self, item: dict[str, Any], stage: Callable) -> dict[str, Any]:
        """Read and preprocess one ``{"image": source, "case_name": name}``; ``stage(name)`` times each
        step."""
        return _through(self.preprocessing, item, stage)

    def predict(self, item: dict[str, Any], stage: Callable) -> dict[str, Any]:
        """Add the network's answer to a prepared item."""
        import torch

        with stage("network"), torch.inference_mode():
            pred = self.inferer(item["image"][None].to(self.device), self.network)[0].cpu()
        return {**item, "pred": pred}

    def finish(self, item: dict[str, Any], stage: Callable) -> Result:
        """Turn the answer into the bundle's kind of result and write its files."""
        return _through(self.postprocessing, item, stage)[self.result_kind]


def _through(chain, item: dict[str, Any], stage: Callable) -> dict[str, Any]:
    for transform in chain.transforms:
        with stage(type(transform).__name__):
            item = transform(item)
    return item


def _identity(bundle: Bundle, request: Request, source: str) -> dict[str, Any]:
    """What decides a case's contours: while none of it changes, a finished case is not contoured again."""
    region = region_file(request.within, source) if request.within else None
    return {
        "source": source,
        "input_sha256": fingerprint_sha256(source, leave_out=request.output_dir),
        "bundle": bundle.record(),
        "options": {
            "formats": sorted(formats_of(bundle, request.formats, source)),
            "within": request.within,
            "region_sha256": hashlib.sha256(region[0].read_bytes()).hexdigest() if region else None,
            "allow": sorted(request.allow),
            "settings": dict(sorted(request.settings.items())),
        },
    }


def _previous(folder: Path, source: str) -> dict[str, Any]:
    """The record of the case's earlier run. InputError when the folder belongs to another case, or is the
    input itself."""
    path = source_path(source)
    if path.is_dir() and folder.resolve() == path.resolve():
        raise InputError(
            f"{folder}: results would lie among the images themselves; choose another output folder."
        )
    previous = read_record(folder)
    if previous and source_path(previous["source"]) != path:
        raise InputError(
            f"{folder} holds the result of {previous['source']}; choose another output folder for {path}."
        )
    return previous


def _reason(error: MedsegError | OSError) -> str:
    return " ".join((system_error_line(error) if isinstance(error, OSError) else str(error)).split())


# ---- one case ----------------------------------------------------------------------------------------------


@dataclass
class Job:
    """One case on its way through :meth:`prepare`, :meth:`predict` and :meth:`finish`, each in whatever
    thread.

    Every error becomes the case's outcome, and the later steps then do nothing but record it.
    """

    name: str
    source: str
    pipeline: Pipeline
    bundle: Bundle
    request: Request
    item: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    timings_s: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        return self.request.output_dir / self.name

    @property
    def staged(self) -> Path:
        return self.pipeline.staging_dir / self.name

    def prepare(self) -> Job:
        """Look at what lies in the case's folder already, where a refusal leaves it untouched; read and
        preprocess."""
        self.started = time.time()
        try:
            self.identity = _identity(self.bundle, self.request, self.source)
            previous = _previous(self.folder, self.source)
            if is_done(previous, self.identity, self.folder):
                self.record = {**previous, "status": "skipped"}
                return self
            if staged_elsewhere(self.pipeline.staging_dir, self.name):
                raise InputError(
                    f"another medseg process is writing {self.folder}; wait for it or choose another output "
                    f"folder."
                )
            remove_outputs(previous, self.folder)
            case_folder(self.name, self.request.output_dir)
            case_folder(self.name, self.pipeline.staging_dir)
        except (MedsegError, OSError) as error:
            failed = {"status": "failed", "fault": "input", "error": _reason(error)}
            self.record = {"case": self.name, "folder": str(self.folder), **failed}
            return self
        self._step(lambda: self.pipeline.prepare({"image": self.source, "case_name": self.name}, self._timed))
        return self

    def predict(self) -> Job:
        """Run the network."""
        self._step(lambda: self.pipeline.predict(self.item, self._timed))
        return self

    def finish(self) -> dict[str, Any]:
        """Write the files, move them to the case's folder, and give the case's record."""
        if self.record:
            return self.record
        self._step(self._written)
        self.item = {}
        if (
            self.outcome["status"] == "done"
            and self.bundle.metadata.get("requires_region")
            and not self.request.within
        ):
            self.notes.append(NEEDS_REGION)
        notes = dict.fromkeys([*self.outcome.get("warnings", ()), *self.notes])
        self.record = {
            "case": self.name,
            "folder": str(self.folder),
            **self.identity,
            **self.outcome,
            "warnings": list(notes),
            "device": str(self.pipeline.device),
            "engine": self.pipeline.engine,
            "timings_s": self.timings_s,
            "started": datetime.fromtimestamp(self.started).astimezone().isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
        }
        try:
            if self.record["status"] == "done":
                publish(self.record, self.staged, self.folder)
            else:
                write_record(self.record, self.folder / "run.json")
        except (
            MedsegError,
            OSError,
        ) as error:  # a full disk; what lies there says "interrupted", or is not ours
            reason = self.record.get("error") or _reason(error)
            self.record |= {"status": "failed", "fault": "input", "error": reason}
        finally:
            shutil.rmtree(self.staged, ignore_errors=True)
        return self.record

    def _written(self) -> dict[str, Any]:
        result = self.pipeline.finish(self.item, self._timed)
        require_free(self.staged, self.folder)
        self.outcome = {"status": "done", **result_record(result, self.staged)}
        return {}

    def _step(self, run: Callable[[], dict[str, Any]]) -> None:
        """Let ``run`` make the next item, unless the case has come to its end; its time and warnings are the
        case's."""
        if self.record or self.outcome:
            return
        began = time.perf_counter()
        with noted_in(self.notes):
            try:
                self.item = run()
            except (MedsegError, OSError) as error:
                self.outcome = {"status": "failed", "fault": "input", "error": _reason(error)}
            except (
                Exception
            ) as error:  # whatever breaks one case must not stop the cohort; the reason goes into run.json
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self.outcome = {
                    "status": "failed",
                    "fault": "medseg",
                    "error": reason,
                    "traceback": traceback.format_exc(),
                }
        self.seconds += time.perf_counter() - began

    @contextmanager
    def _timed(self, stage: str):
        started = time.perf_counter()
        yield
        self.timings_s[stage] = round(self.timings_s.get(stage, 0.0) + time.perf_counter() - started, 3)
