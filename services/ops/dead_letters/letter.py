"""A dead letter: a message that nobody could handle, and what its headers tell of that."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, as_text, believed, death_in
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
        position: how many were before it when it was seen.
        message_id: its id; derived from what it is where it came without one.
        type: its type, or the routing key where it has none.
        reason: why it died, in a sentence.
        reasons: why each attempt failed, with its time, oldest first; as far as they were kept.
        attempts: how many times it was tried.
        failed_at: when it died, by the clock of whoever failed on it.
        first_failed_at: when it failed first.
        correlation_id: the order or account that its story is about.
        consumer: who failed on it.
        user: who published it, as the broker verified.
        person: for whom, where that was the ops console.
        incoming: body, headers and properties as they came.
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
    incoming: Incoming

    @classmethod
    def of(cls, queue: topology.Queue, message: Any, position: int, own_user: str) -> "Letter":
        """What a message of py-amqp's, from the dead queue of `queue`, tells.

        Args:
            queue: the work queue.
            message: the message.
            position: how many were before it.
            own_user: who this process signs in as.
        """
        incoming = Incoming.of(message, believed(queue.name, own_user))
        headers, properties = incoming.headers, incoming.properties
        death = death_in(queue.name, headers)
        reason = str(headers.get(REASON_HEADER) or "")
        if death is not None:
            reason = _given_up(death, reason)
        failed_at = _time(death.get("time")) if death else _time(headers.get(FAILED_AT_HEADER))
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
            first_failed_at=_time(headers.get(FIRST_FAILED_AT_HEADER)) or failed_at,
            correlation_id=str(properties.get("correlation_id") or ""),
            consumer=str(headers.get(CONSUMER_HEADER) or ""),
            user=_user(incoming, death),
            person=incoming.acting,
            incoming=incoming,
        )

    @property
    def died_at(self) -> datetime | None:
        """When it died, for its age: whoever failed on it stamps it, but not before it was said."""
        if self.failed_at is None:
            return None
        return max(self.failed_at, self.incoming.stated_time or self.failed_at)

    @property
    def death(self) -> UUID:
        """What tells this death of the message from an earlier or later one of the same."""
        return derived_id("death", self.queue, self.message_id, self.failed_at)

    @property
    def kind(self) -> str:
        """The reason without what differs from letter to letter: ids, addresses, numbers."""
        return _VARYING.sub("…", self.reason)

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is shown as `\\xff`."""
        return self.incoming.body.decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class Line:
    """What a list shows of a letter; the attributes are those of a `Letter`."""

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
    """Which letters are meant: those that fit everything that is given.

    Attributes:
        ids: message ids.
        reason: a part of the reason or of its kind, in whatever case.
        type: the exact type.
        correlation_id: the order or account.
        older_than: died longer ago than this, by every clock.
        younger_than: died less long ago than this, by every clock.
        as_of: when they were asked for: ages count to it, and what died after it is not meant.
        reads: makes of a reason what whoever asks may see of it, so that nobody finds out the rest
            letter by letter.
    """

    ids: Collection[str] = field(default_factory=frozenset)
    reason: str = ""
    type: str = ""
    correlation_id: str = ""
    older_than: timedelta | None = None
    younger_than: timedelta | None = None
    as_of: datetime | None = None
    reads: Callable[[str], str] = field(default=str, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether every letter is meant."""
        return self == Criteria()

    def match(self, letter: Letter | Line, *clocks: datetime) -> bool:
        """Whether a letter is meant. One that does not say when it died fits no age.

        Args:
            letter: which.
            *clocks: the time, by each that there is to go by.
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


def _user(incoming: Incoming, death: Mapping[str, Any] | None) -> str | None:
    # As the consumer would have known it. What the broker gave up before it was ever copied bears
    # its publisher's own name.
    if death is None or as_text(death.get("exchange")) == "":
        return incoming.user_id
    user = incoming.properties.get("user_id")
    return user if isinstance(user, str) and user else None


def _routing_key(queue: topology.Queue, death: Mapping[str, Any] | None) -> str:
    keys = death.get("routing-keys") if death else None
    if isinstance(keys, list) and keys and as_text(keys[0]) != queue.name:
        return as_text(keys[0])
    only = queue.bindings[0].key if len(queue.bindings) == 1 else ""
    return "" if "*" in only or "#" in only else only


def _time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
