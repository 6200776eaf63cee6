"""A cohort's cases through one bundle: each as ``medseg segment`` would contour it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundles.cohort import after_the_other_run, cases_of, check_clicks
from medseg.bundles.config import check_settings
from medseg.bundles.find import Bundle
from medseg.bundles.kinds import check_formats, formats_of
from medseg.bundles.many.addresses import fetched, listed
from medseg.bundles.many.engine import Run
from medseg.bundles.many.plan import Case, FolderPerCase
from medseg.bundles.request import Request, payload_of
from medseg.bundles.trust import trusted_bundle
from medseg.bundles.weights import require_digest
from medseg.cases.find import CaseFiles, series_sources
from medseg.cases.volume import fingerprint
from medseg.dicom.images.scan import Found
from medseg.errors import InputError
from medseg.files import staging_folder

KEPT = (
    *("case", "status", "fault", "error", "seconds", "warnings", "summary"),
    *("structures", "boxes", "labels", "timings_s"),
)
"""Of a case's run.json, what the table of the cohort has too; all else stays in the case's folder."""


@dataclass(frozen=True)
class Segment(FolderPerCase):
    """Contour the images of ``request``; ``address``: a DICOMweb root or an address for fsspec instead of
    ``request.input``. See :class:`medseg.bundles.many.plan.Verb`."""

    request: Request
    address: str = ""

    verb = "segment"

    @property
    def bundle(self) -> Bundle:
        return trusted_bundle(self.request.bundle, self.request.trust_bundle)

    @property
    def output_dir(self) -> Path:
        return self.request.output_dir

    def record(self) -> dict[str, Any]:
        bundle = self.bundle
        check_settings(bundle, "inference", self.request.settings)
        require_digest(bundle)
        asked = payload_of(self.request)
        different = ("formats", "within", "allow", "settings", "series", "at", "device", "engine")
        return {"bundle": bundle.record(), **{name: asked[name] for name in different}}

    def cases(self, scan: Callable[[Path], Found]) -> tuple[list[Case], list[str]]:
        bundle = self.bundle
        if self.address:
            if len(bundle.modalities) > 1:
                raise InputError(f"{bundle.name} takes several series: they are looked for in folders only.")
            rows, notes = listed(self.address, bundle.modality)
            check_formats(bundle, self.request.formats, [])
            return [Case(files.name, _values(files), state, size) for files, state, size in rows], notes
        slices: dict[str, list[Path]] = {}

        def scan_and_remember(path: Path) -> Found:
            found = scan(path)
            for uid, (_, source) in series_sources(found).items():
                slices[source] = list(dict.fromkeys(record.path for record in found.series[uid].records))
            return found

        files, notes = cases_of(bundle, self.request, scan_and_remember)
        check_formats(bundle, self.request.formats, [one.source for one in files])
        check_clicks(bundle, self.request, len(files))
        return [_case(one, slices) for one in files], notes

    @contextmanager
    def open(self) -> Iterator[Run]:
        # Late: they load torch, which only workers need.
        from medseg.bundles.job import Job, Networks, Pipeline

        bundle, networks, pipelines = self.bundle, Networks(), {}
        with staging_folder(self.output_dir) as staging, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # medseg's own are noted for each case

            def run(values: Mapping[str, Any]) -> dict[str, Any]:
                files = _files(values)
                here = fetched(files, bundle.modality) if files.address else nullcontext(files)
                with here as files:
                    formats = formats_of(bundle, self.request.formats, files.source)
                    if formats not in pipelines:
                        pipelines[formats] = Pipeline(
                            bundle, self.request, formats, staging, networks=networks
                        )
                    job = Job(files, pipelines[formats], bundle, self.request)
                    record = after_the_other_run(job, lambda record: None)
                kept = {key: record[key] for key in KEPT if key in record}
                # Done by a run that was killed before it could say so: it is done.
                return kept | ({"status": "done"} if record["status"] == "skipped" else {})

            # What a bundle lacks shows before any case is blamed for it.
            usual = formats_of(bundle, self.request.formats, "")
            pipelines[usual] = Pipeline(bundle, self.request, usual, staging, networks=networks)
            yield run


def _case(files: CaseFiles, slices: Mapping[str, list[Path]]) -> Case:
    """A case with the state of its own files: of one series among thousands in a folder, those alone."""
    rows: list[tuple[str, int, int]] = []
    for source in (files.source, *files.others.values(), *files.registrations):
        if source in slices:
            stats = [(os.fspath(path), path.stat()) for path in slices[source]]
            rows += [(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]
        else:
            rows += fingerprint(source)
    return Case(files.name, _values(files), repr(rows), sum(size for _, _, size in rows))


def _values(files: CaseFiles) -> dict[str, Any]:
    return {"case": files.name, **vars(files), "others": dict(files.others)}


def _files(values: Mapping[str, Any]) -> CaseFiles:
    known = {key: value for key, value in values.items() if key not in ("case", "bundle")}
    lists = {key: tuple(known.get(key, ())) for key in ("registrations", "warnings")}
    return CaseFiles(**{**known, **lists})
