"""run.json: what was contoured, with what, and what came out. For machines, and for the physicist who asks a
year later."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import medseg
from medseg.cases.results import Result
from medseg.errors import InputError, why
from medseg.files import load_json, write_json
from medseg.reports.preview import DISCLAIMER

RECORDED_PACKAGES = ("torch", "openvino", "monai", "numpy", "pydicom", "highdicom", "nibabel")


def result_record(result: Result, folder: Path) -> dict[str, Any]:
    """What a result says of itself, the files in ``folder`` with their hashes, and what made them. No patient
    names."""
    return {
        **result.record(),
        "outputs": output_records(folder),
        "warnings": list(result.case.warnings),
        "versions": versions(),
        "disclaimer": DISCLAIMER,
    }


def output_records(folder: Path) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of every file in ``folder``, sorted."""
    return [_file(path) for path in sorted(folder.iterdir()) if path.is_file()]


def versions() -> dict[str, str]:
    """Versions of Python, medseg and the packages that shape a result."""
    found = {"python": platform.python_version(), "medseg": medseg.__version__}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


# ---- for people --------------------------------------------------------------------------------------------


def case_line(record: dict) -> str:
    """One line about a case's record: what was found, and where it is, or why it failed."""
    if record["status"] == "failed":
        return f"{record['case']}: failed: {record['error']}"
    if record["status"] == "waiting":
        return f"{record['case']}: waiting for another run that works on it ({record['holder']})"
    found = record.get("summary") or "its run.json has no summary"  # of another version, or edited
    if record.get("series"):
        found += f" (from {record['series']['summary']})"
    return f"{record['case']}: {record['status']}: {found} -> {short_path(record['folder'])}"


def short_path(path: str | Path) -> str:
    """The path from the current folder where it lies below it, else as it is: for people to read."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# ---- writing, and deciding whether a case is done ----------------------------------------------------------


def write_record(record: dict[str, Any], out: Path) -> None:
    """Write a record as JSON, atomically."""
    write_json(record, out)


def read_record(folder: Path) -> dict[str, Any]:
    """The case's earlier run.json; {} when there is none. InputError when the file is not one of ours."""
    path = folder / "run.json"
    if not path.exists():
        return {}
    try:
        record = load_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable run record ({why(error)}); move it away.") from error
    if not (
        isinstance(record, dict)
        and isinstance(record.get("source"), str)
        and _names_files(record.get("outputs", []))
    ):
        raise InputError(f"{path}: not the run record of a case of medseg; move it away.")
    return record


def is_result(file: Path) -> bool:
    """True for a file that a run.json beside it lists: a result must not be taken for an image at the next
    run."""
    try:
        outputs = load_json(file.parent / "run.json")["outputs"]
        return any(output["file"] == file.name for output in outputs)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _names_files(outputs: Any) -> bool:
    rows = outputs if isinstance(outputs, list) else [None]
    complete = all(
        isinstance(row, dict) and isinstance(row.get("file"), str) and "sha256" in row for row in rows
    )
    return complete and all(Path(row["file"]).name == row["file"] for row in rows)


def is_done(record: dict[str, Any], identity: dict[str, Any], folder: Path) -> bool:
    """True when ``record`` tells of a finished run of the same input, weights and options whose files are all
    there as they were written, by size and SHA-256."""
    same = all(record.get(key) == value for key, value in identity.items())
    if not same or record.get("status") != "done":
        return False
    return all(_is_as_written(folder / output["file"], output) for output in record.get("outputs", ()))


def _is_as_written(path: Path, output: dict[str, Any]) -> bool:
    return path.is_file() and _file(path) == {key: output.get(key) for key in ("file", "bytes", "sha256")}


def remove_outputs(record: dict[str, Any], folder: Path) -> None:
    """Remove the files an earlier run wrote, and its record, so that old contours never stand beside new
    ones.

    InputError, and nothing is removed, when one of them is another one now and not empty: whether a person
    edited it, which may be hours of work, or a disk damaged it, nobody can tell from here. An empty file
    holds nobody's work.
    """
    outputs = {folder / output["file"]: output for output in record.get("outputs", ())}
    for path, output in outputs.items():
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is no longer the file that medseg wrote; move it away.")
        if path.exists() and path.stat().st_size and _file(path)["sha256"] != output["sha256"]:
            raise InputError(
                f"{path} was changed after medseg wrote it: its SHA-256 is not the one in run.json, and it "
                f"has {path.stat().st_size} bytes of {output.get('bytes')}. If it holds somebody's work move "
                f"it away, if it is damaged delete it; then run again."
            )
    for path in [*outputs, folder / "run.json"]:
        path.unlink(missing_ok=True)


def require_free(staged: Path, folder: Path) -> None:
    """InputError when a finished file of ``staged`` would replace one in ``folder``: it is not ours, and may
    be clinical."""
    for path in sorted(staged.iterdir()):
        other = folder / path.name
        if os.path.lexists(other):
            raise InputError(
                f"{other} was not written by medseg; move it away or choose another output folder."
            )


def publish(record: dict[str, Any], staged: Path, folder: Path) -> None:
    """Move a case's finished files from its staging folder to its own folder on the same disk, then write its
    record.

    A record that says "interrupted" goes first: a run killed half-way leaves files that the next run knows as
    its own.
    """
    write_record({**record, "status": "interrupted"}, folder / "run.json")
    for path in sorted(staged.iterdir()):
        os.replace(path, folder / path.name)
    write_record(record, folder / "run.json")
