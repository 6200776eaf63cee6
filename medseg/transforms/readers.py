"""MONAI's view of a case: image readers that refuse what they cannot place. One for every door."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
from monai.data import ImageReader

from medseg.cases.multimodal import open_multimodal
from medseg.cases.radiograph import Radiograph, open_radiograph
from medseg.cases.volume import ALLOWABLE_AT_THE_GATE, Case, open_case, resample
from medseg.errors import InputError

ALLOW_KEY = "allowed_faults"
"""Meta data key: one string, because MONAI's collate turns lists inside out."""

SERIES_KEY = "further_series"
"""Meta data key: JSON of what :func:`note_series` was told, one string for the same reason."""

REMARK_KEY = "remark"
"""Meta data key: what has to stand in every file that is written of this image, "" or missing for nothing."""

CASE_KIND_KEY = "case_kind"
"""Meta data key: "photograph" of a photograph; a radiograph or volume does without."""


class CaseReader(ImageReader):
    """MONAI ImageReader for DICOM series and NIfTI that refuses what it cannot place.

    Arrays come as (x=column, y=row, z=slice) with an RAS affine, as MONAI expects. Uneven or tilted stacks,
    which have no affine, come resampled on their regular grid; :class:`medseg.transforms.ToStructuresd`
    samples results back.

    Give it to ``LoadImage`` at call time or use :class:`medseg.transforms.LoadCased`: a reader that is only
    *registered* is followed by MONAI's own readers when it raises, and those would load the refused series.
    """

    def __init__(self, allow: tuple[str, ...] = ()):
        super().__init__()
        self.allow = tuple(name for name in allow if name not in ALLOWABLE_AT_THE_GATE)

    def verify_suffix(self, filename) -> bool:
        """MONAI's question whether this reader suits; folders, NIfTI and DICOM files do."""
        return True

    def read(self, data, **kwargs) -> Case:
        """Open one case source (a string, or a sequence that holds one)."""
        sources = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        if len(sources) != 1:
            raise InputError(f"{len(sources)} sources for one image; expected one folder or file.")
        return open_case(os.fspath(sources[0]), self.allow)

    def get_data(self, img: Case) -> tuple[np.ndarray, dict]:
        """The volume (x, y, z) on a regular grid, and MONAI's meta data."""
        grid = img.geometry.regular_grid()
        volume = img.volume if grid is img.geometry else resample(img.volume, img.geometry, grid)
        array = volume.transpose(2, 1, 0)
        meta = {
            "affine": grid.affine_ras,
            "original_affine": grid.affine_ras,
            "space": "RAS",
            "spatial_shape": np.asarray(array.shape),
            "original_channel_dim": float("nan"),
            ALLOW_KEY: ",".join(self.allow),
        }
        return array, meta


def case_of(meta: dict) -> Case:
    """The case that an image or a prediction with this MONAI meta data belongs to: a Multimodal one where
    :func:`note_series` was told of others."""
    allow = tuple(name for name in meta.get(ALLOW_KEY, "").split(",") if name)
    if not meta.get(SERIES_KEY):
        return open_case(meta["filename_or_obj"], allow)
    return open_multimodal(meta["filename_or_obj"], **json.loads(meta[SERIES_KEY]), allow=allow)


def note_series(
    meta: dict, others: Mapping[str, str], registrations: Sequence[str], missing: Sequence[str]
) -> None:
    """Write into an image's meta data which further series its case has; see
    :func:`medseg.cases.multimodal.open_multimodal`."""
    said = {"others": dict(others), "registrations": list(registrations), "missing": list(missing)}
    meta[SERIES_KEY] = json.dumps(said)


class RadiographReader(ImageReader):
    """MONAI ImageReader for radiographs: arrays are (row, column), not turned over as MONAI's PILReader
    would.

    The affine that MONAI attaches counts pixels, since millimetres are often unknown and never needed by the
    network. Use :class:`medseg.transforms.LoadRadiographd`, which has no other reader to fall back on when
    this one refuses a file.
    """

    def verify_suffix(self, filename) -> bool:
        """MONAI's question whether this reader suits; pictures and DICOM files do."""
        return True

    def read(self, data, **kwargs) -> Radiograph:
        """Open one file (a path, or a sequence that holds one)."""
        sources = [data] if isinstance(data, (str, os.PathLike)) else list(data)
        if len(sources) != 1:
            raise InputError(f"{len(sources)} sources for one picture; expected one file.")
        return open_radiograph(sources[0])

    def get_data(self, img: Radiograph) -> tuple[np.ndarray, dict]:
        """The grey values (row, column), and MONAI's meta data."""
        meta = {"spatial_shape": np.asarray(img.pixels.shape), "original_channel_dim": float("nan")}
        return img.pixels, meta
