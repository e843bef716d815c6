"""A customer's data: everything that is held of one person, and its end.

Customers are those whom orders are for. A business's own account is another matter: it is closed by
its owner.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kombu import Connection
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, about
from services.ops.customers import messages_on_bus
from services.ops.customers import rows as customer_rows
from services.ops.customers.erasure import Person
from services.ops.customers.messages_on_bus import Found, Outcome
from shared import erased
from shared.bus import outbox
from shared.bus.contract.events import OpsCustomerErased
from shared.config.settings import JOURNAL_DAYS
from shared.db.session import let_go
from shared.ids import new_id
from shared.validation.email_addresses import compared, spellings

MOST_PASSES = 5
JOURNAL_KEEPS = timedelta(days=JOURNAL_DAYS)
"""The journal's `x-max-age`. It drops whole segments, so the last of it may go a little later."""


class NotAPersonError(Exception):
    """The address is none, or what stands for those that were erased."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A place that cannot be searched.

    Attributes:
        place: its name.
        why: what it is, and what to do about it.
        forgotten_by: when what is in it now is gone; None where that is not known.
    """

    place: str
    why: str
    forgotten_by: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """Everything that is held of a person.

    Attributes:
        address: in small letters.
        at: when it was collected.
        tables: rows by table, each by column.
        messages: what waits on the bus.
        not_searched: where there may be more.
    """

    address: str
    at: datetime
    tables: Mapping[str, list[dict[str, Any]]]
    messages: list[Found]
    not_searched: list[Elsewhere]


def the_person(session: Session, address: str) -> Person:
    """Who has an address.

    Raises:
        NotAPersonError: nobody can have it.
    """
    address = compared(address)
    if address.count("@") != 1 or address == erased.ADDRESS or len(address.split()) != 1:
        raise NotAPersonError(f"{address!r} is not the address of a person")
    mentions = {
        one: session.scalar(select(func.customer_mention(one))) or "" for one in spellings(address)
    }
    return Person.of(address, mentions)


def export(session: Session, connection: Connection, address: str, backup_days: int) -> Held:
    """Everything that is held of a person.

    Args:
        session: to read by; it is let go before the bus is looked through.
        connection: an open kombu connection.
        address: the person's, in whatever case.
        backup_days: for how long backups are kept; 0 when that is not known.

    Raises:
        NotAPersonError: nobody can have the address.
    """
    person = the_person(session, address)
    at = datetime.now(UTC)
    tables = customer_rows.read(session, person)
    person = replace(person, orders=customer_rows.orders(session, person.spellings))
    let_go(session)
    messages, outcome = messages_on_bus.find(connection, person)
    return Held(person.address, at, tables, messages, elsewhere(outcome, at, backup_days))


def count(session: Session, connection: Connection, address: str) -> Outcome:
    """How much `erase` would do, by place; nothing is changed.

    Args:
        session: rolled back at the end.
        connection: an open kombu connection.
        address: the person's.

    Raises:
        NotAPersonError: nobody can have the address.
    """
    person = the_person(session, address)
    places, person = _erased(session, person)
    session.rollback()
    _, outcome = messages_on_bus.find(connection, person)
    return Outcome(places + outcome.places, outcome.unseen)


def _erased(session: Session, person: Person) -> tuple[Counter[str], Person]:
    """Erase a person in the tables.

    Returns:
        What was touched, by place; and the person, by their orders and those of everybody else who
        is erased: which are whose is not known any more, as when this was broken off and begins
        again.
    """
    touched = customer_rows.erase(session, person)
    return touched, replace(person, orders=customer_rows.orders(session, [erased.ADDRESS]))


def erase(
    engine: Engine, connection: Connection, address: str, actor: Actor, reason: str
) -> Outcome:
    """Erase a person; what is left is the business's. May be repeated at any time.

    The tables first: from then on nothing that still waits is emailed to the person (see
    `services/notifier/handlers.py`). Then again, until nothing more is found, since a message may
    have gone from a queue into a table behind the search. The audit log is told, of nobody by name.

    Args:
        engine: of the database.
        connection: an open kombu connection, which may publish to the default exchange.
        address: the person's, in whatever case.
        actor: who wants it.
        reason: why; kept in the audit log.

    Returns:
        What was erased, by place, and what could not be looked at.

    Raises:
        NotAPersonError: nobody can have the address.
        ValueError: there is no reason, or the address is in it.
        NotPublishedError: the broker did not take a copy; run it again.
        sqlalchemy.exc.DBAPIError: the database is away; run it again.
    """
    with Session(engine) as session:
        person = the_person(session, address)
        if not reason.strip() or person.mention.search(reason):
            raise ValueError("a reason is needed, without the address: the audit log keeps it")
    erasure = new_id()

    def tell(places: Mapping[str, int], session: Session) -> None:
        outbox.add(session, [_fact(erasure, actor, reason, places)])

    places, done = Counter[str](), Outcome()
    for number in range(MOST_PASSES):
        with Session(engine) as session, session.begin():
            found, person = _erased(session, person)
            if found or not number:
                tell(found, session)
        outcome = messages_on_bus.erase(connection, engine, person, actor, reason.strip())
        if outcome.places:
            with Session(engine) as session, session.begin():
                tell(outcome.places, session)
        found += outcome.places
        places += found
        done = Outcome(places, outcome.unseen, done.is_being_written)
        if number and not found:
            break
        # What a service was writing meanwhile is seen by nobody else before it commits.
        done.is_being_written = not customer_rows.wait_for_writers(engine)
    return done


def elsewhere(outcome: Outcome, now: datetime, backup_days: int) -> list[Elsewhere]:
    """Where there may be more, and until when.

    Args:
        outcome: what was seen.
        now: the time.
        backup_days: for how long backups are kept; 0 when that is not known.
    """
    backups = now + timedelta(days=backup_days) if backup_days else None
    return [
        Elsewhere(
            "journal",
            "the record of all messages forgets by itself; a replay brings back no erased order",
            now + JOURNAL_KEEPS,
        ),
        Elsewhere(
            "backups",
            "after one is restored, run the erasures again"
            + ("" if backup_days else "; say BACKUP_DAYS, for how long they are kept"),
            backups,
        ),
        Elsewhere(
            "mail servers, mailboxes and the senders' own systems",
            "what was sent is theirs",
            None,
        ),
        Elsewhere(
            "suppressions",
            "that somebody has left a business stays, as a keyed hash without the address: else "
            "the next order would be mailed to them",
            None,
        ),
        *(
            [
                Elsewhere(
                    "transactions",
                    "one that goes on may have written more: run it again when it has ended",
                    None,
                )
            ]
            if outcome.is_being_written
            else ()
        ),
        *(
            Elsewhere(
                queue,
                f"{waiting or 'no'} messages wait that were not looked at, and somebody may have "
                "some in hand: run it again when they are done",
                None,
            )
            for queue, waiting in sorted(outcome.unseen.items())
        ),
    ]


def _fact(erasure: UUID, actor: Actor, reason: str, places: Mapping[str, int]) -> Any:
    fact = OpsCustomerErased(**actor.fields, reason=reason.strip(), places=dict(places))
    return about(fact, erasure)
