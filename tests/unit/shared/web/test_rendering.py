"""Formats of figures, and vendored files."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from shared.web import rendering
from stack.folders import ROOT

VENDORS = [*(ROOT / "services").glob("**/vendor"), *(ROOT / "shared").glob("**/vendor")]
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.0421, "42 ms"),
        (1.26, "1.3 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (90_000, "1 d 1 h"),
        (172_800, "2 d"),
    ],
)
def test_durations(seconds, words):
    assert rendering.duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"), [(None, "–"), (0, "0"), (999, "999"), (1_234_567, "1\u2009234\u2009567")]
)
def test_numbers(value, words):
    assert rendering.number(value) == words


def test_an_age_is_never_negative():
    assert rendering.age(NOW + timedelta(seconds=3), NOW) == "0 s"


def test_a_time_is_readable_and_machine_readable():
    html = rendering.time(NOW)
    assert "2026-11-24 12:00:00" in html
    assert 'datetime="2026-11-24T12:00:00.000+00:00"' in html


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda path: str(path.relative_to(ROOT)))
def test_vendored_files_are_unmodified(vendor):
    rows = re.findall(
        r"^\| `(\S+)` \| .* `(\S+)` \| `([0-9a-f]{64})` \|$",
        (vendor / "README.md").read_text(),
        re.MULTILINE,
    )
    shipped = {path.name for path in vendor.iterdir()} - {"README.md"}
    assert {name for name, _, _ in rows} | {licence for _, licence, _ in rows} == shipped
    for name, _, digest in rows:
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name
