"""Images and records of the same person: pairs, labels, what is left out, and the datalist."""

from __future__ import annotations

import csv
import json
from datetime import date

import pytest
from chest_files import write_dx

from medseg.errors import InputError
from medseg.workbench.pseudonyms import hashed
from medseg.workbench.record_pairs import PairRequest, pair
from medseg.workbench.t_scores import label_of

pytest.importorskip("pandas")

COLUMNS = {"patient": "pid", "date": "when", "t_score": "neck"}
IMAGES = "path,PatientID,StudyDate,Laterality,ImageLaterality\n"


def request(tmp_path, images, records, **settings):
    """A request of two small tables: lines under the heads of records headers and of pid,when,neck (or a
    table with its own head)."""
    (tmp_path / "images.csv").write_text(IMAGES + "\n".join(images) + "\n")
    head = "" if records[0].startswith("pid") else "pid,when,neck\n"
    (tmp_path / "records.csv").write_text(head + "\n".join(records) + "\n")
    return PairRequest(
        images=tmp_path / "images.csv",
        records=str(tmp_path / "records.csv"),
        out=tmp_path / "out.json",
        **{"record_columns": COLUMNS, "validation": 0.5, **settings},
    )


def items(tmp_path):
    content = json.loads((tmp_path / "out.json").read_text())
    return {
        item["image"]: item for name in ("training", "validation", "test") for item in content.get(name, [])
    }


def left_out(tmp_path):
    with open(tmp_path / "out_left_out.csv", newline="") as file:
        return {row["image"]: row["reason"] for row in csv.DictReader(file)}


OTHERS = (["y.dcm,98,20210101,L,", "z.dcm,99,20210101,L,"], ["98,2021-01-02,0.1", "99,2021-01-02,0.2"])
"""Two patients so that a split has two sides."""


def test_every_image_has_its_label_or_its_reason(tmp_path):
    images = [
        "a.dcm,007,20210301,L,",
        "b.dcm,7,20210301,L,",
        "c.dcm,8,20210301,L,",
        "d.dcm,9,20210301,L,",
        "e.dcm,,20210301,L,",
        "f.dcm,10,,L,",
        "g.dcm,11,20210301,L,",
    ]
    records = [
        "007,2021-03-11,-2.5",
        "8,2021-08-31,-2.4",
        "9,2021-09-01,-2.4",
        "10,2021-03-11,-2.4",
        "11,2021-03-11,",
    ]
    report = pair(request(tmp_path, images + OTHERS[0], records + OTHERS[1]))
    found = items(tmp_path)
    assert {name: found[name]["label"] for name in "ac" for name in [f"{name}.dcm"]} == {
        "a.dcm": 1,
        "c.dcm": 0,
    }
    assert (found["a.dcm"]["days_apart"], found["c.dcm"]["days_apart"]) == (10, 183)
    assert found["a.dcm"]["patient_id"] == "007" and found["a.dcm"]["side"] == "L"
    assert left_out(tmp_path) == {
        "b.dcm": "no record of this patient",
        "d.dcm": "nearest record too far away in time",
        "e.dcm": "no patient id",
        "f.dcm": "no date",
        "g.dcm": "its records have no figure",
    }
    assert (report["images"], report["paired"], report["records_without_figure"]) == (9, 4, 1)
    assert sum(report["left_out"].values()) == 5


def test_sides_meet_only_their_own_records(tmp_path):
    records = [
        "pid,when,neck,hip",
        "1,2021-03-02,-3,left",
        "1,2021-03-09,-1,R",
        *[f"{line},L" for line in OTHERS[1]],
    ]
    images = ["l.dcm,1,20210301,,L", "r.dcm,1,20210301,R,", "u.dcm,1,20210301,,"]
    asked = request(tmp_path, images + OTHERS[0], records, record_columns={**COLUMNS, "side": "hip"})
    pair(asked)
    found = items(tmp_path)
    assert (found["l.dcm"]["label"], found["l.dcm"]["days_apart"]) == (1, 1)
    assert (found["r.dcm"]["label"], found["r.dcm"]["days_apart"]) == (0, 8)
    assert left_out(tmp_path) == {"u.dcm": "the image does not say its side"}


def test_implants_are_left_out_whichever_table_knows_of_them(tmp_path):
    records = [
        "pid,when,neck,metal",
        "1,2021-03-02,-3,1",
        "2,2021-03-02,-3,no",
        *[f"{line},0" for line in OTHERS[1]],
    ]
    asked = request(
        tmp_path,
        ["a.dcm,1,20210301,L,", "b.dcm,2,20210301,L,", *OTHERS[0]],
        records,
        record_columns={**COLUMNS, "implant": "metal"},
    )
    report = pair(asked)
    assert left_out(tmp_path) == {"a.dcm": "implant"}
    assert report["paired"] == 3


def test_an_implant_in_other_words_is_refused_and_not_taken_for_none(tmp_path):
    records = ["pid,when,neck,metal", "1,2021-03-02,-3,THA left", *[f"{line},0" for line in OTHERS[1]]]
    asked = request(
        tmp_path,
        ["a.dcm,1,20210301,L,", *OTHERS[0]],
        records,
        record_columns={**COLUMNS, "implant": "metal"},
    )
    with pytest.raises(
        InputError, match="the records: 'THA left' in the column for implant .1 rows.; expected"
    ):
        pair(asked)
    named = {"image": "path", "patient": "PatientID", "date": "StudyDate", "implant": "ImageLaterality"}
    with pytest.raises(InputError, match="the images: 'screw' in the column for implant"):
        pair(request(tmp_path, ["a.dcm,1,20210301,L,screw"], ["1,2021-03-02,-3"], image_columns=named))


def test_t_scores_made_of_bmd_meet_the_limit_exactly(tmp_path):
    # 0.558 g/cm2 is (0.558 - 0.858) / 0.120 = -2.5, and -2.4999999999999996 in floating point.
    records = ["pid,when,neck", "1,2021-03-02,0.558", "2,2021-03-02,0.559", *OTHERS[1]]
    asked = request(
        tmp_path,
        ["a.dcm,1,20210301,L,", "b.dcm,2,20210301,L,", *OTHERS[0]],
        records,
        record_columns={"patient": "pid", "date": "when", "bmd": "neck"},
        reference="nhanes3_femoral_neck",
    )
    pair(asked)
    found = items(tmp_path)
    assert (found["a.dcm"]["label"], found["b.dcm"]["label"]) == (1, 0)
    assert (
        "(BMD - 0.858) / 0.12, nhanes3_femoral_neck"
        in json.loads((tmp_path / "out.json").read_text())["description"]
    )


@pytest.mark.parametrize("t_score, label", [(-2.5, 2), (-2.49, 1), (-1.01, 1), (-1.0, 0), (1.3, 0)])
def test_who_classes(t_score, label):
    assert label_of(t_score, "who") == label
    assert label_of(t_score, "osteoporosis") == int(label == 2)
    assert label_of(t_score, "t_score") == t_score


def test_a_patient_never_straddles_and_the_last_year_is_apart(tmp_path):
    images = [f"{p}_{year}.dcm,{p},{year}0301,L," for p in range(12) for year in (2020, 2021)]
    images += [f"{p}_2022.dcm,{p},20220301,L," for p in (0, 1, 2)]
    records = [f"{p},{year}-03-02,-1" for p in range(12) for year in (2020, 2021, 2022)]
    report = pair(request(tmp_path, images, records, test_from=date(2022, 1, 1), validation=0.3))
    content = json.loads((tmp_path / "out.json").read_text())
    patients = {
        name: {item["patient_id"] for item in content[name]} for name in ("training", "validation", "test")
    }
    assert patients["test"] == {"0", "1", "2"}
    assert {item["image"] for item in content["test"]} == {"0_2022.dcm", "1_2022.dcm", "2_2022.dcm"}
    assert not patients["training"] & patients["validation"]
    assert not (patients["training"] | patients["validation"]) & patients["test"]
    assert len(patients["validation"]) == 3 and len(patients["training"]) == 6
    assert report["left_out"] == {"an earlier image of a test patient": 6}
    assert left_out(tmp_path)["0_2020.dcm"] == "an earlier image of a test patient"


def test_hashed_ids_and_shifted_dates_depend_on_the_key_and_keep_the_days_between(tmp_path):
    images = ["a.dcm,007,20210301,L,", "b.dcm,007,20210401,L,", *OTHERS[0]]
    records = ["007,2021-03-02,-3", "007,2021-04-03,-3", *OTHERS[1]]
    key = b"0123456789abcdef"
    pair(request(tmp_path, images, records, hash_key=key, shift_dates=True))
    text, found = (tmp_path / "out.json").read_text(), items(tmp_path)
    assert '"007"' not in text and "2021-03-01" not in text
    assert found["a.dcm"]["patient_id"] == found["b.dcm"]["patient_id"] == hashed(key, "007")
    assert hashed(key, "007") != hashed(b"another key of 16", "007")
    apart = date.fromisoformat(found["b.dcm"]["image_date"]) - date.fromisoformat(
        found["a.dcm"]["image_date"]
    )
    assert apart.days == 31
    assert (found["a.dcm"]["days_apart"], found["b.dcm"]["days_apart"]) == (1, 2)


def test_a_dicom_folder_is_read_in_place(tmp_path):
    for name, patient in (("a", "007"), ("y", "98"), ("z", "99")):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_dx(
            tmp_path / "in" / f"{name}.dcm", PatientID=patient, StudyDate="20210301", ImageLaterality="R"
        )
    (tmp_path / "records.csv").write_text(
        "pid,when,neck\n007,2021-03-02,-3\n98,2021-03-02,1\n99,2021-03-02,1\n"
    )
    pair(
        PairRequest(
            images=tmp_path / "in",
            records=str(tmp_path / "records.csv"),
            out=tmp_path / "out.json",
            record_columns=COLUMNS,
            validation=0.4,
        )
    )
    found = items(tmp_path)
    assert sorted(found) == ["a.dcm", "y.dcm", "z.dcm"]
    assert (found["a.dcm"]["label"], found["a.dcm"]["side"]) == (1, "R")


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"label": "cancer"}, "expected one of osteoporosis"),
        ({"most_days": -1}, "expected 0 or more"),
        ({"record_columns": {"patient": "pid", "date": "when"}}, "t_score"),
        ({"record_columns": {**COLUMNS, "shoe_size": "a"}}, "unknown shoe_size"),
        ({"record_columns": {"date": "when", "t_score": "neck"}}, "lacks patient"),
        ({"record_columns": {"patient": "pid", "date": "when", "bmd": "neck"}}, "`reference`"),
        ({"reference": "nhanes3_femoral_neck"}, "bring t_score themselves"),
        ({"shift_dates": True}, "needs `hash_key`"),
        (
            {"record_columns": {**COLUMNS, "t_score": "nek"}},
            "no column 'nek'; its columns are pid, when, neck",
        ),
        ({"test_from": date(2030, 1, 1)}, "no test set"),
        ({"validation": 0.0}, "leave one side empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_written(tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        pair(request(tmp_path, OTHERS[0], OTHERS[1], **settings))
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "records, said",
    [
        (["98,03/04/2021,-3"], "03/04/2021 may mean two days"),
        (["98,2021-03-04,low"], "no record has a number in t_score; the first is 'low'"),
        (["1,2021-03-04,-3"], "no image of 2 has a record: 2 no record of this patient"),
    ],
)
def test_tables_that_say_nothing_usable_end_in_one_line(tmp_path, records, said):
    with pytest.raises(InputError, match=said):
        pair(request(tmp_path, OTHERS[0], records))
    assert not (tmp_path / "out.json").exists()


def test_columns_are_carried_along_where_they_hold_something(tmp_path):
    images = ["a.dcm,1,20210301,L,", "b.dcm,2,20210301,L,"]
    records = ["pid,when,neck,years,kg,sex", "1,2021-03-02,-2.6,71,52.5,F", "2,2021-03-02,-0.5,unknown,,"]
    columns = COLUMNS | {"age": "years", "weight_kg": "kg", "sex": "sex"}
    pair(request(tmp_path, images, records, record_columns=columns))
    found = items(tmp_path)
    assert {name: found["a.dcm"][name] for name in ("age", "weight_kg", "sex")} == {
        "age": 71.0,
        "weight_kg": 52.5,
        "sex": "F",
    }
    assert not {"age", "weight_kg", "sex"} & set(found["b.dcm"])


def test_the_density_of_a_record_is_carried_beside_its_class(tmp_path):
    records = ["pid,when,neck,bmd", "1,2021-03-02,-2.6,0.546", "2,2021-03-02,-0.5,"]
    images = ["a.dcm,1,20210301,L,", "b.dcm,2,20210301,L,"]
    pair(request(tmp_path, images, records, record_columns=COLUMNS | {"bmd": "bmd"}))
    found = items(tmp_path)
    assert (found["a.dcm"]["label"], found["a.dcm"]["bmd"]) == (1, 0.546)
    assert found["b.dcm"]["label"] == 0 and "bmd" not in found["b.dcm"]
