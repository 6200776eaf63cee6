"""Cut a radiograph to the box that somebody drew on it with an annotation tool, or that a detector found."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform

from medseg.cases.box_sources import read_voc
from medseg.errors import InputError
from medseg.files import load_json

BESIDE = "beside"


class CropToDrawnBoxd(MapTransform, InvertibleTransform):
    """Cut radiographs to the one box of their Pascal VOC XML file (LabelImg), or the best box that a detector
    found; MONAI's Invertd puts a map back into the whole film.

    ``boxes``: a folder with ``<image's name without its ending>.xml``, or what ``medseg segment`` wrote of
    the films with a bundle that answers with boxes, ``<name>/boxes.json``, of which the one with the highest
    score counts; "beside" where the XML lies beside the image, links followed; None leaves films whole. A
    film without either is an InputError, since a network that saw cut films knows nothing of whole ones; so
    are a file with no box, an XML file with several, and a box that reaches beyond the film. Stands right
    behind the reader: (1, row, column) MetaTensors, in the file's own pixels, of which those that the box
    touches are kept.
    """

    def __init__(self, keys: KeysCollection = "image", boxes: str | Path | None = None):
        super().__init__(keys)
        self.boxes, self.crop = boxes, Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.boxes is not None else ():
            low, high = self.corners(d[key])
            d[key] = self.crop(d[key], slices=Crop.compute_slices(roi_start=low, roi_end=high))
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            done = d[key].applied_operations
            if done and done[-1]["class"] == type(self.crop).__name__:
                d[key] = self.crop.inverse(d[key])
        return d

    def corners(self, image: MetaTensor) -> tuple[list[int], list[int]]:
        """First row and column of the image's box, and the row and column behind the last."""
        file = Path(image.meta["filename_or_obj"]).resolve()
        folder = file.parent if self.boxes == BESIDE else Path(self.boxes)
        path, found = folder / f"{file.stem}.xml", folder / file.stem / "boxes.json"
        if path.exists() or not found.exists():
            drawn = [(box.low, box.high) for box in read_voc(path, None) if box.low is not None]
        else:
            path, drawn = found, _found(found)[:1]
        if len(drawn) != 1:
            raise InputError(f"{path}: {len(drawn)} boxes; expected one, which the film is cut to.")
        low, high = [math.floor(n) for n in drawn[0][0]], [math.ceil(n) for n in drawn[0][1]]
        rows, columns = image.shape[1:]
        if not (0 <= low[0] < high[0] <= rows and 0 <= low[1] < high[1] <= columns):
            raise InputError(
                f"{path}: a box of rows {low[0]} to {high[0]} and columns {low[1]} to {high[1]} on a film of "
                f"{rows} x {columns} pixels; was it drawn on another one?"
            )
        return low, high


def _found(path: Path) -> list[tuple[list[float], list[float]]]:
    """Corners of the boxes of an answer, the highest score first."""
    try:
        boxes = load_json(path)["boxes"]["found"]
        return [([float(n) for n in box["low"]], [float(n) for n in box["high"]]) for box in boxes]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no boxes of `medseg segment` ({type(error).__name__}: {error})."
        ) from error
