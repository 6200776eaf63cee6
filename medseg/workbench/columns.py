"""What the columns of a clinic's table say: ids, days, sides, and words for yes and no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import InputError

if TYPE_CHECKING:
    import pandas

SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}
_YES = ("1", "1.0", "true", "yes", "y")
_NO = ("", "0", "0.0", "false", "no", "n")


def ids_of(column: pandas.Series) -> pandas.Series:
    """Patient ids to compare; medseg's own CSV files put an apostrophe before what looks like a formula."""
    return column.str.removeprefix("'")


def days_of(column: pandas.Series, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(day number, whether it is a date) of texts such as 20210304, 2021-03-04 and 2021-03-04 10:31:00."""
    import pandas

    text = column.str.slice(0, 10).str.replace("-", "", regex=False).str.slice(0, 8)
    rest = column.str.len() > np.where(column.str.contains("-", regex=False), 10, 8)
    sound = text.str.fullmatch(r"\d{8}") & (~rest | column.str.slice(10, 11).isin(["T", " ", "."]))
    dates = pandas.to_datetime(text.where(sound), format="%Y%m%d", errors="coerce")
    there = dates.notna().to_numpy()
    if len(column) and not there.any() and (column != "").any():
        example = column[column != ""].iloc[0]
        raise InputError(
            f"dates of {what} cannot be read: {example[:30]!r}; expected 20210304 or 2021-03-04, "
            "since 03/04/2021 may mean two days."
        )
    days = dates.to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.where(there, days, 0), there


def sides_of(column: pandas.Series) -> pandas.Series:
    """Of each row L, R, or nothing where the word is no side."""
    return column.str.upper().map(SIDES).fillna("")


def is_set(column: pandas.Series, name: str, what: str) -> np.ndarray:
    """bool for each row of the column for ``name`` of the table ``what``; InputError for a word that may mean
    either."""
    said = column.str.strip().str.lower()
    unknown = ~said.isin([*_YES, *_NO])
    if unknown.any():
        raise InputError(
            f"{what}: {column[unknown].iloc[0][:30]!r} in the column for {name} "
            f"({int(unknown.sum())} rows); expected one of {', '.join(_YES)} or {', '.join(_NO[1:])}, "
            "or nothing. Recode the column."
        )
    return said.isin(_YES).to_numpy()
