"""Files of orders: three formats, and keys that make retries idempotent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.intake.csv_files import Failed, FileError
from shared.intake.order_files import failed_line, guess, read

A, B = {"item_summary": "a"}, {"item_summary": "é"}


def jsonl(*orders):
    return b"\n".join(json.dumps(order).encode() for order in orders) + b"\n"


def keys(lines):
    return [line.key for line in lines]


def test_json_lines_are_sent_unmodified():
    lines = read(b'\xef\xbb\xbf{"a": 1}\r\n\n  {"b":2}', "jsonl")
    assert [(line.number, line.body) for line in lines] == [(1, b'{"a": 1}'), (3, b'{"b":2}')]


def test_each_element_of_an_array_is_an_order():
    lines = read(json.dumps([A, B]).encode(), "json")
    assert [json.loads(line.body) for line in lines] == [A, B]


def test_rows_of_csv():
    content = (
        "name,email,phone,item_summary,address,type,order_id,tracking_status\r\n"
        'Zoë,zoe@shop.example,,"2 kettles, ""blue""","12 Marina Road\nLagos",,,\r\n'
        ",,,,,order.status_changed,77,DELIVERED\r\n"
    ).encode()
    order, update = (json.loads(line.body) for line in read(content, "csv"))
    assert order == {
        "customer_details": {"name": "Zoë", "email": "zoe@shop.example"},
        "item_summary": '2 kettles, "blue"',
        "address": "12 Marina Road\nLagos",
    }
    assert update == {
        "type": "order.status_changed",
        "order_id": "77",
        "tracking_status": "DELIVERED",
    }


def test_csv_has_numbers_metadata_and_parcels():
    content = (
        b"order_number,name,email,item_summary,address,metadata.branch,metadata.till,carrier\n"
        b"007,Zoe,zoe@shop.example,kettle,here,Lekki,,Swift\n"
    )
    (line,) = read(content, "csv")
    assert json.loads(line.body) == {
        "order_number": "007",
        "customer_details": {"name": "Zoe", "email": "zoe@shop.example"},
        "item_summary": "kettle",
        "address": "here",
        "metadata": {"branch": "Lekki"},
        "carrier": "Swift",
    }


@pytest.mark.parametrize(
    ("content", "form", "word"),
    [
        (b"{}", "json", "not a JSON array"),
        (b"[1", "json", "not JSON"),
        (b"naem,email\nx,y", "csv", "unknown columns: naem"),
        (b"name\nx,y", "csv", "more cells"),
        (b'name\n"x', "csv", "not CSV"),
        (b"name\n\xff", "csv", "UTF-8"),
    ],
)
def test_a_file_of_another_format_is_refused(content, form, word):
    with pytest.raises(FileError, match=word):
        read(content, form)


def test_a_line_that_is_not_an_object_is_a_problem_of_its_own():
    bad, also_bad, good = read(b"{\n[1]\n{}", "jsonl")
    assert "not JSON" in bad.problem
    assert "not a JSON object" in also_bad.problem
    assert not good.problem


def test_the_format_is_guessed():
    assert guess("orders.csv", b"name") == "csv"
    assert guess("-", b' \n[{"a": 1}]') == "json"
    assert guess("orders.txt", b'{"a": 1}') == "jsonl"


def test_keys_are_the_same_for_a_file_and_differ_by_order():
    content = jsonl(A, B, A)
    assert keys(read(content, "jsonl")) == keys(read(content, "jsonl"))
    assert len(set(keys(read(content, "jsonl")))) == 3


def test_the_same_order_in_another_file_is_another_order():
    assert not set(keys(read(jsonl(A), "jsonl"))) & set(keys(read(jsonl(A, B), "jsonl")))


def test_in_a_named_batch_unchanged_orders_keep_their_keys():
    first = keys(read(jsonl(A, B, A), "jsonl", "monday"))
    mended = keys(read(jsonl(A, {"item_summary": "mended"}, A), "jsonl", "monday"))
    assert (first[0], first[2]) == (mended[0], mended[2])
    assert first[1] != mended[1]
    assert not set(first) & set(keys(read(jsonl(A, B, A), "jsonl", "tuesday")))


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=1, max_size=5))
def test_failed_lines_keep_their_keys(orders):
    lines = read(jsonl(*orders), "jsonl")
    failed = "\n".join(
        failed_line(line, Failed("unreachable", "away", line.key)) for line in lines
    ).encode()
    again = read(failed, "jsonl")
    assert [(line.key, line.body) for line in again] == [(line.key, line.body) for line in lines]
