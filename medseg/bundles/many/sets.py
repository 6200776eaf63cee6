"""Structure sets of a whole archive: converted, or compared with others on the same images."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundles.many.engine import Run
from medseg.bundles.many.plan import Case, FolderPerCase
from medseg.bundles.record import write_record
from medseg.cases.find import series_sources, unique_name
from medseg.cases.mask_sources import Reference
from medseg.cases.volume import UID_SEPARATOR, source_path
from medseg.dicom.images.scan import Found, SeriesFiles
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.errors import InputError
from medseg.files import load_json, plain, staging_folder
from medseg.workbench.clinic_sets import DatalistReport, choose, describe, link
from medseg.workbench.compare import Agreement, ComparisonRequest, compare
from medseg.workbench.comparison_outputs import COLUMNS, write_html, write_json
from medseg.workbench.convert import Conversion, convert, convert_series

FORMATS = ("nifti", "seg")
IMAGE, MASKS, SEGMENTATION = "image.nii.gz", "masks", "SEG.dcm"


@dataclass(frozen=True)
class Convert(FolderPerCase):
    """Every series of ``modality`` in ``input`` with its structure set, to ``format``: "nifti" (the image and
    a mask per structure) or "seg" (the set as a DICOM Segmentation). ``rois``: only these structures.
    ``prefer``: which of several sets of one series, see :func:`medseg.workbench.clinic_sets.choose`. See
    :class:`medseg.bundles.many.plan.Verb`."""

    input: Path
    output_dir: Path
    format: str = "nifti"
    rois: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    modality: str = "CT"

    verb = "convert"

    def record(self) -> dict[str, Any]:
        if self.format not in FORMATS:
            raise InputError(f"format {self.format!r}: expected one of {', '.join(FORMATS)}.")
        Reference(self.input, None, self.allow)  # refuses a fault that is not known
        return {
            "format": self.format,
            "rois": self.rois,
            "prefer": self.prefer,
            "allow": self.allow,
            "modality": self.modality,
        }

    def cases(self, scan: Callable[[Path], Found]) -> tuple[list[Case], list[str]]:
        found = scan(self.input)
        linked, notes = linked_sets(found, self.input, self.modality, self.prefer)
        cases: list[Case] = []
        for uid, (_, source) in sorted(series_sources(found).items(), key=lambda item: item[1][1]):
            files = found.series[uid]
            if files.is_localizer or files.modality != self.modality:
                continue
            if self.format == "seg" and uid not in linked:
                continue
            sets = [str(linked[uid].path)] if uid in linked else []
            name = case_name(source, self.input, cases)
            cases.append(case_of(name, {"series": source, "sets": sets}, files, sets))
        return _required(cases, self.input), notes

    @contextmanager
    def open(self) -> Iterator[Run]:
        with staging_folder(self.output_dir) as staging:
            yield lambda values: self._converted(values, staging)

    def _converted(self, values: Mapping[str, Any], staging: Path) -> dict[str, Any]:
        own = staging / values["case"]
        own.mkdir()
        reference = reference_of(values["series"], self.allow)
        structures, warnings = [], []
        if self.format == "nifti":
            warnings += convert_series(reference, own / IMAGE)["warnings"]
        for path in values["sets"]:
            out = own / (MASKS if self.format == "nifti" else SEGMENTATION)
            kind = "rtstruct" if self.format == "nifti" else "seg"
            made = convert(Conversion(Path(path), out, reference, self.rois, kind))
            structures += made.get("structures", [])
            warnings += [words for words in made["warnings"] if words not in warnings]
        record = {"case": values["case"], "status": "done", "structures": structures, "warnings": warnings}
        write_record(
            {**record, "verb": self.verb, **self.record(), "source": values["series"]}, own / "run.json"
        )
        publish_folder(own, self.output_dir / values["case"], self.verb)
        return record


@dataclass(frozen=True)
class Compare(FolderPerCase):
    """The structure sets of ``other`` with those of ``reference`` on the same series, whose images lie in
    ``reference``; the rest as of :class:`medseg.workbench.compare.ComparisonRequest`. See
    :class:`medseg.bundles.many.plan.Verb`."""

    reference: Path
    other: Path
    output_dir: Path
    tolerance_mm: float = 2.0
    tolerances_mm: Mapping[str, float] = field(default_factory=dict)
    pairs: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    modality: str = "CT"

    verb = "compare"

    def record(self) -> dict[str, Any]:
        for limit_mm in (self.tolerance_mm, *self.tolerances_mm.values()):
            if not 0 <= limit_mm < math.inf:
                raise InputError(f"tolerance {limit_mm} mm: expected 0 or more.")
        fields = ("tolerance_mm", "pairs", "prefer", "modality")
        tolerances = {"tolerances_mm": dict(self.tolerances_mm), "other": str(self.other)}
        return {**{name: getattr(self, name) for name in fields}, **tolerances}

    def cases(self, scan: Callable[[Path], Found]) -> tuple[list[Case], list[str]]:
        found, others = scan(self.reference), scan(self.other)
        ours, notes = linked_sets(found, self.reference, self.modality, self.prefer)
        judged = Found(others.root, found.series, others.structure_sets)
        theirs, more = linked_sets(judged, self.other, self.modality, self.prefer)
        sources = series_sources(found)
        cases: list[Case] = []
        for uid in sorted(set(ours) & set(theirs), key=lambda uid: sources[uid][1]):
            sets = [str(ours[uid].path), str(theirs[uid].path)]
            source = sources[uid][1]
            name = case_name(source, self.reference, cases)
            cases.append(case_of(name, {"series": source, "sets": sets}, found.series[uid], sets))
        alone = sorted(sources[uid][1] for uid in set(ours) ^ set(theirs))
        notes = list(dict.fromkeys([*notes, *more]))
        notes += [f"{source}: a set on one side only" for source in alone]
        return _required(cases, self.other), notes

    @contextmanager
    def open(self) -> Iterator[Run]:
        with staging_folder(self.output_dir) as staging:
            yield lambda values: self._compared(values, staging)

    def _compared(self, values: Mapping[str, Any], staging: Path) -> dict[str, Any]:
        own = staging / values["case"]
        own.mkdir()
        a, b = map(Path, values["sets"])
        reference = reference_of(values["series"])
        request = ComparisonRequest(
            a, b, reference, self.tolerance_mm, self.tolerances_mm, self.pairs, pictures=True
        )
        comparison = compare(request)
        write_json(comparison, own / "comparison.json")
        write_html(comparison, own / "comparison.html")
        rows = [agreement_row(row) for row in comparison.agreements]
        record = {"case": values["case"], "status": "done", "structures": rows}
        record["warnings"] = list(comparison.notices)
        write_record({**record, "verb": self.verb, **self.record()}, own / "run.json")
        publish_folder(own, self.output_dir / values["case"], self.verb)
        return record


def agreement_row(row: Agreement) -> dict[str, Any]:
    """A structure's agreement as plain values; ``volume_cc`` is that of the set that is judged."""
    return {column: plain(getattr(row, column)) for column in COLUMNS} | {"volume_cc": plain(row.other_cc)}


# ---- what both have ----------------------------------------------------------------------------------------


def linked_sets(
    found: Found, root: Path, modality: str, prefer: Sequence[str]
) -> tuple[dict[str, StructureSet], list[str]]:
    """({UID of a series of ``modality``: the structure set that is taken}, why others were not)."""

    def name_of(path: Path) -> str:
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    report, chosen = DatalistReport(), {}
    notes = [f"{name_of(note.path)}: {note.why}" for note in found.broken]
    for uid, sets in link(found, modality, name_of, report).items():
        one = choose(sets, prefer) if len(sets) > 1 else sets[0]
        if one is None:
            listed = ", ".join(sorted(describe(each, name_of) for each in sets))
            notes.append(f"several structure sets of one series, none taken: {listed}")
        else:
            chosen[uid] = one
    kinds = ("structure_sets_without_series", "other_frame_of_reference", "rejected_structure_sets")
    notes += [words for kind in (*kinds, "not_readable", "notices") for words in getattr(report, kind)]
    return chosen, notes


def case_of(name: str, values: Mapping[str, Any], files: SeriesFiles, sets: Sequence[str]) -> Case:
    """A case of one series and its structure sets; it is another one when a file of it has changed."""
    paths = [*dict.fromkeys(str(record.path) for record in files.records), *sets]
    rows = [(path, stat.st_size, stat.st_mtime_ns) for path in paths for stat in [os.stat(path)]]
    return Case(name, {"case": name, **values}, repr(rows), sum(size for _, size, _ in rows))


def case_name(source: str, root: Path, cases: Sequence[Case]) -> str:
    """A folder's name for a series, after the folder it lies in."""
    folder = source_path(source)
    name = "_".join(folder.relative_to(root).parts) or root.name
    return unique_name(name, [(case.name, "") for case in cases])


def reference_of(source: str, allow: tuple[str, ...] = ()) -> Reference:
    """The images of a case source."""
    folder = source_path(source)
    uid = source.removeprefix(f"{folder}{UID_SEPARATOR}") if source != str(folder) else None
    return Reference(folder, uid, allow)


def publish_folder(staged: Path, folder: Path, verb: str) -> None:
    """Let a finished folder appear under its name, in one step. An earlier one of the same work goes.

    InputError when a folder is there that this work did not make.
    """
    if folder.exists():
        try:
            ours = load_json(folder / "run.json")["verb"] == verb
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise InputError(f"{folder}: was not made by medseg cohort {verb}; choose another output folder.")
        os.replace(folder, old := staged.with_name(f"{staged.name}.old"))
        os.replace(staged, folder)
        shutil.rmtree(old)
    else:
        os.replace(staged, folder)


def _required(cases: list[Case], root: Path) -> list[Case]:
    if not cases:
        raise InputError(f"{root}: no series with a structure set found there.")
    return cases
