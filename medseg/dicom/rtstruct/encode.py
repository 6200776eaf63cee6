"""Contours as DICOM items: written as bytes in Implicit VR Little Endian, because a rough organ has a million
numbers.

pydicom would make an object of each number (20 s for such an organ, measured); here they are formatted
together. Writers that leave it to pydicom take 9 to 42 times as long for nine structures
(tools/benchmarks/rtstruct/run.py write; docs/reference/benchmark_rtstruct.md).
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import Geometry

DECIMALS = 3
"""Coordinates are written to 1 micrometre, far below any pixel, and stay well below the 16 characters of a
DS."""

AREA_TYPES = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "INTERPOLATED_PLANAR")
"""Contour Geometric Types that bound an area (DICOM PS3.3 C.8.8.6.1); the others are points and open
lines."""

LARGEST_MM = 1e7
"""Beyond this a coordinate in micrometres would not be exact, and no patient is that far away."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One contour as stored: Contour Geometric Type, points (n, 3) in LPS mm, UIDs of the images that it
    refers to."""

    geometric_type: str
    points_lps_mm: np.ndarray
    image_uids: tuple[str, ...] = ()

    @property
    def bounds_an_area(self) -> bool:
        """False for points and open lines."""
        return self.geometric_type in AREA_TYPES


def contour_sequence(
    loops: Mapping[int, Sequence[np.ndarray]],
    geometry: Geometry,
    image_items: Sequence[bytes],
    geometric_type: str,
) -> bytes:
    """The items of a Contour Sequence (3006,0040), encoded; b"" for no loops.

    ``loops``: {slice index: [(row, column) pairs (n, 2)]}, placed by each slice's own position.
    ``image_items``: for each slice the encoded item that refers to its image. Points equal after rounding to
    their neighbour are dropped; a loop that keeps fewer than 3 points (a sliver below a micrometre) is left
    out. GeometryError for coordinates above 10 km.
    """
    owners, points = [], []
    for index, slice_loops in loops.items():
        for loop in slice_loops:
            micrometres = _micrometres(geometry.points_lps_mm(index, loop))
            moved = np.any(micrometres != np.roll(micrometres, 1, axis=0), axis=1)
            if moved.sum() >= 3:
                owners.append(index)
                points.append(micrometres[moved])
    if not points:
        return b""
    texts = _decimal_strings(np.concatenate(points))
    items, start = [], 0
    for index, count in zip(owners, map(len, points), strict=True):
        coordinates = b"\\".join(texts[start : start + 3 * count])
        start += 3 * count
        items.append(
            item(
                element(0x3006, 0x0016, image_items[index])
                + element(0x3006, 0x0042, geometric_type.encode())
                + element(0x3006, 0x0046, str(count).encode())
                + element(0x3006, 0x0050, coordinates)
            )
        )
    return b"".join(items)


def point_sequence(point_lps_mm: np.ndarray, image: bytes) -> bytes:
    """The one item of a Contour Sequence that marks a place, encoded; ``image``: the item that refers to the
    image it lies on."""
    coordinates = b"\\".join(_decimal_strings(_micrometres(np.reshape(point_lps_mm, (1, 3)))))
    return item(
        element(0x3006, 0x0016, image)
        + element(0x3006, 0x0042, b"POINT")
        + element(0x3006, 0x0046, b"1")
        + element(0x3006, 0x0050, coordinates)
    )


def image_item(sop_class_uid: str, sop_instance_uid: str, frame_number: int | None) -> bytes:
    """An encoded item that refers to one image, or to one frame of it."""
    encoded = element(0x0008, 0x1150, sop_class_uid.encode(), b"\0") + element(
        0x0008, 0x1155, sop_instance_uid.encode(), b"\0"
    )
    if frame_number is not None:
        encoded += element(0x0008, 0x1160, str(frame_number).encode())
    return item(encoded)


def element(group: int, number: int, value: bytes, padding: bytes = b" ") -> bytes:
    """One data element: tag, 4-byte length, value padded to even length (DICOM PS3.5 7.1.3)."""
    if len(value) % 2:
        value += padding
    return struct.pack("<HHI", group, number, len(value)) + value


def item(content: bytes) -> bytes:
    """One sequence item of known length (DICOM PS3.5 7.5)."""
    return element(0xFFFE, 0xE000, content)


def parse_points_lps_mm(contour_data: bytes) -> np.ndarray:
    """Points (n, 3) of a raw Contour Data value. ValueError when it is not made of triples of finite
    numbers."""
    text = contour_data.rstrip(b"\0 ")
    if not text:
        return np.zeros((0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", DeprecationWarning
        )  # numpy's way to say that it stopped at something else
        values = np.fromstring(
            text, sep="\\"
        )  # reads decimals itself, twice as fast as one Python object for each
    if len(values) != text.count(b"\\") + 1:
        raise ValueError("a coordinate is empty")
    if not np.isfinite(values).all():
        raise ValueError("a coordinate is not finite")
    return values.reshape(-1, 3)


def _micrometres(points_lps_mm: np.ndarray) -> np.ndarray:
    if np.abs(points_lps_mm).max() > LARGEST_MM:
        raise GeometryError(
            f"a contour lies {np.abs(points_lps_mm).max() / 1e6:.0f} km from the origin; check the images."
        )
    return np.rint(points_lps_mm * 10**DECIMALS).astype(np.int64)


def _decimal_strings(micrometres: np.ndarray) -> list[bytes]:
    """Shortest decimal text of every number, in order: -12500 becomes b"-12.5". Each distinct number is
    formatted once."""
    distinct, inverse = np.unique(micrometres, return_inverse=True)
    texts = []
    for value in distinct.tolist():
        whole, rest = divmod(abs(value), 10**DECIMALS)
        text = f"{whole}.{rest:0{DECIMALS}d}".rstrip("0").rstrip(".")
        texts.append((f"-{text}" if value < 0 else text).encode())
    lookup = np.array(texts, dtype=object)
    return lookup[inverse.ravel()].tolist()
