"""Trying what a message would do: its handler in a transaction that can only be rolled back.

Nothing of it leaves the process. What a handler does in its session is undone; one that reaches
beyond it, to a mail server, has another for this. The transaction waits for nobody for long and is
ended when it takes long, so that no real message waits for it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from shared.bus.consume import inbox
from shared.bus.consume.batch import AGAIN, REUSED, BatchHandler, Decode, commanded
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.errors import Hold, Malformed, Permanent, Retry
from shared.bus.contract.message import TOLD, Message, Received
from shared.db import footprint
from shared.db.footprint import Changes
from shared.db.session import is_database_away

LOCK_SECONDS, WHOLE_SECONDS = 0.5, 4.0
"""How long it waits for a lock, and how long it lasts at most. The first is less than PostgreSQL's
`deadlock_timeout`, so that of two who wait for each other this one gives up."""
BOOKKEEPING = ("inbox", "outbox")
"""Tables of the bus itself: what was handled, and what is told, of which the report says more."""
_LOCKED, _CANCELED, _FORBIDDEN = "55P03", "57014", "42501"


class Email(msgspec.Struct):
    """An email that would go out.

    Attributes:
        recipient: the address.
        name: how the recipient is called.
        subject: its subject.
        text: its words, without codes and what opens links.
        refusal: why it would not be sent after all; empty when it would.
    """

    recipient: str
    name: str
    subject: str
    text: str
    refusal: str = ""


Rehearsed = Callable[[list[Email]], BatchHandler]
"""Makes a handler as it is rehearsed. It writes down the emails that the real one would send, and
does nothing else outside its session; what it counts, it counts apart."""


class Report(msgspec.Struct):
    """What a message would do.

    Attributes:
        outcome: `done`; `known`, since it was handled before; `dead`: it would be a dead letter at
            once; `left`: it would not be put back; `retried`: it would fail and be tried again;
            `held`: what it needs is away; `unknown`: it could not be rehearsed.
        sentence: that in words.
        changes: what would be written.
        facts: what would be told, in this order.
        emails: what would be mailed.
    """

    outcome: Literal["done", "known", "dead", "left", "retried", "held", "unknown"]
    sentence: str
    changes: list[Changes] = []
    facts: list[Message] = []
    emails: list[Email] = []


def by_itself(handle: BatchHandler) -> Rehearsed:
    """For a handler with no effect but in its session, which is rehearsed as it is."""
    return lambda _: handle


def rehearse(
    engine: Engine,
    consumer: str,
    decode: Decode,
    rehearsed: Rehearsed,
    incoming: Incoming,
    *,
    keyed: bool = False,
) -> Report:
    """What a message would do, as things are now.

    Args:
        engine: with the rights of the service that handles it, and a new connection each time.
        consumer: whose inbox.
        decode: from what came to what the handler sees.
        rehearsed: makes the handler.
        incoming: the message.
        keyed: see `shared.bus.consume.subscription.Subscription`.
    """
    try:
        received = decode(incoming)
    except Malformed as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001 - as the consumer takes it
        return _failed(Malformed(f"{type(error).__name__}: {error}"))
    try:
        with engine.connect() as connection:
            report = _rolled_back(connection, consumer, received, rehearsed, keyed)
            with connection.begin():
                footprint.compare(connection, report.changes)
            return report
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is asked for
        return _failed(error)


def _rolled_back(
    connection: Connection,
    consumer: str,
    received: Received[Any],
    rehearsed: Rehearsed,
    keyed: bool,
) -> Report:
    emails: list[Email] = []
    told: list[Message] = []
    with _transaction(connection) as session, footprint.ids_spoken_of(connection) as ids:
        session.info[TOLD] = told
        digests = commanded([received])
        if inbox.reused(session, consumer, digests):
            return _failed(Permanent(REUSED))
        new = inbox.claim(session, consumer, [received.id], digests)
        passes = keyed and received.replay in AGAIN
        if received.replay == "done" or not (new or passes):
            return Report("known", "It was handled before: it would change nothing.")
        failures = rehearsed(emails)(session, [received]) or {}
        session.flush()
        failure = failures.get(received.id)
        report = Report("done", "It would be handled.") if failure is None else _failed(failure)
        report.changes = footprint.read(connection, ids, BOOKKEEPING)
        report.facts, report.emails = told, emails
        return report


@contextmanager
def _transaction(connection: Connection) -> Iterator[Session]:
    """One that is rolled back at the end, and that the database itself refuses to commit."""
    transaction, ended = connection.begin(), threading.Event()
    driver: Any = connection.connection.driver_connection

    def end() -> None:
        # Again and again: between two statements there is nothing to cancel.
        wait = WHOLE_SECONDS
        while not ended.wait(wait):
            driver.cancel()
            wait = 0.1

    threading.Thread(target=end, name="end of a rehearsal", daemon=True).start()
    try:
        for name, seconds in (
            ("lock_timeout", LOCK_SECONDS),
            ("idle_in_transaction_session_timeout", WHOLE_SECONDS),
        ):
            connection.execute(text(f"SET LOCAL {name} = {round(seconds * 1000)}"))
        for statement in _NEVER_COMMITTED:
            connection.execute(text(statement))
        with Session(
            connection, expire_on_commit=False, join_transaction_mode="rollback_only"
        ) as session:
            yield session
    finally:
        ended.set()
        transaction.rollback()


# Two rows that may not be, which is looked at when it is committed.
_NEVER_COMMITTED = (
    "CREATE TEMPORARY TABLE never_committed (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    "INSERT INTO never_committed VALUES (1), (1)",
)


def _failed(error: Exception) -> Report:
    code = getattr(getattr(error, "orig", None), "pgcode", None)
    words = " ".join(str(getattr(error, "orig", None) or error).split())
    if code in (_LOCKED, _CANCELED):
        return Report(
            "unknown",
            "Not rehearsed: a rehearsal waits for nobody, and somebody at work holds what it needs "
            f"({words}). Try again in a moment.",
        )
    if isinstance(error, Hold) or is_database_away(error):
        return Report("held", f"It would be kept until what it needs is back: {words}")
    said = words if isinstance(error, Permanent | Retry) else f"{type(error).__name__}: {words}"
    if isinstance(error, Permanent):
        return Report("dead", f"It would be a dead letter again at once: {said}")
    if code == _FORBIDDEN and "temporary" in words:
        return Report("unknown", f"Not rehearsed: its role needs TEMPORARY on the database: {said}")
    return Report("retried", f"It would fail, and be tried again for four hours: {said}")
