"""Numbers in paths and queries: all of PostgreSQL's bigint, and nothing else."""

import pytest

from services.ops.console.pages.lists import _place
from services.ops.console.web.reading import MOST, number, positive


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", 0),
        ("7", 7),
        ("1000000000", 1_000_000_000),
        (str(MOST), MOST),
        ("0" * 20 + "7", 7),
        (str(MOST + 1), None),
        ("0" * 20 + "9" * 30, None),
        ("9" * 10_000, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("x", None),
    ],
)
def test_a_number(text, found):
    assert number(text) == found
    assert positive(text) == (found or 0)


@pytest.mark.parametrize("text", ["1." + "9" * 30, "9" * 30 + ".1", f"{MOST}.1", "x.1", "1", ""])
def test_an_invalid_place(text):
    assert _place(text) is None
