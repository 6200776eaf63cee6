"""Image studies and table rows of the same person within a time window: a datalist with labels, and what was
left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medseg.cases.records import read_table
from medseg.errors import InputError
from medseg.files import write_csv, write_json
from medseg.workbench.clinic_datalist import drawn
from medseg.workbench.columns import days_of, ids_of, is_set, sides_of
from medseg.workbench.headers import PATH, headers
from medseg.workbench.nearest import NO_MATCH, PAIRED, nearest_records
from medseg.workbench.pseudonyms import day_shift, hashed
from medseg.workbench.t_scores import LABELS, REFERENCES, label_of

if TYPE_CHECKING:
    import pandas

CARRIED_WORDS, CARRIED_NUMBERS = ("device", "view", "sex"), ("age", "height_cm", "weight_kg")
"""Columns of either table that each item of the datalist gets as they stand, where a value is there: what
covariates and scores per group are made of. The record's word counts before the image's. The record's ``bmd``
is carried as well, which a network may learn beside the classes."""

_CARRIED = dict.fromkeys((*CARRIED_WORDS, *CARRIED_NUMBERS), False)
IMAGE_FIELDS = {"patient": True, "date": True, "image": True, "side": False, "implant": False, **_CARRIED}
RECORD_FIELDS = {
    **{"patient": True, "date": True, "t_score": False, "bmd": False, "side": False, "implant": False},
    **_CARRIED,
}
"""Our name of a column: whether it must be there. Records need ``t_score`` or ``bmd`` as well."""

HEADER_COLUMNS = {"patient": "PatientID", "date": "StudyDate", "image": PATH, "side": "Laterality"}
"""What a table of ``medseg records headers`` calls them."""


EPOCH = date(1970, 1, 1)

IMPLANT = "implant"

WHY = (
    "paired",
    "no record of this patient",
    "nearest record too far away in time",
    "two records or images equally near",
    "another image is nearer to its record",
)
"""Words for the outcomes of :mod:`medseg.workbench.nearest`, in their order."""


@dataclass(frozen=True)
class PairRequest:
    """Which images meet which records.

    ``images``: a DICOM folder, or a table of ``medseg records headers``; ``records``: a table (CSV, Excel,
    Parquet) or a database's URL with ``sql_table``. The two mappings say what each table calls our fields.
    ``most_days``: at most so many between image and record. ``label``: one of LABELS; T-scores are made of
    BMD when ``reference`` names a population of REFERENCES or gives (mean, SD). ``test_from``: patients with
    an image on or after that day are the test set with these images, and nothing of theirs is trained on.
    ``hash_key``: bytes with which ids are hashed (HMAC-SHA256), None leaves them; ``shift_dates`` moves all
    dates of a patient by the same days, which the key decides.
    """

    images: Path
    records: str
    out: Path
    _: KW_ONLY
    record_columns: dict[str, str]
    image_columns: dict[str, str] = field(default_factory=lambda: dict(HEADER_COLUMNS))
    sql_table: str | None = None
    most_days: int = 183
    label: str = "osteoporosis"
    reference: str | tuple[float, float] | None = None
    test_from: date | None = None
    validation: float = 0.2
    seed: int = 0
    hash_key: bytes | None = None
    shift_dates: bool = False

    def __post_init__(self):
        _check_names("image_columns", self.image_columns, IMAGE_FIELDS)
        _check_names("record_columns", self.record_columns, RECORD_FIELDS)
        if self.label not in LABELS:
            raise InputError(f"label {self.label!r}: expected one of {', '.join(LABELS)}.")
        if self.most_days < 0:
            raise InputError(f"`days` {self.most_days}: expected 0 or more.")
        if self.label == "bmd" and "bmd" not in self.record_columns:
            raise InputError("label bmd needs the column bmd in `record_columns`.")
        if self.label != "bmd" and "t_score" not in self.record_columns:
            if "bmd" not in self.record_columns or self.reference is None:
                raise InputError(
                    "a label of T-scores needs the column t_score in `record_columns`, or bmd there and "
                    f"`reference`, the population: {', '.join(REFERENCES)}, or its mean and SD."
                )
        if isinstance(self.reference, str) and self.reference not in REFERENCES:
            raise InputError(f"`reference` {self.reference!r}: expected {', '.join(REFERENCES)}, or MEAN,SD.")
        if self.reference is not None and "t_score" in self.record_columns:
            raise InputError("`reference` is for T-scores made of BMD; the records bring t_score themselves.")
        if self.shift_dates and self.hash_key is None:
            raise InputError("`shift_dates` needs `hash_key`, which decides the days.")


def _check_names(what: str, columns: Mapping[str, str], known: Mapping[str, bool]) -> None:
    unknown = [name for name in columns if name not in known]
    lacking = [name for name, needed in known.items() if needed and name not in columns]
    if unknown or lacking:
        raise InputError(
            f"`{what}`: {'unknown ' if unknown else 'lacks '}{', '.join(unknown or lacking)}; it names the "
            f"columns {', '.join(known)}."
        )


def pair(request: PairRequest, progress: bool = False) -> dict[str, Any]:
    """Pair, write the datalist to ``request.out`` and beside it ``<name>_left_out.csv``; returns the report.

    An image gets the nearest record of its patient (and side, where the records have one), and a record
    serves the images of the nearest date only; see :func:`medseg.workbench.nearest.nearest_records`. The
    datalist's items have image, case_id, patient_id, side, label, days_apart (record minus image),
    image_date, and what is carried of the tables. Report: {"images", "records", "paired", "left_out":
    {reason: images}, "records_without_figure", "sections": {name: {"images", "patients"}}}. InputError when
    nothing is paired, and for columns, dates and figures that cannot be read at all.
    """
    images = _images(request, progress)
    records = read_table(request.records, request.record_columns, request.sql_table)
    value, usable = _values(request, records)
    without_figure = set(ids_of(records["patient"])[~usable])
    records_used = records[usable].reset_index(drop=True)
    met = _meet(request, images, records_used, value[usable], without_figure)
    report: dict[str, Any] = {
        "images": len(images),
        "records": len(records),
        "records_without_figure": int((~usable).sum()),
    }
    if not (met.why == "").any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in _left_out(met).items())
        raise InputError(f"no image of {len(images)} has a record: {reasons or 'there are no images'}.")
    sections = _sections(request, images, records_used, met)
    report |= {
        "paired": int((met.why == "").sum()),
        "left_out": _left_out(met),
        "sections": {
            name: {"images": len(cases), "patients": len({case["patient_id"] for case in cases})}
            for name, cases in sections.items()
        },
    }
    left_out = request.out.with_name(f"{request.out.stem}_left_out.csv")
    reasons = zip(images["image"], met.why, strict=True)
    write_csv(
        ({"image": image, "reason": why} for image, why in reasons if why), ("image", "reason"), left_out
    )
    write_json({"description": _description(request), "report": report, **sections}, request.out)
    return report


# ---- what the tables say -----------------------------------------------------------------------------------


def _images(request: PairRequest, progress: bool) -> pandas.DataFrame:
    is_ours = dict(request.image_columns) == HEADER_COLUMNS
    # DX says ImageLaterality for every image, CR says Laterality for the series.
    columns = request.image_columns | {"image_side": "ImageLaterality"} if is_ours else request.image_columns
    if request.images.is_dir():
        import pandas

        if not is_ours:
            raise InputError("`image_columns` is for a table; a DICOM folder's fields are known.")
        rows, _ = headers(request.images, tuple(name for name in columns.values() if name != PATH), progress)
        found = pandas.DataFrame({name: [row[column] for row in rows] for name, column in columns.items()})
    else:
        found = read_table(request.images, columns)
    if is_ours:
        found["side"] = found["image_side"].where(found["image_side"] != "", found["side"])
    return found


def _left_out(met: Met) -> dict[str, int]:
    return {reason: int((met.why == reason).sum()) for reason in dict.fromkeys(met.why) if reason}


def _values(request: PairRequest, records: pandas.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The figure of each record, as T-score or BMD, and whether it has one."""
    import pandas

    name = "bmd" if request.label == "bmd" or "t_score" not in records else "t_score"
    text = records[name].str.replace("'", "", regex=False)
    value = pandas.to_numeric(text, errors="coerce").to_numpy(np.float64)
    usable = np.isfinite(value)
    if len(records) and not usable.any():
        raise InputError(f"no record has a number in {name}; the first is {records[name].iloc[0][:30]!r}.")
    if name == "bmd" and request.label != "bmd":
        reference = request.reference
        mean, deviation = REFERENCES[reference] if isinstance(reference, str) else reference
        value = (value - mean) / deviation
    return np.where(usable, value, 0.0), usable


# ---- pairs -------------------------------------------------------------------------------------------------


class Met(NamedTuple):
    """Of every image: ``why`` it was left out, "" where it has a record; that record's ``figure`` and
    ``days_apart``; its ``day``, from 1970 on; the ``record``'s row."""

    why: np.ndarray
    figure: np.ndarray
    days_apart: np.ndarray
    day: np.ndarray
    record: np.ndarray


def _meet(
    request: PairRequest,
    images: pandas.DataFrame,
    records: pandas.DataFrame,
    value: np.ndarray,
    without_figure: set[str],
) -> Met:
    import pandas

    image_day, image_dated = days_of(images["date"], "images")
    record_day, record_dated = days_of(records["date"], "records")
    by_side = "side" in records
    if by_side and "side" not in images:
        raise InputError("the records have a side and the images none; name its column in `image_columns`.")
    why = np.full(len(images), "", object)
    why[(images["patient"] == "").to_numpy()] = "no patient id"
    why[~image_dated & (why == "")] = "no date"
    if by_side:
        why[(sides_of(images["side"]) == "").to_numpy() & (why == "")] = "the image does not say its side"
    if "implant" in images:
        why[is_set(images["implant"], IMPLANT, "the images") & (why == "")] = IMPLANT
    usable = record_dated & (records["patient"] != "").to_numpy()
    if by_side:
        usable &= (sides_of(records["side"]) != "").to_numpy()

    def keys(table: pandas.DataFrame) -> pandas.Series:
        patient = ids_of(table["patient"])
        return patient + "\0" + sides_of(table["side"]) if by_side else patient

    group, _ = pandas.factorize(pandas.concat([keys(images), keys(records)], ignore_index=True))
    asked, rows = np.flatnonzero(why == ""), np.flatnonzero(usable)
    found = nearest_records(
        group[: len(images)][asked],
        image_day[asked],
        pandas.factorize(sides_of(images["side"]))[0][asked] if "side" in images else np.zeros_like(asked),
        group[len(images) :][rows],
        record_day[rows],
        value[rows],
        request.most_days,
    )
    why[asked] = np.array(["", *WHY[1:]], object)[found.outcome]
    patients = ids_of(images["patient"])
    why[patients.isin(without_figure).to_numpy() & (why == WHY[NO_MATCH])] = "its records have no figure"
    figure = np.zeros(len(images))
    days_apart, record = np.zeros((2, len(images)), np.int64)
    paired = found.outcome == PAIRED
    row = rows[found.record[paired]]
    figure[asked[paired]], days_apart[asked[paired]], record[asked[paired]] = (
        value[row],
        found.days[paired],
        row,
    )
    if "implant" in records:
        why[asked[paired][is_set(records["implant"], IMPLANT, "the records")[row]]] = IMPLANT
    return Met(why, figure, days_apart, image_day, record)


# ---- split and output --------------------------------------------------------------------------------------


def _carried(images: pandas.DataFrame, records: pandas.DataFrame) -> list[tuple[np.ndarray, str, bool]]:
    """(column, our name, whether it is the record's) of what the items carry, the record's last."""
    return [
        (table[name].to_numpy(object), name, table is records)
        for table in (images, records)
        for name in (*_CARRIED, "bmd")
        if name in table
    ]


def _value(name: str, text: str) -> str | float | None:
    """A carried value; None where nothing, or no number, stands there."""
    if name in CARRIED_WORDS:
        return text or None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _sections(
    request: PairRequest, images: pandas.DataFrame, records: pandas.DataFrame, met: Met
) -> dict[str, list[dict]]:
    """Training, validation and, from a day on, test; a patient stands in one of them. Earlier images of the
    test set's patients are left out, which ``met.why`` then says."""
    patients = ids_of(images["patient"]).to_numpy(object)
    in_test = np.zeros(len(images), bool)
    if request.test_from is not None:
        first_day = (request.test_from - EPOCH).days
        in_test = (met.why == "") & (met.day >= first_day)
        if not in_test.any():
            raise InputError(
                f"no paired image is of {request.test_from} or later; there would be no test set."
            )
        theirs = np.isin(patients, patients[in_test])
        met.why[theirs & ~in_test & (met.why == "")] = "an earlier image of a test patient"
    kept = np.flatnonzero(met.why == "")
    validating = drawn(set(patients[kept[~in_test[kept]]]), request.validation, request.seed)
    sections: dict[str, list[dict]] = {"training": [], "validation": []}
    if request.test_from is not None:
        sections["test"] = []
    sides = (
        sides_of(images["side"]).to_numpy(object) if "side" in images else np.full(len(images), "", object)
    )
    names = images["image"].to_numpy(object)
    carried = _carried(images, records)
    for index in kept:
        patient = patients[index]
        section = "test" if in_test[index] else "validation" if patient in validating else "training"
        shift = day_shift(request.hash_key, patient) if request.shift_dates and request.hash_key else 0
        sections[section].append(
            {
                "image": names[index],
                "case_id": str(Path(names[index]).with_suffix("")),
                "patient_id": hashed(request.hash_key, patient) if request.hash_key else patient,
                "side": sides[index],
                "label": label_of(float(met.figure[index]), request.label),
                "days_apart": int(met.days_apart[index]),
                "image_date": (EPOCH + timedelta(days=int(met.day[index]) + shift)).isoformat(),
            }
        )
        for column, name, is_records in carried:
            value = _value(name, column[met.record[index] if is_records else index])
            if value is not None:
                sections[section][-1][name] = value
    return sections


def _description(request: PairRequest) -> str:
    figure = "BMD in g/cm2" if request.label == "bmd" else "T-score"
    made = "as recorded"
    if request.label != "bmd" and request.reference is not None:
        reference = request.reference
        mean, deviation = REFERENCES[reference] if isinstance(reference, str) else reference
        name = reference if isinstance(reference, str) else "a reference that the user gave"
        made = f"(BMD - {mean:g}) / {deviation:g}, {name}"
    classes = {
        "osteoporosis": ", 1 where it is at most -2.5",
        "who": ", 0 normal (at least -1), 1 osteopenia, 2 osteoporosis (at most -2.5)",
    }
    return (
        f"Images with the nearest record within {request.most_days} days; label from the {figure}, {made}"
        f"{classes.get(request.label, '')}. Patients never straddle sections."
    )
