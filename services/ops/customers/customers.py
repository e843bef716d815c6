"""Export and erasure of a customer's data.

Customers are the recipients of orders. A business closes its own account itself.
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
from services.ops.customers.messages_on_bus import FoundMessage, Outcome
from shared import erased
from shared.bus import outbox
from shared.bus.contract.events import OpsCustomerErased
from shared.config.settings import JOURNAL_DAYS
from shared.db.session import release_connection
from shared.ids import new_id
from shared.validation.email_addresses import compared, spellings

MOST_PASSES = 5
JOURNAL_KEEPS = timedelta(days=JOURNAL_DAYS)
"""The journal's `x-max-age`. It drops whole segments, so the last of it may go a little later."""


class NotAPersonError(Exception):
    """The address is invalid, or is the placeholder of erased customers."""


@dataclass(frozen=True, slots=True)
class UnsearchedPlace:
    """A place that cannot be searched.

    Attributes:
        place: its name.
        why: what it contains, and what to do about it.
        forgotten_by: when its present content will be gone; None if that is unknown.
    """

    place: str
    why: str
    forgotten_by: datetime | None


@dataclass(frozen=True, slots=True)
class CustomerData:
    """All stored data of a customer.

    Attributes:
        address: the customer's address, in lower case.
        at: when the data was collected.
        tables: rows by table, each by column.
        messages: the messages that wait on the bus.
        not_searched: places that may contain more.
    """

    address: str
    at: datetime
    tables: Mapping[str, list[dict[str, Any]]]
    messages: list[FoundMessage]
    not_searched: list[UnsearchedPlace]


def person_of(session: Session, address: str) -> Person:
    """Return the customer with an address.

    Raises:
        NotAPersonError: the address cannot be a customer's.
    """
    address = compared(address)
    if address.count("@") != 1 or address == erased.ADDRESS or len(address.split()) != 1:
        raise NotAPersonError(f"{address!r} is not the address of a person")
    mentions = {
        one: session.scalar(select(func.customer_mention(one))) or "" for one in spellings(address)
    }
    return Person.of(address, mentions)


def export(
    session: Session, connection: Connection, address: str, backup_days: int
) -> CustomerData:
    """Return all stored data of a customer.

    Args:
        session: a session to read with; its transaction ends before the bus is read.
        connection: an open kombu connection.
        address: the customer's address, in any case.
        backup_days: how many days backups are kept; 0 if unknown.

    Raises:
        NotAPersonError: the address cannot be a customer's.
    """
    person = person_of(session, address)
    at = datetime.now(UTC)
    tables = customer_rows.read(session, person)
    person = replace(person, orders=customer_rows.orders(session, person.spellings))
    release_connection(session)
    messages, outcome = messages_on_bus.find(connection, person)
    return CustomerData(
        person.address, at, tables, messages, unsearched_places(outcome, at, backup_days)
    )


def count(session: Session, connection: Connection, address: str) -> Outcome:
    """Count, by place, what `erase` would erase; nothing is changed.

    Args:
        session: a session, which is rolled back at the end.
        connection: an open kombu connection.
        address: the customer's address, in any case.

    Raises:
        NotAPersonError: the address cannot be a customer's.
    """
    person = _with_orders(session, person_of(session, address))
    places = Counter[str]()
    for spelling in person.spellings:
        places += customer_rows.erase(session, spelling)
        session.rollback()
    _, outcome = messages_on_bus.find(connection, person)
    return Outcome(places + outcome.places, outcome.unseen)


def _with_orders(session: Session, person: Person) -> Person:
    """Add the ids of the customer's orders and of all erased customers' orders.

    Erased orders no longer tell whose they were: some may be this customer's, from an earlier pass
    or from an interrupted erasure.
    """
    addresses = [*person.spellings, erased.ADDRESS]
    return replace(person, orders=customer_rows.orders(session, addresses))


def erase(
    engine: Engine, connection: Connection, address: str, actor: Actor, reason: str
) -> Outcome:
    """Erase a customer; orders stay without the personal data. May be repeated.

    The tables come first, after which waiting messages are no longer emailed to the customer (see
    `services/notifier/handlers.py`). All places are then searched again until nothing is found,
    since a message may have moved from a queue into a table behind the search. The audit facts do
    not name the customer.

    Args:
        engine: the database's engine.
        connection: an open kombu connection, which may publish to the default exchange.
        address: the customer's address, in any case.
        actor: the operator.
        reason: why; kept in the audit log.

    Returns:
        What was erased, by place, and what could not be read.

    Raises:
        NotAPersonError: the address cannot be a customer's.
        ValueError: the reason is empty, or contains the address.
        NotPublishedError: the broker did not take a copy; run it again.
        sqlalchemy.exc.DBAPIError: the database is unreachable, or another transaction, such as the
            relay's while the broker confirms nothing, held a row for two seconds; run it again.
    """
    with Session(engine) as session:
        person = person_of(session, address)
        if not reason.strip() or person.mention.search(reason):
            raise ValueError("a reason is needed, without the address: the audit log keeps it")
    erasure = new_id()

    def tell(places: Mapping[str, int], session: Session) -> None:
        outbox.add(session, [_fact(erasure, actor, reason, places)])

    places, done = Counter[str](), Outcome()
    for number in range(MOST_PASSES):
        found = Counter[str]()
        for spelling in person.spellings:
            # A transaction of its own: the scans for one spelling hold no locks of another's.
            with Session(engine) as session, session.begin():
                touched = customer_rows.erase(session, spelling)
                if touched or not number:
                    tell(touched, session)
            found += touched
        with Session(engine) as session:
            person = _with_orders(session, person)
        outcome = messages_on_bus.erase(connection, engine, person, actor, reason.strip())
        if outcome.places:
            with Session(engine) as session, session.begin():
                tell(outcome.places, session)
        found += outcome.places
        places += found
        done = Outcome(places, outcome.unseen, done.is_being_written)
        if number and not found:
            break
        # Rows of open transactions become visible only when these commit.
        done.is_being_written = not customer_rows.wait_for_writers(engine)
    return done


def unsearched_places(outcome: Outcome, now: datetime, backup_days: int) -> list[UnsearchedPlace]:
    """List the places that may contain more, and until when.

    Args:
        outcome: the outcome of the search.
        now: the current time.
        backup_days: how many days backups are kept; 0 if unknown.
    """
    backups = now + timedelta(days=backup_days) if backup_days else None
    return [
        UnsearchedPlace(
            "journal",
            "the record of all messages expires by itself; a replay brings back no erased order",
            now + JOURNAL_KEEPS,
        ),
        UnsearchedPlace(
            "backups",
            "after one is restored, run the erasures again"
            + ("" if backup_days else "; say BACKUP_DAYS, for how long they are kept"),
            backups,
        ),
        UnsearchedPlace(
            "mail servers, mailboxes and the senders' own systems",
            "what was sent is theirs",
            None,
        ),
        UnsearchedPlace(
            "suppressions",
            "that a customer has left a business stays, as a keyed hash without the address: else "
            "the next order would be mailed to them",
            None,
        ),
        *(
            [
                UnsearchedPlace(
                    "transactions",
                    "an open one may have written more: run it again when it has ended",
                    None,
                )
            ]
            if outcome.is_being_written
            else ()
        ),
        *(
            UnsearchedPlace(
                queue,
                f"{waiting or 'no'} waiting messages were not read, and another tool or consumer "
                "may hold some: run it again when it is done",
                None,
            )
            for queue, waiting in sorted(outcome.unseen.items())
        ),
    ]


def _fact(erasure: UUID, actor: Actor, reason: str, places: Mapping[str, int]) -> Any:
    fact = OpsCustomerErased(**actor.fields, reason=reason.strip(), places=dict(places))
    return about(fact, erasure)
