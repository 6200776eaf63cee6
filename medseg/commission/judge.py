"""A clinic's own structure sets against automatic ones on the same images: every number of a case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundles.many.engine import Run
from medseg.bundles.many.plan import Case, FolderPerCase
from medseg.bundles.many.sets import case_name, case_of, linked_sets, publish_folder, reference_of
from medseg.bundles.record import write_record
from medseg.cases.find import series_sources
from medseg.cases.mask_sources import MaskSource, open_masks
from medseg.commission.doses import plan_doses
from medseg.commission.limits import Limits
from medseg.dicom import Series
from medseg.dicom.dose import Dose, read_dose
from medseg.dicom.images.scan import Found
from medseg.dicom.rtstruct.structure_set import StructureSet
from medseg.errors import GeometryError, InputError
from medseg.files import load_json, plain, staging_folder
from medseg.metrics import centre_lps_mm
from medseg.structures.aliases import match_rois
from medseg.workbench.compare import measure

DOSE_NUMBERS = ("Dmean", "D2%", "D98%", "V20Gy")
"""Of every structure; what the limits name comes on top."""


@dataclass(frozen=True)
class Judge(FolderPerCase):
    """Compare the plan of each series in ``plans`` with the contours in ``contours``, {SeriesInstanceUID:
    folder of the case}, made by ``bundle``. ``roi_map``: {structure of the bundle: patterns of ROI names}.
    See :class:`medseg.bundles.many.plan.Verb`."""

    plans: Path
    contours: Mapping[str, str]
    output_dir: Path
    bundle: Mapping[str, str]
    roi_map: Mapping[str, Sequence[str]]
    limits: Limits = Limits()
    prefer: tuple[str, ...] = ("approved", "newest")
    modality: str = "CT"

    verb = "commission site"

    def record(self) -> dict[str, Any]:
        limits = {"tolerance_mm": dict(self.limits.tolerance_mm), "dose": self.limits.record()["dose"]}
        roi_map = {name: list(patterns) for name, patterns in self.roi_map.items()}
        return {"bundle": dict(self.bundle), "roi_map": roi_map, "prefer": self.prefer, **limits}

    def cases(self, scan: Callable[[Path], Found]) -> tuple[list[Case], list[str]]:
        found = scan(self.plans)
        linked, notes = linked_sets(found, self.plans, self.modality, self.prefer)
        doses, more = plan_doses(found, linked)
        sources, cases = series_sources(found), []
        for uid in sorted(linked, key=lambda uid: sources[uid][1]):
            source = sources[uid][1]
            if uid not in self.contours:
                notes.append(f"{source}: no automatic contours of it")
                continue
            values = {
                "series": source,
                "set": str(linked[uid].path),
                "folder": self.contours[uid],
                "dose": str(doses.get(uid, "")),
                "plan": _plan_record(linked[uid]),
            }
            files = [values["set"], str(Path(values["folder"]) / "RS.dcm")]
            files += [values["dose"]] if values["dose"] else []
            name = case_name(source, self.plans, cases)
            cases.append(case_of(name, values, found.series[uid], files))
        if not cases:
            raise InputError(f"{self.plans}: no plan of a series that was contoured. {' '.join(notes[:5])}")
        return cases, [*notes, *more]

    @contextmanager
    def open(self) -> Iterator[Run]:
        with staging_folder(self.output_dir) as staging:
            yield lambda values: self._judged(values, staging)

    def _judged(self, values: Mapping[str, Any], staging: Path) -> dict[str, Any]:
        own = staging / values["case"]
        own.mkdir()
        series, plan, automatic, notes = opened(values)
        rois = match_rois(self.roi_map, plan.names, str(plan.path))
        dose = _dose_of(values["dose"], notes)
        rows = []
        for structure, roi in rois.items():
            if roi is not None or structure in automatic.names:
                rows.append(self._row(structure, roi, plan, automatic, series, dose, notes))
        record = {
            "case": values["case"],
            "status": "done",
            "structures": rows,
            "plan": values["plan"],
            **_acquired(series),
            "contouring_s": load_json(Path(values["folder"]) / "run.json").get("seconds"),
            "with_dose": dose is not None,
            "warnings": list(dict.fromkeys(notes)),
        }
        places = {name: values[name] for name in ("series", "set", "folder")}
        write_record({**record, **places, "verb": self.verb, **self.record()}, own / "run.json")
        publish_folder(own, self.output_dir / values["case"], self.verb)
        return {**record, **places}

    def _row(
        self,
        structure: str,
        roi: str | None,
        plan: MaskSource,
        automatic: MaskSource,
        series: Series,
        dose: Dose | None,
        notes: list[str],
    ) -> dict[str, Any]:
        """The numbers of one structure; of one that only one side has, its name and which side."""
        row = {"name": structure, "roi": roi}
        if roi is None or structure not in automatic.names:
            return {**row, "state": "no plan" if roi is None else "not contoured"}
        masks = [binary_mask(plan, roi), binary_mask(automatic, structure)]
        if not masks[0].any():  # planning systems keep ROIs of a template that nobody drew
            return {**row, "state": "no plan"}
        row |= measure(*masks, series.geometry, self.limits.tolerance_of(structure))
        before, after = (centre_lps_mm(mask, series.geometry) for mask in masks)
        row |= {"volume_cc": row["other_cc"], "shift_lps_mm": plain(after - before)}
        row["shift_mm"] = float(np.linalg.norm(after - before))
        cc = row["reference_cc"]
        row["volume_percent"] = 100 * (row["other_cc"] / cc - 1) if cc else math.nan
        if dose is not None:
            row["dose"] = self._dose_row(structure, masks, dose, series, notes)
        return plain(row)

    def _dose_row(
        self, structure: str, masks: Sequence[np.ndarray], dose: Dose, series: Series, notes: list[str]
    ) -> dict[str, list[float]]:
        """{number: [of the plan's contour, of the automatic one]}; nan where the contour leaves the grid."""
        names = dict.fromkeys([*DOSE_NUMBERS, *self.limits.dose_of(structure)])
        found: dict[str, list[float]] = {name: [] for name in names}
        for mask, whose in zip(masks, ("the plan's contour", "the automatic contour"), strict=True):
            try:
                histogram = dose.of(mask, series.geometry)
            except (InputError, GeometryError) as error:
                notes.append(f"{structure}, dose in {whose}: {error}")
                histogram = None
            for name, pair in found.items():
                pair.append(math.nan if histogram is None else histogram.get(name))
        return found


def opened(values: Mapping[str, Any]) -> tuple[Series, MaskSource, MaskSource, list[str]]:
    """The series of a case, the plan's structures, the automatic ones, and what was odd."""
    series = reference_of(values["series"]).series()
    plan = open_masks(values["set"], series)
    automatic = open_masks(Path(values["folder"]) / "RS.dcm", series)
    return series, plan, automatic, [*series.warnings, *plan.notices]


def _dose_of(path: str, notes: list[str]) -> Dose | None:
    """The dose of a case; None, with the reason among ``notes``, when it cannot be used."""
    try:
        return read_dose(path) if path else None
    except (InputError, GeometryError) as error:
        notes.append(f"without its dose: {error}")
        return None


def binary_mask(source: MaskSource, name: str) -> np.ndarray:
    """bool [slice, row, column] of one structure."""
    array, _ = source.read(name)
    return array if array.dtype == bool else array >= 0.5


def _plan_record(plan: StructureSet) -> dict[str, str]:
    return {
        "label": plan.label,
        "approval": plan.approval_status or "not stated",
        "date_time": plan.date_time,
        "SOPInstanceUID": plan.sop_instance_uid,
    }


def _acquired(series: Series) -> dict[str, str]:
    """Scanner, protocol and day of the images; nothing of the patient."""
    header = series.headers[0]

    def text(*keywords: str) -> str:
        return " ".join(str(header.get(word) or "").strip() for word in keywords).strip()

    gap = "" if series.geometry.shape[0] < 2 else f"{series.geometry.slice_thickness_mm.mean():.3g} mm slices"
    kernel = text("ConvolutionKernel")
    return {
        "scanner": text("Manufacturer", "ManufacturerModelName") or "not stated",
        "protocol": ", ".join(part for part in (text("ProtocolName"), kernel, gap) if part),
        "date": text("AcquisitionDate") or text("SeriesDate") or text("StudyDate"),
    }
