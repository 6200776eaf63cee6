"""Write boxes: a table, places in a planning system, a picture. (JSON and Structured Reports are for every
result: SaveRecordd, SaveDicomSRd.)"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.mask_boxes import voxels_about
from medseg.cases.results import Boxes
from medseg.errors import InputError, MedsegWarning
from medseg.files import atomic_path
from medseg.geometry import Geometry
from medseg.shapes.packed import Boxed, PackedMasks, pack
from medseg.structures.structure import Structure
from medseg.transforms.saving import REMARK_LABEL, SaveCased, case_folder

LUNA16 = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "class", "probability")
"""Columns of LUNA16's candidates with two more; its world coordinates are DICOM's, LPS in mm."""

FLAT = ("image", "label", "xmin", "ymin", "xmax", "ymax", "score")
MARKS = ("POINT", "circle", "outline")


class SaveBoxesd(SaveCased):
    """Shared shape of the writers of boxes."""

    def __init__(self, keys="boxes", output_dir: str | Path = "."):
        super().__init__(keys, output_dir)

    def name_of(self, case) -> str:
        """The file's name without its ending; of a volume, its folder's."""
        return super().name_of(case) if case.kind == "volume" else Path(case.source).stem


class SaveBoxTabled(SaveBoxesd):
    """Write ``boxes.csv``, best first: of a volume the middle of each box in LUNA16's world coordinates and
    its mean side; of a flat image its corners in pixels."""

    def save(self, result: Boxes, folder: Path) -> None:
        is_volume = result.case.kind == "volume"
        with (
            atomic_path(folder / "boxes.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(LUNA16 if is_volume else FLAT)
            for index in result.ranked():
                low, high = result.corners[index]
                score, name = f"{result.scores[index]:.6g}", result.classes[index]
                if is_volume:
                    series = result.case.series
                    uid = folder.name if series is None else series.series_instance_uid
                    numbers = [*((low + high) / 2), (high - low).mean()]
                    table.writerow([uid, *(f"{mm:.3f}" for mm in numbers), name, score])
                else:
                    corners = (low[1], low[0], high[1], high[0])
                    image = Path(result.case.source).name
                    table.writerow([image, name, *(f"{pixels:.2f}" for pixels in corners), score])


class SaveBoxRTStructd(SaveBoxesd):
    """Write ``RS.dcm`` with one ROI per box, "<class>_1" the best, so that a planning system can jump there.

    ``mark``: "POINT", the middle of the box, "circle", contours of the ellipsoid within it, or "outline",
    those of its mask. Nothing is written, with a MedsegWarning, when there is no box. InputError for another
    mark, for the outline of boxes without masks and for a volume that is no DICOM series.
    """

    def __init__(
        self, keys="boxes", output_dir=".", mark="POINT", model_name="", model_version="", overwrite=False
    ):
        super().__init__(keys, output_dir)
        if mark not in MARKS:
            raise InputError(f"mark {mark!r}: expected one of {', '.join(MARKS)}.")
        self.mark = mark
        self.options = {"model": (model_name, model_version), "overwrite": overwrite}

    def save(self, result: Boxes, folder: Path) -> None:
        from medseg.dicom.rtstruct.write import write_points, write_rtstruct

        series = result.case.series
        if series is None:
            raise InputError(f"{result.case.source}: RTSTRUCT needs a DICOM series to refer to.")
        if not len(result.scores):
            warnings.warn("no RS.dcm: no box was found", MedsegWarning, stacklevel=2)
            return
        if self.mark == "outline" and not result.masks:
            raise InputError("mark outline: these boxes have no masks; choose POINT or circle.")
        options = {**self.options, **({"label": REMARK_LABEL} if result.remark else {})}
        marked: dict[Structure, Any] = {}
        for number, index in enumerate(result.ranked(), 1):
            said = f"{result.remark} Score {result.scores[index]:.2f}.".strip()
            name = f"{result.classes[index]} {number}".replace(
                " ", "_"
            )  # as TG-263 joins the parts of a name
            structure = Structure(name, generation_description=said)
            marked[structure] = self._drawn(result, index)
        if self.mark == "POINT":
            write_points(marked, series, folder / "RS.dcm", **options)
        else:
            write_rtstruct(PackedMasks(result.case.shape, marked), series, folder / "RS.dcm", **options)

    def _drawn(self, result: Boxes, index: int) -> np.ndarray | Boxed:
        """A point, LPS mm, or a packed mask."""
        corners = result.corners[index]
        if self.mark == "outline":
            return result.masks[index]
        return corners.mean(axis=0) if self.mark == "POINT" else _ellipsoid(result.case.geometry, corners)


def _ellipsoid(grid: Geometry, corners_lps_mm: np.ndarray) -> Boxed:
    """The voxels whose middle lies within the ellipsoid of a box; of one between all middles the nearest
    voxel, since a planning system cannot jump to an ROI without a contour."""
    middle, half = corners_lps_mm.mean(axis=0), np.diff(corners_lps_mm, axis=0)[0] / 2
    corner, points = voxels_about(grid, corners_lps_mm)
    inside = (((points - middle) / half) ** 2).sum(axis=-1) <= 1
    if inside.any():
        return pack(inside, corner)
    index, _ = grid.nearest_slice(middle[None])
    place = np.clip(np.rint(grid.rows_columns(index, middle[None])[0]), 0, np.array(grid.shape[1:]) - 1)
    return pack(np.ones((1, 1, 1), dtype=bool), (int(index), *place.astype(int).tolist()))


class SaveBoxPictured(SaveBoxesd):
    """Write ``preview.png``: a flat image with its boxes, and beside it under each of the maps that
    :class:`medseg.transforms.BoxMapsd` made, if it did; of a volume the best boxes in three planes."""

    def __init__(self, keys="boxes", output_dir: str | Path = ".", map_key: str = "map"):
        super().__init__(keys, output_dir)
        self.map_key = map_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        from medseg.reports.boxes import write_box_montage, write_box_picture

        names = data.get(f"{self.map_key}_names", ())
        maps = {name: np.asarray(heat) for name, heat in zip(names, data.get(self.map_key, ()), strict=True)}
        for key in self.key_iterator(dict(data)):
            result = data[key]
            folder = case_folder(data.get("case_name") or self.name_of(result.case), self.output_dir)
            if result.case.kind == "volume":
                write_box_montage(result, folder / "preview.png", folder.name)
            else:
                write_box_picture(result, folder / "preview.png", maps, folder.name)
        return dict(data)
