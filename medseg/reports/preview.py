"""One picture of a contoured case: three planes through the target, a strip of slices, names and volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.cases.volume import resample
from medseg.errors import StructureError
from medseg.files import atomic_path
from medseg.geometry import Geometry
from medseg.metrics import volume_cc
from medseg.reports.pictures import WINDOW_HU, anatomical_axes
from medseg.shapes.boxes import box_of
from medseg.structures.structure import Structure, fixed_colour_rgb

STRIP_SLICES = 8
LOWEST_NAME = 0.045
"""Height in the figure below which the line of the disclaimer begins."""

STRIP_MARGIN_MM = 25.0
SCALE_MM = (50.0, 10.0)
DISCLAIMER = "medseg: automatic contours, UNAPPROVED. Research use only, not a medical device."


@dataclass(frozen=True)
class Overlay:
    """Another image of the patient, to be laid over the first in colour.

    ``sample``: gives (values, covered), both of a grid's shape, at the voxels of any grid in the first
    image's frame. ``window``: values drawn clear and full. ``name``: what the colours mean, in words.
    """

    sample: Callable[[Geometry], tuple[np.ndarray, np.ndarray]]
    window: tuple[float, float]
    name: str


OVERLAY_COLOURS, OVERLAY_STRENGTH = "hot", 0.6


@dataclass(frozen=True)
class _Shown:
    """Arrays turned to the display convention: axis 0 to Superior, axis 1 to Posterior, axis 2 to Left.

    ``affine_lps``: 4x4 from their indices to LPS mm. ``turn``: does to an array of the case what was done to
    these. ``overlay``: an image to lay over the volume, or None.
    """

    volume: np.ndarray
    masks: Mapping[Structure, np.ndarray]
    spacing_mm: tuple[float, float, float]
    affine_lps: np.ndarray
    turn: Callable[[np.ndarray], np.ndarray]
    overlay: Overlay | None = None

    def position_mm(self, axis: int, index: int) -> float:
        """z, y or x (LPS) of a plane across ``axis``, at its middle."""
        middle = (np.array(self.volume.shape) - 1) / 2
        middle[axis] = index
        return float(self.affine_lps[2 - axis, :3] @ middle + self.affine_lps[2 - axis, 3])

    def plane(self, view: _View) -> Geometry:
        """The drawn part of one plane as a grid of a single slice."""
        row_axis, column_axis = [other for other in range(3) if other != view.axis]
        corner, shape = np.zeros(3), [1, 0, 0]
        corner[view.axis] = view.index
        for place, (axis, part) in enumerate(zip((row_axis, column_axis), view.window, strict=True), 1):
            start, stop, _ = part.indices(self.volume.shape[axis])
            corner[axis], shape[place] = start, stop - start
        origin = self.affine_lps[:3, :3] @ corner + self.affine_lps[:3, 3]
        steps = self.affine_lps[:3, row_axis], self.affine_lps[:3, column_axis]
        return Geometry(tuple(shape), origin[None], *steps)


class _Turned(Mapping):
    """Masks turned when they are asked for, so that one at a time exists however many there are."""

    def __init__(
        self, masks: Mapping[Structure, np.ndarray], turn: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.masks, self.turn = masks, turn

    def __getitem__(self, structure: Structure) -> np.ndarray:
        return self.turn(self.masks[structure])

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)


def _turn_for_viewer(
    volume: np.ndarray,
    geometry: Geometry,
    masks: Mapping[Structure, np.ndarray],
    overlay: Overlay | None = None,
) -> _Shown:
    grid = geometry.regular_grid()
    order, flips = anatomical_axes(grid)

    def turn(array: np.ndarray) -> np.ndarray:
        if grid is not geometry:
            array = resample(array.astype(np.float32), geometry, grid)
        return np.flip(array.transpose(order), [axis for axis, flip in enumerate(flips) if flip])

    # A single slice has no height; it is drawn as thick as a pixel is wide, and no volume is given for it.
    spacing_mm = grid.spacing_mm if grid.shape[0] > 1 else (grid.pixel_spacing_mm[0], *grid.pixel_spacing_mm)
    return _Shown(
        turn(volume),
        _Turned(masks, turn),
        tuple(spacing_mm[axis] for axis in order),
        _turned_affine_lps(grid, order, flips),
        turn,
        overlay,
    )


def _turned_affine_lps(grid: Geometry, order: Sequence[int], flips: Sequence[bool]) -> np.ndarray:
    """4x4 from indices of an array that was transposed by ``order`` and then flipped, to LPS mm."""
    affine = grid.affine_lps[:, [*order, 3]]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (grid.shape[order[axis]] - 1)
            affine[:3, axis] *= -1
    return affine


def write_preview(
    volume: np.ndarray,
    geometry: Geometry,
    masks: Mapping[Structure, np.ndarray],
    out: str | Path,
    remark: str = "",
    case_id: str = "",
    overlay: Overlay | None = None,
) -> Path:
    """Draw ``masks`` (bool or probability, [slice, row, column]) on ``volume`` (HU) and save a PNG,
    atomically.

    Patient right is on the viewer's left, anterior and superior up, whatever the orientation of the stack.
    The planes go through the first GTV, or through all structures together where there is none. ``case_id``
    stands below, ``remark`` in red above. ``overlay``: another image, laid over in colour. Without any
    contoured voxel the middle of the image is shown and the picture says so. Raises StructureError for masks
    of another shape than the volume.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes, target = _measure(masks, volume.shape, geometry)
    shown = _turn_for_viewer(volume, geometry, masks, overlay)
    target = None if target is None else shown.turn(target) >= 0.5
    figure = Figure(figsize=(14, 8.4), facecolor="black")
    FigureCanvasAgg(figure)
    top = 0.93 if remark else 0.96
    rows = figure.add_gridspec(
        2, 1, height_ratios=(2.5, 1), left=0.02, right=0.98, top=top, bottom=0.13, hspace=0.12
    )
    views = [*_draw_planes(figure, rows[0], shown, target), *_draw_strip(figure, rows[1], shown, target)]
    for structure, mask in shown.masks.items():
        for view in views if sizes[structure] != "empty" else ():
            _draw_outline(view, structure, mask)
    words = f"{case_id}, {overlay.name} in colour" if overlay else case_id
    _draw_words(figure, sizes, words, nothing_found=target is None)
    draw_remark(figure, remark)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=110, facecolor="black")
    return Path(out)


def draw_remark(figure, remark: str) -> None:
    """One red line at the top of a picture, cut to its width; nothing for no remark."""
    if not remark:
        return
    text = figure.text(0.02, 0.985, remark, color="red", fontsize=11, va="center")
    text.set_bbox({"facecolor": "black", "pad": 2})
    while len(remark) > 20 and text.get_window_extent().width > 0.96 * figure.bbox.width:
        remark = remark[: -len(remark) // 20]
        text.set_text(f"{remark} ...")


def _measure(
    masks: Mapping[Structure, np.ndarray], shape: tuple[int, ...], geometry: Geometry
) -> tuple[dict[Structure, str], np.ndarray | None]:
    """(what to write beside each name; the voxels to look at: the first GTV, or all structures together, None
    when nothing is contoured). One mask at a time is open."""
    sizes: dict[Structure, str] = {}
    gtv, together = None, np.zeros(shape, bool)
    for structure, mask in masks.items():
        if mask.shape != shape:
            raise StructureError(f"{structure.name}: mask {mask.shape} for a volume of {shape}.")
        inside = mask >= 0.5
        cc = volume_cc(mask, geometry)
        if not inside.any():
            sizes[structure] = "empty"
            continue
        sizes[structure] = "volume unknown" if np.isnan(cc) else f"{cc:.1f} cc"
        together |= inside
        if gtv is None and structure.interpreted_type == "GTV":
            gtv = inside
    if gtv is not None:
        return sizes, gtv
    return sizes, together if together.any() else None


@dataclass(frozen=True)
class _View:
    """One slice drawn on ``ax``: ``index`` along ``axis``, within ``window`` of the two others."""

    ax: Any
    axis: int
    index: int
    window: tuple[slice, slice]


def _draw_planes(figure, cell, shown: _Shown, target: np.ndarray | None) -> list[_View]:
    from matplotlib.patheffects import withStroke

    sizes_mm = np.array(shown.volume.shape) * shown.spacing_mm
    centre = [n // 2 for n in shown.volume.shape]
    if target is not None:
        centre = [_middle(target, axis) for axis in range(3)]
    planes = (
        ("axial", 0, "RLAP", sizes_mm[2] / sizes_mm[1]),
        ("coronal", 1, "RLSI", sizes_mm[2] / sizes_mm[0]),
        ("sagittal", 2, "APSI", sizes_mm[1] / sizes_mm[0]),
    )
    widths = [min(max(ratio, 0.4), 2.5) for *_, ratio in planes]
    axes = cell.subgridspec(1, 3, width_ratios=widths, wspace=0.04).subplots()
    whole = (slice(None), slice(None))
    views = [_View(ax, axis, centre[axis], whole) for ax, (_, axis, *_) in zip(axes, planes, strict=True)]
    for ax, view, (name, _, letters, _) in zip(axes, views, planes, strict=True):
        _draw_slice(view, shown)
        coordinate = f"{'zyx'[view.axis]} {shown.position_mm(view.axis, view.index):.1f} mm"
        ax.set_title(f"{name}, {coordinate}", color="white", fontsize=12)
        draw_scale(ax, shown.spacing_mm[1 if view.axis == 2 else 2])
        places = ((0.015, 0.5), (0.985, 0.5), (0.5, 0.97), (0.5, 0.03))
        for letter, (x, y) in zip(letters, places, strict=True):
            text = ax.text(
                x, y, letter, color="gold", transform=ax.transAxes, ha="center", va="center", fontsize=12
            )
            text.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
    return views


def _middle(target: np.ndarray, axis: int) -> int:
    """The plane across ``axis`` with half of the target on either side, or the fullest, where that one shows
    less than half of what the fullest shows (between two lungs)."""
    area = target.sum(tuple(other for other in range(3) if other != axis))
    middle = int(np.searchsorted(np.cumsum(area), area.sum() / 2))
    return middle if area[middle] * 2 >= area.max() else int(area.argmax())


def draw_scale(ax, column_mm: float) -> None:
    """A bar of 5 cm, or of 1 cm in a picture that is narrower than twice that, on what is drawn on ``ax``."""
    left, right = ax.get_xlim()
    length_mm = SCALE_MM[0] if (right - left) * column_mm > 2 * SCALE_MM[0] else SCALE_MM[1]
    width = length_mm / column_mm / (right - left)
    ax.plot([0.03, 0.03 + width], [0.05, 0.05], color="white", linewidth=3, transform=ax.transAxes)
    ax.text(
        0.03,
        0.065,
        f"{length_mm / 10:g} cm",
        color="white",
        fontsize=9,
        transform=ax.transAxes,
        va="bottom",
    )


def _draw_strip(figure, cell, shown: _Shown, target: np.ndarray | None) -> list[_View]:
    axes = cell.subgridspec(1, STRIP_SLICES, wspace=0.03).subplots()
    window = tuple(slice(0, n) for n in shown.volume.shape)
    if target is not None:
        window = box_of(target, [0, *(int(np.ceil(STRIP_MARGIN_MM / mm)) for mm in shown.spacing_mm[1:])])
    indices = np.linspace(window[0].start, window[0].stop - 1, STRIP_SLICES).round().astype(int)
    indices = np.unique(indices)[::-1]
    for ax in axes[len(indices) :]:
        ax.set_axis_off()
    views = [
        _View(ax, 0, int(index), (window[1], window[2])) for ax, index in zip(axes, indices, strict=False)
    ]
    for view in views:
        _draw_slice(view, shown)
        view.ax.set_title(f"z {shown.position_mm(0, view.index):.1f} mm", color="silver", fontsize=9)
    return views


def _draw_slice(view: _View, shown: _Shown) -> None:
    row_axis, column_axis = [other for other in range(3) if other != view.axis]
    row_mm, column_mm = shown.spacing_mm[row_axis], shown.spacing_mm[column_axis]
    plane = np.take(shown.volume, view.index, view.axis)[view.window]
    # Axis 0 runs to Superior: drawn upwards. Posterior runs down, Left runs right.
    origin = "lower" if row_axis == 0 else "upper"
    view.ax.imshow(
        plane, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=row_mm / column_mm, origin=origin
    )
    if shown.overlay is not None:
        low, high = shown.overlay.window
        values, covered = (array[0] for array in shown.overlay.sample(shown.plane(view)))
        share = np.clip((values - low) / (high - low), 0.0, 1.0)
        view.ax.imshow(
            share,
            cmap=OVERLAY_COLOURS,
            vmin=0.0,
            vmax=1.0,
            alpha=OVERLAY_STRENGTH * np.sqrt(share) * covered,
            aspect=row_mm / column_mm,
            origin=origin,
        )
    view.ax.set_axis_off()


def _draw_outline(view: _View, structure: Structure, mask: np.ndarray) -> None:
    outline = np.take(mask, view.index, view.axis)[view.window].astype(np.float32)
    if (outline >= 0.5).any() and min(outline.shape) > 1:
        colour = [part / 255 for part in structure.colour_rgb or fixed_colour_rgb(structure.name)]
        padded = np.pad(outline, 1)
        extent_rows, extent_columns = np.arange(-1, outline.shape[0] + 1), np.arange(-1, outline.shape[1] + 1)
        view.ax.contour(extent_columns, extent_rows, padded, levels=[0.5], colors=[colour], linewidths=1.4)


def _draw_words(figure, sizes: Mapping[Structure, str], case_id: str, nothing_found: bool) -> None:
    """Names and sizes in as many lines as fit, each structure in its colour; what fits no line is counted."""
    left, right = 0.02, 0.98
    x, y, hidden = left, 0.105, 0
    for structure, size in sizes.items():
        colour = [part / 255 for part in structure.colour_rgb or fixed_colour_rgb(structure.name)]
        text = figure.text(x, y, f"{structure.name}  {size}", color=colour, fontsize=12, va="center")
        width = text.get_window_extent().width / figure.bbox.width
        if x > left and x + width > right:
            x, y = left, y - 0.028
            text.set_position((x, y))
        if y < LOWEST_NAME:
            text.remove()
            hidden += 1
        x += width + 0.02
    words = f"{case_id}.  {DISCLAIMER}" if case_id else DISCLAIMER
    if hidden:
        words += f" {hidden} more structures are drawn; run.json lists all."
    if nothing_found:
        words = f"No structure was found in this image.  {words}"
    figure.text(left, 0.02, words, color="tomato" if nothing_found else "silver", fontsize=10, va="center")
