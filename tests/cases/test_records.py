"""Tables of records as text, from files and from real databases."""

from __future__ import annotations

import gzip
import zipfile

import pytest
from postgres_server import postgres_server

from medseg.cases.records import columns_query, read_table
from medseg.errors import InputError

pandas = pytest.importorskip("pandas")
sqlalchemy = pytest.importorskip("sqlalchemy")

COLUMNS = {"patient": "Patient No", "t_score": "neck"}
ROWS = [("007", "-2.5"), ("8", ""), ("0x9", "NA")]
CSV = "Patient No,other,neck\n007,x, -2.5 \n8,y,\n0x9,z,NA\n"


def values(table):
    return list(table.itertuples(index=False, name=None))


def test_csv_arrives_as_the_text_that_it_holds(tmp_path):
    (tmp_path / "t.csv").write_text(CSV, encoding="utf-8-sig")
    table = read_table(tmp_path / "t.csv", COLUMNS)
    assert list(table.columns) == ["patient", "t_score"]
    assert values(table) == ROWS


def test_excel_and_parquet_keep_zeros_and_blanks(tmp_path):
    frame = pandas.DataFrame(ROWS, columns=["Patient No", "neck"])
    pytest.importorskip("openpyxl")
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    assert values(read_table(tmp_path / "t.xlsx", COLUMNS)) == ROWS
    pytest.importorskip("pyarrow")
    frame.assign(neck=[-2.5, None, 1.0]).to_parquet(tmp_path / "t.parquet", index=False)
    assert values(read_table(tmp_path / "t.parquet", COLUMNS)) == [("007", "-2.5"), ("8", ""), ("0x9", "1.0")]


def test_a_table_without_rows_is_a_frame_without_rows(tmp_path):
    (tmp_path / "t.csv").write_text("Patient No,neck\n")
    assert values(read_table(tmp_path / "t.csv", COLUMNS)) == []


def fill(url):
    """A table and a view of it, with dates and numbers as a database has them."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        run = lambda text: connection.execute(sqlalchemy.text(text))  # noqa: E731
        run('CREATE TABLE dexa ("Patient No" VARCHAR(20), day DATE, neck NUMERIC(4, 2))')
        run("INSERT INTO dexa VALUES ('007', '2021-03-04', -2.5)")
        run("INSERT INTO dexa VALUES ('8', NULL, NULL)")
        run('CREATE VIEW recent AS SELECT "Patient No", day, neck FROM dexa')
    engine.dispose()


DATED = {"patient": "Patient No", "date": "day", "t_score": "neck"}


def test_sqlite_tables_and_views(tmp_path):
    url = f"sqlite:///{tmp_path / 'records.db'}"
    fill(url)
    for name in ("dexa", "recent"):
        assert values(read_table(url, DATED, name)) == [("007", "2021-03-04", "-2.5"), ("8", "", "")]


def test_a_real_postgresql_server_answers_the_same():
    with postgres_server() as url:
        url = url.replace("postgresql://", "postgresql+psycopg://")
        fill(url)
        expected = [("007", "2021-03-04", "-2.5"), ("8", "", "")]
        assert values(read_table(url, DATED, "dexa")) == expected
        assert values(read_table(url, DATED, "public.recent")) == expected
        with pytest.raises(InputError, match="no table or view 'dex'; it has dexa, recent"):
            read_table(url, DATED, "dex")


def test_oracle_gets_its_own_dialect():
    from sqlalchemy.dialects import oracle

    text = str(columns_query("HIS.DEXA", ["PATIENT_NO", "Neck T"]).compile(dialect=oracle.dialect()))
    assert " ".join(text.split()) == (
        'SELECT "HIS"."DEXA"."PATIENT_NO", "HIS"."DEXA"."Neck T" FROM "HIS"."DEXA"'
    )


def test_a_name_is_never_pasted_into_the_statement():
    from sqlalchemy.dialects import postgresql

    text = str(columns_query("dexa", ['x"; DROP TABLE dexa; --']).compile(dialect=postgresql.dialect()))
    assert '"x""; DROP TABLE dexa; --"' in text


@pytest.mark.parametrize(
    "url, table, said",
    [
        ("sqlite:////no/such/file.db", "t", "no such file"),
        ("postgresql://me:secret@127.0.0.1:1/x", "t", r"postgresql.*me:\*\*\*@127.0.0.1"),
        ("nonsense://x", "t", "cannot be understood|not installed"),
        ("sqlite://", None, "the name of a table"),
    ],
)
def test_a_database_that_does_not_answer_is_named_without_its_password(url, table, said):
    pytest.importorskip("psycopg")
    url = url.replace("postgresql://", "postgresql+psycopg://")
    with pytest.raises(InputError, match=said) as caught:
        read_table(url, COLUMNS, table)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_such_table_says_so(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column 'Patient No', 'neck'; its columns are a, b"):
        read_table(tmp_path / "t.csv", COLUMNS)
    for name, content in (("t.xlsx", b"PK\3\4"), ("t.parquet", b"PAR1"), ("bad.csv", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as a table|no column"):
            read_table(tmp_path / name, COLUMNS)
    with pytest.raises(InputError, match="expected one of .csv, .parquet, .xlsx"):
        read_table(tmp_path / "t.sav", COLUMNS) if (tmp_path / "t.sav").write_text("x") else None
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv", COLUMNS)
    with pytest.raises(InputError, match="`sql_table` is for a database"):
        read_table(tmp_path / "t.csv", COLUMNS, "t")


def test_bombs_are_refused_before_they_unpack(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_LIMIT_TABLE_BYTES", "100000")
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * 200_000)
    with pytest.raises(InputError, match="unpack to: 200000 bytes"):
        read_table(tmp_path / "t.xlsx", COLUMNS)
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"Patient No": [str(n) for n in range(60_000)], "neck": "1"})
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="bytes, at most 100000"):
        read_table(tmp_path / "t.parquet", COLUMNS)
    (tmp_path / "t.csv").write_bytes(gzip.compress(CSV.encode()))  # never unpacked by its look
    with pytest.raises(InputError, match="cannot be read|no column"):
        read_table(tmp_path / "t.csv", COLUMNS)
