"""Cases in, contours out: run a bundle's own inference.json over one case or a whole cohort."""

from __future__ import annotations

import hashlib
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from medseg.atomic import staged_elsewhere, staging_folder
from medseg.bundles import Bundle, find_bundle, load_config, load_network, parsed
from medseg.errors import InputError, MedsegError, MedsegWarning, system_error_line
from medseg.readers import find_cases, fingerprint_sha256, is_nifti, source_path
from medseg.report.run_record import (
    case_record,
    is_done,
    publish,
    read_record,
    remove_outputs,
    require_free,
    write_record,
)
from medseg.transforms import CaseStructures, case_folder
from medseg.within import region_file

FORMATS = ("rtstruct", "seg", "nifti", "preview")
COHORT_KEYS = ("case", "status", "fault", "error", "folder", "seconds", "warnings")
OWN_OPTIONS = {
    "device": "--device", "output_dir": "-o", "formats": "--format", "within": "--within", "allow": "--allow",
    "dataset_dir": "INPUT", "bundle_root": "--bundle",
}  # fmt: skip
"""Ids of inference.json that have an option of their own; a second way to set them would contradict it."""

NOT_USED = {
    "bundle_name", "bundle_version", "checkpoint", "dataloader", "dataset", "evaluator", "handlers", "imports", "network",
    "progress", "run",
}  # fmt: skip
"""Ids that say what the bundle is or serve MONAI's own command line; here they would change nothing, or lie."""

NEEDS_REGION = (
    "this bundle learned from crops around tumours and was given the whole image; contours far from a tumour are likely. "
    "Say where to look with --within."
)


@dataclass(frozen=True)
class Request:
    """What a user asks of ``medseg segment``; one to one with its options. ``settings``: overrides of inference.json.

    No ``formats`` means RTSTRUCT and preview for DICOM, NIfTI and preview for a NIfTI file, which has no series to refer to.
    """

    input: Path
    bundle: str
    output_dir: Path
    formats: tuple[str, ...] = ()
    device: str = "auto"
    within: str | None = None
    allow: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        from medseg.dicom import ALLOWABLE

        faults = [name for name in self.allow if name not in ALLOWABLE]
        if faults:
            raise InputError(f"fault {', '.join(map(repr, faults))}: expected some of {', '.join(ALLOWABLE)}.")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise InputError(f"format {', '.join(map(repr, unknown))}: expected some of {', '.join(FORMATS)}.")
        if self.within is not None and not self.within.strip():
            raise InputError("within is empty; leave it out to contour the whole image.")
        for key in self.settings:
            name = key.replace("::", "#").split("#")[0]
            if name in OWN_OPTIONS:
                raise InputError(f"setting {key}: use {OWN_OPTIONS[name]} for it.")
            if name in NOT_USED:
                raise InputError(f"setting {key}: has no effect on medseg segment.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device {self.device!r}: expected auto, cpu or cuda.")


class Pipeline:
    """A bundle's preprocessing, network, inferer and postprocessing, built once and used for every case."""

    def __init__(self, bundle: Bundle, request: Request, formats: Sequence[str], staging_dir: Path, progress: bool = False):
        import torch

        # Files are written here and moved when a case is complete, so that a killed run leaves no half case.
        self.staging_dir = staging_dir
        device = request.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise InputError("device cuda: no CUDA GPU is available to torch here; use --device cpu or auto.")
        overrides = {
            "device": device,
            "output_dir": str(self.staging_dir),
            "formats": list(formats),
            "within": request.within,
            "allow": list(request.allow),
            "progress": progress,
            **request.settings,
        }
        parser = load_config(bundle, "inference", overrides)
        self.device = torch.device(device)
        self.network = load_network(bundle, parser, self.device)
        self.inferer = parsed(bundle, parser, "inferer")
        self.preprocessing = parsed(bundle, parser, "preprocessing")
        self.postprocessing = parsed(bundle, parser, "postprocessing")

    def __call__(self, item: dict[str, Any], stage: Callable) -> CaseStructures:
        """Contour one ``{"image": source, "case_name": name}`` and write its files; ``stage(name)`` times each step."""
        import torch

        for transform in self.preprocessing.transforms:
            with stage(type(transform).__name__):
                item = transform(item)
        with stage("network"), torch.inference_mode():
            item["pred"] = self.inferer(item["image"][None].to(self.device), self.network)[0].cpu()
        for transform in self.postprocessing.transforms:
            with stage(type(transform).__name__):
                item = transform(item)
        return item["structures"]


def segment(
    request: Request, report: Callable[[dict[str, Any]], None] = lambda record: None, progress: bool = False
) -> dict[str, Any]:
    """Contour every case of ``request.input``; returns the cohort's record, which is also ``output_dir/run.json``.

    A case that fails is recorded with its one-line reason and never stops the others; a case already contoured with the
    same input, region, bundle and options is skipped, so an interrupted cohort continues where it stopped. Files that
    medseg did not write are never replaced. ``report`` gets each case's record, see :func:`case_line`. Raises InputError
    or BundleError only for what concerns the whole run.
    """
    bundle = find_bundle(request.bundle)
    cases, notes = find_cases(request.input, bundle.modality)
    records = []
    with staging_folder(request.output_dir) as staging_dir:
        wanted = dict.fromkeys(_formats(request, source) for _, source in cases)
        one = progress and len(cases) == 1
        pipelines = {formats: Pipeline(bundle, request, formats, staging_dir, one) for formats in wanted}
        for name, source in _bar(cases, progress):
            formats = _formats(request, source)
            record = _contour(pipelines[formats], bundle, request, name, source)
            records.append(record)
            report(record)
        cohort = {
            "bundle": _bundle_record(bundle),
            "cases": [{key: record[key] for key in COHORT_KEYS if key in record} for record in records],
            "passed_over": notes,
        }
        write_record(cohort, request.output_dir / "run.json")
    return cohort


def _formats(request: Request, source: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(request.formats)) or ("nifti" if is_nifti(source) else "rtstruct", "preview")


def _bundle_record(bundle: Bundle) -> dict[str, str]:
    return {
        "name": bundle.name, "version": bundle.version, "weights_sha256": bundle.weights_sha256,
        "inference_sha256": bundle.inference_sha256,
    }  # fmt: skip


def _bar(cases: Sequence, progress: bool):
    from tqdm import tqdm

    # A single case shows the network's own bar over windows instead; tqdm writes to standard error.
    return tqdm(cases, unit="case", disable=not progress or len(cases) == 1, dynamic_ncols=True)


def case_line(record: dict) -> str:
    """One line for people about a case's record: its volumes and where they are, or why it failed."""
    if record["status"] == "failed":
        return f"{record['case']}: failed: {record['error']}"
    volumes = ", ".join(_volume(structure) for structure in record["structures"])
    return f"{record['case']}: {record['status']}: {volumes} -> {short_path(record['folder'])}"


def short_path(path: str | Path) -> str:
    """The path from the current folder where it lies below it, else as it is: for people to read."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _volume(structure: dict) -> str:
    if structure["empty"]:
        return f"{structure['name']} empty"
    known = structure["volume_cc"] is not None
    return f"{structure['name']} {structure['volume_cc']:.1f} cc" if known else f"{structure['name']} present"


def _contour(pipeline: Pipeline, bundle: Bundle, request: Request, name: str, source: str) -> dict:
    """One case's record. What lies in the case's folder already is looked at first, and a refusal leaves it untouched."""
    started = time.time()
    folder = request.output_dir / name
    try:
        identity = _identity(bundle, request, source)
        previous = _previous(folder, source)
        if is_done(previous, identity, folder):
            return {**previous, "status": "skipped"}
        if staged_elsewhere(pipeline.staging_dir, name):
            raise InputError(f"another medseg process is writing {folder}; wait for it or choose another output folder.")
        remove_outputs(previous, folder)
        case_folder(name, request.output_dir)
    except (MedsegError, OSError) as error:
        return {"case": name, "folder": str(folder), "status": "failed", "fault": "input", "error": _reason(error)}
    timings_s: dict[str, float] = {}
    staged = case_folder(name, pipeline.staging_dir)
    outcome, notes = _run(pipeline, {"image": source, "case_name": name}, staged, folder, timings_s)
    if outcome["status"] == "done" and bundle.metadata.get("requires_region") and not request.within:
        notes.append(NEEDS_REGION)
    record = {
        "case": name, "folder": str(folder), **identity, **outcome, "warnings": [*outcome.get("warnings", ()), *notes],
        "device": str(pipeline.device), "timings_s": timings_s,
        "started": datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
    }  # fmt: skip
    try:
        if record["status"] == "done":
            publish(record, staged, folder)
        else:
            write_record(record, folder / "run.json")
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return record


def _identity(bundle: Bundle, request: Request, source: str) -> dict[str, Any]:
    """What decides a case's contours: while none of it changes, a finished case is not contoured again."""
    region = region_file(request.within, source) if request.within else None
    return {
        "source": source,
        "input_sha256": fingerprint_sha256(source, leave_out=request.output_dir),
        "bundle": _bundle_record(bundle),
        "options": {
            "formats": sorted(_formats(request, source)), "within": request.within,
            "region_sha256": hashlib.sha256(region[0].read_bytes()).hexdigest() if region else None,
            "allow": sorted(request.allow), "settings": dict(sorted(request.settings.items())),
        },
    }  # fmt: skip


def _previous(folder: Path, source: str) -> dict[str, Any]:
    """The record of the case's earlier run. InputError when the folder belongs to another case, or is the input itself."""
    path = source_path(source)
    if path.is_dir() and folder.resolve() == path.resolve():
        raise InputError(f"{folder}: results would lie among the images themselves; choose another output folder.")
    previous = read_record(folder)
    if previous and source_path(previous["source"]) != path:
        raise InputError(f"{folder} holds the result of {previous['source']}; choose another output folder for {path}.")
    return previous


def _reason(error: MedsegError | OSError) -> str:
    return " ".join((system_error_line(error) if isinstance(error, OSError) else str(error)).split())


def _run(pipeline: Pipeline, item: dict, staged: Path, folder: Path, timings_s: dict) -> tuple[dict, list[str]]:
    """(outcome for the record, warnings) of one case, whose files then lie in ``staged``; every error becomes an outcome."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = pipeline(item, lambda stage: _timed(timings_s, stage))
            require_free(staged, folder)
            outcome = {"status": "done", **case_record(result, staged)}
        except (MedsegError, OSError) as error:
            outcome = {"status": "failed", "fault": "input", "error": _reason(error)}
        except Exception as error:  # whatever breaks one case must not stop the cohort; the reason goes into run.json
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            outcome = {"status": "failed", "fault": "medseg", "error": reason, "traceback": traceback.format_exc()}
    notes = dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, MedsegWarning))
    return outcome, list(notes)


@contextmanager
def _timed(timings_s: dict[str, float], stage: str):
    started = time.perf_counter()
    yield
    timings_s[stage] = round(timings_s.get(stage, 0.0) + time.perf_counter() - started, 3)
