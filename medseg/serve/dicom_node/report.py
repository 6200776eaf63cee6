"""What the node would do, and what it is doing, for the person who runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg.bundles.find import find_bundle
from medseg.bundles.queue import Queue, UnknownJob
from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.opening import read_dicom
from medseg.errors import InputError
from medseg.serve.dicom_node.answers import SENT, Answers
from medseg.serve.dicom_node.config import NodeConfig, SeriesFacts, Target
from medseg.serve.dicom_node.metrics import figures_of, listens
from medseg.serve.dicom_node.plan import plan
from medseg.serve.dicom_node.storage import Refused, facts_of
from medseg.serve.dicom_node.values import ANYONE

LATEST = 20


# ---- what would happen -------------------------------------------------------------------------------------


def dry_run(config: NodeConfig, study_dir: Path | None, sender: str = "") -> Iterator[str]:
    """What the node would listen for and do, line by line; with a folder of DICOM files, which jobs these
    would become if ``sender`` sent them. Nothing is started, written or sent. InputError for a folder that
    holds no DICOM files."""
    listen = config.listen
    who = "anyone" if ANYONE in listen.allowed else ", ".join(listen.allowed)
    yield (
        f"would listen as {listen.ae_title} on {listen.host}:{listen.port}"
        f"{' with TLS' if listen.tls else ''} for {who}, {listen.associations} associations at once"
    )
    yield f"a study is complete after {listen.quiet_s:g} s of quiet"
    yield f"it is kept for {config.keep_days:g} days in {config.folder}"
    for name, target in config.targets.items():
        yield f"target {name}: {_address(target)}"
    for rule in config.rules:
        asked = {"modality": rule.modality, "description": rule.description}
        asked |= {"body part": rule.body_part, "sender": rule.sender}
        words = [f"{key} {value}" for key, value in asked.items() if value is not None]
        words += [f"{rule.at_least} images or more"] if rule.at_least > 1 else []
        bundle = find_bundle(rule.bundle)
        yield (
            f"rule {rule.name}: {', '.join(words) or 'every series'} -> {bundle.name} {bundle.version}, "
            f"{', '.join(rule.formats)}, to {', '.join(rule.targets) or 'nobody'}, priority {rule.priority}"
        )
    if study_dir is not None:
        yield from _jobs_of(config, study_dir, sender)


def _jobs_of(config: NodeConfig, study_dir: Path, sender: str) -> Iterator[str]:
    for study_uid, series in studies_in(study_dir, sender).items():
        yield f"study {study_uid}: {len(series)} series"
        planned = plan(config, series)
        used = {row.series_uid for job in planned for row in job.series}
        for job in planned:
            named = ", ".join(f"{row.modality} {row.series_uid} ({row.images} images)" for row in job.series)
            yield f"  rule {job.rule.name}: {named}"
        for row in series:
            if row.series_uid not in used:
                yield f"  no rule: {row.modality} {row.series_uid} ({row.images} images)"


def studies_in(folder: Path, sender: str) -> dict[str, list[SeriesFacts]]:
    """{study: its series as rules see them} of the DICOM files below a folder. InputError without any."""
    found: dict[str, dict[str, list]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            if not read_dicom(path).file_meta:
                continue
            received = facts_of(path, sender)
        except (Refused, InputError, *PARSE_ERRORS):
            continue
        found.setdefault(received.study_uid, {}).setdefault(received.series_uid, []).append(received)
    if not found:
        raise InputError(f"{folder}: no DICOM files in it.")
    return {
        study: [
            SeriesFacts(
                uid,
                rows[0].modality,
                rows[0].description,
                rows[0].study_description,
                rows[0].body_part,
                sender,
                len({row.sop_uid for row in rows}),
            )
            for uid, rows in sorted(series.items())
        ]
        for study, series in found.items()
    }


def _address(target: Target) -> str:
    if target.stow is not None:
        return f"STOW-RS to {target.stow}"
    return f"C-STORE to {target.ae_title} at {target.host}:{target.port}{' with TLS' if target.tls else ''}"


# ---- what is happening -------------------------------------------------------------------------------------


def status(config: NodeConfig) -> dict[str, Any]:
    """Figures, and the latest answers with how far each is: UIDs and states, no names. InputError when the
    node has never run."""
    if not (config.folder / "node.sqlite").is_file():
        raise InputError(f"{config.folder}: the node has not run with this folder yet.")
    answers, queue = Answers(config.folder), Queue(config.queue_url)
    rows = []
    for answer in answers.all(limit=LATEST):
        try:
            job = queue.get(answer.job)
            position: int | None = queue.position(answer.job)
            state = job.state
        except UnknownJob:
            position, state = None, "removed"
        deliveries = [
            {"target": d.target, "state": d.state, "attempts": d.attempts, "error": d.error}
            for d in answers.deliveries(answer.work)
        ]
        rows.append(
            {
                "study": answer.study_uid,
                "rule": answer.rule,
                "state": answer.state,
                "reason": answer.reason,
                "job": answer.job,
                "job_state": state,
                "position": position,
                "results": answer.results,
                "deliveries": deliveries,
            }
        )
    return {"listening": listens(config), "figures": figures_of(config)(), "latest": rows}


def status_lines(found: dict[str, Any]) -> Iterator[str]:
    """:func:`status` for people."""
    numbers = found["figures"]
    yield f"receiver: {'listening' if found['listening'] else 'NOT LISTENING'}"
    refused = sum(value for key, value in numbers.items() if key.startswith("refused_"))
    yield (
        f"objects: {numbers['received']} received, {numbers['duplicates']} sent again, {refused} refused; "
        f"{numbers['free_bytes'] / 1e9:.1f} GB free"
    )
    yield f"studies: {numbers['studies_receiving']} arriving, {numbers['studies_complete']} complete"
    for what in ("jobs", "deliveries"):
        rows = {key.partition("_")[2]: n for key, n in numbers.items() if key.startswith(f"{what}_") and n}
        yield f"{what}: {', '.join(f'{n} {state}' for state, n in rows.items()) or 'none'}"
    for row in found["latest"]:
        yield f"{row['study']} {row['rule']}: {_so_far(row)}"


def _so_far(row: dict[str, Any]) -> str:
    if row["state"] == "waiting":
        return f"{row['job_state']}, {row['position']} in the queue" if row["position"] else row["job_state"]
    if row["state"] != "contoured":
        return f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]
    sent = [
        f"{d['target']} {d['state']}"
        + ("" if d["state"] == SENT else f" after {d['attempts']} attempts ({d['error']})")
        for d in row["deliveries"]
    ]
    return f"{row['results']} results; {', '.join(sent) or 'nothing to send'}"
