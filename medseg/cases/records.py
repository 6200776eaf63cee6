"""Tables of records (CSV, Excel, Parquet, SQL) as text columns under names of ours.

Needs pandas and, for what is no CSV, its own library: the extra ``medseg[records]``. Every value arrives as
text, so that a patient number keeps its zeros and no library guesses what a date is.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg import limits
from medseg.errors import InputError

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".parquet", ".xlsx")


def is_sql(source: str) -> bool:
    """True for the URL of a database: ``postgresql://…``, ``sqlite:///records.db``, ``oracle+oracledb://…``."""
    return "://" in source


def read_table(
    source: str | Path, columns: Mapping[str, str], sql_table: str | None = None
) -> pandas.DataFrame:
    """The columns that are wanted, renamed, of a table: {our name: the table's own name} as a DataFrame of
    text.

    What is missing is ``""``; blanks at either end of a value go. An empty table is a frame without rows.
    ``source``: a file of SUFFIXES, or the URL of a database with the name of its table (or view; SCHEMA.NAME
    too). Raises InputError for a file that is none of these, a column that the table lacks (naming those it
    has) and a database that cannot be reached; a password in the URL is never repeated.
    """
    _pandas()
    wanted = list(dict.fromkeys(columns.values()))
    if is_sql(str(source)):
        if not sql_table:
            raise InputError("a database needs the name of a table or view: `sql_table`.")
        found = _from_sql(str(source), sql_table, wanted)
    else:
        if sql_table:
            raise InputError(
                f"{source}: `sql_table` is for a database; expected its URL, as in sqlite:///records.db."
            )
        found = _from_file(Path(source), wanted)
    text = {column: _as_text(found[column]) for column in wanted}
    return _pandas().DataFrame({name: text[column] for name, column in columns.items()})


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise InputError("tables need pandas: pip install 'medseg[records]'.") from None
    return pandas


def _as_text(column: pandas.Series) -> pandas.Series:
    return column.astype("str").where(column.notna(), "").str.strip()


def _from_file(path: Path, wanted: Sequence[str]) -> pandas.DataFrame:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file." if not path.exists() else f"{path} is no file; expected a table."
        )
    readers = {".csv": _from_csv, ".parquet": _from_parquet, ".xlsx": _from_excel}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected one of {', '.join(SUFFIXES)}, or the URL of a database.")
    limits.check("table_bytes", path.stat().st_size, f"{path}: the file holds")
    try:
        return readers[path.suffix.lower()](path, wanted)
    except (InputError, MemoryError):
        raise
    except ImportError as error:
        raise InputError(f"{path}: {error.name} is needed for it: pip install 'medseg[records]'.") from None
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as a table: {' '.join(str(error).split())[:200]}."
        ) from error


def _from_csv(path: Path, wanted: Sequence[str]) -> pandas.DataFrame:
    pandas = _pandas()
    options = {"dtype": "str", "keep_default_na": False, "encoding": "utf-8-sig", "compression": None}
    head = pandas.read_csv(path, nrows=0, **options)
    _check_columns(path, list(head.columns), wanted)
    return pandas.read_csv(path, usecols=wanted, **options)


def _from_parquet(path: Path, wanted: Sequence[str]) -> pandas.DataFrame:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    unpacked = sum(
        file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)
    )
    limits.check("table_bytes", unpacked, f"{path}: its columns unpack to")
    _check_columns(path, file.schema_arrow.names, wanted)
    return file.read(columns=list(wanted)).to_pandas()


def _from_excel(path: Path, wanted: Sequence[str]) -> pandas.DataFrame:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    limits.check("table_bytes", unpacked, f"{path}: its parts unpack to")
    found = _pandas().read_excel(path, dtype="str", keep_default_na=False)  # the first sheet
    _check_columns(path, list(found.columns), wanted)
    return found


def _check_columns(source: object, there: Sequence[str], wanted: Sequence[str]) -> None:
    lacking = [column for column in wanted if column not in there]
    if lacking:
        has = ", ".join(map(str, there[:30]))
        raise InputError(f"{source} has no column {', '.join(map(repr, lacking))}; its columns are {has}.")


# ---- databases ---------------------------------------------------------------------------------------------


def columns_query(sql_table: str, wanted: Sequence[str]) -> Any:
    """SELECT of columns as SQLAlchemy writes it for whatever database: names are quoted, not pasted."""
    import sqlalchemy

    schema, _, name = sql_table.rpartition(".")
    table = sqlalchemy.table(name, *map(sqlalchemy.column, wanted), schema=schema or None)
    return sqlalchemy.select(*(table.c[column] for column in wanted))


def _from_sql(url: str, sql_table: str, wanted: Sequence[str]) -> pandas.DataFrame:
    try:
        import sqlalchemy
    except ImportError:
        raise InputError("a database needs sqlalchemy: pip install 'medseg[records]'.") from None
    try:
        engine = sqlalchemy.create_engine(url)
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise InputError(
            "the database's URL cannot be understood; expected dialect://user:password@host:port/name, or "
            "sqlite:///FILE."
        ) from error
    except ImportError as error:
        raise InputError(f"this database needs a driver that is not installed: {error.name}.") from error
    shown = engine.url.render_as_string(hide_password=True)
    database = engine.url.database
    if engine.dialect.name == "sqlite" and database and not Path(database).is_file():
        raise InputError(f"{shown}: no such file.")  # sqlite would make an empty one
    try:
        with engine.connect() as connection:
            schema, _, name = sql_table.rpartition(".")
            inspector = sqlalchemy.inspect(connection)
            try:
                there = [column["name"] for column in inspector.get_columns(name, schema or None)]
            except sqlalchemy.exc.NoSuchTableError:
                names = [
                    *inspector.get_table_names(schema or None),
                    *inspector.get_view_names(schema or None),
                ]
                raise InputError(
                    f"{shown} has no table or view {sql_table!r}; it has {', '.join(names[:30]) or 'none'}."
                ) from None
            _check_columns(f"{shown} {sql_table}", there, wanted)
            return _pandas().read_sql(columns_query(sql_table, wanted), connection)
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        raise InputError(f"{shown}: {reason}.") from error
    finally:
        engine.dispose()
