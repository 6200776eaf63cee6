"""How well two results agree. Every function states its unit and its answer for empty input."""

from medseg.metrics.surfaces import (
    PATH_DEFINITION,
    SURFACE_DEFINITION,
    SurfaceDistances,
    added_path_length_mm,
    dice,
    hd95_mm,
    mean_surface_distance_mm,
    surface_dice,
    surface_distances,
    volume_cc,
)

__all__ = [
    "PATH_DEFINITION",
    "SURFACE_DEFINITION",
    "SurfaceDistances",
    "added_path_length_mm",
    "dice",
    "hd95_mm",
    "mean_surface_distance_mm",
    "surface_dice",
    "surface_distances",
    "volume_cc",
]
