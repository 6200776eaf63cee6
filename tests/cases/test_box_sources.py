"""Boxes from every format that sources use; names, swapped columns and readers."""

from __future__ import annotations

import gzip
import json

import pytest

from medseg.cases.box_sources import (
    NIH,
    NIH_AS_PUBLISHED,
    SOURCE,
    VINDR,
    Columns,
    Finding,
    boxes_of,
    fuse_readers,
    name_of,
    read_chestx_det,
    read_coco,
    read_table,
    read_voc,
)
from medseg.errors import InputError


def table(tmp_path, text):
    path = tmp_path / "boxes.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("心臟肥大", "cardiomegaly"),
        ("肺尖肋膜增厚", "apical pleural thickening"),
        ("Pleural_Thickening", "pleural thickening"),
        (" No  finding ", ""),
        ("正常", ""),
    ],
)
def test_names_of_the_sources_become_ours(word, name):
    assert name_of(word) == name


def test_a_name_that_nobody_knows_is_refused():
    for word in ("intercostal pleural thickening", "肋間"):
        with pytest.raises(InputError, match="is not in the map of names; expected a name of one of"):
            name_of(word)


def test_the_source_s_own_marks_are_read_by_a_map_of_columns(tmp_path):
    path = table(tmp_path, '檔名,病徵,標記\na.dcm,心臟肥大,"[10, 20, 30.5, 40]"\nb.dcm,正常,\n')
    assert read_table(path, SOURCE) == [
        Finding("a.dcm", "cardiomegaly", (20.0, 10.0), (60.0, 40.5)),
        Finding("b.dcm", "", None, None),
    ]
    own = Columns("file", "what", mark="rect")
    path = table(tmp_path, "file,what,rect\na.dcm,scoliosis,x=1;y=2;w=3;h=4\n")
    assert read_table(path, own)[0].high == (6.0, 4.0)
    with pytest.raises(InputError, match=r"line 2: mark '1;2': expected x, y, width and height"):
        read_table(table(tmp_path, "file,what,rect\na.dcm,scoliosis,1;2\n"), own)


def test_nih_boxes_are_x_y_width_height(tmp_path):
    path = table(tmp_path, "image,label,x,y,w,h\na.png,Infiltrate,1,2,30,40\n")
    assert read_table(path, NIH) == [Finding("a.png", "infiltration", (2.0, 1.0), (42.0, 31.0))]
    path = table(tmp_path, "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,1,2,30,40,,,\n")
    assert read_table(path, NIH_AS_PUBLISHED) == [Finding("a.png", "infiltration", (2.0, 1.0), (42.0, 31.0))]


def test_a_table_without_its_columns_or_with_words_for_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match="no row with the column 'h'"):
        read_table(table(tmp_path, "image,label,x,y,w\na.png,Mass,1,2,3\n"), NIH)
    with pytest.raises(InputError, match="line 3: could not convert"):
        read_table(table(tmp_path, "image,label,x,y,w,h\na.png,Mass,1,2,3,4\nb.png,Mass,one,2,3,4\n"), NIH)
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv")


def test_coco_and_voc_and_chestx_det(tmp_path):
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "Mass"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 30, 40]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    normal = Finding("b.png", "", None, None)
    assert read_coco(tmp_path / "coco.json") == [Finding("a.png", "mass", (2, 1), (42, 31)), normal]
    # Pascal VOC counts from 1 and its last pixel is inside: 2 to 31 are the pixels 1 to 31 from outside.
    box = "<xmin>2</xmin><ymin>3</ymin><xmax>31</xmax><ymax>42</ymax>"
    thing = f"<object><name>mass</name><bndbox>{box}</bndbox></object>"
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.png</filename>{thing}</annotation>")
    assert read_voc(tmp_path / "a.xml") == [Finding("a.png", "mass", (2, 1), (42, 31))]
    rows = [
        {"image": None, "chestx_det_file": "9.png", "split": "test", "labels": [], "boxes": []},
        {"image": "a.png", "chestx_det_file": "1.png", "split": "train", "labels": ["Mass"]},
    ]
    rows[1]["boxes"] = [[1, 2, 31, 42]]
    with gzip.open(tmp_path / "det.json.gz", "wt") as file:
        json.dump(rows, file)
    found, sections = read_chestx_det(tmp_path / "det.json.gz")
    assert found == [Finding("9.png", "", None, None), Finding("a.png", "mass", (2, 1), (42, 31))]
    assert sections == {"9.png": "test", "a.png": "train"}


@pytest.mark.parametrize("content", ["{}", "[", '{"images": [], "categories": []}'])
def test_files_that_are_no_coco_or_voc_are_refused(tmp_path, content):
    (tmp_path / "x").write_text(content)
    with pytest.raises(InputError, match="no COCO file of boxes"):
        read_coco(tmp_path / "x")
    with pytest.raises(InputError, match="no Pascal VOC file of boxes"):
        read_voc(tmp_path / "x")


def test_three_readers_become_one_and_stay_themselves(tmp_path):
    head = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max\n"
    rows = "a,Cardiomegaly,R1,100,100,200,200\na,Cardiomegaly,R2,110,100,210,200\n"
    path = table(tmp_path, head + rows + "a,Nodule/Mass,R3,400,400,420,420\n")
    findings = read_table(path, VINDR)
    assert [finding.reader for finding in findings] == ["R1", "R2", "R3"]
    heart, nodule = fuse_readers(findings, (512, 512))
    assert heart.low == pytest.approx((100, 105), abs=0.01)
    assert heart.high == pytest.approx((200, 205), abs=0.01)
    assert (heart.reader, nodule.reader) == ("2 of 3", "1 of 3")
    assert [finding.name for finding in fuse_readers(findings, (512, 512), fewest=2)] == ["cardiomegaly"]
    nothing = fuse_readers([Finding("b", "", None, None, reader) for reader in ("R1", "R2")], (512, 512))
    assert nothing == [Finding("b", "", None, None)]
    with pytest.raises(InputError, match="findings of 2 images"):
        fuse_readers([*findings, *nothing], (512, 512))


def test_two_boxes_of_one_reader_are_one_reader():
    twice = [Finding("a", "mass", (0, 0), (10, side), "R1") for side in (10, 12)]
    findings = [*twice, Finding("a", "", None, None, "R2")]
    (fused,) = fuse_readers(findings, (100, 100))
    assert (fused.high[1], fused.reader) == (pytest.approx(11.0, abs=0.01), "1 of 2")
    assert fuse_readers(findings, (100, 100), fewest=2) == [Finding("a", "", None, None)]


@pytest.mark.parametrize(("low", "high"), [((-5, 0), (10, 10)), ((10, 10), (5, 20)), ((0, 0), (101, 10))])
def test_boxes_that_no_reader_can_have_meant_are_not_fused(low, high):
    with pytest.raises(InputError, match="a box from .* on 100 rows and 100 columns"):
        fuse_readers([Finding("a", "mass", low, high, "R1")], (100, 100))


def test_a_table_in_another_encoding_is_refused_in_one_line(tmp_path):
    for encoding in ("big5", "utf-16"):
        (tmp_path / "boxes.csv").write_text("檔名,病徵,標記\na.dcm,心臟肥大,1\n", encoding=encoding)
        with pytest.raises(InputError, match="no table in UTF-8 .*save it as CSV UTF-8"):
            read_table(tmp_path / "boxes.csv", SOURCE)


@pytest.mark.parametrize("content", ["words", "[1]", '[{"image": "a"}]'])
def test_files_that_are_not_chestx_det_s_are_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x.json: no file of ChestX-Det"):
        read_chestx_det(tmp_path / "x.json")
    (tmp_path / "x.json.gz").write_text(content)
    with pytest.raises(InputError, match=r"x.json.gz: no file of ChestX-Det"):
        read_chestx_det(tmp_path / "x.json.gz")


def test_a_normal_image_has_an_empty_label():
    box = Finding("a", "mass", (1.0, 2.0), (3.0, 4.0))
    assert boxes_of([box]) == [{"class": "mass", "low": [1.0, 2.0], "high": [3.0, 4.0]}]
    assert boxes_of([Finding("a", "", None, None)]) == []
