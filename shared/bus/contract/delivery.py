"""An undecoded AMQP delivery, and what of it can be trusted."""

import hashlib
import unicodedata
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args
from uuid import UUID

import msgspec

from shared.bus.contract import topology
from shared.bus.contract.errors import Malformed
from shared.bus.contract.events import EVENT_TYPES, decode
from shared.bus.contract.headers import (
    ACTING_HEADER,
    ATTEMPT_HEADER,
    HAPPENED_HEADER,
    KEY_HEADER,
    REPLAY_HEADER,
    UNVOUCHED_HEADER,
    USER_HEADER,
)
from shared.bus.contract.message import Received, Replay
from shared.ids import derived_id, new_id
from shared.security.service_accounts import CONSOLE, is_shared_user, login
from shared.validation.normalisation import without_leap_second

_CONSOLE = login(CONSOLE)
_OPS = login("ops")
_LADDER = frozenset(rung.name for rung in topology.RETRY_DELAYS)
# The exchanges of copies: the default one, the delay queues' and the dead letter exchange.
_COPIES = _LADDER | {"", topology.DEAD}
# The exchanges on which the broker checks rights to routing keys.
_BY_KEY = frozenset({topology.COMMANDS, topology.EVENTS})
# The exchanges of shards, with those of the whole queue.
_BY_SHARD = {topology.INTAKE_SHARDS.name: topology.INTAKE, "": ""}
_OURS = frozenset(
    {"", topology.INTAKE_SHARDS.name, *(exchange.name for exchange in topology.EXCHANGES)}
)
_REPLAYS = get_args(Replay)


def believed(queue: str, own_user: str) -> frozenset[str]:
    """Return the broker users whose copies are trusted about who published the original.

    Args:
        queue: the work queue of the copies.
        own_user: the broker user of this process.
    """
    return frozenset({own_user, _CONSOLE, login(queue.partition(".")[0])})


def death_in(queue: str, headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the entry of `x-death` (RabbitMQ, "Dead Letter Exchanges") for a work queue, or None.

    Args:
        queue: the work queue.
        headers: of the message.
    """
    deaths = headers.get("x-death")
    for death in deaths if isinstance(deaths, list) else ():
        if isinstance(death, dict) and topology.whole(as_text(death.get("queue"))) == queue:
            return death
    return None


def as_text(value: Any) -> str:
    """Return a text of the broker, which some clients decode as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


class RawDelivery(msgspec.Struct, frozen=True):
    """Body, properties and headers of one delivery.

    Attributes:
        body: the raw body.
        properties: the AMQP properties that were set, without the headers.
        headers: the AMQP headers.
        exchange: that it was published to; empty for the default exchange, by which retries return.
        is_redelivered: whether it may have been delivered before.
        routing_key: that it was published with; not one of CC or BCC.
        believed: from the function `believed`.
    """

    body: bytes
    properties: Mapping[str, Any]
    headers: Mapping[str, Any]
    exchange: str
    is_redelivered: bool = False
    routing_key: str = ""
    believed: Collection[str] = ()

    @classmethod
    def of(cls, message: Any, believed: Collection[str] = ()) -> "RawDelivery":
        """Return the delivery of a message of py-amqp."""
        properties = dict(message.properties)
        headers = properties.pop("application_headers", None) or {}
        body = message.body
        exchange = message.delivery_info["exchange"]
        key = str(message.delivery_info.get("routing_key") or "")
        if exchange in _BY_SHARD:
            # A message of a shard is treated as one of the whole queue.
            exchange, key = _BY_SHARD[exchange], topology.whole(key)
        return cls(
            body=body if isinstance(body, bytes) else body.encode(errors="surrogatepass"),
            properties=properties,
            headers=headers,
            exchange=exchange,
            is_redelivered=bool(message.delivery_info.get("redelivered")),
            routing_key=key,
            believed=believed,
        )

    @property
    def attempt(self) -> int:
        """How often it has failed before."""
        value = self.headers.get(ATTEMPT_HEADER, 0)
        return value if isinstance(value, int) and value >= 0 else 0

    @property
    def message_id(self) -> UUID:
        """The message id: the property, or a new one if there is none.

        A property that is no UUID is combined with the actor and the body: people who number their
        messages begin at 1 each time.
        """
        given = self.properties.get("message_id")
        if not given:
            return new_id()
        try:
            return UUID(given)
        except ValueError:
            body = hashlib.sha256(self.body).hexdigest()
            return derived_id("message", given, self.actor, body)

    @property
    def content_id(self) -> UUID | None:
        """An id derived from the content if there is no message id, equal for redeliveries."""
        if self.properties.get("message_id"):
            return None
        body = hashlib.sha256(self.body).hexdigest()
        return derived_id("content", self.exchange, self.properties.get("type"), self.actor, body)

    @property
    def time(self) -> datetime:
        """When it happened: the stated time, or now."""
        return self.stated_time or datetime.now(UTC)

    @property
    def stated_time(self) -> datetime | None:
        """The time it states: `ce-time`, to the millisecond, or the `timestamp` property."""
        stamp = self.headers.get("ce-time")
        if isinstance(stamp, str):
            try:
                time = datetime.fromisoformat(without_leap_second(stamp))
                if time.tzinfo is not None:
                    # PostgreSQL accepts no offset beyond 15:59.
                    return time.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        seconds = self.properties.get("timestamp")
        try:
            return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) else None
        except (ValueError, OverflowError, OSError):
            # Some clients send milliseconds or nanoseconds, which are years out of range.
            return None

    @property
    def user_id(self) -> str | None:
        """The broker user that published it, verified by the broker; None if not set.

        Of a copy, the user of the original, if the maker of the copy is trusted; else None:
        putting a message back does not make one its author.
        """
        user = self.properties.get("user_id")
        if self.exchange in _COPIES:
            first = self.headers.get(USER_HEADER)
            if user in self.believed:
                user = first
            elif KEY_HEADER in self.headers or first not in (None, user):
                user = user if is_shared_user(user or "") else None
        return user if isinstance(user, str) and user else None

    @property
    def acting(self) -> str:
        """The signed-in person if the ops console published it; else empty.

        Any publisher can set the header, but only the console can have its `user_id`.
        """
        person = self.headers.get(ACTING_HEADER)
        return person if self.user_id == _CONSOLE and isinstance(person, str) else ""

    @property
    def actor(self) -> str | None:
        """The author: the verified user, with the person if that is the ops console."""
        return f"{self.acting} ({self.user_id})" if self.acting else self.user_id

    @property
    def person(self) -> str | None:
        """The author's normalised name, if the broker vouches for a person; else None.

        A console user and a broker user of one name are one person. Users of services, and the
        shared operator user, are none.
        """
        name = self.acting or self.user_id
        if name and is_shared_user(name):
            return None
        return unicodedata.normalize("NFKC", name or "").strip().casefold() or None

    @property
    def replay(self) -> Replay | None:
        """How to handle a copy from the journal; only services and ops staff can publish one."""
        value = self.headers.get(REPLAY_HEADER)
        return cast("Replay", value) if value in _REPLAYS and self._is_ours else None

    @property
    def happened(self) -> bool:
        """Whether a service has noted that the effect has happened."""
        return self.headers.get(HAPPENED_HEADER) is True and self._is_ours

    @property
    def first_key(self) -> str:
        """The routing key of the original, on exchanges with checked keys; else empty."""
        if self.exchange in _BY_KEY:
            return self.routing_key
        # Dead-lettered by the broker before a service copied it: `x-death` has the key.
        death = death_in(self.routing_key, self.headers) if self.exchange == topology.DEAD else None
        if death and as_text(death.get("exchange")) in _BY_KEY:
            keys = death.get("routing-keys")
            return as_text(keys[0]) if isinstance(keys, list) and keys else ""
        key = self.headers.get(KEY_HEADER)
        return key if isinstance(key, str) and self._is_ours else ""

    @property
    def taken_as(self) -> dict[str, Any]:
        """The trusted headers about its handling, which every copy has to carry."""
        said: dict[str, Any] = {REPLAY_HEADER: self.replay} if self.replay else {}
        said |= {KEY_HEADER: self.first_key} if self.first_key else {}
        return said | ({HAPPENED_HEADER: True} if self.happened else {})

    @property
    def unvouched(self) -> str:
        """Why its publisher may have lacked the right to publish it here; empty if vouched for.

        A user who may declare queues and exchanges reaches more than they may publish to, since the
        broker checks no rights when it dead-letters or routes from exchange to exchange. So a
        message must have come by one of our exchanges, must not have been dead-lettered by a
        foreign queue, and a copy must have the `user_id` of a user that may make one.
        """
        if UNVOUCHED_HEADER in self.headers:
            return "nobody has vouched for what it is a copy of"
        if self.exchange not in _OURS:
            return f"it came by the exchange {self.exchange!r}, which is none of ours"
        queue, deaths = self.routing_key, self.headers.get("x-death")
        if deaths is not None:
            known = {queue, *_LADDER} if self.exchange in _COPIES else ()
            for death in deaths if isinstance(deaths, list) else [deaths]:
                died = as_text(death.get("queue")) if isinstance(death, dict) else "no queue"
                died = topology.whole(died)
                if died not in known:
                    return f"it was dead-lettered by {died!r}, which sends nothing here"
                if (by := as_text(death.get("exchange"))) not in _OURS:
                    return f"it had come by the exchange {by!r}, which is none of ours"
        if self.exchange not in _COPIES:
            return ""
        death = death_in(queue, self.headers) if self.exchange == topology.DEAD else None
        if death and as_text(death.get("exchange")):
            return ""  # the broker has given up a message itself, and no copy
        user = self.properties.get("user_id")
        if not user:
            return "it came as a copy does, and without the user_id of who made it"
        if is_shared_user(user) and user != _OPS and user not in self.believed:
            return f"it came as a copy does, and {user!r} makes none for this queue"
        return ""

    @property
    def _is_ours(self) -> bool:
        """Whether it is a copy made by a service or ops staff.

        A message that the broker dead-letters itself arrives at the dead letter exchange with all
        headers of its publisher, so there the `user_id` has to show who made it.
        """
        if self.exchange not in _COPIES or self.unvouched:
            return False
        user = self.properties.get("user_id")
        return self.exchange != topology.DEAD or user == _OPS or user in self.believed

    @property
    def misnamed(self) -> str:
        """Why its type must not be trusted; empty if it may be, or is unknown.

        Either it is `unvouched`, or its type is not that of its routing key: rights are to
        exchanges and keys, and another type would go beyond them. A copy has the original's key.
        """
        if reason := self.unvouched:
            return reason
        type_ = str(self.properties.get("type") or "")
        if type_ not in EVENT_TYPES:
            return ""
        if self.exchange in _COPIES:
            key = self.first_key
            is_right = not key or key in (type_, topology.BULK + type_)
        else:
            is_right, key = self.is_as_published, self.routing_key
        if is_right:
            return ""
        return (
            f"it says {type_!r} and came with the key {key!r}: whoever may publish the one may not "
            "say the other by it"
        )

    @property
    def is_as_published(self) -> bool:
        """Whether its type is known, and exchange and routing key are those of the type."""
        event = EVENT_TYPES.get(str(self.properties.get("type") or ""))
        return event is not None and topology.carries(
            self.exchange, self.routing_key, event.EXCHANGE, event.TYPE
        )

    def received(self, type_: str, data: Any) -> Received[Any]:
        """Return what a handler is given.

        Args:
            type_: the type of the event.
            data: the decoded body.
        """
        trace = self.headers.get("traceparent")
        return Received(
            id=self.message_id,
            type=type_,
            time=self.time,
            correlation_id=str(self.properties.get("correlation_id") or ""),
            data=data,
            user_id=self.actor,
            person=self.person,
            attempt=self.attempt,
            traceparent=trace if isinstance(trace, str) else None,
            replay=self.replay,
            happened=self.happened,
            content_id=self.content_id,
            is_redelivered=self.is_redelivered,
        )


def decode_by_type(incoming: RawDelivery) -> Received[Any]:
    """Decode a delivery by its `type` property.

    Raises:
        Malformed: there is no type, it is unknown, or the body is invalid.
    """
    type_ = incoming.properties.get("type")
    if not type_:
        raise Malformed("the message has no type property")
    try:
        data = decode(type_, incoming.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
    return incoming.received(type_, data)
