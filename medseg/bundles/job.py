"""One case through one bundle's own inference.json: what every door calls."""

from __future__ import annotations

import json
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.clicks import clicks_of, region_text, require_inside, search
from medseg.bundles.config import build, load_config, load_network
from medseg.bundles.find import Bundle
from medseg.bundles.finished import identity_of, number_format, previous_of
from medseg.bundles.record import (
    is_done,
    publish,
    remove_outputs,
    require_free,
    result_record,
    write_record,
)
from medseg.bundles.request import Request
from medseg.cases.find import CaseFiles, folder_name
from medseg.cases.results import Result
from medseg.cases.volume import open_case
from medseg.errors import InputError, MedsegError, MedsegWarning, noted_in, system_error_line
from medseg.files import LOCK_PREFIX, Lock
from medseg.inference import FlipAverage, NnunetInferer, SlidingWindow
from medseg.inference.engines import engine_name
from medseg.transforms import CheckInputd, case_folder

NEEDS_REGION = (
    "this bundle learned from crops around tumours and was given the whole image; contours far from a tumour "
    "are likely. Say where to look: `within`."
)


class Networks:
    """Networks that a process keeps between requests, so that each is loaded once. Holds the four used
    last."""

    most = 4

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def get(self, bundle: Bundle, device: Any, settings: Mapping[str, Any], load: Callable[[], Any]) -> Any:
        """The network of these files, settings and device; ``load()`` when it is not kept. A bundle whose
        files changed is another one."""
        key = json.dumps([str(bundle.folder), bundle.record(), str(device), settings], sort_keys=True)
        network = self._kept.pop(key, None) or load()
        self._kept[key] = network
        while len(self._kept) > self.most:
            del self._kept[next(iter(self._kept))]
        return network


class Pipeline:
    """A bundle's preprocessing, network, inferer and postprocessing, built once and used for every case."""

    def __init__(
        self,
        bundle: Bundle,
        request: Request,
        formats: Sequence[str],
        staging_dir: Path,
        progress: bool = False,
        networks: Networks | None = None,
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
        self.network = (networks or Networks()).get(
            bundle, self.device, request.settings, lambda: load_network(bundle, parser, self.device)
        )
        self.inferer = build(bundle, parser, "inferer")
        self.windows = self.inferer.inferer if isinstance(self.inferer, FlipAverage) else self.inferer
        chooses = isinstance(self.windows, SlidingWindow | NnunetInferer)
        self.engine = engine_name(self.windows.engine, device) if chooses else "torch"
        self.channels = channels_of(bundle.metadata)
        self.preprocessing = build(bundle, parser, "preprocessing")
        self.postprocessing = build(bundle, parser, "postprocessing")

    def look_within(self, within: str) -> None:
        """From now on crop to this region, and contour in it."""
        for step in (*self.preprocessing.transforms, *self.postprocessing.transforms):
            if hasattr(step, "within"):
                step.within = within

    def prepare(self, item: dict[str, Any], stage: Callable, gate: bool = True) -> dict[str, Any]:
        """Read and preprocess one item (:meth:`medseg.cases.find.CaseFiles.item`); ``stage(name)`` times
        each step. ``gate``: whether the image is judged, which a box on the way to another is not.

        The network is compiled meanwhile, which takes as long as reading a CT does and another core."""
        if self.channels and isinstance(self.windows, SlidingWindow):
            self.windows.begin(self.network, self.channels, self.device)
        steps = self.preprocessing.transforms
        return _through([step for step in steps if gate or not isinstance(step, CheckInputd)], item, stage)

    def predict(self, item: dict[str, Any], stage: Callable) -> dict[str, Any]:
        """Add the network's answer to a prepared item, a tensor or several by name."""
        import torch

        with stage("network"), torch.inference_mode():
            found = self.inferer(item["image"][None].to(self.device), self.network)
            is_one = isinstance(found, torch.Tensor)
            pred = found[0].cpu() if is_one else {name: part[0].cpu() for name, part in found.items()}
        return {**item, "pred": pred}

    def finish(self, item: dict[str, Any], stage: Callable) -> Result:
        """Turn the answer into the bundle's kind of result and write its files."""
        return _through(self.postprocessing.transforms, item, stage)[self.result_kind]


def channels_of(metadata: Mapping[str, Any]) -> int | None:
    """How many channels the network's image has, where the bundle's metadata say it."""
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    return inputs.get("image", {}).get("num_channels")


def _through(steps: Sequence, item: dict[str, Any], stage: Callable) -> dict[str, Any]:
    for transform in steps:
        with stage(type(transform).__name__):
            item = transform(item)
    return item


def _reason(error: MedsegError | OSError) -> str:
    return " ".join((system_error_line(error) if isinstance(error, OSError) else str(error)).split())


def case_lock(output_dir: Path, name: str) -> Path:
    """The file by which a run says that it works on the case called ``name``."""
    return output_dir / f"{LOCK_PREFIX}{folder_name(name)}"


# ---- one case ----------------------------------------------------------------------------------------------


@dataclass
class Job:
    """One case on its way through :meth:`prepare`, :meth:`predict` and :meth:`finish`, each in whatever
    thread.

    Every error becomes the case's outcome, and the later steps then do nothing but record it. From the first
    step to the last the case is locked: a case that another run works on gets the status "elsewhere", and
    ``holder`` says who that is; nothing of it is touched.
    """

    files: CaseFiles
    pipeline: Pipeline
    bundle: Bundle
    request: Request
    item: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clicks: dict[str, Any] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    seconds: float = 0.0
    holder: str = ""

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def folder(self) -> Path:
        return self.request.output_dir / self.name

    @property
    def staged(self) -> Path:
        return self.pipeline.staging_dir / self.name

    @cached_property
    def lock(self) -> Lock:
        """Beside the case's folder, while somebody works on it."""
        return Lock(case_lock(self.request.output_dir, self.name))

    def prepare(self) -> Job:
        """Look at what lies in the case's folder already, where a refusal leaves it untouched; read and
        preprocess."""
        self.started = time.time()
        try:
            holder = self.lock.take()
            if holder is not None:
                self.holder = holder
                self.record = {"case": self.name, "folder": str(self.folder), "status": "elsewhere"}
                return self
            self.identity = identity_of(self.bundle, self.request, self.files)
            previous = previous_of(self.folder, self.files.source)
            if not self.files.refusal and is_done(previous, self.identity, self.folder):
                self.record = {**previous, "status": "skipped"}
                return self
            remove_outputs(previous, self.folder)
            case_folder(self.name, self.request.output_dir)
            case_folder(self.name, self.pipeline.staging_dir)
        except (MedsegError, OSError) as error:
            failed = {"status": "failed", "fault": "input", "error": _reason(error)}
            self.record = {"case": self.name, "folder": str(self.folder), **failed}
            return self
        self._step(self._read)
        return self

    def _read(self) -> dict[str, Any]:
        if self.files.refusal:
            raise InputError(self.files.refusal)
        self.notes.extend(self.files.warnings)
        if self.request.at:
            self._find_region()
        return self.pipeline.prepare(self.files.item(), self._timed)

    def _find_region(self) -> None:
        """From the points of the request to the region that is contoured."""

        def look(box_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.pipeline.look_within(region_text(box_mm))
            with noted_in([]), warnings.catch_warnings():  # of boxes on the way nothing is said
                warnings.simplefilter("ignore", MedsegWarning)
                item = self.pipeline.prepare(self.files.item(), self._timed, gate=False)
            answer = self.pipeline.predict(item, self._timed)["pred"][0].numpy()
            ras_to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
            return answer, ras_to_lps @ np.asarray(item["image"].affine)

        require_inside(self.request.at, open_case(self.files.source, self.request.allow).geometry)
        found = search(look, self.request.at, clicks_of(self.bundle))
        self.pipeline.look_within(found.within)
        self.clicks = found.record(self.request.at)

    def predict(self) -> Job:
        """Run the network."""
        self._step(lambda: self.pipeline.predict(self.item, self._timed))
        return self

    def finish(self) -> dict[str, Any]:
        """Write the files, move them to the case's folder, unlock it, and give the case's record."""
        try:
            return self.record or self._finished()
        finally:
            self.lock.release()

    def _finished(self) -> dict[str, Any]:
        self._step(self._written)
        self.item = {}
        if (
            self.outcome["status"] == "done"
            and self.bundle.metadata.get("requires_region")
            and not (self.request.within or self.request.at)
        ):
            self.notes.append(NEEDS_REGION)
        notes = dict.fromkeys([*self.outcome.get("warnings", ()), *self.notes])
        self.record = {
            "case": self.name,
            "folder": str(self.folder),
            **self.identity,
            **({"clicks": self.clicks} if self.clicks else {}),
            **self.outcome,
            "warnings": list(notes),
            "device": str(self.pipeline.device),
            "engine": self.pipeline.engine,
            "number_format": number_format(self.pipeline.engine),
            "timings_s": self.timings_s,
            "started": datetime.fromtimestamp(self.started).astimezone().isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
        }
        try:
            case_folder(self.name, self.request.output_dir)  # another run may have removed it, empty
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
