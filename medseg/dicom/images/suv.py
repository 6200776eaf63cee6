"""PET in standardized uptake values by body weight: SUV = becquerel per ml x weight in g / decayed dose.

The rules are those of the QIBA FDG-PET/CT profile's vendor-neutral pseudo-code and of DICOM PS3.3 C.8.9: what
Units and DecayCorrection say decides. A tag that is missing, absurd or contradicts another is an error with
the tag's keyword, since an SUV that is wrong by a factor looks like one that is right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, NoReturn

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from medseg.dicom.damage import PARSE_ERRORS
from medseg.dicom.images.series import Series
from medseg.errors import InputError, printable

WEIGHT_KG = (0.2, 500.0)
DOSE_BQ = (1e4, 1e11)
"""A mouse's tracer to ten times a patient's: 370, as written in MBq, lies below."""

HALF_LIFE_S = (30.0, 1e6)
FRAME_MS = (1.0, 1e8)
MOST_HALF_LIVES = 10.0
"""Between injection and scan. A thousandth of the dose gives no image: the times are of different days."""

HALF_LIVES_S = {"F-18": 6586.2, "C-11": 1223.4, "Ga-68": 4057.7}
NUCLIDE_CODES = {
    "C-111A1": "F-18",
    "77004003": "F-18",
    "C-105A1": "C-11",
    "40565004": "C-11",
    "C-131A3": "Ga-68",
    "80751004": "Ga-68",
}
"""CodeValue of RadionuclideCodeSequence (DICOM PS3.16 CID 4020, as SRT and SCT) of the common tracers."""

PHILIPS = (0x7053, "Philips PET Private Group")
GE = (0x0009, "GEMS_PETD_01")


@dataclass(frozen=True, eq=False)
class SuvFactors:
    """``factors``: float64 (slices,), what each slice's values are multiplied by. ``how``: for run.json."""

    factors: np.ndarray
    how: str

    def suv(self, volume: np.ndarray) -> np.ndarray:
        """float32 [slice, row, column]: the volume in g/ml."""
        return (volume * self.factors[:, None, None]).astype(np.float32)


def suv_factors(series: Series) -> SuvFactors:
    """What turns the values of a PET series (after their RescaleSlope) into SUV by body weight.

    Units GML is taken as stored. BQML needs RadionuclideTotalDose, RadionuclideHalfLife, PatientWeight and,
    unless DecayCorrection is ADMIN, the times of injection and scan. CNTS needs Philips' private factor,
    (7053,1000) to SUV or (7053,1009) to BQML. InputError, in one line, with the keyword of what is missing,
    absurd or contradicts another.
    """
    header = _Headers(series)
    if series.modality != "PT":
        header.refuse(f"Modality {series.modality}; expected PT")
    if series.frame_numbers[0] is not None:
        header.refuse("Enhanced PET, which keeps its units frame by frame, is not read; export single slices")
    units = header.text("Units")
    if units == "GML":
        kind = header.text("SUVType", required=False)
        if kind not in ("", "BW"):
            header.refuse(f"SUVType {kind}: not by body weight (BW)")
        return SuvFactors(np.ones(len(series.headers)), "GML, as stored")
    if units == "CNTS":
        to_suv = header.private_number(PHILIPS, 0x00)
        if to_suv:
            return SuvFactors(np.full(len(series.headers), to_suv), "CNTS, Philips (7053,1000)")
        to_bqml = header.private_number(PHILIPS, 0x09)
        if not to_bqml:
            header.refuse("Units CNTS without Philips' private factor (7053,1000) or (7053,1009)")
        by_activity = _by_activity(header)
        return SuvFactors(by_activity.factors * to_bqml, f"CNTS, Philips (7053,1009), {by_activity.how}")
    if units != "BQML":
        header.refuse(f"Units {units}; expected BQML, GML or CNTS")
    return _by_activity(header)


def _by_activity(header: _Headers) -> SuvFactors:
    """Factors of a series in becquerel per ml."""
    corrected = header.words("CorrectedImage")
    decay = header.text("DecayCorrection")
    if "ATTN" not in corrected:
        header.refuse("CorrectedImage without ATTN: not corrected for attenuation")
    if decay not in ("START", "ADMIN", "NONE"):
        header.refuse(f"DecayCorrection {decay}; expected START, ADMIN or NONE")
    if ("DECY" in corrected) == (decay == "NONE"):
        said = "with" if "DECY" in corrected else "without"
        header.refuse(f"DecayCorrection {decay} contradicts CorrectedImage {said} DECY")
    dose_bq = header.tracer_number("RadionuclideTotalDose", DOSE_BQ, "becquerel")
    half_life_s = header.tracer_number("RadionuclideHalfLife", HALF_LIFE_S, "seconds")
    _check_nuclide(header, half_life_s)
    weight_g = 1000.0 * header.number("PatientWeight", WEIGHT_KG, "kg")
    slices = len(header.datasets)
    how = f"BQML, {dose_bq / 1e6:.6g} MBq, {weight_g / 1000:g} kg, half life {half_life_s:g} s"
    if decay == "ADMIN":
        return SuvFactors(np.full(slices, weight_g / dose_bq), f"{how}, decay corrected to ADMIN")
    acquired = [header.moment(dataset, "Acquisition") for dataset in header.datasets]
    if decay == "START":
        scanned = _scan_start(header, acquired, half_life_s)
        elapsed_s = _elapsed_s(header, scanned, half_life_s)
        left_bq = dose_bq * 2.0 ** (-elapsed_s / half_life_s)
        words = f"{how}, decay corrected to START, {elapsed_s / 60:.1f} min after injection"
        return SuvFactors(np.full(slices, weight_g / left_bq), words)
    # Not corrected: what was counted is the mean activity of each bed position while its frame lasted.
    frame_s = np.array([header.milliseconds(d, "ActualFrameDuration") for d in header.datasets]) / 1000
    elapsed = np.array([_elapsed_s(header, moment, half_life_s) for moment in acquired])
    rate = np.log(2) / half_life_s
    mean_share = -np.expm1(-rate * frame_s) / (rate * frame_s)
    left_bq = dose_bq * 2.0 ** (-elapsed / half_life_s) * mean_share
    return SuvFactors(weight_g / left_bq, f"{how}, not decay corrected: by each slice's own time")


def _check_nuclide(header: _Headers, half_life_s: float) -> None:
    codes = header.tracer().get("RadionuclideCodeSequence") or [Dataset()]
    nuclide = NUCLIDE_CODES.get(str(codes[0].get("CodeValue", "")))
    if nuclide and abs(half_life_s / HALF_LIVES_S[nuclide] - 1) > 0.05:
        header.refuse(
            f"RadionuclideHalfLife {half_life_s:g} s contradicts RadionuclideCodeSequence {nuclide}, of "
            f"{HALF_LIVES_S[nuclide]:g} s"
        )


# ---- times -------------------------------------------------------------------------------------------------


def _scan_start(header: _Headers, acquired: list[datetime], half_life_s: float) -> datetime:
    """The moment that DecayCorrection START means.

    SeriesDate and SeriesTime, unless they are later than an acquisition: then the series was made afterwards,
    and the moment is GE's private one, or follows from FrameReferenceTime, or is the earliest acquisition.
    """
    earliest = min(acquired)
    begun = header.moment(header.datasets[0], "Series")
    if begun <= earliest:
        return begun
    private = header.private_text(GE, 0x0D)
    if private:
        return header.parsed("(0009,100d)", private, DT).replace(tzinfo=None)
    first = header.datasets[acquired.index(earliest)]
    if not first.get("FrameReferenceTime") or not first.get("ActualFrameDuration"):
        return earliest
    reference_s = header.milliseconds(first, "FrameReferenceTime") / 1000
    frame_s = header.milliseconds(first, "ActualFrameDuration") / 1000
    rate = np.log(2) / half_life_s
    # From the start of the frame to when its rate is the mean one.
    mean_s = float(np.log(rate * frame_s / -np.expm1(-rate * frame_s)) / rate)
    return earliest + timedelta(seconds=mean_s - reference_s)


def _elapsed_s(header: _Headers, scanned: datetime, half_life_s: float) -> float:
    """Seconds from injection to a moment of the scan; InputError for a negative or absurd number of them."""
    keyword, injected = _injection(header, scanned)
    elapsed_s = (scanned - injected).total_seconds()
    if elapsed_s < 0:
        header.refuse(f"{keyword} lies {-elapsed_s / 60:.0f} min after the scan")
    if elapsed_s > MOST_HALF_LIVES * half_life_s:
        header.refuse(f"{keyword} lies {elapsed_s / half_life_s:.1f} half lives before the scan")
    return elapsed_s


def _injection(header: _Headers, scanned: datetime) -> tuple[str, datetime]:
    """(keyword that says it, moment of the injection). A time without a date is the last such before the
    scan, which may be that of the day before."""
    tracer = header.tracer()
    said, clock = (_text(tracer, f"RadiopharmaceuticalStart{word}") for word in ("DateTime", "Time"))
    started = header.parsed("RadiopharmaceuticalStartTime", clock, TM) if clock else None
    if said:
        injected = header.parsed("RadiopharmaceuticalStartDateTime", said, DT)
        if injected.tzinfo is not None:
            zone = header.text("TimezoneOffsetFromUTC", required=False)
            if zone and not said.endswith(zone):
                header.refuse(
                    f"RadiopharmaceuticalStartDateTime {said} contradicts TimezoneOffsetFromUTC {zone}"
                )
            injected = injected.replace(tzinfo=None)
        if started is not None:
            apart_s = (datetime.combine(injected.date(), started) - injected).total_seconds()
            if abs(apart_s) > 60:
                what = f"RadiopharmaceuticalStartDateTime {said} contradicts RadiopharmaceuticalStartTime"
                header.refuse(f"{what} {clock}")
        return "RadiopharmaceuticalStartDateTime", injected
    if started is None:
        header.refuse("no RadiopharmaceuticalStartDateTime and no RadiopharmaceuticalStartTime")
    injected = datetime.combine(scanned.date(), started)
    if injected > scanned:
        injected -= timedelta(days=1)
    return "RadiopharmaceuticalStartTime", injected


# ---- tags --------------------------------------------------------------------------------------------------


class _Headers:
    """The headers of one PET series, asked by keyword; InputError in the series' name for what is wrong."""

    def __init__(self, series: Series) -> None:
        self.datasets = series.headers
        self.uid = series.series_instance_uid

    def refuse(self, what: str) -> NoReturn:
        """Raise InputError; never returns."""
        raise InputError(printable(f"PET series {self.uid}: no SUV: {what[:400]}.", keep=""))

    def same(self, keyword: str, read: Callable[[Dataset], str]) -> str:
        """What ``read`` gives of every slice; refused where slices differ."""
        try:
            values = {read(dataset) for dataset in self.datasets}
        except PARSE_ERRORS:
            self.refuse(f"{keyword} cannot be read")
        if len(values) > 1:
            self.refuse(f"{keyword} differs between slices: {', '.join(sorted(values)[:3])}")
        return values.pop()

    def text(self, keyword: str, required: bool = True) -> str:
        """One word that all slices share; "" where it may be missing and is."""
        value = self.same(keyword, lambda dataset: _text(dataset, keyword))
        if required and not value:
            self.refuse(f"no {keyword}")
        return value

    def words(self, keyword: str) -> list[str]:
        """The values of an attribute that has several, of the first slice."""
        value = self.datasets[0].get(keyword) or []
        return [value] if isinstance(value, str) else [str(word) for word in value]

    def number(self, keyword: str, limits: tuple[float, float], unit: str) -> float:
        """One number that all slices share, within ``limits``."""
        return self._within(keyword, self.text(keyword), limits, unit)

    def milliseconds(self, dataset: Dataset, keyword: str) -> float:
        """A duration of one slice."""
        return self._within(keyword, _text(dataset, keyword), FRAME_MS, "ms")

    def _within(self, keyword: str, text: str, limits: tuple[float, float], unit: str) -> float:
        try:
            value = float(text or "nan")
        except ValueError:
            value = float("nan")
        if not limits[0] <= value <= limits[1]:
            seen = f"{keyword} is {text}" if text else f"no {keyword}"
            self.refuse(f"{seen}; expected {limits[0]:g} to {limits[1]:g} {unit}")
        return value

    def tracer(self) -> Dataset:
        """The one item of RadiopharmaceuticalInformationSequence."""
        items = self.datasets[0].get("RadiopharmaceuticalInformationSequence") or []
        if len(items) != 1:
            self.refuse(
                f"{len(items)} items in RadiopharmaceuticalInformationSequence; expected one injection"
            )
        return items[0]

    def tracer_number(self, keyword: str, limits: tuple[float, float], unit: str) -> float:
        """A number of the injection that all slices share, within ``limits``."""
        self.tracer()

        def read(dataset: Dataset) -> str:
            items = dataset.get("RadiopharmaceuticalInformationSequence") or [Dataset()]
            return _text(items[0], keyword)

        return self._within(keyword, self.same(keyword, read), limits, unit)

    def private_text(self, owner: tuple[int, str], offset: int) -> str:
        """A private attribute of the block of ``owner`` (group, creator); "" where there is none."""

        def read(dataset: Dataset) -> str:
            try:
                value = dataset.private_block(*owner)[offset].value
            except KeyError:
                return ""
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
            return text.strip("\0 ")

        return self.same(f"({owner[0]:04x},10{offset:02x})", read)

    def private_number(self, owner: tuple[int, str], offset: int) -> float:
        """A positive private number, or 0 where there is none."""
        text = self.private_text(owner, offset)
        if not text or text.strip("0.") == "":
            return 0.0
        return self._within(f"({owner[0]:04x},10{offset:02x})", text, (1e-12, 1e12), "")

    def moment(self, dataset: Dataset, word: str) -> datetime:
        """Of ``word``Date and ``word``Time of one slice."""
        day, clock = (_text(dataset, f"{word}{part}") for part in ("Date", "Time"))
        if not day or not clock:
            self.refuse(f"no {word}{'Time' if day else 'Date'}")
        return datetime.combine(self.parsed(f"{word}Date", day, DA), self.parsed(f"{word}Time", clock, TM))

    def parsed(self, keyword: str, text: str, kind: type) -> Any:
        """A date, time or both, of DICOM's text."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what is refused here
            try:
                value = kind(text)
            except PARSE_ERRORS:
                value = None
        if value is None:
            self.refuse(f"{keyword} {text[:40]!r} is no date or time")
        return _plain(value)


def _text(dataset: Dataset, keyword: str) -> str:
    """An attribute as text, "" where it is missing or empty; a zero is neither."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def _plain(value: Any) -> Any:
    """Python's own class of a date, time or both: pydicom's keep the text and cannot be combined."""
    if isinstance(value, datetime):
        return datetime.combine(date(value.year, value.month, value.day), _clock(value), value.tzinfo)
    return date(value.year, value.month, value.day) if isinstance(value, date) else _clock(value)


def _clock(value: datetime | time) -> time:
    return time(value.hour, value.minute, value.second, value.microsecond)
