"""Cases in, contours out: run a bundle's own inference.json over one case or a whole cohort."""

from __future__ import annotations

import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medseg.bundles import Bundle, find_bundle, load_config, load_network
from medseg.errors import InputError, MedsegError, MedsegWarning
from medseg.readers import find_cases, fingerprint_sha256, is_nifti
from medseg.report.run_record import case_record, is_done, move_outputs, read_record, remove_outputs, write_record
from medseg.transforms import CaseStructures, case_folder

FORMATS = ("rtstruct", "seg", "nifti", "preview")
COHORT_KEYS = ("case", "status", "fault", "error", "folder", "seconds")
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
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise InputError(f"format {', '.join(unknown)}: expected some of {', '.join(FORMATS)}.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device {self.device!r}: expected auto, cpu or cuda.")


class Pipeline:
    """A bundle's preprocessing, network, inferer and postprocessing, built once and used for every case."""

    def __init__(self, bundle: Bundle, request: Request, progress: bool = False):
        import torch

        # Files are written here and moved when a case is complete, so that a killed run leaves no half case.
        self.staging_dir = request.output_dir / f".partial-{os.getpid()}"
        device = request.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise InputError("device cuda: no CUDA GPU is available to torch here; use --device cpu or auto.")
        overrides = {
            "device": device,
            "output_dir": str(self.staging_dir),
            "formats": list(request.formats),
            "within": request.within,
            "allow": list(request.allow),
            "progress": progress,
            **request.settings,
        }
        parser = load_config(bundle, "inference", overrides)
        self.device = torch.device(device)
        self.network = load_network(bundle, parser, self.device)
        self.inferer = parser.get_parsed_content("inferer")
        self.preprocessing = parser.get_parsed_content("preprocessing")
        self.postprocessing = parser.get_parsed_content("postprocessing")

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


def segment(request: Request, report: Callable[[str], None] = lambda line: None, progress: bool = False) -> dict[str, Any]:
    """Contour every case of ``request.input``; returns the cohort's record, which is also ``output_dir/run.json``.

    A case that fails is recorded with its one-line reason and never stops the others; a case already contoured with the
    same input, weights and options is skipped, so an interrupted cohort continues where it stopped. ``report`` gets one
    line per case. Raises InputError or BundleError only for what concerns the whole run.
    """
    bundle = find_bundle(request.bundle)
    modality = bundle.metadata["network_data_format"]["inputs"]["image"].get("modality")
    cases, notes = find_cases(request.input, modality)
    if not request.formats:
        has_series = any(not is_nifti(source) for _, source in cases)
        request = replace(request, formats=("rtstruct" if has_series else "nifti", "preview"))
    request.output_dir.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(bundle, request, progress and len(cases) == 1)
    records = []
    try:
        for name, source in _bar(cases, progress):
            record = _contour(pipeline, bundle, request, name, source)
            records.append(record)
            report(_line(name, record))
    finally:
        shutil.rmtree(pipeline.staging_dir, ignore_errors=True)
    cohort = {
        "bundle": {"name": bundle.name, "version": bundle.version, "weights_sha256": bundle.weights_sha256},
        "cases": [{key: record[key] for key in COHORT_KEYS if key in record} for record in records],
        "passed_over": notes,
    }
    write_record(cohort, request.output_dir / "run.json")
    return cohort


def _bar(cases: Sequence, progress: bool):
    from tqdm import tqdm

    # A single case shows the network's own bar over windows instead; tqdm writes to standard error.
    return tqdm(cases, unit="case", disable=not progress or len(cases) == 1, dynamic_ncols=True)


def _line(name: str, record: dict) -> str:
    if record["status"] == "failed":
        return f"{name}: failed: {record['error']}"
    volumes = ", ".join(_volume(structure) for structure in record["structures"])
    return f"{name}: {record['status']}: {volumes} -> {short_path(record['folder'])}"


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
    identity = {
        "source": source,
        "input_sha256": fingerprint_sha256(source),
        "bundle": {"name": bundle.name, "version": bundle.version, "weights_sha256": bundle.weights_sha256},
        "options": {
            "formats": sorted(request.formats), "within": request.within, "allow": sorted(request.allow),
            "settings": dict(sorted(request.settings.items())),
        },
    }  # fmt: skip
    folder = case_folder(name, request.output_dir)
    previous = read_record(folder)
    if is_done(previous, identity, folder):
        return {**previous, "status": "skipped"}
    remove_outputs(previous, folder)
    started = time.time()
    timings_s: dict[str, float] = {}
    notes = [NEEDS_REGION] if bundle.metadata.get("requires_region") and not request.within else []
    staged = case_folder(name, pipeline.staging_dir)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = pipeline({"image": source, "case_name": name}, lambda stage: _timed(timings_s, stage))
            outcome = {"status": "done", **case_record(result, staged)}
            move_outputs(staged, folder)
        except MedsegError as error:
            outcome = {"status": "failed", "fault": "input", "error": str(error)}
        except Exception as error:  # whatever breaks one case must not stop the cohort; the reason goes into run.json
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            outcome = {"status": "failed", "fault": "medseg", "error": reason, "traceback": traceback.format_exc()}
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    notes += [str(warning.message) for warning in caught if issubclass(warning.category, MedsegWarning)]
    record = {
        "case": name, "folder": str(folder), **identity, **outcome, "warnings": [*outcome.get("warnings", ()), *notes],
        "device": str(pipeline.device), "timings_s": timings_s, "started": time.strftime("%FT%T%z", time.localtime(started)),
        "seconds": round(time.time() - started, 3),
    }  # fmt: skip
    write_record(record, folder / "run.json")
    return record


@contextmanager
def _timed(timings_s: dict[str, float], stage: str):
    started = time.perf_counter()
    yield
    timings_s[stage] = round(timings_s.get(stage, 0.0) + time.perf_counter() - started, 3)
