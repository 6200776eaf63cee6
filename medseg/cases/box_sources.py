"""Findings as boxes from wherever they are kept: tables (CSV), NIH, ChestX-Det, VinDr-CXR, COCO, Pascal VOC.

Every reader gives :class:`Finding` rows with corners (row, column) in the image's pixels, counted from the
outer corner of the first one. What belongs to no image's boxes (a row that says "no finding") gives a
:class:`Finding` without corners, so that a normal image is known to be one.
"""

from __future__ import annotations

import csv
import gzip
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import InputError, why


@dataclass(frozen=True)
class Finding:
    """One box: ``image`` (a file's name), its class, corners (row, column), and who drew it where it is
    known. ``low`` and ``high`` None: the image was read, and nothing was found."""

    image: str
    name: str
    low: tuple[float, float] | None
    high: tuple[float, float] | None
    reader: str = ""


FINDINGS_OF_THE_CHEST = {
    "心臟肥大": "cardiomegaly",
    "心肥大": "cardiomegaly",
    "主動脈粥狀硬化鈣化": "aortic calcification",
    "主動脈硬化鈣化": "aortic calcification",
    "主動脈鈣化": "aortic calcification",
    "主動脈彎曲": "tortuous aorta",
    "主動脈迂曲": "tortuous aorta",
    "肺尖肋膜增厚": "apical pleural thickening",
    "肺尖肋膜增厚症": "apical pleural thickening",
    "肺野浸潤增加": "infiltration",
    "肺浸潤增加": "infiltration",
    "肺野浸潤": "infiltration",
    "胸椎退化性關節病變": "degenerative thoracic spine",
    "胸椎退化性關節炎": "degenerative thoracic spine",
    "脊椎側彎": "scoliosis",
    "脊柱側彎": "scoliosis",
    "cardiac hypertrophy": "cardiomegaly",
    "cardiomegaly": "cardiomegaly",
    "aortic atherosclerosis calcification": "aortic calcification",
    "aortic curvature": "tortuous aorta",
    "apical pleural thickening": "apical pleural thickening",
    "lung field infiltration": "infiltration",
    "infiltration": "infiltration",
    "infiltrate": "infiltration",
    "degenerative joint disease of the thoracic spine": "degenerative thoracic spine",
    "scoliosis": "scoliosis",
    "mass": "mass",
    "nodule": "nodule",
    "nodule/mass": "mass or nodule",
    "mass or nodule": "mass or nodule",
    "atelectasis": "atelectasis",
    "effusion": "pleural effusion",
    "pleural effusion": "pleural effusion",
    "pneumonia": "pneumonia",
    "pneumothorax": "pneumothorax",
    "consolidation": "consolidation",
    "fibrosis": "fibrosis",
    "pulmonary fibrosis": "fibrosis",
    "fracture": "fracture",
    "calcification": "calcification",
    "emphysema": "emphysema",
    "pleural thickening": "pleural thickening",
    "diffuse nodule": "diffuse nodules",
    "aortic enlargement": "aortic enlargement",
    "ild": "interstitial lung disease",
    "lung opacity": "lung opacity",
    "other lesion": "other lesion",
}
"""What the sources call a finding, small letters, to medseg's name. The seven of the Chinese source come
first; its *apical* pleural thickening is not the pleural thickening of others, which may lie anywhere."""

NOTHING = ("正常", "normal", "no finding", "")
"""What sources say of an image without a finding."""


def name_of(word: str, names: Mapping[str, str] = FINDINGS_OF_THE_CHEST) -> str:
    """medseg's name of a finding; "" for a normal image. InputError for a word that the map does not have."""
    key = " ".join(str(word).replace("_", " ").split()).casefold()
    if key in NOTHING:
        return ""
    if key not in names:
        known = ", ".join(sorted(set(names.values())))
        raise InputError(f"finding {word!r} is not in the map of names; expected a name of one of {known}.")
    return names[key]


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what. Either ``xmax`` and ``ymax``, or ``width`` and ``height``, or the
    four numbers x, y, width, height in one column ``mark``, separated by anything that is no part of a
    number. ``reader`` may be "" where the table does not say who."""

    image: str = "image"
    name: str = "label"
    xmin: str = "xmin"
    ymin: str = "ymin"
    xmax: str = ""
    ymax: str = ""
    width: str = ""
    height: str = ""
    mark: str = ""
    reader: str = ""


CORNERS = Columns(xmax="xmax", ymax="ymax")
NIH = Columns(xmin="x", ymin="y", width="w", height="h")
NIH_AS_PUBLISHED = Columns("Image Index", "Finding Label", "Bbox [x", "y", width="w", height="h]")
"""BBox_List_2017.csv, in whose heading commas stand between brackets."""

VINDR = Columns("image_id", "class_name", "x_min", "y_min", "x_max", "y_max", reader="rad_id")
SOURCE = Columns("檔名", "病徵", mark="標記")
"""The table of the Chinese source: file name, finding, mark. Its own headings may be given instead."""


def read_table(
    path: str | Path, columns: Columns = CORNERS, names: Mapping[str, str] = FINDINGS_OF_THE_CHEST
) -> list[Finding]:
    """The findings of a CSV file (UTF-8, with or without a byte-order mark). InputError, with the line, for a
    column that is not there, a number that is none and a finding that the map does not have."""
    try:
        with open(_file(path), newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no table in UTF-8 ({why(error)}); save it as CSV UTF-8.") from error
    wanted = {name for name in vars(columns).values() if name}
    if columns.mark:
        wanted -= {columns.xmin, columns.ymin}
    lacking = sorted(wanted - set(rows[0] if rows else ()))
    if lacking:
        raise InputError(f"{path}: no row with the column {lacking[0]!r}; name the columns by a Columns.")
    found = []
    for number, row in enumerate(rows, 2):
        try:
            name = name_of(row[columns.name], names)
            corners = _corners(row, columns) if name else (None, None)
        except (InputError, ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        reader = row[columns.reader] if columns.reader else ""
        found.append(Finding(row[columns.image], name, *corners, reader))
    return found


def _corners(row: Mapping[str, str], columns: Columns) -> tuple[tuple[float, float], tuple[float, float]]:
    if columns.mark:
        letters = "".join(c if c in "0123456789.-" else " " for c in row[columns.mark] or "")
        numbers = [float(word) for word in letters.split()]
        if len(numbers) != 4:
            raise InputError(f"mark {row[columns.mark]!r}: expected x, y, width and height.")
        x, y, width, height = numbers
        return (y, x), (y + height, x + width)
    x, y = float(row[columns.xmin]), float(row[columns.ymin])
    if columns.width:
        return (y, x), (y + float(row[columns.height]), x + float(row[columns.width]))
    return (y, x), (float(row[columns.ymax]), float(row[columns.xmax]))


def read_chestx_det(
    path: str | Path, names: Mapping[str, str] = FINDINGS_OF_THE_CHEST
) -> tuple[list[Finding], dict[str, str]]:
    """The findings of ChestX-Det's JSON (plain or .gz), and {image: section of its published split}. An image
    whose NIH name is unknown goes by its ChestX-Det file name. InputError for a file without them."""
    path = _file(path)
    opened = gzip.open if path.suffix == ".gz" else open
    found, sections = [], {}
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            rows = json.load(file)
        for row in rows:
            image = row["image"] or row["chestx_det_file"]
            sections[image] = row["split"]
            found += [
                Finding(image, name_of(word, names), (y0, x0), (y1, x1))
                for word, (x0, y0, x1, y1) in zip(row["labels"], row["boxes"], strict=True)
            ] or [Finding(image, "", None, None)]
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise InputError(f"{path}: no file of ChestX-Det ({why(error)}).") from error
    return found, sections


def read_coco(path: str | Path, names: Mapping[str, str] = FINDINGS_OF_THE_CHEST) -> list[Finding]:
    """The findings of a COCO JSON file: ``images``, ``categories`` and ``annotations`` with ``bbox`` of x, y,
    width, height. InputError for a file without them and for an annotation of no image or category."""
    try:
        content = json.loads(_file(path).read_text(encoding="utf-8"))
        images = {row["id"]: row["file_name"] for row in content["images"]}
        kinds = {row["id"]: name_of(row["name"], names) for row in content["categories"]}
        found = []
        for row in content["annotations"]:
            x, y, width, height = row["bbox"]
            name, image = kinds[row["category_id"]], images[row["image_id"]]
            found.append(Finding(image, name, (y, x), (y + height, x + width)))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no COCO file of boxes ({why(error)}).") from error
    empty = set(images.values()) - {finding.image for finding in found}
    return found + [Finding(image, "", None, None) for image in sorted(empty)]


def read_voc(path: str | Path, names: Mapping[str, str] | None = FINDINGS_OF_THE_CHEST) -> list[Finding]:
    """The findings of one Pascal VOC XML file, whose pixels count from 1 and whose last one is inside the
    box. ``names``: None keeps the file's own. InputError for a file that is none."""
    try:
        root = ElementTree.parse(_file(path)).getroot()
        image = root.findtext("filename")
        found = []
        for thing in root.iter("object"):
            x0, y0, x1, y1 = (
                float(thing.findtext(f"bndbox/{end}")) for end in ("xmin", "ymin", "xmax", "ymax")
            )
            word = thing.findtext("name")
            name = str(word) if names is None else name_of(word, names)
            found.append(Finding(image, name, (y0 - 1, x0 - 1), (y1, x1)))
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no Pascal VOC file of boxes ({why(error)}).") from error
    if not image:
        raise InputError(f"{path}: no Pascal VOC file of boxes (it names no image).")
    return found or [Finding(image, "", None, None)]


def fuse_readers(
    findings: Sequence[Finding], shape: tuple[int, int], overlap: float = 0.5, fewest: int = 1
) -> list[Finding]:
    """The findings of one image by several readers as one set, by weighted box fusion (Solovyev et al., Image
    Vis Comput 2021, package ensemble-boxes); the rows of each reader stay what they were.

    Boxes of one class that overlap by ``overlap`` (IoU) become their mean; what fewer than ``fewest`` readers
    drew is left out. Several by one reader are first made one, and count once. ``shape``: (rows, columns) of
    the image. ``reader`` of a fused box is the number of readers, as "2 of 3". An image without a box gives
    one row without corners. InputError for more than one image, and for corners that are swapped or leave it.
    """
    from ensemble_boxes import weighted_boxes_fusion

    images = {finding.image for finding in findings}
    if len(images) != 1:
        raise InputError(f"findings of {len(images)} images; readers are fused image by image.")
    readers = sorted({finding.reader for finding in findings})
    drawn = [finding for finding in findings if finding.low is not None]
    classes = sorted({finding.name for finding in drawn})
    rows, columns = shape
    for f in drawn:
        if not all(0 <= a < b <= end for a, b, end in zip(f.low, f.high, shape, strict=True)):
            raise InputError(
                f"{f.image}: a box from {f.low} to {f.high} on {rows} rows and {columns} columns."
            )
    sides = [
        [(f.low[1] / columns, f.low[0] / rows, f.high[1] / columns, f.high[0] / rows) for f in own]
        for own in ([f for f in drawn if f.reader == reader] for reader in readers)
    ]
    labels = [[classes.index(f.name) for f in drawn if f.reader == reader] for reader in readers]
    # Each reader's own first: fused all at once, two of one reader would count as two readers.
    own = [
        weighted_boxes_fusion([box], [[1.0] * len(box)], [label], iou_thr=overlap)
        for box, label in zip(sides, labels, strict=True)
    ]
    boxes, scores, labels = zip(*own, strict=True)
    fused, shares, numbers = weighted_boxes_fusion(boxes, scores, labels, iou_thr=overlap)
    found = []
    for (x0, y0, x1, y1), share, number in zip(fused, shares, numbers, strict=True):
        count = round(float(share) * len(readers))
        if count >= fewest:
            low, high = (float(y0 * rows), float(x0 * columns)), (float(y1 * rows), float(x1 * columns))
            said = f"{count} of {len(readers)}"
            found.append(Finding(drawn[0].image, classes[int(number)], low, high, said))
    return found or [replace(findings[0], name="", low=None, high=None, reader="")]


def boxes_of(findings: Sequence[Finding]) -> list[dict]:
    """The ``label`` of one image in a datalist: ``{"class", "low", "high"}`` of each box."""
    return [
        {"class": f.name, "low": list(f.low), "high": list(f.high)} for f in findings if f.low is not None
    ]


def _file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected a file of boxes.")
    return Path(path)
