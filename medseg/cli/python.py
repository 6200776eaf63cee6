"""The commands as Python functions: keywords in, one function called, a result that prints in a few lines."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.errors import InputError

if TYPE_CHECKING:
    from medseg.cases.mask_sources import Reference
    from medseg.dicom import Series
    from medseg.workbench.compare import Comparison

AnyPath = str | os.PathLike


class Record(dict):
    """What a command did, as its ``--json`` has it; prints as a line per case or structure."""

    def __repr__(self) -> str:
        return "\n".join([_head(self), *(f"  {line}" for line in _lines(self))])


class Masks(dict):
    """{ROI name: bool array [slice, row, column]}; prints names and sizes instead of arrays."""

    def __repr__(self) -> str:
        shape = " x ".join(map(str, next(iter(self.values())).shape)) if self else "no voxels"
        return f"{len(self)} structures on {shape}: {', '.join(self) or '(none)'}"


def segment(input: AnyPath | None, bundle: AnyPath, output_dir: AnyPath, **options: Any) -> Record:
    """Contour one case, or every case of a folder, with a bundle; what ``medseg segment`` does.

    ``input``: a DICOM folder (nested, several patients), a NIfTI file, a radiograph, or a folder of them;
    None where ``series=(("CT", path), ("PT", path))`` names them all.
    ``bundle``: a name that ``medseg bundles`` lists, or a folder (a Path, or a text with a / in it).
    ``output_dir``: a folder per case is made in it. ``options``: the other fields of
    :class:`medseg.bundles.request.Request`, as in ``formats=("rtstruct",)``, ``within="RS.dcm:GTV"``,
    ``device="cpu"``.

    Returns the cohort's record: ``["cases"]`` has case, status ("done", "skipped" or "failed", with its
    ``error``) and folder of each. A case that fails stops no other. TypeError for an option that is no field;
    InputError or BundleError for what concerns the whole run.
    """
    from medseg.bundles import cohort
    from medseg.bundles.request import Request

    _check(Request, options, ("input", "bundle", "output_dir"))
    source = None if input is None else _path(input).resolve()
    return Record(cohort.segment(Request(source, bundle, _path(output_dir).resolve(), **options)))


def convert(
    source: AnyPath, out: AnyPath, images: AnyPath | Reference | None = None, **options: Any
) -> Record:
    """Convert between structure sets, masks and images; what ``medseg convert`` does.

    The paths say which: ``RS.dcm`` to a folder of NIfTI masks, masks (a folder, a NIfTI file or ``SEG.dcm``)
    to ``OUT.dcm``, a CT folder to ``OUT.nii.gz``. ``images``: the folder of the DICOM series that structures
    lie on, or a Reference. ``options``: the other fields of :class:`medseg.workbench.convert.Conversion`, as
    in ``rois=("GTV",)``, ``format="seg"``, ``append_to="RS.dcm"``, ``overwrite=True``.

    Returns a record with ``["structures"]``, their volumes in cc, and ``["warnings"]``. TypeError for an
    option that is no field; InputError, GeometryError and StructureError as the command has them.
    """
    from medseg.workbench.convert import Conversion
    from medseg.workbench.convert import convert as run

    _check(Conversion, options, ("source", "out", "reference"))
    if options.get("append_to") is not None:
        options["append_to"] = Path(options["append_to"])
    return Record(run(Conversion(_path(source), _path(out), _reference(images), **options)))


def compare(
    reference_set: AnyPath, other_set: AnyPath, images: AnyPath | Reference | None = None, **options: Any
) -> Comparison:
    """Compare two sets of contours, structure by structure; what ``medseg compare`` does.

    ``reference_set``: the truth, or what a person drew; ``other_set`` is judged. Each is an RT Structure Set,
    a DICOM Segmentation, a NIfTI mask or a folder of such masks. ``images``: the folder of the DICOM series
    that DICOM sets lie on, or a Reference. ``options``: the other fields of
    :class:`medseg.workbench.compare.ComparisonRequest`, as in ``tolerance_mm=3.0``, ``pairs=("GTV=GTVp",)``.

    Returns the agreements (``.agreements``, ``.worst_first()``): DSC, distances in mm, volumes in cc; nan
    where both are empty. TypeError for an option that is no field; InputError, GeometryError and
    StructureError as the command has them.
    """
    from medseg.workbench.compare import ComparisonRequest
    from medseg.workbench.compare import compare as run

    _check(ComparisonRequest, options, ("reference_set", "other_set", "images"))
    return run(ComparisonRequest(_path(reference_set), _path(other_set), _reference(images), **options))


def read_rtstruct(path: AnyPath, series: Series, *, allow: Collection[str] = ()) -> Masks:
    """{ROI name: bool mask [slice, row, column]} of a structure set on the grid of a series.

    As :func:`medseg.dicom.read_rtstruct`, which says what is refused and what is only warned of; the
    dictionary prints names instead of arrays.
    """
    from medseg.dicom import read_rtstruct as read

    masks: dict[str, np.ndarray] = read(path, series, allow=allow)
    return Masks(masks)


def _check(request: type, options: dict[str, Any], taken: Collection[str]) -> None:
    """TypeError for an option that is no field of the request, with those that are, and for one text where a
    field takes several."""
    known = {field.name: field for field in fields(request) if field.init and field.name not in taken}
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"unexpected option {name!r}; expected some of {', '.join(known)}")
        if isinstance(value, str) and isinstance(known[name].default, tuple):
            raise TypeError(f"{name}={value!r}: expected several texts, as in {name}=({value!r},)")


def _path(value: AnyPath) -> Path:
    """TypeError for what is no path; InputError for an empty text, which would be the current folder."""
    if not os.fspath(value):
        raise InputError("a path is empty; expected a file or folder (. is the current folder).")
    return Path(value)


def _reference(images: AnyPath | Reference | None) -> Reference:
    from medseg.cases.mask_sources import Reference

    if isinstance(images, Reference):
        return images
    return Reference(None if images is None else _path(images))


def _head(record: Record) -> str:
    if "cases" not in record:
        return f"{record['out']}: {record['direction']}"
    counts: dict[str, int] = {}
    for case in record["cases"]:
        counts[case["status"]] = counts.get(case["status"], 0) + 1
    return f"{len(record['cases'])} cases: " + ", ".join(f"{n} {status}" for status, n in counts.items())


def _lines(record: Record) -> list[str]:
    lines = []
    for case in record.get("cases", ()):
        lines.append(f"{case['case']}: {case['status']}: {case.get('error') or case['folder']}")
    for row in record.get("structures", ()):
        cc = "volume unknown" if row["volume_cc"] is None else f"{row['volume_cc']:.2f} cc"
        lines.append(f"{row['name']}: {'empty' if row['empty'] else cc}")
    return lines
