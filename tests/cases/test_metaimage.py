"""MetaImage volumes lie where SimpleITK says they lie; files that do not say where are refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from medseg.cases.find import find_cases
from medseg.cases.metaimage import load_metaimage
from medseg.cases.volume import open_case
from medseg.errors import InputError

TURNED = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def ct(tmp_path):
    """4 slices of 5 rows and 6 columns, 0 to 119 HU, 2.5 x 0.5 x 0.75 mm, rows running to anterior."""
    image = SimpleITK.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    image.SetSpacing((0.75, 0.5, 2.5))
    image.SetOrigin((-100.0, 50.0, -200.0))
    image.SetDirection(TURNED)
    path = tmp_path / "subset0" / "1.2.3.mhd"
    path.parent.mkdir()
    SimpleITK.WriteImage(image, str(path))
    return path


def changed(path, old: str, new: str):
    """The same header with other words."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        load_metaimage(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_voxel_lies_where_simpleitk_puts_it(ct):
    volume, geometry = load_metaimage(ct)
    assert volume.dtype == np.float32 and volume.shape == (4, 5, 6) and volume[3, 2, 1] == 3 * 30 + 2 * 6 + 1
    point = SimpleITK.ReadImage(str(ct)).TransformIndexToPhysicalPoint((1, 2, 3))
    assert np.allclose(geometry.points_lps_mm(3, [(2, 1)])[0], point)
    assert np.allclose(point, (-100 + 0.75, 50 - 2 * 0.5, -200 + 3 * 2.5))


def test_a_folder_of_luna16_is_a_list_of_cases_named_by_their_series(ct):
    cases, _ = find_cases(ct.parent, "CT")
    assert cases == [("1.2.3", str(ct))]
    assert open_case(str(ct)).record()["input"] == {"kind": "MetaImage", "files": 1}


def test_a_compressed_single_file_is_read_too(ct, tmp_path):
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(ct)), str(tmp_path / "one.mha"), useCompression=True)
    assert np.array_equal(load_metaimage(tmp_path / "one.mha")[0], load_metaimage(ct)[0])


def test_a_missing_or_short_raw_file_is_named(ct):
    raw = ct.with_suffix(".raw")
    raw.write_bytes(raw.read_bytes()[:100])
    assert "1.2.3.raw is cut off: 100 bytes, 240 expected" in refused(ct)
    raw.unlink()
    assert "its voxels are in 1.2.3.raw, which is not there; download both files" in refused(ct)


@pytest.mark.parametrize("field", ("ElementSpacing", "Offset", "TransformMatrix"))
def test_a_header_without_a_place_is_refused_and_not_taken_for_1_mm(ct, field):
    assert f"its header has no {field}" in refused(changed(ct, f"{field} =", "Comment ="))


@pytest.mark.parametrize("spacing", ("-0.75 0.5 2.5", "0 0.5 2.5", "nan 0.5 2.5", "0.75 0.5", "wide"))
def test_a_spacing_that_is_no_length_is_refused_and_not_taken_for_a_mirrored_axis(ct, spacing):
    words = refused(changed(ct, "ElementSpacing = 0.75 0.5 2.5", f"ElementSpacing = {spacing}"))
    assert "expected three positive numbers, in mm" in words


def test_voxels_elsewhere_and_other_files_are_refused(ct, tmp_path):
    assert "expected one file beside it" in refused(changed(ct, "1.2.3.raw", "../../etc/passwd"))
    (tmp_path / "text.mhd").write_text("hello")
    assert "no header of MetaImage" in refused(tmp_path / "text.mhd")


def test_more_voxels_than_the_limit_are_refused_before_they_are_read(ct, monkeypatch):
    monkeypatch.setenv("MEDSEG_LIMIT_VOLUME_VOXELS", "100")
    assert "120 voxels, at most 100 are read" in refused(ct)
    monkeypatch.undo()
    assert "cut off" in refused(changed(ct, "DimSize = 6 5 4", "DimSize = 60000 50000 4"))


def test_a_link_to_the_header_alone_finds_its_voxels_and_one_to_nothing_is_refused(ct, tmp_path):
    link = tmp_path / "elsewhere" / "case.mhd"  # as `medseg score` lays cases out for its answers
    link.parent.mkdir()
    link.symlink_to(ct)
    volume, geometry = load_metaimage(link)
    assert volume[3, 2, 1] == 103 and np.allclose(geometry.spacing_mm, load_metaimage(ct)[1].spacing_mm)
    ct.with_suffix(".raw").unlink()
    assert "which is not there" in refused(link)
