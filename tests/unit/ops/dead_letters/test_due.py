"""Messages on the retry ladder: times and attempts."""

from datetime import UTC, datetime

import pytest
from amqp import Message

from services.ops.dead_letters.letter import Letter
from services.ops.dead_letters.retry_queue import DelayedMessage, _delayed
from shared.bus.contract import topology
from shared.bus.contract.headers import ATTEMPT_HEADER, FAILED_AT_HEADER


def waiting(rung, failed_at):
    return DelayedMessage(rung, "orders.intake", "a", "order.created", "", 3, "Retry: x", failed_at)


def test_a_message_is_due_after_the_delay_of_its_queue():
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
        ("retry.2m", "2026-11-29T23:59:30"),  # without a zone
        ("retry.9y", "2026-11-29T23:59:30+00:00"),
    ],
)
def test_an_unknown_delay_or_time_gives_no_due_time(rung, failed_at):
    assert waiting(rung, failed_at).due is None


@pytest.mark.parametrize("attempt", [-1, "3"])
def test_an_attempt_count_out_of_range_is_read_as_none(attempt):
    assert _delayed("retry.2m", failed(**{ATTEMPT_HEADER: attempt})).attempts == 0


def test_a_time_without_a_zone_is_unknown_on_the_ladder_and_of_a_dead_letter():
    message = failed(**{FAILED_AT_HEADER: "2026-11-29T23:59:30"})
    assert _delayed("retry.2m", message).failed is None
    assert Letter.of(topology.ORDERS_INTAKE, message, 0, "fellow_ops").failed_at is None


def failed(**headers):
    message = Message(b"{}", application_headers=headers)
    message.delivery_info = {"exchange": "", "routing_key": topology.ORDERS_INTAKE.name}
    return message
