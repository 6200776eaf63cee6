"""Many cases through one bundle: one is read ahead and one written while the network runs on another."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.bundles.clicks import clicks_of
from medseg.bundles.config import check_settings
from medseg.bundles.find import Bundle
from medseg.bundles.finished import all_finished
from medseg.bundles.kinds import check_formats, formats_of
from medseg.bundles.record import is_result, write_record
from medseg.bundles.request import Request
from medseg.bundles.trust import trusted_bundle
from medseg.bundles.weights import require_digest
from medseg.cases.find import CaseFiles, find_cases, folder_name
from medseg.cases.patients import Wanted, find_patients
from medseg.dicom.images.scan import Found, find_series
from medseg.errors import InputError
from medseg.files import make_folder, no_empty_folders, staging_folder
from medseg.reports.cohort import write_cohort

if TYPE_CHECKING:
    from medseg.bundles.job import Job, Networks

WAIT_S = 0.5
"""Between two looks at a case that another run has."""

WRITE_EVERY_S = 10.0
"""So often run.json is written while cases are contoured."""

COHORT_KEYS = ("case", "status", "fault", "error", "folder", "seconds", "warnings")


def segment(
    request: Request,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
    progress: bool = False,
    networks: Networks | None = None,
) -> dict[str, Any]:
    """Contour every case of ``request.input``; returns the cohort's record, which is also
    ``output_dir/run.json``.

    A case that fails is recorded with its one-line reason and never stops the others; a case already
    contoured with the same input, region, bundle and options is skipped, so an interrupted cohort continues
    where it stopped. Cases that another run into the same folder works on are left to it and looked at again
    at the end, when it is through with them. Files that medseg did not write are never replaced. ``report``
    gets each case's record, see bundles.record.case_line, and "waiting" for one that another run has.
    ``networks``: kept from one request to the next by a process that serves many. Raises InputError or
    BundleError only for what concerns the whole run.
    """
    bundle = trusted_bundle(request.bundle, request.trust_bundle)
    # What concerns the whole run is refused before torch is loaded.
    check_settings(bundle, "inference", request.settings)
    require_digest(bundle)
    cases, notes = cases_of(bundle, request)
    check_formats(bundle, request.formats, [files.source for files in cases])
    check_clicks(bundle, request, len(cases))
    with no_empty_folders(request.output_dir):
        records = all_finished(cases, bundle, request)
        if records is None:
            meanwhile = _told_meanwhile(bundle, request, report)
            records = _contoured(cases, bundle, request, meanwhile, progress, networks)
        else:
            for record in records:
                report(record)
        records.sort(key=lambda record: record["case"])
        make_folder(request.output_dir)  # when every case failed, nothing has been written into it yet
        if len(records) > 1:
            notes += write_cohort(records, f"{bundle.name} {bundle.version}", notes, request.output_dir)
        cohort = _record(bundle, records, notes)
        write_record(cohort, request.output_dir / "run.json")
    return cohort


def _record(bundle: Bundle, records: Sequence[dict[str, Any]], notes: list[str]) -> dict[str, Any]:
    """What run.json says of a cohort."""
    cases = [{key: record[key] for key in COHORT_KEYS if key in record} for record in records]
    return {"bundle": bundle.record(), "cases": cases, "passed_over": notes}


def _told_meanwhile(
    bundle: Bundle, request: Request, report: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """``report``, which also writes into run.json, every few seconds, what has ended so far: a process that
    dies leaves a cohort's record as it leaves those of its cases."""
    ended: list[dict[str, Any]] = []
    written = time.monotonic()

    def report_and_write(record: dict[str, Any]) -> None:
        nonlocal written
        report(record)
        if record["status"] == "waiting":
            return
        ended.append(record)
        if time.monotonic() - written > WRITE_EVERY_S:
            written = time.monotonic()
            unfinished = {**_record(bundle, ended, []), "state": "running"}
            write_record(unfinished, request.output_dir / "run.json")

    return report_and_write


def check_clicks(bundle: Bundle, request: Request, n_cases: int) -> None:
    """Raise InputError for points that the bundle does not take, or that cannot be of all these cases."""
    if request.at and clicks_of(bundle) and n_cases != 1:
        raise InputError(f"`at`: {n_cases} patients; points belong to one. Give its folder as `input`.")


def cases_of(
    bundle: Bundle, request: Request, scan: Callable[[Path], Found] = find_series
) -> tuple[list[CaseFiles], list[str]]:
    """The cases that a request means, and what is passed over: patients with their series for a bundle that
    takes several, else single images. ``scan``: as of :func:`medseg.cases.find.find_cases`."""
    if len(bundle.modalities) > 1:
        wanted = Wanted(bundle.modalities, bundle.optional, request.series)
        return find_patients(request.input, wanted, is_result, scan)
    if request.series or request.input is None:
        raise InputError(f"`series`: {bundle.name} takes one image of a case; give it as `input`.")
    cases, notes = find_cases(request.input, bundle.modality, is_result, scan)
    return [CaseFiles(name, source) for name, source in cases], notes


def _contoured(
    cases: Sequence[CaseFiles],
    bundle: Bundle,
    request: Request,
    report: Callable[[dict[str, Any]], None],
    progress: bool,
    networks: Networks | None,
) -> list[dict[str, Any]]:
    """The records of cases of which at least one is not finished yet."""
    make_folder(request.output_dir)
    # Late: they load torch, which a finished cohort needs not.
    from medseg.bundles.job import Job, Networks, Pipeline
    from medseg.inference.engines import finish_compiling

    wanted = dict.fromkeys(formats_of(bundle, request.formats, files.source) for files in cases)
    records = []
    folders = [request.output_dir / folder_name(files.name) for files in cases]
    with no_empty_folders(*folders), staging_folder(request.output_dir) as staging_dir:
        one = progress and len(cases) == 1
        networks = networks or Networks()
        pipelines = {
            formats: Pipeline(bundle, request, formats, staging_dir, one, networks) for formats in wanted
        }
        jobs = [
            Job(files, pipelines[formats_of(bundle, request.formats, files.source)], bundle, request)
            for files in cases
        ]
        with warnings.catch_warnings(), locks_released(jobs), closing(in_turn(jobs)) as done:
            warnings.simplefilter("ignore")  # medseg's own are noted for each case
            for record in _bar(done, len(cases), progress):
                if record["status"] != "elsewhere":
                    records.append(record)
                    report(record)
            for job in [job for job in jobs if job.holder]:
                records.append(after_the_other_run(job, report))
                report(records[-1])
            finish_compiling()
    return records


def after_the_other_run(job: Job, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The record of a case that another run had: what that run made of it, or what this one makes when the
    other failed or wanted something else. Waits as long as the other run works on it."""
    said = ""
    while True:
        again = replace(job, record={}, holder="")
        try:
            record = again.prepare().predict().finish()
        finally:
            again.lock.release()
        if not again.holder:
            return record
        if again.holder != said:
            report({**record, "status": "waiting", "holder": again.holder})
            said = again.holder
        time.sleep(WAIT_S)


@contextmanager
def locks_released(jobs: Sequence[Job]) -> Iterator[None]:
    """Within the block cases may be left half-way (Ctrl-C); after it none of them is locked."""
    try:
        yield
    finally:
        for job in jobs:
            job.lock.release()


def _bar(records: Iterable[dict], count: int, progress: bool):
    from tqdm import tqdm

    # A single case shows the network's own bar over windows instead; tqdm writes to standard error.
    hidden = not progress or count == 1
    return tqdm(records, "cases", count, unit="case", disable=hidden, dynamic_ncols=True)


def in_turn(jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
    """The records of the cases, in order. While the network runs on one, the next is read and the one before
    is written.

    One case at most waits on either side. When the caller stops early (Ctrl-C), nothing new is begun and what
    is being written is finished first, so that no half case stays. A single case runs without threads.
    """
    if len(jobs) == 1:
        yield jobs[0].prepare().predict().finish()
        return
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
        try:
            ahead, behind = reader.submit(jobs[0].prepare), None
            for following in [*jobs[1:], None]:
                job = ahead.result()
                if following is not None:
                    ahead = reader.submit(following.prepare)
                job.predict()
                if behind is not None:
                    yield behind.result()
                behind = writer.submit(job.finish)
            yield behind.result()
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown(wait=False, cancel_futures=True)
