"""CT series of the chiral phantom, and what a run of a bundle made of them."""

from __future__ import annotations

import json

import numpy as np
import SimpleITK

from medseg.bundles.cohort import segment
from medseg.bundles.request import Request
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import stack_geometry, write_series

MARKER_CC = 4 / 3 * np.pi * 0.7**3


def chiral_series(folder, seed=0, **geometry):
    """64 x 72 pixels fill whole bytes of a bit-packed SEG; SimpleITK reads bits of a last, partial byte from
    free memory."""
    phantom = chiral_phantom(
        stack_geometry(
            (34, 64, 72),
            **{"gaps_mm": 2.5, "pixel_spacing_mm": (1.5, 1.25), "centre_lps_mm": (7, -20, 110), **geometry},
        )
    )
    write_series(phantom.volume_hu, phantom.geometry, folder, seed=seed)
    return phantom


def contoured(bundle, source, out, **options):
    cohort = segment(Request(source, str(bundle), out, **options))
    record = cohort["cases"][0]
    assert record["status"] == "done", record
    return out / "CT"


def image_centroid(path):
    """LPS mm of the mean foreground voxel, by SimpleITK."""
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    indices = np.argwhere(array > 0).mean(0)[::-1]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(indices.tolist()))


def case_at(out, name="CT"):
    return json.loads((out / name / "run.json").read_text())
