"""The audit log for spreadsheets, which take some cells for formulas (OWASP, "CSV Injection")."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from services.ops.audit.log import Entry, write_csv
from shared.ids import new_id


def written(actor="", data="{}"):
    entry = Entry(1, datetime.now(UTC), "ops.signed_in", actor, "", "", data, new_id(), "")
    text = io.StringIO(newline="")
    write_csv([entry], text)
    return text.getvalue()


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_begins_like_a_formula(begin):
    (row,) = csv.DictReader(io.StringIO(written(f"{begin}=cmd|calc"), newline=""))
    assert row["actor"].startswith(f"'{begin}")


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r", ';"'])
def test_no_cell_begins_like_a_formula_after_another_separator(separator):
    """As with Excel in most of Europe; a business names itself as it likes."""
    name = f"x{separator}=cmd|' /C calc'!A1;"
    data = json.dumps({"company_name": name})
    text = written(actor=name, data=data)
    for delimiter in (";", "\t"):
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@"))], row
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert json.loads(row["data"]) == {"company_name": name}
