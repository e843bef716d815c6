"""Telling the audit log what ops staff did: a fact in the outbox, as every service does."""

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


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something.

    Attributes:
        name: the signed-in user.
        address: where they are: the client's address, or the host that the command runs on.
    """

    name: str
    address: str

    @property
    def fields(self) -> dict[str, Any]:
        """What every fact about ops staff carries."""
        return {"by": self.name, "address": self.address}


def about(fact: Event, correlation_id: UUID | str, message_id: UUID | None = None) -> Message:
    """The message of a fact.

    Args:
        fact: one of the `ops.*` facts, or a command.
        correlation_id: the order or account that it is about, or the operator's name.
        message_id: where the same fact may be told twice; a new one when not given.
    """
    return message_for(fact, source=SOURCE, correlation_id=correlation_id, message_id=message_id)


def tell(engine: Engine, messages: Sequence[Message]) -> None:
    """Commit facts to the outbox. To tell them with other rows, use `outbox.add` in their session.

    Args:
        engine: of a role that may write to the outbox.
        messages: from `about`.

    Raises:
        sqlalchemy.exc.DBAPIError: nothing was written.
    """
    with Session(engine) as session, session.begin():
        outbox.add(session, messages)


def viewed(actor: Actor, page: str, of: Sequence[str]) -> Message:
    """The fact that somebody was shown personal data.

    Args:
        actor: who.
        page: the console's page, or the command.
        of: the ids of what it was about.
    """
    fact = OpsDataViewed(**actor.fields, page=page, of=tuple(of))
    # Not about the order or account: it would be seen to wait for that, in what is shown.
    return about(fact, actor.name)


def commanded(
    actor: Actor,
    command: KycDecide | SecretRotate | SecretRevoke | WebhookLimit | AccountBlock,
    message_id: UUID,
    account_id: UUID | None = None,
) -> Message:
    """The fact that somebody published a command: its own fact names no more than a role.

    Args:
        actor: who.
        command: what was published.
        message_id: under which id.
        account_id: whom it is about, where the command names them otherwise.
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
