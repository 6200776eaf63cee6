"""medseg as a processing module of mercure (mercure-imaging.org): images and settings in, DICOM out.

The contract is that of mercure's modules: folders in ``MERCURE_IN_DIR`` and ``MERCURE_OUT_DIR``, settings in
``task.json`` under ``process/settings``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.bundles.request import Request
from medseg.errors import InputError, MedsegError
from medseg.files import load_json, write_json

SETTINGS = {"bundle": str, "formats": list, "within": str, "allow": list, "settings": dict}
"""Keys of the module's settings, as the fields of a rule of the node."""

TASK = "task.json"


def run_module(in_dir: Path, out_dir: Path) -> dict[str, Any]:
    """Contour the images in ``in_dir`` as its task.json says; the DICOM results, and the cases as
    ``result.json``, are written to ``out_dir``.

    InputError for unknown settings or a task without a bundle, MedsegError when no case was contoured.
    """
    from medseg.bundles.cohort import segment
    from medseg.bundles.trust import trusted_bundle

    settings = _settings(in_dir / TASK)
    bundle = trusted_bundle(settings["bundle"])
    with tempfile.TemporaryDirectory() as folder:
        images, work = Path(folder) / "images", Path(folder) / "work"
        images.mkdir()
        for path in in_dir.rglob("*.dcm"):  # beside them lie mercure's own files
            os.symlink(path.resolve(), images / path.name)
        request = Request(
            images,
            bundle,
            work,
            formats=tuple(settings.get("formats", ("rtstruct",))),
            within=settings.get("within"),
            allow=tuple(settings.get("allow", ())),
            settings=settings.get("settings", {}),
        )
        cohort = segment(request)
        for number, case in enumerate(cohort["cases"], 1):
            for path in sorted(Path(case["folder"]).glob("*.dcm")):
                shutil.copyfile(path, out_dir / f"{number}_{path.name}")
    said = [
        {key: case[key] for key in ("status", "error", "warnings") if key in case} for case in cohort["cases"]
    ]
    write_json({"bundle": cohort["bundle"], "cases": said}, out_dir / "result.json")
    failed = [case["error"] for case in cohort["cases"] if case["status"] == "failed"]
    if len(failed) == len(cohort["cases"]):
        raise MedsegError(failed[0] if failed else "no case in the folder.")
    return {"bundle": cohort["bundle"], "cases": said}


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        process = load_json(path)["process"]
        settings = (process[0] if isinstance(process, list) else process)["settings"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{path}: no settings under process/settings; expected at least a `bundle`."
        ) from error
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if key not in SETTINGS:
            raise InputError(f"{path}: unknown setting {key!r}; expected some of {', '.join(SETTINGS)}.")
        if not isinstance(value, SETTINGS[key]):
            raise InputError(f"{path}: `{key}` is {value!r}; expected a {SETTINGS[key].__name__}.")
    if not isinstance(settings, dict) or "bundle" not in settings:
        raise InputError(f"{path}: the settings name no `bundle`.")
    return settings


def main() -> int:
    """``python -m medseg.serve.dicom_node.mercure``: 0 when something was contoured, else 2 and a line."""
    try:
        missing = [name for name in ("MERCURE_IN_DIR", "MERCURE_OUT_DIR") if not os.environ.get(name)]
        if missing:
            raise InputError(f"{missing[0]} is not set; mercure sets it for its modules.")
        run_module(Path(os.environ["MERCURE_IN_DIR"]), Path(os.environ["MERCURE_OUT_DIR"]))
    except (MedsegError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
