"""Publish a batch of messages over a kombu connection and wait for their confirms together."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

LOOK_SECONDS = 0.5
"""Interval at which `is_wanted` is asked."""


class NotPublishedError(ConnectionError):
    """Not all messages were confirmed; repeating the batch doubles those that were."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A message and its destination.

    Attributes:
        message: with all properties.
        exchange: its name; empty for the default exchange.
        routing_key: the routing key.
    """

    message: AmqpMessage
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Published:
    """The outcome of a batch.

    Attributes:
        confirmed: the indices of messages that are in a queue.
        error: of the others; None if all are confirmed.
    """

    confirmed: frozenset[int]
    error: Exception | None


def publish(
    connection: Connection,
    messages: Sequence[Routed],
    seconds: float,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Published:
    """Publish messages in this order and wait until the broker has confirmed or refused each.

    Args:
        connection: open; its consumers' callbacks are called meanwhile. Not usable after an error.
        messages: each for an existing queue.
        seconds: the timeout for all of them.
        is_wanted: asked every `LOOK_SECONDS`; False ends the wait.
    """
    confirms = _Confirms(messages)
    deadline = time.monotonic() + seconds
    try:
        channel: Any = connection.channel()
        confirms.follow(channel)
        for message in messages:
            # Without `mandatory` the broker confirms messages that it drops.
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
    except Exception as error:  # noqa: BLE001 - earlier confirms count
        return Published(confirms.confirmed, error)
    return Published(confirms.confirmed, confirms.error(seconds))


class _Confirms:
    """Confirms and returns of the messages of one channel, whose tags begin at 1."""

    def __init__(self, messages: Sequence[Routed]) -> None:
        self.awaited = set(range(1, len(messages) + 1))
        self._refusal: str | None = None
        self._messages = messages
        self._taken: set[int] = set()
        self._nowhere: set[tuple[str, str]] = set()

    @property
    def confirmed(self) -> frozenset[int]:
        """The indices of messages that are in a queue."""
        # A returned message is confirmed as well; its `basic.return` arrives first.
        return frozenset(
            tag - 1
            for tag in self._taken
            if (self._messages[tag - 1].exchange, self._messages[tag - 1].routing_key)
            not in self._nowhere
        )

    def error(self, seconds: float) -> NotPublishedError | None:
        """Return why not all are confirmed after so many seconds; None if all are."""
        if self._nowhere:
            exchange, key = min(self._nowhere)
            return NotPublishedError(
                f"there is no queue {key}{f' behind {exchange}' if exchange else ''}"
            )
        if self._refusal or self.awaited:
            return NotPublishedError(self._refusal or f"no confirm within {seconds:g} s")
        return None

    def follow(self, channel: Any) -> None:
        """Switch a channel to confirms and listen to them."""
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
