"""A delivery as it comes from the broker, before anybody has understood it."""

import hashlib
import re
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
    USER_HEADER,
)
from shared.bus.contract.message import Received, Replay
from shared.ids import derived_id, new_id
from shared.security.service_accounts import BROKER_USERS, CONSOLE, login

_CONSOLE = login(CONSOLE)
_SHARED = frozenset(login(name) for name in BROKER_USERS)
# Where copies go, and strangers have no right to: back to a queue and to the ladder.
_OURS = frozenset({"", *(rung.name for rung in topology.RETRY_LADDER)})
_COPIES = _OURS | {topology.DEAD}
# Where what may be said goes by the key, which the broker checks the rights to.
_BY_KEY = frozenset({topology.COMMANDS, topology.EVENTS})
_REPLAYS = get_args(Replay)
_LEAP_SECOND = re.compile(r"(?<=:\d\d):60(?!\d)")


def believed(queue: str, own_user: str) -> frozenset[str]:
    """Whose copies of a queue's messages are believed about who published the first.

    Args:
        queue: the work queue that they are for.
        own_user: who this process signs in as.
    """
    return frozenset({own_user, _CONSOLE, login(queue.partition(".")[0])})


def death_in(queue: str, headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The broker's own note (RabbitMQ, "Dead Letter Exchanges") that it gave up a message.

    Args:
        queue: the work queue in which it did.
        headers: of the message.
    """
    deaths = headers.get("x-death")
    for death in deaths if isinstance(deaths, list) else ():
        if isinstance(death, dict) and as_text(death.get("queue")) == queue:
            return death
    return None


def as_text(value: Any) -> str:
    """What the broker wrote, which some clients read as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


class Incoming(msgspec.Struct, frozen=True):
    """Body, properties and headers of one delivery.

    Attributes:
        body: as it came.
        properties: the AMQP properties that were set, without the headers.
        headers: the AMQP headers.
        exchange: where it was published to; empty when it came by the retry ladder.
        is_redelivered: whether the broker says that it may have been delivered before.
        routing_key: what it was published with, which of CC and BCC is none.
        believed: see the function.
    """

    body: bytes
    properties: Mapping[str, Any]
    headers: Mapping[str, Any]
    exchange: str
    is_redelivered: bool = False
    routing_key: str = ""
    believed: Collection[str] = ()

    @classmethod
    def of(cls, message: Any, believed: Collection[str] = ()) -> "Incoming":
        """What a message of py-amqp's holds."""
        properties = dict(message.properties)
        headers = properties.pop("application_headers", None) or {}
        body = message.body
        return cls(
            body=body if isinstance(body, bytes) else body.encode(errors="surrogatepass"),
            properties=properties,
            headers=headers,
            exchange=message.delivery_info["exchange"],
            is_redelivered=bool(message.delivery_info.get("redelivered")),
            routing_key=str(message.delivery_info.get("routing_key") or ""),
            believed=believed,
        )

    @property
    def attempt(self) -> int:
        """How many times it was tried before and failed."""
        value = self.headers.get(ATTEMPT_HEADER, 0)
        return value if isinstance(value, int) and value >= 0 else 0

    @property
    def message_id(self) -> UUID:
        """The id: the property, or a new one where it has none.

        Where the property is no UUID, derived from it, who sent it and what it says: a person who
        numbers what they send begins at 1 each time.
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
        """Where it has no id, one derived from all of it that is the same when it comes again."""
        if self.properties.get("message_id"):
            return None
        body = hashlib.sha256(self.body).hexdigest()
        return derived_id("content", self.exchange, self.properties.get("type"), self.actor, body)

    @property
    def time(self) -> datetime:
        """When it happened: as it says itself, or now."""
        return self.stated_time or datetime.now(UTC)

    @property
    def stated_time(self) -> datetime | None:
        """When it says that it happened: `ce-time` to the millisecond, or the property."""
        stamp = self.headers.get("ce-time")
        if isinstance(stamp, str):
            try:
                # RFC 3339, 5.6: a leap second is second 60, which Python's calendar has not.
                if ":60" in stamp:
                    stamp = _LEAP_SECOND.sub(":59", stamp)
                time = datetime.fromisoformat(stamp)
                if time.tzinfo is not None:
                    # PostgreSQL takes no offset beyond 15:59.
                    return time.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        seconds = self.properties.get("timestamp")
        if isinstance(seconds, datetime):
            # py-amqp reads it as UTC and does not say so.
            return seconds.replace(tzinfo=seconds.tzinfo or UTC).astimezone(UTC)
        return None

    @property
    def user_id(self) -> str | None:
        """The user that the broker has verified, where the publisher set it.

        Of a copy the one who published the first, where who made the copy is believed.
        """
        user = self.properties.get("user_id")
        if self.exchange in _COPIES and user in self.believed:
            user = self.headers.get(USER_HEADER)
        return user if isinstance(user, str) and user else None

    @property
    def acting(self) -> str:
        """The person there where the user is the ops console; empty elsewhere.

        Anybody can write the header, and nobody but the console can be its user.
        """
        person = self.headers.get(ACTING_HEADER)
        return person if self.user_id == _CONSOLE and isinstance(person, str) else ""

    @property
    def actor(self) -> str | None:
        """Who wanted it: the verified user or, where that is the ops console, the person there."""
        return f"{self.acting} ({self.user_id})" if self.acting else self.user_id

    @property
    def person(self) -> str | None:
        """Which person wanted it, in one spelling; None where the broker vouches for none.

        Who signs in to the console and who has a user of the broker's are one under one name. A
        service's user is nobody's name, and neither is the operators' that many share.
        """
        name = self.acting or self.user_id
        if name in _SHARED:
            return None
        return unicodedata.normalize("NFKC", name or "").strip().casefold() or None

    @property
    def replay(self) -> Replay | None:
        """How a copy from the journal is to be taken; only services and ops staff can send one."""
        value = self.headers.get(REPLAY_HEADER)
        return cast("Replay", value) if value in _REPLAYS and self._is_ours else None

    @property
    def happened(self) -> bool:
        """Whether a service says that its effect has happened; nobody else can say so."""
        return self.headers.get(HAPPENED_HEADER) is True and self._is_ours

    @property
    def first_key(self) -> str:
        """The key that it, or the first copy of it, was published with; empty where none counts."""
        if self.exchange in _BY_KEY:
            return self.routing_key
        # Given up before a service has copied it: the broker notes how it came.
        death = death_in(self.routing_key, self.headers) if self.exchange == topology.DEAD else None
        if death and as_text(death.get("exchange")) in _BY_KEY:
            keys = death.get("routing-keys")
            return as_text(keys[0]) if isinstance(keys, list) and keys else ""
        key = self.headers.get(KEY_HEADER)
        return key if isinstance(key, str) and self._is_ours else ""

    @property
    def taken_as(self) -> dict[str, Any]:
        """The headers that say how it is to be taken, as far as they are believed: every copy of it
        has them, whatever else it leaves behind."""
        said: dict[str, Any] = {REPLAY_HEADER: self.replay} if self.replay else {}
        said |= {KEY_HEADER: self.first_key} if self.first_key else {}
        return said | ({HAPPENED_HEADER: True} if self.happened else {})

    @property
    def _is_ours(self) -> bool:
        """Whether it is a copy that no stranger can have made.

        What the broker itself gives up comes to the dead exchange with all that a stranger wrote on
        it, so there the broker must vouch for who published it.
        """
        return self.exchange in _OURS or (
            self.exchange == topology.DEAD and self.properties.get("user_id") in self.believed
        )

    @property
    def misnamed(self) -> str:
        """Why its type is not what it was published as; empty where it is, or nobody knows it.

        Rights are on exchanges and keys, so a type of another one would go beyond them. A copy has
        the key of the first with it; see `first_key`.
        """
        type_ = str(self.properties.get("type") or "")
        if type_ not in EVENT_TYPES:
            return ""
        if self.exchange in _COPIES:
            key = self.first_key
            is_right = not key or key in (type_, topology.BULK + type_)
        else:
            is_right, key = self.is_as_published, self.routing_key
        return "" if is_right else f"it says {type_!r} and came with the key {key!r}"

    @property
    def is_as_published(self) -> bool:
        """Whether its type is known, and its exchange and key are those of the type."""
        event = EVENT_TYPES.get(str(self.properties.get("type") or ""))
        return event is not None and topology.carries(
            self.exchange, self.routing_key, event.EXCHANGE, event.TYPE
        )

    def received(self, type_: str, data: Any) -> Received[Any]:
        """What a handler sees, once the data is understood."""
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


def decode_by_type(incoming: Incoming) -> Received[Any]:
    """Decode by the `type` property.

    Raises:
        Malformed: there is none, it is unknown, or the body does not fit it.
    """
    type_ = incoming.properties.get("type")
    if not type_:
        raise Malformed("the message has no type property")
    try:
        data = decode(type_, incoming.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
    return incoming.received(type_, data)
