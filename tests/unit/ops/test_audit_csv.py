"""The audit log for spreadsheets, which take some cells for formulas (OWASP, "CSV Injection")."""

import csv
import io
from datetime import UTC, datetime

import pytest

from services.ops.audit.log import Entry, write_csv
from shared.ids import new_id


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_begins_like_a_formula(begin):
    actor = f"{begin}=cmd|calc"
    entry = Entry(1, datetime.now(UTC), "ops.signed_in", actor, "", "", "{}", new_id(), "")
    text = io.StringIO(newline="")
    write_csv([entry], text)
    (row,) = csv.DictReader(io.StringIO(text.getvalue(), newline=""))
    assert row["actor"] == f"'{actor}"
