"""Ways to damage a file, each a function of its bytes and a seeded chance; all say what they did."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

Damaged = tuple[bytes, str]
"""The new content, and in words what was done to it."""

DICOM_GROUPS = (0x0008, 0x0010, 0x0020, 0x0028, 0x0062, 0x3006, 0x5200, 0x7FE0, 0xFFFE)
LENGTHS = (0, 1, 7, 8, 255, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
NONSENSE = (
    b"",
    b"nan\\inf\\-1 ",
    b"1e300\\1e300 ",
    b"\xff\xff\xff\xff",
    b"\0\0",
    b"\\" * 40,
    b"\xc3\xa9\\" * 4,
)
SIZES = (0, 1, 2, 31, 33, 64, 255, 4096, 32767, 65535)
VRS = ("US", "SS", "DS", "IS", "LO", "OB", "OW", "UN", "FD", "SQ", "UI", "PN", "AT")


def damage_bytes(raw: bytes, chance: random.Random) -> Damaged:
    """Cut, flip bits, overwrite, insert or leave out, anywhere or near the start."""
    way = chance.choice(["cut", "flip", "flip", "flip", "overwrite", "insert", "drop", "repeat"])
    changed, end = bytearray(raw), chance.choice([len(raw), min(len(raw), 1600), min(len(raw), 400)])
    place = chance.randrange(end)
    if way == "cut":
        changed = changed[: chance.randrange(len(raw))]
    elif way == "flip":
        for _ in range(chance.choice([1, 1, 1, 2, 5, 30])):
            changed[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif way == "overwrite":
        width = chance.choice([1, 2, 4, 16, 200])
        changed[place : place + width] = chance.choice(
            [b"\0" * width, b"\xff" * width, chance.randbytes(width)]
        )
    elif way == "insert":
        changed[place:place] = chance.randbytes(chance.choice([1, 2, 4, 100]))
    elif way == "drop":
        del changed[place : place + chance.choice([1, 2, 8, 100])]
    else:
        changed[place:place] = changed[place : place + chance.choice([8, 100, 1000])]
    return bytes(changed), f"{way} bytes"


# ---- DICOM -------------------------------------------------------------------------------------------------


def damage_dicom(raw: bytes, chance: random.Random) -> Damaged:
    """Bytes, a length field, or an element somewhere in the tree of sequences."""
    way = chance.choice([damage_bytes, _length_field, _element, _element, _element])
    return way(raw, chance)


def _length_field(raw: bytes, chance: random.Random) -> Damaged:
    """Another length in what looks like an element's header, of an explicit or implicit VR; or sequences that
    nest there without end."""
    places = [
        place
        for place in range(132, len(raw) - 8, 2)
        if struct.unpack_from("<H", raw, place)[0] in DICOM_GROUPS and raw[place + 3] < 0xE1
    ]
    place, changed = chance.choice(places), bytearray(raw)
    if chance.random() < 0.1:
        opening = struct.pack("<HHIHHI", 0x3006, 0x0020, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
        changed[place:place] = opening * chance.choice([50, 5000])
        return bytes(changed), "deep sequences"
    short = raw[place + 4 : place + 6].isalpha()
    at, form = (place + 6, "<H") if short else (place + 4, "<I")
    old = struct.unpack_from(form, raw, at)[0]
    new = chance.choice([*LENGTHS, old + 2, old + 8, max(old - 2, 0), 2 * old])
    struct.pack_into(form, changed, at, new & (0xFFFF if short else 0xFFFFFFFF))
    return bytes(changed), "length field"


def _element(raw: bytes, chance: random.Random) -> Damaged:
    """Delete or replace an element, its VR or a sequence's items; the file stays well-formed."""
    dataset = pydicom.dcmread(io.BytesIO(raw))
    places = list(_datasets(dataset))
    inside = chance.choice(places[:1] * 3 + places)
    tags = [tag for tag in inside.keys() if tag != 0x7FE00010 or chance.random() < 0.2]
    if not tags:
        return damage_bytes(raw, chance)
    tag = chance.choice(tags)
    way = chance.choice(["delete", "value", "value", "number", "VR", "items", "deep", "move"])
    keyword = pydicom.datadict.keyword_for_tag(tag) or str(tag)
    element = inside[tag]
    items = element.value if element.VR == "SQ" else []
    if way == "delete":
        del inside[tag]
    elif way == "items" and items:
        number = chance.randrange(len(items))
        changed = chance.choice([items[:number] + items[number + 1 :], [*items, items[number]], items[::-1]])
        element.value = Sequence(changed)
    elif way == "deep":
        deep = Dataset()
        for _ in range(chance.choice([3, 20])):
            outer = Dataset()
            outer.ReferencedImageSequence = [deep]
            deep = outer
        inside.SourceImageSequence = [deep]
    elif way == "move" and len(places) > 1 and element.VR != "SQ":  # which could be put into itself
        chance.choice(places)[tag] = element
    else:
        values = {"number": str(chance.choice(SIZES)).encode(), "VR": str(element.value)[:40].encode()}
        if element.VR == "US" and way != "VR":
            value = struct.pack("<H", chance.choice(SIZES))
        else:
            value = values.get(way) or chance.choice(NONSENSE)
        vr = chance.choice(VRS) if way == "VR" else element.VR if element.VR != "SQ" else "OB"
        value += b" " * (len(value) % 2)
        inside._dict[tag] = RawDataElement(pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True)
    out = io.BytesIO()
    try:
        dataset.save_as(out)
    except Exception:  # the damage itself cannot be written
        return damage_bytes(raw, chance)
    return out.getvalue(), f"{way} of {keyword}"


def _datasets(dataset: Dataset):
    yield dataset
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                yield from _datasets(item)


# ---- other files -------------------------------------------------------------------------------------------


def damage_nifti(raw: bytes, chance: random.Random) -> Damaged:
    """A field of the header, or bytes; of a compressed file inside the stream, or outside."""
    packed = raw[:2] == b"\x1f\x8b"
    inner = zlib.decompress(raw, 47) if packed and chance.random() < 0.8 else raw
    if inner is raw and packed:
        return damage_bytes(raw, chance)
    if chance.random() < 0.6:
        changed = bytearray(inner)
        place, form = chance.choice(
            [
                *((40 + 2 * n, "<h") for n in range(8)),
                (70, "<h"),
                (72, "<h"),
                (344, "<4s"),
                (252, "<h"),
                (254, "<h"),
            ]
            + [(place, "<f") for place in (76, 80, 84, 88, 108, 112, 116, *range(256, 328, 4))]
        )
        odd = [0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30, 352.0, 2e9, 0.5]
        values = {
            "<h": [*SIZES[:-1], -1, -32768, 4, 8, 16, 64, 2304],
            "<f": odd,
            "<4s": [b"ni1\0", b"n+2\0", b"\0" * 4],
        }
        struct.pack_into(form, changed, place, chance.choice(values[form]))
        inner, what = bytes(changed), f"header field at {place}"
    else:
        inner, what = damage_bytes(inner, chance)
    if not packed:
        return inner, what
    squeezer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return squeezer.compress(inner) + squeezer.flush(), what


def damage_picture(raw: bytes, chance: random.Random) -> Damaged:
    """Bytes, or the declared size, with a right checksum in a PNG."""
    changed = bytearray(raw)
    sizes = [chance.choice([*SIZES, 100_000, 0x7FFFFFFF]) for _ in range(2)]
    if chance.random() < 0.7:
        return damage_bytes(raw, chance)
    if raw[:4] == b"\x89PNG":
        changed[16:26] = struct.pack(
            ">IIBB", *sizes, chance.choice([1, 8, 16]), chance.choice([0, 2, 3, 4, 6])
        )
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    else:
        place = next(n for n in range(len(raw)) if raw[n : n + 2] in (b"\xff\xc0", b"\xff\xc2"))
        changed[place + 5 : place + 9] = struct.pack(">HH", *(size & 0xFFFF for size in sizes))
    return bytes(changed), "declared size"


ODD_VALUES = (
    None,
    True,
    -1,
    0,
    1e300,
    10**40,
    "",
    "\0",
    "../../etc/x",
    "\u202e" * 5,
    [],
    {},
    [[]],
    {"": None},
)


def damage_json(raw: bytes, chance: random.Random) -> Damaged:
    """Bytes, or a value somewhere in the tree: another type, gone, doubled, or nested thousands deep."""
    if chance.random() < 0.3:
        return damage_bytes(raw, chance)
    content = json.loads(raw)
    nodes: list = []

    def walk(node) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            nodes.append((node, key))
            walk(node[key])

    walk(content)
    parent, key = chance.choice(nodes)
    way = chance.choice(["replace", "replace", "delete", "double", "deep", "root"])
    if way == "delete":
        del parent[key]
    elif way == "double" and isinstance(parent, list):
        parent.append(parent[key])
    elif way == "root":
        content = chance.choice(ODD_VALUES)
    elif way == "deep":
        parent[key] = "DEEP"
        depth = chance.choice([10, 900, 100_000])
        return json.dumps(content).replace('"DEEP"', "[" * depth + "]" * depth).encode(), "deep value"
    else:
        parent[key] = chance.choice(ODD_VALUES)
    return json.dumps(content).encode(), f"{way} value"


def damage_zip(raw: bytes, chance: random.Random) -> Damaged:
    """Bytes of a checkpoint, or of one of its members, with right checksums and perhaps deflated."""
    if chance.random() < 0.4:
        return damage_bytes(raw, chance)
    with zipfile.ZipFile(io.BytesIO(raw)) as old:
        members = [(info.filename, old.read(info)) for info in old.infolist()]
    number = chance.randrange(len(members))
    name, content = members[number]
    way = chance.choice(["change", "change", "empty", "remove", "bomb"])
    if way == "remove":
        del members[number]
    elif way == "bomb":
        members[number] = (name, bytes(200 << 20))
    else:
        members[number] = (name, b"" if way == "empty" or not content else damage_bytes(content, chance)[0])
    out = io.BytesIO()
    kind = (
        zipfile.ZIP_DEFLATED if way == "bomb" else chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    )
    with zipfile.ZipFile(out, "w", kind) as new:
        for name, content in members:
            new.writestr(name, content)
    return out.getvalue(), f"{way} member"


def differing_elements(before: bytes, after: bytes) -> str:
    """Which DICOM elements differ between two files, as keywords: what a silent change came from."""
    try:
        old, new = (_flat(pydicom.dcmread(io.BytesIO(raw), force=True)) for raw in (before, after))
    except Exception as error:
        return f"pydicom itself: {type(error).__name__}"
    changed = {key.split("/")[-1] for key in old.keys() & new.keys() if old[key] != new[key]}
    lost = {key.split("/")[-1] for key in old.keys() - new.keys()}
    more = {key.split("/")[-1] for key in new.keys() - old.keys()}
    words = [
        f"{what} {', '.join(sorted(keys)[:3])}"
        for what, keys in (("changed", changed), ("lost", lost), ("new", more))
        if keys
    ]
    return "; ".join(words) or "nothing that pydicom sees"


def _flat(dataset: Dataset, path: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for element in dataset:
        name = f"{path}/{element.keyword or element.tag}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                found |= _flat(item, f"{name}[{number}]")
        else:
            value = element.value
            found[name] = (
                value.hex()
                if isinstance(value, bytes)
                else repr(value)
                if not isinstance(value, np.ndarray)
                else str(value)
            )
    return found
