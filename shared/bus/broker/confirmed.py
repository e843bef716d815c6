"""Publishing many messages at once: all outstanding together, and which of them are confirmed."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

LOOK_SECONDS = 0.5
"""How long it may go unnoticed that nobody waits any more."""


class NotPublishedError(ConnectionError):
    """Not all messages are known to be safe; those that are will be doubles when it is repeated."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A message and where it goes.

    Attributes:
        message: with all its properties.
        exchange: its name; empty for the default one.
        routing_key: under which.
    """

    message: AmqpMessage
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Published:
    """What became of them.

    Attributes:
        confirmed: the places, from 0, of those that a queue has safely.
        error: why others are not known to be safe; None when all are.
    """

    confirmed: frozenset[int]
    error: Exception | None


def publish(
    connection: Connection,
    messages: Sequence[Routed],
    seconds: float,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Published:
    """Publish messages in this order, and wait until the broker has said of each what became of it.

    Args:
        connection: an open kombu connection; what else it consumes goes on meanwhile.
        messages: each to a queue that there is.
        seconds: how long to wait for them all. After an error the connection is out of step.
        is_wanted: asked each `LOOK_SECONDS` whether to wait on.
    """
    confirms = _Confirms(messages)
    deadline = time.monotonic() + seconds
    try:
        channel: Any = connection.channel()
        confirms.follow(channel)
        for message in messages:
            # Without `mandatory` the broker confirms what it throws away.
            channel.basic_publish(
                message.message,
                exchange=message.exchange,
                routing_key=message.routing_key,
                mandatory=True,
            )
        while confirms.awaited and is_wanted() and (left := deadline - time.monotonic()) > 0:
            with suppress(TimeoutError):
                connection.drain_events(timeout=min(left, LOOK_SECONDS))
        if not confirms.awaited:
            channel.close()
    except TimeoutError:
        pass
    except Exception as error:  # noqa: BLE001 - what was confirmed before stays confirmed
        return Published(confirms.confirmed, error)
    return Published(confirms.confirmed, confirms.error(seconds))


class _Confirms:
    """What the broker has said of the messages of one channel, numbered from 1."""

    def __init__(self, messages: Sequence[Routed]) -> None:
        self.awaited = set(range(1, len(messages) + 1))
        self._refusal: str | None = None
        self._messages = messages
        self._taken: set[int] = set()
        self._nowhere: set[tuple[str, str]] = set()

    @property
    def confirmed(self) -> frozenset[int]:
        """The places of those that a queue has."""
        # What came back is confirmed too, and the frame that says so comes first.
        return frozenset(
            tag - 1
            for tag in self._taken
            if (self._messages[tag - 1].exchange, self._messages[tag - 1].routing_key)
            not in self._nowhere
        )

    def error(self, seconds: float) -> NotPublishedError | None:
        """Why not all are confirmed, after so many seconds."""
        if self._nowhere:
            exchange, key = min(self._nowhere)
            return NotPublishedError(
                f"there is no queue {key}{f' behind {exchange}' if exchange else ''}"
            )
        if self._refusal or self.awaited:
            return NotPublishedError(self._refusal or f"no confirm within {seconds:g} s")
        return None

    def follow(self, channel: Any) -> None:
        """Hear of what is published on a channel from now on."""
        channel.confirm_select()
        channel.events["basic_ack"].add(self._take)
        channel.events["basic_nack"].add(self._refuse)
        channel.events["basic_return"].add(self._come_back)

    def _take(self, tag: int, multiple: bool) -> None:
        self._taken |= self._settled(tag, multiple)

    def _refuse(self, tag: int, multiple: bool) -> None:
        self._settled(tag, multiple)
        self._refusal = f"the broker refused message {tag} (multiple: {multiple})"

    def _come_back(self, _: Exception, exchange: str, routing_key: str, *__: Any) -> None:
        self._nowhere.add((exchange, routing_key))

    def _settled(self, tag: int, multiple: bool) -> set[int]:
        settled = {t for t in self.awaited if t <= tag} if multiple else {tag}
        self.awaited -= settled
        return settled
