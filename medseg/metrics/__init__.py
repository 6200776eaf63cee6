"""How well two results agree. Every function states its unit and its answer for empty input.

Empty masks: with both empty there is nothing to compare and every measure is nan (leave it out of means);
with one empty, overlaps are 0 and distances are infinite. The added path length is a length to draw, so it
is 0 without a reference.
"""

from medseg.metrics.intervals import Interval, interval, mean_interval
from medseg.metrics.overlap import centre_lps_mm, dice, volume_cc
from medseg.metrics.paths import PATH_DEFINITION, added_path_length_mm
from medseg.metrics.surfaces import (
    SURFACE_DEFINITION,
    SurfaceDistances,
    hd95_mm,
    mean_surface_distance_mm,
    surface_dice,
    surface_distances,
)

__all__ = [
    "Interval",
    "PATH_DEFINITION",
    "SURFACE_DEFINITION",
    "SurfaceDistances",
    "added_path_length_mm",
    "centre_lps_mm",
    "dice",
    "hd95_mm",
    "interval",
    "mean_interval",
    "mean_surface_distance_mm",
    "surface_dice",
    "surface_distances",
    "volume_cc",
]
