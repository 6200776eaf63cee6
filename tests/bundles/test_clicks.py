"""A point inside the tumour instead of a box: which box is found, what is refused, what run.json says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from patient_series import CENTRE_LPS_MM, RADIUS_MM, ball, write_patient
from plain_bundle import edit
from referees import dice

from medseg.bundles.clicks import Clicks, clicks_of, search
from medseg.bundles.cohort import segment
from medseg.bundles.find import find_bundle
from medseg.bundles.request import Request, payload_of, request_of
from medseg.bundles.trust import trust
from medseg.cli.main import main
from medseg.dicom import read_rtstruct, read_series
from medseg.errors import BundleError, InputError, MedsegWarning

SIZE = 25


def seeing(*balls):
    """A network that finds the balls (centre, radius), in mm, in whatever box it is shown, on 25 voxels a
    side; with the boxes that it was shown."""
    shown = []

    def look(box_mm):
        shown.append(box_mm)
        step = (box_mm[:, 1] - box_mm[:, 0]) / SIZE
        to_mm = np.diag([*step, 1.0])
        to_mm[:3, 3] = box_mm[:, 0] + step / 2
        places = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1) * step + to_mm[:3, 3]
        inside = np.zeros([SIZE] * 3, bool)
        for centre, radius in balls:
            inside |= np.linalg.norm(places - centre, axis=-1) <= radius
        return np.where(inside, 4.0, -4.0), to_mm

    return look, shown


def test_the_box_is_that_of_the_tumour_and_the_margin_wherever_in_it_the_point_lies():
    for point in ((10, 20, -5), (18, 12, -5)):
        look, shown = seeing(((10.0, 20.0, -5.0), 15.0))
        found = search(look, [point], Clicks(120.0, 10.0))
        # Half a voxel of the last box, 50 mm on 25 voxels, on either side of -15, 35 and so on.
        np.testing.assert_allclose(found.box_mm, [[-15, 35], [-5, 45], [-30, 20]], atol=1.1)
        assert found.looks == len(shown) == 2
        np.testing.assert_allclose(shown[0], [[p - 60, p + 60] for p in point])


def test_of_two_tumours_that_of_the_point_is_taken_and_with_a_point_in_each_both():
    look, _ = seeing(((0.0, 0.0, 0.0), 12.0), ((40.0, 0.0, 0.0), 12.0))
    one = search(look, [(1, 1, 0)], Clicks(130.0, 5.0))
    np.testing.assert_allclose(one.box_mm[0], [-17, 17], atol=1.5)
    both = search(look, [(1, 1, 0), (41, 0, 0)], Clicks(130.0, 5.0))
    np.testing.assert_allclose(both.box_mm[0], [-17, 57], atol=2)


def test_a_point_beside_the_tumour_takes_the_nearest_piece_and_stays_in_the_box():
    look, _ = seeing(((0.0, 0.0, 0.0), 12.0), ((50.0, 0.0, 0.0), 12.0))
    with pytest.warns(MedsegWarning, match="a point of `at` lies [789] mm beside what was found"):
        found = search(look, [(0, 20, 0)], Clicks(140.0, 5.0))
    np.testing.assert_allclose(found.box_mm, [[-17, 17], [-17, 25], [-17, 17]], atol=2)


def test_where_nothing_is_found_a_box_is_asked_for():
    with pytest.raises(InputError, match="nothing was found.*draw a box.*`within`"):
        search(seeing()[0], [(0, 0, 0)], Clicks(60.0, 10.0))


# ---- through the door --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(bright_bundle, tmp_path_factory):
    """bright_bundle, which contours what is above 600 HU, said to take points."""
    folder = shutil.copytree(bright_bundle, tmp_path_factory.mktemp("bundles") / "clicks")
    clicks = {"cube_mm": 40.0, "margin_mm": 5.0}
    edit(folder / "configs" / "metadata.json", lambda meta: {**meta, "clicks": clicks})
    trust(find_bundle(folder))
    return folder


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
    return write_patient(tmp_path_factory.mktemp("patients") / "P1")


def test_a_point_on_the_command_line_contours_the_tumour_and_says_in_which_box(bundle, patient, tmp_path):
    at = ",".join(map(str, CENTRE_LPS_MM + [9, 0, 0]))
    words = ["segment", str(patient / "CT"), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
    assert main([*words, f"--at={at}", "--format", "rtstruct"]) == 0
    record = json.loads((tmp_path / "out" / "CT" / "run.json").read_text())
    assert record["clicks"]["at"] == [[17.0, -4.0, 6.0]]
    assert record["options"]["within"] is None and record["warnings"] == []
    box = np.array(record["clicks"]["within"].split(","), float).reshape(3, 2)
    expected = np.stack([CENTRE_LPS_MM - RADIUS_MM - 5, CENTRE_LPS_MM + RADIUS_MM + 5], axis=1)
    np.testing.assert_allclose(box, expected, atol=3)
    series = read_series(patient / "CT")
    assert (
        dice(read_rtstruct(tmp_path / "out" / "CT" / "RS.dcm", series)["GTV"], ball(series.geometry)) > 0.99
    )
    # The box that was found, given as a box, contours the same.
    boxed = segment(Request(patient / "CT", bundle, tmp_path / "boxed", within=record["clicks"]["within"]))
    again = json.loads((tmp_path / "boxed" / boxed["cases"][0]["case"] / "run.json").read_text())
    assert again["structures"] == record["structures"]


def test_a_point_outside_the_image_is_refused_whether_a_box_around_it_meets_the_image_or_not(
    bundle, patient, tmp_path, capsys
):
    # The CT ends 40 mm from its middle in x and 36 mm in z.
    for at in ("-41,0,0", "8,-4,37", "1000,0,0"):
        words = ["segment", str(patient / "CT"), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
        assert main([*words, f"--at={at}"]) == 2
        assert f"error: CT: --at {at}: outside the image" in capsys.readouterr().err


def test_of_the_boxes_on_the_way_nothing_is_said(bundle, patient, tmp_path):
    warns = shutil.copytree(bundle, tmp_path / "warns")
    warning = "__import__('medseg').errors.MedsegWarning(str(__import__('time').monotonic_ns()))"
    step = {"_target_": "Lambdad", "keys": "image", "func": f"$lambda image: ({warning}, image)[1]"}

    def change(config: dict) -> dict:
        config["preprocessing"]["transforms"].insert(2, step)
        return config

    edit(warns / "configs" / "inference.json", change)
    trust(find_bundle(warns))
    segment(Request(patient / "CT", warns, tmp_path / "out", at=(tuple(CENTRE_LPS_MM),), formats=("nifti",)))
    record = json.loads((tmp_path / "out" / "CT" / "run.json").read_text())
    assert record["clicks"]["looks"] >= 1
    assert len(record["warnings"]) == 1


def test_another_point_contours_anew_and_the_same_is_skipped(bundle, patient, tmp_path):
    said = []
    for x in (8.0, 8.0, 9.0):
        request = Request(patient / "CT", bundle, tmp_path, formats=("nifti",), at=((x, -4.0, 6.0),))
        segment(request, report=lambda record: said.append(record["status"]))
    assert said == ["done", "skipped", "done"]


def test_points_that_cannot_be_meant_are_refused(bundle, bright_bundle, patient, tmp_path, capsys):
    def asked(source=patient / "CT", name=bundle, **fields):
        return Request(source, name, tmp_path / "out", **fields)

    with pytest.raises(InputError, match="points inside the tumour, or where to look, not both"):
        asked(at=((1.0, 2.0, 3.0),), within="0,1,0,1,0,1")
    for wrong in ((1.0, 2.0), (1.0, 2.0, float("nan")), "1,2,3", (1.0, 2.0, "3")):
        with pytest.raises(InputError, match="expected a point x, y, z in LPS mm"):
            asked(at=(wrong,))
    with pytest.raises(InputError, match="takes no points. Say where to look: `within`"):
        segment(asked(name=bright_bundle, at=((1.0, 2.0, 3.0),)))
    write_patient(tmp_path / "two" / "P2", seed="other")
    shutil.copytree(patient, tmp_path / "two" / "P1")
    with pytest.raises(InputError, match="2 patients; points belong to one"):
        segment(asked(source=tmp_path / "two", at=((1.0, 2.0, 3.0),)))
    words = ["segment", str(patient / "CT"), "--bundle", str(bundle), "-o", str(tmp_path / "out")]
    assert main([*words, "--at", "1,2,here"]) == 2
    assert "--at 1,2,here: expected a point x,y,z in LPS mm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_queued_job_carries_its_points(tmp_path):
    request = Request(tmp_path, "mm_gtv", tmp_path / "out", at=((1.0, -2.0, 3.5), (4.0, 5.0, 6.0)))
    assert request_of(json.loads(json.dumps(payload_of(request)))).at == request.at


def test_a_bundle_that_says_its_cubes_wrongly_is_named(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "odd")
    for clicks in ({"cube_mm": 50}, {"cube_mm": 9, "margin_mm": 5}, {"cube_mm": 9, "margin_mm": -1}, 7):
        edit(folder / "configs" / "metadata.json", lambda meta, said=clicks: {**meta, "clicks": said})
        with pytest.raises(BundleError, match="metadata.json says clicks"):
            clicks_of(find_bundle(folder))
    shipped = clicks_of(find_bundle("mm_gtv"))
    assert 5.0 <= shipped.margin_mm <= 20.0 < shipped.cube_mm
