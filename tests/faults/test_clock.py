"""The clock of the consumers and the relay jumps an hour ahead and back, by libfaketime(1).

Not that of what gunicorn runs: its master's time.sleep does not bear libfaketime
(clock_nanosleep: EINVAL, now and then).
"""

import os
import time
from datetime import timedelta
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.programs import program

UNDER_GUNICORN = ("ingress", "ops", "portal")
HOUR = timedelta(hours=1).total_seconds()


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    file = tmp_path_factory.mktemp("clock") / "offset"
    file.write_text("+0")
    return file


@pytest.fixture(scope="module")
def service_environment(clock):
    program("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # A jump of the wall clock: monotonic clocks are called so because they do not.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return lambda name: {} if name in UNDER_GUNICORN else faked


def set_clock(file, seconds):
    written = file.with_suffix(".new")
    written.write_text(f"{seconds:+g}")
    os.replace(written, file)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "back"])
def test_a_jump_of_an_hour(stand, clock, seconds):
    with stand.load() as load:
        stand.go_on(1)
        set_clock(clock, seconds)

        def is_seen():
            return any(abs(shift - seconds) < 600 for shift in dated(stand))

        stand.go_on_until(is_seen, "emails dated by the jumped clock")
        stand.go_on(4)
        set_clock(clock, 0)
        stand.go_on(4)
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def dated(stand):
    """By how much the dates of the emails are off, the jumped clock being their sender's."""
    # Only the newest are read: there may be thousands, and reading takes time from the load.
    for file in sorted((stand.mail.maildir.path / "new").iterdir())[-50:]:
        date = message_from_bytes(file.read_bytes())["date"]
        yield parsedate_to_datetime(date).timestamp() - time.time()
