"""Rehearse a message: run its handler in a transaction that can only be rolled back.

Nothing leaves the process. The effects of a handler in its session are rolled back; a handler with
others, such as the notifier's, has a second version for rehearsals. Lock waits and the whole
transaction have short timeouts, so that no real message waits for a rehearsal.
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
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Hold, Malformed, Permanent, Retry
from shared.bus.contract.message import TOLD, Message, Received
from shared.db import footprint
from shared.db.footprint import Changes
from shared.db.session import is_database_unavailable

LOCK_SECONDS, WHOLE_SECONDS = 0.5, 4.0
"""The lock timeout and the longest duration. The first is shorter than PostgreSQL's
`deadlock_timeout`, so that in a deadlock the rehearsal is the one that fails."""
BOOKKEEPING = ("inbox", "outbox")
"""Tables of the bus, left out of the changes; the report lists facts by themselves."""
_LOCKED, _CANCELED, _FORBIDDEN = "55P03", "57014", "42501"


class Email(msgspec.Struct):
    """An email that would go out.

    Attributes:
        recipient: the address.
        name: of the recipient.
        subject: the subject.
        text: the plain text, without codes and link tokens.
        refusal: why it would not be sent; empty if it would.
    """

    recipient: str
    name: str
    subject: str
    text: str
    refusal: str = ""


Rehearsed = Callable[[list[Email]], BatchHandler]
"""Makes a handler for one rehearsal, which appends the emails that the real one would send to the
list and has no other effect outside its session; its metrics are not the real ones."""


class Report(msgspec.Struct):
    """What a message would do.

    Attributes:
        outcome: `done`; `known`: it was handled before; `dead`: it would become a dead letter;
            `left`: a replay would not put it back; `retried`: it would fail and be retried; `held`:
            a dependency is unreachable; `unknown`: it could not be rehearsed.
        sentence: the outcome as a sentence.
        changes: the rows that would be written.
        facts: the facts that would be published, in this order.
        emails: the emails that would be sent.
    """

    outcome: Literal["done", "known", "dead", "left", "retried", "held", "unknown"]
    sentence: str
    changes: list[Changes] = []
    facts: list[Message] = []
    emails: list[Email] = []


def by_itself(handle: BatchHandler) -> Rehearsed:
    """Return `Rehearsed` for a handler without effects outside its session."""
    return lambda _: handle


def rehearse(
    engine: Engine,
    consumer: str,
    decode: Decode,
    rehearsed: Rehearsed,
    incoming: RawDelivery,
    *,
    keyed: bool = False,
) -> Report:
    """Return what a message would do in the current state of the database.

    Args:
        engine: of the handling service's role, without a pool.
        consumer: the name of the inbox.
        decode: from a delivery to what the handler is given.
        rehearsed: makes the handler.
        incoming: the message.
        keyed: see `shared.bus.consume.subscription.Subscription`.
    """
    try:
        received = decode(incoming)
    except Malformed as error:
        return _failed(error)
    except Exception as error:  # noqa: BLE001 - as in `Batches.run`
        return _failed(Malformed(f"{type(error).__name__}: {error}"))
    try:
        with engine.connect() as connection:
            report = _rolled_back(connection, consumer, received, rehearsed, keyed)
            with connection.begin():
                footprint.compare(connection, report.changes)
            return report
    except Exception as error:  # noqa: BLE001 - it is the answer
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
    with _transaction(connection) as session, footprint.mentioned_ids(connection) as ids:
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
    """Begin a transaction that is rolled back, and that the database would refuse to commit."""
    transaction, ended = connection.begin(), threading.Event()
    driver: Any = connection.connection.driver_connection

    def end() -> None:
        # Repeated: between two statements there is nothing to cancel.
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


# Two rows that violate a constraint that is checked at the commit.
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
            "Not rehearsed: it took too long, or a row that it needs is locked "
            f"({words}). Try again in a moment.",
        )
    if isinstance(error, Hold) or is_database_unavailable(error):
        return Report("held", f"It would be kept until what it needs is back: {words}")
    said = words if isinstance(error, Permanent | Retry) else f"{type(error).__name__}: {words}"
    if isinstance(error, Permanent):
        return Report("dead", f"It would be a dead letter again at once: {said}")
    if code == _FORBIDDEN and "temporary" in words:
        return Report("unknown", f"Not rehearsed: its role needs TEMPORARY on the database: {said}")
    return Report("retried", f"It would fail, and be tried again for four hours: {said}")
