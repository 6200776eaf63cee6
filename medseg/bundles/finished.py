"""What an earlier run has finished, told without loading torch: the same images, weights and options, the
same files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundles.find import Bundle, read_json
from medseg.bundles.kinds import formats_of
from medseg.bundles.record import is_done, read_record
from medseg.bundles.request import BFLOAT16_ENGINE, Request
from medseg.cases.find import CaseFiles, folder_name
from medseg.cases.region import region_file
from medseg.cases.volume import fingerprint_sha256, source_path
from medseg.errors import InputError, MedsegError


def all_finished(cases: Sequence[CaseFiles], bundle: Bundle, request: Request) -> list[dict[str, Any]] | None:
    """The records of all cases, as "skipped", or None as soon as one of them is to be contoured, or looked at
    more closely."""
    records = []
    for files in cases:
        folder = request.output_dir / folder_name(files.name)
        try:
            previous = previous_of(folder, files.source)
            if (
                files.refusal
                or not previous
                or not is_done(previous, identity_of(bundle, request, files), folder)
            ):
                return None
        except (MedsegError, OSError):  # the case's own job says what is wrong
            return None
        records.append({**previous, "status": "skipped"})
    return records


def identity_of(bundle: Bundle, request: Request, files: CaseFiles) -> dict[str, Any]:
    """What decides a case's contours: while none of it changes, a finished case is not contoured again."""
    source = files.source
    region = region_file(request.within, source) if request.within else None
    further = {**files.others, **{f"registration {n}": file for n, file in enumerate(files.registrations, 1)}}
    prints = {key: fingerprint_sha256(other, request.output_dir) for key, other in further.items()}
    several = {
        "further_sources": further,
        "further_sha256": prints,
        "unreadable_beside": list(files.warnings) or None,
    }
    return {
        "source": source,
        **({"address": files.address} if files.address else {}),
        "number_format": number_format(_engine(bundle, request)),
        "input_sha256": fingerprint_sha256(source, leave_out=request.output_dir),
        **(several if len(bundle.modalities) > 1 else {}),
        "bundle": bundle.record(),
        "options": {
            "formats": sorted(formats_of(bundle, request.formats, source)),
            "within": request.within,
            **({"at": [list(point) for point in request.at]} if request.at else {}),
            "region_sha256": hashlib.sha256(region[0].read_bytes()).hexdigest() if region else None,
            "allow": sorted(request.allow),
            "settings": dict(sorted(request.settings.items())),
        },
    }


def number_format(engine: str | None) -> str | None:
    """What run.json says of an engine: "bfloat16", whose contours are others, else None: all others draw the
    same, and files of earlier versions do not name it."""
    return "bfloat16" if engine == BFLOAT16_ENGINE else None


def _engine(bundle: Bundle, request: Request) -> str | None:
    """The engine asked for: by the request, else by the bundle's inference config, where that says one."""
    if request.engine != "auto":
        return request.engine
    config = bundle.inference_file  # those in YAML are of MONAI's zoo, which knows no engines
    return read_json(config).get("engine") if config.suffix == ".json" else None


def previous_of(folder: Path, source: str) -> dict[str, Any]:
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
