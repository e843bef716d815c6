"""Logs contain no personal data."""

import json

import msgspec
import pytest
import structlog

from shared.config.settings import Settings
from shared.telemetry import logs


@pytest.fixture
def log(request):
    yield lambda form: (
        logs.configure(msgspec.structs.replace(Settings(), log_format=form), "tests"),
        structlog.get_logger(),
    )[1]
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def fail():
    secret = "whsk_not_for_the_log"
    raise RuntimeError(f"something of {len(secret)}")


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_holds_no_local_variables(log, capsys, form):
    logger = log(form)
    try:
        fail()
    except RuntimeError:
        logger.exception("job_failed")
    written = capsys.readouterr().err
    assert "something of 20" in written
    assert "in fail" in written
    assert "not_for_the_log" not in written.replace('secret = "whsk_not_for_the_log"', "")


def test_json_has_one_line_per_event(log, capsys):
    log("json").info("started", queues=["a\nb"])
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["service"], event["level"]) == ("started", "tests", "info")


def test_a_line_feed_in_a_value_forges_no_console_line(log, capsys):
    log("console").info("started", path="/x\n2026-01-01 [info] forged")
    assert len(capsys.readouterr().err.splitlines()) == 1
