"""Orders in CSV as spreadsheets write it, and files of failed rows."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.intake.csv_files import COLUMNS, Failed, FileError, failed_rows, rows
from shared.intake.order_files import read

HEAD = b"name,email,item_summary,address\n"
WHY = Failed("invalid_body", "=1+1 is missing.", "fellow-" + "0" * 32)


def events(content):
    return [json.loads(body) for _, body, _ in rows(content)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_spreadsheets_write(separator, mark):
    lines = ("name,email", 'Zoë,"zoe@shop.example"', ",", "")
    content = mark + "\r\n".join(line.replace(",", separator) for line in lines).encode()
    assert events(content) == [{"customer_details": {"name": "Zoë", "email": "zoe@shop.example"}}]


def test_an_update_may_have_a_timestamp():
    (event,) = events(b"type,order_number,timestamp\norder.cancelled,A-1,2026-11-02T08:00:00Z\n")
    assert event["timestamp"] == "2026-11-02T08:00:00Z"


def test_a_row_has_the_number_of_its_first_line():
    content = HEAD + b'\nA,a@b.example,x,"two\nlines"\n,,,\nB,b@b.example,y,z\n'
    assert [number for number, _, _ in rows(content)] == [3, 6]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("name\nZoë\n".encode("latin-1"), "line 2 has the byte 0xeb"),
        ("name\nZoë\n".encode("utf-16"), "UTF-16"),
        (b"name,name\n", "duplicate columns: name"),
        (b"name,,\nx,y,z\n", "duplicate columns: without a name"),
        (b"naem\nx\n", "unknown columns: naem"),
        (b"name\nx,y\n", "line 2 has more cells"),
        (b'name\n"x\n', "not CSV: line 2"),
        (b"name\n" + b"x" * 200_000, "not CSV: line 2"),
    ],
)
def test_an_unreadable_file_is_refused_with_a_reason(content, word):
    with pytest.raises(FileError, match=word):
        list(rows(content))


def test_surplus_cells_may_be_empty():
    assert len(events(b"name\nx,,\n")) == 1


def test_a_failed_row_has_its_error_and_can_be_sent_again():
    content = HEAD + b"A,a@b.example,x,here\nB,,+1,there\n"
    back = failed_rows(content, {3: WHY})
    assert back.startswith(b"\xef\xbb\xbf")
    named, row = csv.reader(io.StringIO(back.decode("utf-8-sig")))
    assert named == ["name", "email", "item_summary", "address", "line", "code", "error",
                     "idempotency_key"]  # fmt: skip
    # No cell is a formula.
    assert row == ["B", "", "'+1", "there", "3", "invalid_body", "'=1+1 is missing.", WHY.key]
    first = read(content, "csv")[1]
    (again,) = read(back, "csv")
    assert (again.body, again.key) == (first.body, WHY.key)
    # After another round trip each column occurs once.
    assert failed_rows(back, {2: WHY}).count(b"idempotency_key") == 1


def test_the_separator_is_kept():
    content = HEAD.replace(b",", b";") + b"A;;;\n"
    assert failed_rows(content, {2: WHY}).splitlines()[0].endswith(b";error;idempotency_key")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.lists(TEXTS, min_size=4, max_size=4), min_size=1, max_size=5))
def test_cells_survive_a_round_trip_and_are_no_formulas(cells):
    written = io.StringIO()
    csv.writer(written).writerows([COLUMNS[:4], *cells])
    content = written.getvalue().encode()
    lines = read(content, "csv")
    back = failed_rows(content, {line.number: WHY for line in lines})
    assert [line.body for line in read(back, "csv")] == [line.body for line in lines]
    for row in csv.reader(io.StringIO(back.decode("utf-8-sig"), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)
