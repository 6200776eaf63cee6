"""tools/datasets/prepare_luna16.py and prepare_lidc.py on small folders of LUNA16 and LIDC-IDRI made here."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg.cases import luna16
from medseg.cases.lidc import READERS
from medseg.errors import InputError
from medseg.phantoms.series import phantom_uid, stack_geometry, write_series

ROOT = Path(__file__).resolve().parents[3]
SERIES = {0: ("1.1", "1.2"), 1: ("1.3", "1.4"), 2: ("1.5", "1.6")}


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "datasets"))
    import prepare_lidc
    import prepare_luna16

    yield prepare_luna16, prepare_lidc
    for name in ("prepare_luna16", "prepare_lidc", "masks_to_boxes", "datalists", "mass_nodule"):
        sys.modules.pop(name, None)


@pytest.fixture
def luna(tmp_path, monkeypatch) -> Path:
    """Three subsets of two CTs (headers alone), as small as their numbers are told to be."""
    import prepare_luna16

    monkeypatch.setattr(luna16, "SERIES_OF_A_SUBSET", (2, 2))
    monkeypatch.setattr(prepare_luna16, "NODULES", 2)
    # Two CTs of one patient lie in different subsets.
    monkeypatch.setattr(prepare_luna16, "patients_of", lambda: {"1.2": "A", "1.5": "A"})
    folder = tmp_path / "luna"
    for number, uids in SERIES.items():
        for uid in uids:
            path = folder / f"subset{number}" / f"{uid}.mhd"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("header")
            path.with_suffix(".raw").write_bytes(b"voxels")
    rows = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.1,-10,20,-300,8\n1.1,1,2,3,4\n"
    (folder / "annotations.csv").write_text(rows)
    (folder / "annotations_excluded.csv").write_text(rows[: rows.index("1.1")] + "1.2,5,5,5,-1\n")
    return folder


def run(tool, monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, words)])
    return tool.main()


def test_the_official_subsets_are_the_folds(tools, luna, tmp_path, monkeypatch):
    assert run(tools[0], monkeypatch, luna, tmp_path / "lists", "--subsets", 0, 1, 2) == 0
    fold = json.loads((tmp_path / "lists" / "fold_0.json").read_text())
    first, second = fold["test"]
    assert first["image"] == "subset0/1.1.mhd" and first["patient_id"] == "1.1" and first["ignored"] == []
    # A ball of 8 mm around (-10, 20, -300).
    assert first["label"][0] == {"class": "nodule", "low": [-14, 16, -304], "high": [-6, 24, -296]}
    # A diameter of -1 counts as 10 mm.
    assert second["ignored"] == [{"class": "ignored", "low": [0, 0, 0], "high": [10, 10, 10]}]
    assert [case["case_id"] for case in fold["validation"]] == ["1.3", "1.4"]
    # 1.5 is of the patient of 1.2, who tests.
    assert [case["case_id"] for case in fold["training"]] == ["1.6"]


def test_what_lacks_is_said_in_one_line(tools, luna, tmp_path, monkeypatch, capsys):
    def refused() -> str:
        assert run(tools[0], monkeypatch, luna, tmp_path / "lists", "--subsets", 0, 1, 2) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
        return line

    table = luna / "annotations.csv"
    table.write_text(table.read_text() + "1.4,0,0,0,5\n")
    assert "3 nodules, 2 expected" in refused()
    table.rename(luna / "elsewhere.csv")
    assert "annotations.csv: no such file; get subset0.zip to subset9.zip" in refused()
    (luna / "subset1" / "1.3.raw").unlink()
    assert "1 of 2 CTs without their .raw, such as 1.3" in refused()
    (luna / "subset1" / "1.3.mhd").unlink()
    assert "subset1: 1 CTs, 2 or 2 expected" in refused()
    for path in (luna / "subset1").iterdir():
        path.unlink()
    (luna / "subset1").rmdir()
    assert "no subset1; get" in refused()


def test_one_series_in_two_subsets_is_refused(tools, luna):
    for kind in (".mhd", ".raw"):
        (luna / "subset2" / f"1.5{kind}").rename(luna / "subset2" / f"1.1{kind}")
    with pytest.raises(InputError, match="1.1 lies in another subset too"):
        luna16.find_subsets(luna, (0, 1, 2))


def test_candidates_and_odd_tables(tmp_path):
    path = tmp_path / "candidates.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,class\n1.1,1,2,3,0\n1.1,4,5,6,1\n")
    assert [(c.centre_lps_mm, c.is_nodule) for c in luna16.read_candidates(path)] == [
        ((1.0, 2.0, 3.0), False),
        ((4.0, 5.0, 6.0), True),
    ]
    with pytest.raises(InputError, match="no row with the column 'diameter_mm'"):
        luna16.read_annotations(path)
    path.write_text("seriesuid,coordX,coordY,coordZ,class\n1.1,1,2,x,0\n")
    with pytest.raises(InputError, match="candidates.csv, line 2"):
        luna16.read_candidates(path)
    path.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n1.1,1,2,3,-1\n")
    with pytest.raises(InputError, match="is it annotations_excluded.csv"):
        luna16.read_annotations(path)


# ---- LIDC-IDRI ---------------------------------------------------------------------------------------------

GRID = stack_geometry((8, 24, 24), gaps_mm=2.0, pixel_spacing_mm=(1.0, 1.0), centre_lps_mm=(100.0, 50.0, 0.0))


def roi(z_mm: float, points) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    return f"<roi><imageZposition>{z_mm}</imageZposition><inclusion>TRUE</inclusion>{edges}</roi>"


def xml(uid: str, readers: int) -> str:
    """A square nodule by so many readers, columns and rows 5 to 11 on two slices, and one point by the
    first."""
    square = [(5, 5), (11, 5), (11, 11), (5, 11)]
    drawn = "".join(roi(z, square) for z in GRID.origins_lps_mm[3:5, 2])
    nodule = f"<unblindedReadNodule><noduleID>n</noduleID>{drawn}</unblindedReadNodule>"
    small = f"<unblindedReadNodule><noduleID>s</noduleID>{roi(GRID.origins_lps_mm[6, 2], [(20, 20)])}"
    sessions = [
        f"<readingSession>{nodule}{small + '</unblindedReadNodule>' if number == 0 else ''}</readingSession>"
        for number in range(readers)
    ]
    head = f"<ResponseHeader><SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>"
    return f'<LidcReadMessage xmlns="http://www.nih.gov">{head}{"".join(sessions)}</LidcReadMessage>'


@pytest.fixture
def lidc(tmp_path) -> tuple[Path, Path]:
    """Five patients: two to four readers, slices too thick, and without an XML file."""
    images, notes = tmp_path / "dicom", tmp_path / "xml"
    notes.mkdir()
    volume = np.full(GRID.shape, -800.0, np.float32)
    for patient, readers in (("P1", 4), ("P2", 3), ("P3", 2), ("P4", 4), ("P5", 0)):
        grid = replace(GRID, origins_lps_mm=GRID.origins_lps_mm * [1, 1, 2.0]) if patient == "P4" else GRID
        write_series(volume, grid, images / patient / "CT", seed=patient, PatientID=patient)
        if readers:
            (notes / f"{patient}.xml").write_text(xml(phantom_uid("series", "CT", patient), readers))
    (notes / "radiograph.xml").write_text("<IdriReadMessage/>")
    return images, notes


def test_readers_become_boxes_where_the_images_lie(tools, lidc, tmp_path, monkeypatch, capsys):
    images, notes = lidc
    assert run(tools[1], monkeypatch, images, tmp_path / "lists", "--xml", notes, "--folds", 3) == 0
    assert "5 CTs, 1 slices too thick, 1 without readings" in capsys.readouterr().out
    fold = json.loads((tmp_path / "lists" / "fold_0.json").read_text())
    cases = {case["patient_id"]: case for part in ("training", "validation", "test") for case in fold[part]}
    assert sorted(cases) == ["P1", "P2", "P3"]
    # Pixels 6 to 10 of a grid of 24 that begins at 100 - 11.5, on the fourth and fifth of eight slices.
    box = {"low": [94.0, 44.0, -2.0], "high": [99.0, 49.0, 2.0]}
    assert cases["P1"]["label"] == cases["P2"]["label"] == [{"class": "nodule", **box}]
    assert cases["P3"]["label"] == [] and cases["P3"]["ignored"][0] == {"class": "ignored", **box}
    # The point at column and row 20, 3.5 - 6 slices from the middle.
    middle = np.array([100 - 11.5 + 20, 50 - 11.5 + 20, 5.0])
    assert cases["P1"]["ignored"][0]["low"] == (middle - 1.5).tolist()
    assert cases["P1"]["image"].startswith("P1/CT#")


def test_no_readings_and_no_images_are_refused(tools, lidc, tmp_path, monkeypatch, capsys):
    images, notes = lidc
    (tmp_path / "empty").mkdir()
    assert run(tools[1], monkeypatch, images, tmp_path, "--xml", tmp_path / "empty") == 2
    assert "no XML file below it; expected the folder of LIDC-XML-only.zip" in capsys.readouterr().err
    assert run(tools[1], monkeypatch, notes, tmp_path, "--xml", notes) == 2
    assert "no CT below it" in capsys.readouterr().err
    assert run(tools[1], monkeypatch) == 2 and READERS == 4


# ---- images with masks -------------------------------------------------------------------------------------


def test_masks_beside_images_become_boxes(tools, tmp_path, monkeypatch, capsys):
    import masks_to_boxes

    from medseg.cases.nifti import write_mask, write_volume

    rows = ["image,mask,patient"]
    for number in range(4):
        mask = np.zeros(GRID.shape, bool)
        if number:  # the first one has no finding
            mask[2:4, 5:8, 5:8] = True
            mask[6, 20, 20] = number == 2
        write_volume(np.zeros(GRID.shape, np.float32), GRID, tmp_path / f"ct{number}.nii.gz")
        write_mask(mask, GRID, tmp_path / f"m{number}.nii.gz")
        rows.append(f"ct{number}.nii.gz,m{number}.nii.gz,P{number}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    assert run(masks_to_boxes, monkeypatch, tmp_path, tmp_path / "lists", "--folds", 4, "--class", "met") == 0
    fold = json.loads((tmp_path / "lists" / "fold_0.json").read_text())
    cases = {case["patient_id"]: case for part in ("training", "validation", "test") for case in fold[part]}
    assert [len(cases[f"P{number}"]["label"]) for number in range(4)] == [0, 1, 2, 1]
    # Columns 5 to 7 of 24 around 100, rows around 50, the third and fourth of eight slices of 2 mm.
    assert cases["P1"]["label"] == [{"class": "met", "low": [93, 43, -4], "high": [96, 46, 0]}]
    (tmp_path / "cases.csv").write_text("image,mask,patient\nct1.nii.gz,none.nii.gz,P1\n")
    assert run(masks_to_boxes, monkeypatch, tmp_path, tmp_path / "lists") == 2
    assert "none.nii.gz" in capsys.readouterr().err
