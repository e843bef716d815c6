"""A dead letter: a message that no consumer could handle, with the history in its headers."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, as_text, believed, death_in
from shared.bus.contract.headers import (
    CONSUMER_HEADER,
    FAILED_AT_HEADER,
    FIRST_FAILED_AT_HEADER,
    REASON_HEADER,
    REASONS_HEADER,
)
from shared.ids import derived_id

_VARYING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\S+@\S+|\d+", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        queue: the work queue that it died in.
        position: how many letters were before it when it was read.
        message_id: its id; derived from its content if it has none.
        type: its type, or the routing key if it has none.
        reason: why it died, in a sentence.
        reasons: why each attempt failed, with its time, oldest first; the kept ones only.
        attempts: how many times it was tried.
        failed_at: when it died, by the clock of the consumer that failed.
        first_failed_at: when it failed first.
        correlation_id: the order or account that it is about.
        consumer: the service that failed.
        user: the publisher's broker user, as the broker verified.
        person: the console user that it was published for; empty for none.
        incoming: the body, headers and properties, unmodified.
    """

    queue: str
    position: int
    message_id: str
    type: str
    reason: str
    reasons: tuple[str, ...]
    attempts: int
    failed_at: datetime | None
    first_failed_at: datetime | None
    correlation_id: str
    consumer: str
    user: str | None
    person: str
    incoming: RawDelivery

    @classmethod
    def of(cls, queue: topology.Queue, message: Any, position: int, own_user: str) -> "Letter":
        """Return the letter that a py-amqp message of the dead queue of `queue` is.

        Args:
            queue: the work queue.
            message: the message.
            position: how many letters were before it.
            own_user: the broker user of this process.
        """
        incoming = RawDelivery.of(message, believed(queue.name, own_user))
        headers, properties = incoming.headers, incoming.properties
        death = death_in(queue.name, headers)
        reason = str(headers.get(REASON_HEADER) or "")
        if death is not None:
            reason = _given_up(death, reason)
        failed_at = time_of(death.get("time")) if death else time_of(headers.get(FAILED_AT_HEADER))
        reasons = headers.get(REASONS_HEADER)
        given_id = str(properties.get("message_id") or "")
        return cls(
            queue=queue.name,
            position=position,
            message_id=given_id or str(derived_id("letter", queue.name, incoming.body, failed_at)),
            type=str(properties.get("type") or _routing_key(queue, death)),
            reason=reason or "no reason was recorded",
            reasons=tuple(map(str, reasons)) if isinstance(reasons, list) else (),
            attempts=incoming.attempt,
            failed_at=failed_at,
            first_failed_at=time_of(headers.get(FIRST_FAILED_AT_HEADER)) or failed_at,
            correlation_id=str(properties.get("correlation_id") or ""),
            consumer=str(headers.get(CONSUMER_HEADER) or ""),
            user=_user(incoming, death),
            person=incoming.acting,
            incoming=incoming,
        )

    @property
    def died_at(self) -> datetime | None:
        """The time of its death, for its age; not before the time that the message states."""
        if self.failed_at is None:
            return None
        return max(self.failed_at, self.incoming.stated_time or self.failed_at)

    @property
    def death(self) -> UUID:
        """An id of this death, which differs from other deaths of the same message."""
        return derived_id("death", self.queue, self.message_id, self.failed_at)

    @property
    def kind(self) -> str:
        """The reason without its variable parts: ids, addresses, numbers."""
        return _VARYING.sub("…", self.reason)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are shown as `\\xff`."""
        return self.incoming.body.decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class Line:
    """A letter as lists show it; the attributes are those of `Letter`."""

    position: int
    message_id: str
    type: str
    reason: str
    kind: str
    attempts: int
    failed_at: datetime | None
    died_at: datetime | None
    correlation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Selects letters: those that match every given attribute.

    Attributes:
        ids: message ids.
        reason: a part of the reason or of its kind, in any case.
        type: the exact type.
        correlation_id: the order or account.
        about: orders or accounts, one of which the letter is about.
        older_than: died longer ago than this, by every clock.
        younger_than: died less long ago than this, by every clock.
        as_of: the time of the request: ages count up to it, and later deaths do not match.
        reads: redacts a reason for the user, so that a search cannot reveal the hidden parts letter
            by letter.
    """

    ids: Collection[str] = field(default_factory=frozenset)
    reason: str = ""
    type: str = ""
    correlation_id: str = ""
    about: Collection[str] = field(default_factory=frozenset)
    older_than: timedelta | None = None
    younger_than: timedelta | None = None
    as_of: datetime | None = None
    reads: Callable[[str], str] = field(default=str, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether every letter matches."""
        return self == Criteria()

    def match(self, letter: Letter | Line, *clocks: datetime) -> bool:
        """Return whether a letter matches. A letter with an unknown time of death matches no age.

        Args:
            letter: the letter.
            *clocks: the current time, by each clock.
        """
        failed, died = letter.failed_at, letter.died_at
        earliest = min((*clocks, self.as_of or clocks[0]))
        latest = self.as_of or max(clocks)
        reason = self.reason.casefold()
        return (
            (not self.ids or letter.message_id in self.ids)
            and (reason in self.reads(letter.reason).casefold() or reason in letter.kind.casefold())
            and self.type in ("", letter.type)
            and self.correlation_id in ("", letter.correlation_id)
            and (not self.about or letter.correlation_id in self.about)
            and (self.as_of is None or failed is None or failed <= self.as_of)
            and (
                self.older_than is None or (died is not None and earliest - died > self.older_than)
            )
            and (
                self.younger_than is None
                or (died is not None and latest - died < self.younger_than)
            )
        )


def _given_up(death: Mapping[str, Any], before: str) -> str:
    reason = as_text(death.get("reason"))
    if reason == "delivery_limit":
        reason = (
            f"delivered {topology.DELIVERY_LIMIT} times without an answer: what handles it may "
            "have died of it"
        )
    return f"{reason} (before that: {before})" if before else reason


def _user(incoming: RawDelivery, death: Mapping[str, Any] | None) -> str | None:
    # As the consumer saw it. A message that the broker gave up before the first copy still has its
    # publisher's own user_id.
    if death is None or as_text(death.get("exchange")) == "":
        return incoming.user_id
    user = incoming.properties.get("user_id")
    return user if isinstance(user, str) and user else None


def _routing_key(queue: topology.Queue, death: Mapping[str, Any] | None) -> str:
    keys = death.get("routing-keys") if death else None
    if isinstance(keys, list) and keys and topology.whole(as_text(keys[0])) != queue.name:
        return as_text(keys[0])
    only = queue.bindings[0].key if len(queue.bindings) == 1 else ""
    return "" if "*" in only or "#" in only else only


def time_of(value: Any) -> datetime | None:
    """Return when a message failed; None where that is not known.

    Args:
        value: a header's text in ISO 8601, which is unknown without a zone; or a time of the
            broker's `x-death`, which is in UTC (AMQP 0-9-1, 4.2.5.4: POSIX time).
    """
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return None if time.tzinfo is None else time
