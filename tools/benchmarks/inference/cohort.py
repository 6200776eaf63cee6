"""The `cohort` part of run.py: eight patients, overlapped or one after the other."""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path

from measuring import child, note, table


def run_cohort(data: str) -> dict:
    """Seconds of eight patients overlapped and in sequence, in turns: {way: [wall, processor] of each
    round}."""
    from medseg.bundles.cohort import in_turn
    from medseg.bundles.find import find_bundle
    from medseg.bundles.job import Job, Pipeline
    from medseg.bundles.request import Request
    from medseg.cases.find import CaseFiles, find_cases
    from medseg.cases.volume import _open

    bundle = find_bundle("mm_gtv")
    answers: dict[str, list[list[float]]] = {"overlapped": [], "in sequence": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            for way in answers:
                with tempfile.TemporaryDirectory() as scratch:
                    request = Request(
                        Path(data) / "sts", "mm_gtv", Path(scratch) / "out", within="RS.dcm:GTV_Mass_CT"
                    )
                    pipeline = Pipeline(bundle, request, ("rtstruct", "preview"), Path(scratch) / "staging")
                    cases = find_cases(request.input, "CT")[0]
                    jobs = [Job(CaseFiles(*case), pipeline, bundle, request) for case in cases]
                    _open.cache_clear()
                    wall, processor = time.perf_counter(), time.process_time()
                    done = (
                        in_turn(jobs)
                        if way == "overlapped"
                        else (job.prepare().predict().finish() for job in jobs)
                    )
                    statuses = [record["status"] for record in done]
                    answers[way].append([time.perf_counter() - wall, time.process_time() - processor])
                    assert statuses == ["done"] * 8, statuses
    return answers


def cohort(given) -> str:
    answers = child("cohort", str(given.data.resolve()))
    rows = [
        [way, *(f"{wall:.1f} ({processor:.1f})" for wall, processor in rounds)]
        for way, rounds in answers.items()
    ]
    best = {way: min(wall for wall, _ in rounds) for way, rounds in answers.items()}
    gain = 100 * (1 - best["overlapped"] / best["in sequence"])
    text = (
        "Eight sarcoma patients, `mm_gtv`, RTSTRUCT and preview: seconds, processor seconds in brackets. "
        f"{note()}"
    )
    rounds = table(["way", "first", "second", "third"], rows)
    return f"{text}\n\n{rounds}\n\nBest against best: {gain:.0f} % less time overlapped."
