"""What a stranger sends to the page for leaving is a form, or none; nothing else comes of it."""

import random

import pytest

from services.notifier.suppression.page import ONE_CLICK, fields

MULTIPART = "multipart/form-data; boundary=b"


def part(disposition, encoding="7bit", value="x"):
    return (
        f"--b\r\nContent-Disposition: {disposition}\r\nContent-Transfer-Encoding: {encoding}"
        f"\r\n\r\n{value}\r\n--b--\r\n"
    ).encode("latin-1")


def test_a_form_in_either_encoding_is_read():
    one = part('form-data; name="List-Unsubscribe"', value="One-Click")
    assert fields(MULTIPART, one) == ONE_CLICK
    assert fields("application/x-www-form-urlencoded", b"do=all") == {"do": "all"}


@pytest.mark.parametrize("raw", [part("form-data; name*"), part("form-data; name*", "base64")])
def test_an_unparsable_body_has_no_fields(raw):
    assert fields(MULTIPART, raw) == {}


def test_any_content_type_is_parsed_or_rejected():
    chance = random.Random(14)
    heads = [
        "form-data; name",
        "form-data; name*0*=",
        "form-data; name*=utf-8''",
        "=?utf-8?q?",
        "(",
    ]
    heads += ["form-data; name*0*=utf-8'a'%ff; name*1=x", "form-data; name*x=", "*", '"', ""]
    ends = ["", "a", '"a', "=?", "'", "%", "*", "\\", "\xff", ";", "*="]
    encodings = ["base64", "quoted-printable", "x-uuencode", "7bit", "=?", "binary"]
    for _ in range(1_500):
        disposition = chance.choice(heads) + chance.choice(ends) * chance.randint(0, 2)
        value = chance.choice(["x", "=", "!!!!", "begin 644 a", "--c"])
        boundary = chance.choice(["b", '"b', ""])
        raw = part(disposition, chance.choice(encodings), value)
        assert isinstance(fields(f"multipart/form-data; boundary={boundary}", raw), dict)
