"""Clinic exports as a training datalist, the contours of each series laid on its images by a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundles.many.engine import Run
from medseg.bundles.many.plan import Case
from medseg.bundles.many.sets import case_name, case_of, linked_sets
from medseg.cases.find import series_sources
from medseg.dicom import find_series, read_structure_set
from medseg.dicom.images.scan import Found
from medseg.errors import InputError
from medseg.files import write_json
from medseg.structures.aliases import load_aliases
from medseg.workbench.clinic_datalist import PREFERENCES, item_of, join_patients, split
from medseg.workbench.clinic_sets import DatalistReport, same_id

DATALIST = "datalist.json"


@dataclass(frozen=True)
class Datalist:
    """What :class:`medseg.workbench.clinic_datalist.DatalistRequest` lists, to OUT/datalist.json.
    ``patients``: who each case is of, filled when the cases are found and written nowhere. See
    :class:`medseg.bundles.many.plan.Verb`."""

    export_dir: Path
    rois: Path
    output_dir: Path
    validation: float = 0.2
    seed: int = 0
    prefer: tuple[str, ...] = ()
    modality: str = "CT"
    patients: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)

    verb = "datalist"

    def record(self) -> dict[str, Any]:
        if not 0 < self.validation < 1:
            raise InputError(f"`validation={self.validation:g}`: expected a share between 0 and 1.")
        unknown = [name for name in self.prefer if name not in PREFERENCES]
        if unknown:
            raise InputError(f"`prefer={unknown[0]}`: expected one of {', '.join(PREFERENCES)}.")
        structures = {name: list(patterns) for name, patterns in load_aliases(self.rois).items()}
        return {"structures": structures, "modality": self.modality, "prefer": self.prefer}

    def cases(self, scan: Callable[[Path], Found]) -> tuple[list[Case], list[str]]:
        found = scan(self.export_dir)
        linked, notes = linked_sets(found, self.export_dir, self.modality, self.prefer)
        sources, cases = series_sources(found), []
        for uid in sorted(linked, key=lambda uid: sources[uid][1]):
            (folder, source), files = sources[uid], found.series[uid]
            name = case_name(source, self.export_dir, cases)
            values = {"series": uid, "source": source, "folder": str(folder), "set": str(linked[uid].path)}
            self.patients[name] = {"patient_id": same_id(files.patient_id), "study": files.study_uid}
            cases.append(case_of(name, values, files, [str(linked[uid].path)]))
        if not cases:
            raise InputError(f"{self.export_dir}: no series has a structure set that could be taken.")
        return cases, notes

    def is_there(self, case: Case) -> bool:
        return True  # an item lies in the table of jobs

    @contextmanager
    def open(self) -> Iterator[Run]:
        aliases = load_aliases(self.rois)

        def run(values: Mapping[str, Any]) -> dict[str, Any]:
            report = DatalistReport()
            files = find_series(values["folder"]).series[values["series"]]
            source = self._name_of(Path(values["source"]))
            chosen = read_structure_set(Path(values["set"]))
            item = item_of(files, chosen, aliases, source, self._name_of, report)
            said = [*report.ambiguous_names, *report.not_readable, *report.notices]
            if item is None:
                raise InputError("; ".join(said) or "nothing of it could be used.")
            rows = [{"name": name, "roi": roi, "empty": False} for name, roi in item["rois"].items()]
            done = {"case": values["case"], "status": "done", "structures": rows}
            return {**done, "warnings": said, "item": {**item, "case_id": source}}

        yield run

    def _name_of(self, path: Path) -> str:
        return path.relative_to(self.export_dir).as_posix()

    def end(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """Split the patients and write the datalist."""
        report = DatalistReport()
        done = [record for record in records if record["status"] == "done"]
        items = [{**record["item"], **self.patients[record["case"]]} for record in done]
        sections = split(join_patients(items, report), self.validation, self.seed) if items else {}
        structures = self.record()["structures"]
        write_json({"structures": structures, "seed": self.seed, **sections}, self.output_dir / DATALIST)
        return report.notices
