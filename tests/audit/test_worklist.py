"""The worklist as people and spreadsheets leave it."""

from __future__ import annotations

import pytest

from medseg.audit.worklist import read_worklist
from medseg.errors import InputError


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_worklist_is_read_as_spreadsheets_write_it(tmp_path, separator):
    rows = ["case,structure,status,reviewer", "c3,Heart, Accepted ,Dr A", ",,,", "'-1,Lung_L,open,"]
    (tmp_path / "list.csv").write_text("\r\n".join(rows).replace(",", separator), encoding="utf-8-sig")
    found = read_worklist(tmp_path / "list.csv")
    assert {key: row["status"] for key, row in found.items()} == {
        ("c3", "Heart"): "accepted",
        ("-1", "Lung_L"): "open",
    }
    assert found["c3", "Heart"]["reviewer"] == "Dr A"


def test_a_worklist_with_a_row_twice_or_other_columns_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("case,structure,status\nc1,Heart,accepted\nc1,Heart,rejected\n")
    with pytest.raises(InputError, match="line 3: c1 Heart is there twice"):
        read_worklist(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("case,organ\nc1,Heart\n")
    with pytest.raises(InputError, match=r"expected the columns case, .*; it has case, organ"):
        read_worklist(tmp_path / "list.csv")
