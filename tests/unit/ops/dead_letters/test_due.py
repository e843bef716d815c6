"""When what waits on the retry ladder is tried again."""

from datetime import UTC, datetime

import pytest

from services.ops.dead_letters.retry_queue import Waiting


def waiting(rung, failed_at):
    return Waiting(rung, "orders.intake", "a", "order.created", "", 3, "Retry: x", failed_at)


def test_it_goes_back_after_the_seconds_of_its_rung():
    found = waiting("retry.2m", "2026-11-29T23:59:30+00:00")
    assert found.due == datetime(2026, 11, 30, 0, 1, 30, tzinfo=UTC)
    assert waiting("retry.0s", "2026-11-29T12:00:00+00:00").due == found.failed.replace(
        hour=12, minute=0, second=0
    )


@pytest.mark.parametrize(
    ("rung", "failed_at"),
    [
        ("retry.2m", ""),
        ("retry.2m", "yesterday"),
        ("retry.2m", "2026-11-29T23:59:30"),  # in whose zone?
        ("retry.9y", "2026-11-29T23:59:30+00:00"),
    ],
)
def test_what_is_not_known_is_not_said(rung, failed_at):
    assert waiting(rung, failed_at).due is None
