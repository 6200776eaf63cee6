"""The preview: patient right on the viewer's left, anterior and superior up, whatever the orientation of the
stack."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from medseg.cases.multimodal import sampled_on
from medseg.errors import StructureError
from medseg.phantoms.chiral import chiral_phantom
from medseg.phantoms.series import AXIAL, stack_geometry
from medseg.reports.preview import Overlay, _middle, _turn_for_viewer, _View, write_preview
from medseg.structures.structure import Structure

MARKER = Structure("GTV", interpreted_type="GTV", colour_rgb=(255, 0, 0))


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)],
)
def test_the_marker_on_the_patients_left_is_shown_left_anterior_and_superior_of_the_middle(orientation):
    phantom = chiral_phantom(
        stack_geometry((40, 50, 54), gaps_mm=2.0, pixel_spacing_mm=(1.5, 1.5), orientation=orientation)
    )
    shown = _turn_for_viewer(phantom.volume_hu, phantom.geometry, {MARKER: phantom.masks["Marker"]})
    superior, posterior, left = (
        np.argwhere(shown.masks[MARKER] > 0.5).mean(0) - (np.array(shown.volume.shape) - 1) / 2
    )
    spacing_mm = shown.spacing_mm
    # The marker lies 18 mm left, 14 mm anterior and 12 mm superior of the middle voxel.
    assert left * spacing_mm[2] == pytest.approx(18, abs=1.2)
    assert posterior * spacing_mm[1] == pytest.approx(-14, abs=1.2)
    assert superior * spacing_mm[0] == pytest.approx(12, abs=1.2)


def red(path):
    picture = matplotlib.image.imread(path)
    return int(((picture[..., 0] > 0.8) & (picture[..., 1] < 0.3) & (picture[..., 2] < 0.3)).sum())


def test_outlines_are_drawn_in_the_structures_colour(tmp_path):
    phantom = chiral_phantom()
    with_outline = write_preview(
        phantom.volume_hu, phantom.geometry, {MARKER: phantom.masks["Marker"]}, tmp_path / "a.png"
    )
    nothing = write_preview(
        phantom.volume_hu, phantom.geometry, {MARKER: np.zeros_like(phantom.masks["L"])}, tmp_path / "b.png"
    )
    assert red(with_outline) > red(nothing) + 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_uneven_stacks_and_single_slices_have_a_preview_too(tmp_path):
    uneven = chiral_phantom(
        stack_geometry((20, 48, 56), gaps_mm=[2.0] * 10 + [4.0] * 9, pixel_spacing_mm=(1.5, 1.25))
    )
    write_preview(
        uneven.volume_hu, uneven.geometry, {MARKER: uneven.masks["Marker"]}, tmp_path / "uneven.png"
    )
    single = chiral_phantom(stack_geometry((1, 48, 56), gaps_mm=3.0))
    write_preview(single.volume_hu, single.geometry, {MARKER: single.masks["Body"]}, tmp_path / "single.png")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_mask_of_another_shape_is_refused_and_nothing_is_written(tmp_path):
    phantom = chiral_phantom()
    with pytest.raises(StructureError, match="GTV: mask"):
        write_preview(
            phantom.volume_hu, phantom.geometry, {MARKER: np.zeros((2, 2, 2), bool)}, tmp_path / "a.png"
        )
    assert not list(tmp_path.iterdir())


def words(monkeypatch, volume, geometry, masks, out):
    """Every text of the figure with its box in pixels, and the figure's size."""
    seen = []
    save = Figure.savefig

    def keep(figure, *arguments, **options):
        seen.extend((text.get_text(), text.get_window_extent()) for text in figure.texts)
        seen.append(("", figure.bbox))
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    write_preview(volume, geometry, masks, out)
    return dict(seen)


def test_long_names_of_many_structures_stay_inside_the_picture_and_apart(monkeypatch, tmp_path):
    phantom = chiral_phantom()
    masks = {Structure(f"PTV_6600_Boost_Sequential_{n:02}"): phantom.masks["Marker"] for n in range(14)}
    found = words(monkeypatch, phantom.volume_hu, phantom.geometry, masks, tmp_path / "a.png")
    picture = found.pop("")
    boxes = list(found.values())
    assert all(0 <= box.x0 and box.x1 <= picture.width and 0 <= box.y0 for box in boxes)
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
    shown = sum(text.startswith("PTV_") for text in found)
    assert 8 <= shown < 14 and any(f"{14 - shown} more structures" in text for text in found)


def test_a_single_slice_with_a_structure_is_not_called_empty(monkeypatch, tmp_path):
    phantom = chiral_phantom()
    index = int(phantom.masks["Marker"].sum((1, 2)).argmax())
    one, geometry = (
        phantom.masks["Marker"][index : index + 1],
        stack_geometry((1, *phantom.geometry.shape[1:])),
    )
    found = words(
        monkeypatch, phantom.volume_hu[index : index + 1], geometry, {MARKER: one}, tmp_path / "a.png"
    )
    assert "GTV  volume unknown" in found and not any("No structure" in text for text in found)
    found = words(
        monkeypatch, phantom.volume_hu[:1], geometry, {MARKER: np.zeros_like(one)}, tmp_path / "b.png"
    )
    assert any("No structure was found" in text for text in found)


def titles(monkeypatch, volume, geometry, masks, out, **options):
    """Titles and words of every axes of the figure."""
    seen = []
    save = Figure.savefig

    def keep(figure, *arguments, **rest):
        seen.extend(
            [ax.get_title() for ax in figure.axes]
            + [word.get_text() for ax in figure.axes for word in ax.texts]
        )
        seen.extend(text.get_text() for text in figure.texts)
        save(figure, *arguments, **rest)

    monkeypatch.setattr(Figure, "savefig", keep)
    write_preview(volume, geometry, masks, out, **options)
    return seen


@pytest.mark.parametrize("orientation", [AXIAL, (-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1)])
def test_the_planes_say_where_they_lie_in_the_patient(orientation, monkeypatch, tmp_path):
    geometry = stack_geometry((40, 50, 54), gaps_mm=2.0, pixel_spacing_mm=(1.5, 1.5), orientation=orientation)
    phantom = chiral_phantom(geometry)
    mask = phantom.masks["Marker"]
    points = [geometry.points_lps_mm(n, np.argwhere(plane)) for n, plane in enumerate(mask)]
    x, y, z = np.median(np.concatenate(points), axis=0)
    seen = titles(monkeypatch, phantom.volume_hu, geometry, {MARKER: mask}, tmp_path / "a.png")
    for words, expected in (("axial, z", z), ("coronal, y", y), ("sagittal, x", x)):
        (found,) = [text for text in seen if text.startswith(words)]
        assert float(found.split()[-2]) == pytest.approx(expected, abs=1.05), found


def test_the_case_an_empty_structure_and_a_scale_are_written(monkeypatch, tmp_path):
    phantom = chiral_phantom()
    masks = {MARKER: phantom.masks["Marker"], Structure("Heart"): np.zeros_like(phantom.masks["L"])}
    seen = titles(
        monkeypatch, phantom.volume_hu, phantom.geometry, masks, tmp_path / "a.png", case_id="patient_7"
    )
    assert "Heart  empty" in seen and any(text.startswith("patient_7.  medseg") for text in seen)
    assert seen.count("1 cm") == 3  # the phantom is less than 10 cm wide


def test_the_coronal_plane_goes_through_all_structures_and_the_sagittal_one_misses_none():
    target = np.zeros((10, 20, 30), bool)
    target[2:8, 4:8, 2:10] = True  # a right lung of 192 voxels, and a left one behind it
    target[2:8, 8:12, 20:28] = True
    assert _middle(target, 1) == 7  # half of the voxels lie at 4 to 7
    assert _middle(target, 2) in range(2, 10) or _middle(target, 2) in range(20, 28)
    gap = np.zeros((1, 1, 9), bool)
    gap[..., [0, 1, 7, 8]] = True
    assert _middle(gap, 2) == 1


def test_colours_of_structures_that_a_bundle_draws_together_can_be_told_apart():
    folders = Path(__file__).resolve().parents[2] / "monai_bundles"
    for config in folders.glob("*/configs/inference.json"):
        colours = colours_in(json.loads(config.read_text()))
        for (name, one), (other, two) in itertools.combinations(colours.items(), 2):
            assert colour_distance(one, two) > 35, f"{config.parent.parent.name}: {name} and {other}"
    assert colour_distance((150, 200, 255), (90, 170, 255)) < 35  # the lungs of version 0.2


def colours_in(node):
    """{name: colour} of every structure in a config."""
    if isinstance(node, dict):
        own = {node["name"]: node["colour_rgb"]} if "colour_rgb" in node else {}
        return own | {name: rgb for value in node.values() for name, rgb in colours_in(value).items()}
    return (
        {name: rgb for part in node for name, rgb in colours_in(part).items()} if type(node) is list else {}
    )


def colour_distance(one, other):
    """CIE 1976 distance of two sRGB colours under D65; 2 is just seen, 100 is black to white."""

    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(rgb):
        part = np.array(rgb) / 255
        xyz = to_xyz @ np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    return float(np.linalg.norm(lab(one) - lab(other)))


@pytest.mark.parametrize(
    "orientation", [AXIAL, (-1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, 0, 0, -1)]
)
def test_an_overlay_is_looked_up_where_the_drawn_voxels_lie(orientation):
    phantom = chiral_phantom(
        stack_geometry((40, 50, 54), gaps_mm=2.0, pixel_spacing_mm=(1.5, 1.5), orientation=orientation)
    )
    shown = _turn_for_viewer(phantom.volume_hu, phantom.geometry, {})
    for axis, window in (
        (0, (slice(3, 20), slice(5, 30))),
        (1, (slice(None), slice(None))),
        (2, (slice(9, 11), slice(None))),
    ):
        view = _View(None, axis, 17, window)
        drawn = np.take(shown.volume, 17, axis)[window]
        values, covered = sampled_on(phantom.volume_hu, phantom.geometry, shown.plane(view))
        assert covered.all() and np.abs(values[0] - drawn).max() < 0.1


def test_an_overlay_colours_what_it_covers_and_leaves_the_rest_grey(tmp_path):
    geometry = stack_geometry((20, 40, 40), pixel_spacing_mm=(2.0, 2.0))
    hot = np.zeros(geometry.shape, np.float32)
    hot[:, 10:20, 10:20] = 4.0  # red; 8 would be white

    def sample(grid):
        values, covered = sampled_on(hot, geometry, grid)
        return values, covered & (values < 100)

    overlay = Overlay(sample, (1.0, 8.0), "PET (SUV to 8)")
    volume = np.zeros(geometry.shape, np.float32)
    plain = matplotlib.image.imread(write_preview(volume, geometry, {}, tmp_path / "plain.png"))
    coloured = matplotlib.image.imread(
        write_preview(volume, geometry, {}, tmp_path / "pet.png", overlay=overlay)
    )

    def has_colour(picture):
        return (np.ptp(picture[200:500, :, :3], axis=-1) > 0.3).mean()

    assert has_colour(coloured) > has_colour(plain) + 0.01
    # Air of the plain picture is black or grey in both: the overlay leaves most of it as it was.
    assert (np.abs(coloured - plain).max(axis=-1) < 0.02).mean() > 0.8
