"""The headers of a whole archive as one table, read in place and without pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medseg.cases.find import is_hidden
from medseg.dicom.opening import read_dicom
from medseg.errors import InputError
from medseg.files import atomic_path, write_csv

FIELDS = (
    "PatientID",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "Manufacturer",
    "ManufacturerModelName",
    "BurnedInAnnotation",
)
"""What is read unless fields are named: no names, birth dates or addresses."""

PATH = "path"
"""The first column: the file, relative to the folder that was read."""


def write_headers(
    dicom_dir: Path, out: Path, fields: Sequence[str] = FIELDS, progress: bool = False
) -> dict[str, Any]:
    """Write one row for every DICOM file below ``dicom_dir`` to a ``.csv`` or ``.parquet`` file, sorted by
    path.

    ``fields``: DICOM keywords of elements outside sequences; several values of one are joined by a backslash,
    as DICOM does, and what a file lacks is empty. Returns {"files": rows written, "passed_over": {reason:
    count}}. Raises InputError for an unknown keyword, another suffix, and a folder without a DICOM file.
    """
    if out.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"{out}: expected a name that ends in .csv or .parquet.")
    rows, passed_over = headers(dicom_dir, fields, progress)
    columns = [PATH, *fields]
    if out.suffix.lower() == ".csv":
        write_csv(rows, columns, out)
    else:
        try:
            import pandas
        except ImportError:
            raise InputError("parquet needs pandas and pyarrow: pip install 'medseg[records]'.") from None
        with atomic_path(out) as temporary:
            pandas.DataFrame(rows, columns=columns).to_parquet(temporary, index=False)
    return {"files": len(rows), "passed_over": dict(passed_over)}


def headers(
    dicom_dir: Path, fields: Sequence[str] = FIELDS, progress: bool = False
) -> tuple[list[dict[str, str]], Counter[str]]:
    """The rows of :func:`write_headers`, and why how many files were passed over."""
    _check_fields(fields)
    if not dicom_dir.is_dir():
        raise InputError(f"{dicom_dir}: expected a folder of DICOM files.")
    rows, passed_over = [], Counter[str]()
    for file in _bar(_files(dicom_dir), progress):
        try:
            dataset = read_dicom(file)
        except (InputError, OSError, ValueError, KeyError, EOFError) as error:
            passed_over[
                "cannot be read" if isinstance(error, OSError) else "no DICOM file, or a damaged one"
            ] += 1
            continue
        if "SOPClassUID" not in dataset:
            passed_over["no DICOM file, or a damaged one"] += 1
            continue
        row = {PATH: file.relative_to(dicom_dir).as_posix()}
        rows.append(row | {field: _text(dataset, field) for field in fields})
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in passed_over.items()) or "it is empty"
        raise InputError(f"{dicom_dir}: no DICOM file in it ({why}).")
    return rows, passed_over


def _check_fields(fields: Sequence[str]) -> None:
    from pydicom.datadict import tag_for_keyword

    unknown = [field for field in fields if tag_for_keyword(field) is None]
    if unknown:
        raise InputError(
            f"{', '.join(map(repr, unknown))}: expected DICOM keywords, as in PatientID,StudyDate."
        )
    twice = [field for field, count in Counter(fields).items() if count > 1]
    if twice or not fields:
        raise InputError(f"fields {', '.join(twice) or 'none'}: name each once, and at least one.")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_hidden(path.relative_to(folder)):
            yield path


def _text(dataset: Any, field: str) -> str:
    try:
        value = dataset.get(field)
    except (ValueError, TypeError, AttributeError, NotImplementedError):  # a value that its type forbids
        return ""
    if value is None:
        return ""
    values = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return "\\".join(str(item).strip("\0 ") for item in values)


def _bar(files: Iterator[Path], progress: bool):
    from tqdm import tqdm

    return tqdm(files, "headers", unit="file", disable=not progress, dynamic_ncols=True)
