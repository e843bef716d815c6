"""Broker connections of the ops tools, with timeouts, and the broker's resource alarms."""

import time
from contextlib import suppress
from typing import Any

from amqp import Message as AmqpMessage
from amqp.exceptions import MessageNacked

from shared.bus.broker import addresses
from shared.bus.broker.kombu_connection import FAILURES, BrokerConnection, connect

BROKER_ERRORS = (*FAILURES, MessageNacked)
"""The errors of an unreachable or refusing broker."""
TIMEOUT = 5.0  # seconds, for the broker to answer
CONFIRM_SECONDS = 1.0
# No queue has this name, so the broker drops the probe.
PROBE_KEY = "ops.probe"
ALARM = "it is short of memory or disk space"


def open_connection(amqp_url: str, **transport_options: Any) -> BrokerConnection:
    """Open a connection whose reads and writes time out after `TIMEOUT`.

    Args:
        amqp_url: the broker's addresses, tried in turn.
        **transport_options: further options of py-amqp.

    Raises:
        Exception: of kombu or py-amqp.
    """
    timeouts = {"read_timeout": TIMEOUT, "write_timeout": TIMEOUT}
    return connect(amqp_url, timeout=TIMEOUT, transport_options=timeouts | transport_options)


class AlarmProbe:
    """Checks whether the broker accepts messages; it notifies publishers only (RabbitMQ, "Alarms").

    Uses a separate connection, since a blocked one is no longer read from.

    Args:
        amqp_url: of the broker, for a user who may publish to the default exchange.
    """

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self._connection: BrokerConnection | None = None
        self._is_blocked = False
        self._confirmed = 0

    def check(self) -> str | None:
        """Return why the broker accepts no messages; None if it does, at one of its addresses.

        Raises:
            Exception: of kombu or py-amqp, if the broker is unreachable.
        """
        # Once all nodes have reported an alarm, only the last one is asked whether it has cleared.
        tries = 1 if self._is_blocked else len(addresses.of(self._amqp_url))
        for left in reversed(range(tries)):
            reason = self._probe()
            if reason is None or not left:
                return reason
            if self._connection is not None:
                self._connection.leave()
            self.close()
        return reason

    def _probe(self) -> str | None:
        if self._connection is None:
            self._connect()
        elif self._is_blocked:
            self._drain(0.05)
            if self._is_blocked:
                return ALARM
        channel: Any = self._connection.default_channel if self._connection else None
        before = self._confirmed
        channel.basic_publish(AmqpMessage(b""), exchange="", routing_key=PROBE_KEY)
        deadline = time.monotonic() + CONFIRM_SECONDS
        while self._confirmed == before and not self._is_blocked:
            if time.monotonic() > deadline:
                if self._connection is not None:
                    self._connection.leave()
                self.close()
                return "it does not confirm what is published"
            self._drain(CONFIRM_SECONDS / 5)
        return ALARM if self._is_blocked else None

    def close(self) -> None:
        """Release what it holds."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._is_blocked:
            connection.collect()  # it would not answer to a close
        else:
            connection.release()
        self._is_blocked = False

    def _connect(self) -> None:
        self._connection = open_connection(
            self._amqp_url, on_blocked=self._block, on_unblocked=self._unblock
        )
        channel: Any = self._connection.default_channel
        channel.confirm_select()
        channel.events["basic_ack"].add(self._confirm)

    def _drain(self, seconds: float) -> None:
        if self._connection is not None:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=seconds)

    def _block(self, _: str) -> None:
        self._is_blocked = True

    def _unblock(self) -> None:
        self._is_blocked = False

    def _confirm(self, *_: Any) -> None:
        self._confirmed += 1
