"""What a replay of a dead letter would do, as the service that handles it reports.

If the replay would publish facts that are emailed, the notifier is asked for the emails too. The
effects of facts on other services are not rehearsed: they depend on rows that do not exist yet.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kombu import Connection
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor
from services.ops.dead_letters import search
from services.ops.dead_letters.actions import copy_of
from services.ops.dead_letters.authors import ORPHANED, authors, is_orphaned
from services.ops.dead_letters.editing import validate
from services.ops.dead_letters.in_flight import rehearsal_slot
from services.ops.dead_letters.letter import Letter
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.rehearsals import requests
from shared.bus.consume.rehearsals.trying import Email, Report
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.message import Message

ANSWER_SECONDS = 8.0
POLL_SECONDS = 0.1
MOST_FACTS = 20
"""Facts that the notifier is asked about; a letter usually causes one to three."""


@dataclass(frozen=True, slots=True)
class RoutedFact:
    """A fact that would be published.

    Attributes:
        message: the fact.
        queues: the work queues that it would be routed to.
    """

    message: Message
    queues: Sequence[str]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The outcome of a rehearsal.

    Attributes:
        letter: the letter.
        report: what its handler would do.
        facts: the facts that would be published.
        emails: the emails that would be sent, by the handler or on its facts.
        unanswered: the queues whose service did not answer about a fact's emails.
    """

    letter: Letter
    report: Report
    facts: Sequence[RoutedFact]
    emails: Sequence[Email]
    unanswered: Sequence[str] = ()

    @property
    def ids(self) -> list[str]:
        """The ids of the orders and businesses whose data it shows."""
        rows = [(c.table, row.values) for c in self.report.changes for row in c.rows]
        found = [
            values.get("id" if table == f"{name}s" else f"{name}_id")
            for name in ("order", "account")
            for table, values in rows
        ]
        published = [fact.message.correlation_id for fact in self.facts]
        return sorted({str(id_) for id_ in (*found, *published) if id_})


def rehearse(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    message_id: str,
    actor: Actor,
    *,
    body: bytes | None = None,
    type: str = "",  # noqa: A002 - the property's name
) -> Rehearsal | None:
    """Rehearse the replay of a letter. Nothing is changed, sent or published.

    Args:
        connection: an open kombu connection.
        engine: the database that carries the question to the service.
        queue: the work queue.
        message_id: the letter's id.
        actor: the operator.
        body: the body to replay it with; the original one if None.
        type: the type to replay it with; the original one if empty.

    Returns:
        None if there is no such letter (any more).

    Raises:
        TooManyRehearsalsError: too many rehearsals are in progress.
        NotEditableError: the consumer would refuse the body.
        sqlalchemy.exc.DBAPIError: the database is unreachable.
    """
    with rehearsal_slot(engine, actor):
        return _rehearse(connection, engine, queue, message_id, actor, body, type)


def _rehearse(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    message_id: str,
    actor: Actor,
    body: bytes | None,
    type: str,  # noqa: A002 - the property's name
) -> Rehearsal | None:
    letter = search.find(connection, queue, message_id)
    if letter is None:
        return None
    if body is not None:
        type = type or letter.type  # noqa: A001 - as above
        validate(queue, type, body)
    elif is_orphaned(letter, authors(engine, queue)):
        return Rehearsal(letter, Report("left", f"It would stay a dead letter: {ORPHANED}"), [], [])
    copy = copy_of(letter, user_of(connection), actor, body, type)
    properties = dict(copy.properties)
    headers = properties.pop("application_headers", {})
    incoming = RawDelivery(copy.body, properties, headers, exchange="", routing_key=queue.name)
    report = _answers(engine, [(queue.name, incoming)])[0] or Report("unknown", _unanswered(queue))
    facts = [RoutedFact(fact, _queues(fact)) for fact in report.facts]
    mailed = [
        (name, fact.message)
        for fact in facts[:MOST_FACTS]
        for name in fact.queues
        if name in {q.name for q in topology.NOTIFIER}
    ]
    answers = _answers(engine, [(name, _as_published(fact)) for name, fact in mailed])
    emails = [*report.emails, *(email for answer in answers if answer for email in answer.emails)]
    silent = {name for (name, _), answer in zip(mailed, answers, strict=True) if answer is None}
    return Rehearsal(letter, report, facts, emails, sorted(silent))


def _answers(engine: Engine, asked: Sequence[tuple[str, RawDelivery]]) -> list[Report | None]:
    """Return the answers to the questions, in their order; None for each that timed out."""
    with Session(engine) as session, session.begin():
        ids = [requests.ask(session, queue, incoming) for queue, incoming in asked]
    answers: dict[UUID, Report] = {}
    deadline = time.monotonic() + ANSWER_SECONDS
    while len(answers) < len(ids) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        with Session(engine) as session, session.begin():
            for id_ in ids:
                if id_ not in answers and (report := requests.fetch(session, id_)):
                    answers[id_] = report
    with Session(engine) as session, session.begin():
        for id_ in ids:
            if id_ not in answers:
                requests.withdraw(session, id_)
    return [answers.get(id_) for id_ in ids]


def _queues(fact: Message) -> list[str]:
    return [
        queue.name
        for queue in topology.WORK_QUEUES
        if topology.takes(queue, fact.exchange, fact.routing_key)
    ]


def _as_published(fact: Message) -> RawDelivery:
    """Return the delivery of a fact that the relay would publish."""
    properties: Mapping[str, Any] = {
        "message_id": fact.message_id,
        "type": fact.type,
        "correlation_id": fact.correlation_id,
    }
    return RawDelivery(
        fact.body, properties, fact.headers(), fact.exchange, False, fact.routing_key
    )


def _unanswered(queue: topology.Queue) -> str:
    service = f"services.{queue.name.partition('.')[0]}"
    return (
        f"Not rehearsed: {service} has not answered within {ANSWER_SECONDS:g} s. Does it run, in "
        "this version? Where it has just ended, this letter may have ended it."
    )
