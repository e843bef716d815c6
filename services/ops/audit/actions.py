"""Audit events of operators' actions, written to the outbox."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.bus import outbox
from shared.bus.contract.events import (
    AccountBlock,
    Event,
    KycDecide,
    OpsCommandPublished,
    OpsDataViewed,
    SecretRevoke,
    SecretRotate,
    WebhookLimit,
)
from shared.bus.contract.message import Message, message_for

SOURCE = "services.ops"
MOST_CHARACTERS = 500
"""Of a reason, which the audit log keeps indefinitely."""
_AROUND = ".,;:!?()[]<>\"'"
# Linear in time, since a reason may be as long as a form; matches contain no white space.
_ADDRESS = re.compile(r"[^\s@<>]@[^\s@<>]+\.[^\s@<>]")


@dataclass(frozen=True, slots=True)
class Actor:
    """The operator who acts.

    Attributes:
        name: of the signed-in user.
        address: the client's address, or the host that the command runs on.
    """

    name: str
    address: str

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that every fact about an operator has."""
        return {"by": self.name, "address": self.address}


def unfit(reason: str) -> str:
    """Return why a reason cannot be audited, as the end of a sentence; empty if it can be.

    The log keeps it indefinitely, so it must not contain a customer's personal data.
    """
    if not reason.strip():
        return "must say why"
    if len(reason) > MOST_CHARACTERS:
        return f"must be of at most {MOST_CHARACTERS} characters"
    return address_fault(reason)


def address_fault(reason: str, business: str = "") -> str:
    """Return the end of a sentence if a reason contains a customer's email address; else empty.

    Args:
        reason: the text that the audit log keeps.
        business: the address of the business that gets the reason, which it may contain.
    """
    for word in reason.split():
        if _ADDRESS.search(word) and word.strip(_AROUND).lower() != business.lower():
            return "must be without an email address: the audit log keeps it"
    return ""


def about(fact: Event, correlation_id: UUID | str, message_id: UUID | None = None) -> Message:
    """Return the message of a fact.

    Args:
        fact: one of the `ops.*` facts, or a command.
        correlation_id: the order or account that it is about, or the operator's name.
        message_id: a stable id, if the fact may be published twice; by default a new one.
    """
    return message_for(fact, source=SOURCE, correlation_id=correlation_id, message_id=message_id)


def commit_facts(engine: Engine, messages: Sequence[Message]) -> None:
    """Commit facts to the outbox. To commit them with other rows, use `outbox.add` there.

    Args:
        engine: of a role that may write to the outbox.
        messages: from `about`.

    Raises:
        sqlalchemy.exc.DBAPIError: nothing was written.
    """
    with Session(engine) as session, session.begin():
        outbox.add(session, messages)


def viewed(actor: Actor, page: str, of: Sequence[str]) -> Message:
    """Return the fact that an operator was shown personal data.

    Args:
        actor: the operator.
        page: the console's page, or the command.
        of: the ids of the shown orders, accounts or messages.
    """
    fact = OpsDataViewed(**actor.fields, page=page, of=tuple(of))
    # Not correlated with the order or account, on whose page it would show as waiting.
    return about(fact, actor.name)


def commanded(
    actor: Actor,
    command: KycDecide | SecretRotate | SecretRevoke | WebhookLimit | AccountBlock,
    message_id: UUID,
    account_id: UUID | None = None,
) -> Message:
    """Return the fact that an operator published a command, whose own fact names a role only.

    Args:
        actor: the operator.
        command: the published command.
        message_id: its id.
        account_id: the business, where the command does not name it by its account id.
    """
    fact = OpsCommandPublished(
        **actor.fields,
        command=command.TYPE,
        message_id=message_id,
        reason=getattr(command, "reason", ""),
        decision=getattr(command, "decision", ""),
        application_id=getattr(command, "application_id", None),
    )
    return about(fact, command.account_id or account_id or message_id)
