"""Open a photograph for the network, even out its light, and write what was found on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage

from medseg.cases.find import folder_name
from medseg.cases.photograph import Photograph, field_of_view, open_photograph
from medseg.cases.pictures import write_probability_png
from medseg.cases.results import Structures
from medseg.errors import InputError
from medseg.structures.structure import Structure
from medseg.transforms.flat import SaveFlatd, ToFlatStructuresd
from medseg.transforms.readers import CASE_KIND_KEY

COLOURS = ("colour", "grey", "any")
SMALL_SIDE = 256
"""Light varies slowly: its background is worked out on a picture of about this size."""


class LoadPhotographd(MapTransform):
    """Load PNG, JPEG, TIFF or DICOM photographs through :func:`medseg.cases.photograph.open_photograph` and
    no other reader.

    ``colours``: what the network learned from. "colour" refuses a grey picture, which has lost what tells
    lesions apart, "grey" (angiography) refuses a coloured one, both with InputError; "any" takes both, a grey
    one as three equal channels. Output: MetaTensor (3, row, column), float32, 0 to 1.
    """

    def __init__(self, keys, colours: str = "colour"):
        super().__init__(keys)
        if colours not in COLOURS:
            raise InputError(f"colours is {colours!r}; expected one of {', '.join(COLOURS)}.")
        self.colours = colours

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            case = open_photograph(d[key])
            found = "grey" if case.is_grey else "colour"
            if self.colours not in ("any", found):
                raise InputError(
                    f"{case.source}: the photograph is {'grey' if case.is_grey else 'coloured'}; this bundle "
                    f"learned from {'colour' if case.is_grey else 'grey'} photographs."
                )
            meta = {
                "filename_or_obj": case.source,
                "spatial_shape": np.asarray(case.shape),
                "original_channel_dim": 0,
                CASE_KIND_KEY: case.kind,
            }
            channels = np.ascontiguousarray(case.pixels.transpose(2, 0, 1))
            d[key] = MetaTensor(torch.from_numpy(channels), meta=meta)
        return d


class NormaliseIlluminationd(MapTransform):
    """Every colour less its background, over the spread of what remains; 0 outside the field of view.

    The background is a Gaussian mean within the field of view whose standard deviation is
    ``background_share`` of the picture's longer side, so a bright vignette, a dim exposure and a pigmented
    retina look alike, and lesions much smaller than it stay. The spread is the standard deviation over the
    whole field of view, so that a picture without lesions is not stretched into having some. Values are cut
    at ``limit`` standard deviations. Input and output: (3, row, column) float. Source: local mean
    subtraction, as usual for fundus photographs (e.g. Foracchia, Grisan and Ruggeri, Medical Image Analysis
    9:179-190, 2005).
    """

    def __init__(self, keys, background_share: float = 0.06, limit: float = 8.0):
        super().__init__(keys)
        if not 0 < background_share <= 1 or limit <= 0:
            raise InputError(
                f"background_share {background_share}, limit {limit}: expected a share of the picture and a "
                "limit, both above 0."
            )
        self.background_share, self.limit = background_share, limit

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            evened = self.even(torch.as_tensor(image).numpy())
            d[key] = MetaTensor(torch.from_numpy(evened)).copy_meta_from(image)
        return d

    def even(self, pixels: np.ndarray) -> np.ndarray:
        """float32 (3, row, column) of float pixels (3, row, column)."""
        field = field_of_view(pixels.transpose(1, 2, 0))
        step = max(1, max(field.shape) // SMALL_SIDE)
        sigma = self.background_share * max(field.shape) / step
        weight = _block_means(field.astype(np.float32), step)
        weights = ndimage.gaussian_filter(weight, sigma) + 1e-6
        evened = np.empty(pixels.shape, dtype=np.float32)
        for channel, plane in enumerate(pixels):
            light = _block_means(plane * field, step)
            background = ndimage.gaussian_filter(light, sigma) / weights
            rest = (plane - _enlarged(background, step, field.shape)) * field
            spread = float(rest[field].std()) + 1e-6
            evened[channel] = np.clip(rest / spread, -self.limit, self.limit)
        return evened


def _block_means(plane: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks of ``step`` pixels; the borders are repeated to fill the last ones."""
    rows, columns = plane.shape
    padded = np.pad(plane, ((0, -rows % step), (0, -columns % step)), mode="edge")
    return padded.reshape(padded.shape[0] // step, step, -1, step).mean(axis=(1, 3))


def _enlarged(small: np.ndarray, step: int, shape: tuple[int, int]) -> np.ndarray:
    """Block means back on the pixels, linear between the blocks' middles."""
    if step == 1:
        return small
    padded = [n * step for n in small.shape]
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(small)[None, None], size=padded, mode="bilinear", align_corners=False
    )
    return whole[0, 0].numpy()[: shape[0], : shape[1]]


class ToPhotographStructuresd(ToFlatStructuresd):
    """Probabilities (C, row, column), inverted to the file's own pixels, to named structures of the
    photograph, 0 outside its field of view. See :class:`medseg.transforms.flat.ToFlatStructuresd`."""

    def open(self, source: str) -> Photograph:
        return open_photograph(source)

    def masks(self, case: Photograph, channels: torch.Tensor) -> dict[Structure, np.ndarray]:
        maps = channels.numpy().astype(np.float32) * field_of_view(case.pixels)
        return dict(zip(self.structures, maps, strict=True))


class SavePhotographd(SaveFlatd):
    """Write a photograph's structures into ``output_dir/<case name>/``, in each of ``formats``.

    png: ``<Structure>.png``, 0 and 255, inside from a probability of 0.5 on; probability:
    ``<Structure>_probability.png``, grey of 16 bits; seg: ``SEG.dcm`` that refers to the DICOM image;
    preview: ``preview.png``, the photograph with outlines. Refuses as
    :class:`medseg.transforms.flat.SaveFlatd` does.
    """

    def probability(self, result: Structures, folder: Path) -> None:
        for structure, mask in result.masks.items():
            write_probability_png(mask, folder / f"{folder_name(structure.name)}_probability.png")

    def preview(self, result: Structures, folder: Path) -> None:
        from medseg.reports.photograph import write_preview

        write_preview(result, folder / "preview.png", case_id=folder.name)

    WRITERS = {"png": SaveFlatd.png, "probability": probability, "seg": SaveFlatd.seg, "preview": preview}
