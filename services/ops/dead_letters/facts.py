"""What the audit log is told of a dead letter: once, however often somebody begins it again."""

import hashlib

from services.ops.audit.actions import Actor, about
from services.ops.dead_letters.letter import Letter
from shared.bus.contract.events import OpsDeadLetterDiscarded, OpsDeadLetterReplayed
from shared.bus.contract.message import Message
from shared.ids import derived_id


def replayed(letter: Letter, actor: Actor, new: bytes | None = None) -> Message:
    """That a letter is back in its work queue; with `new`, by that body."""
    fact = OpsDeadLetterReplayed(
        **actor.fields,
        queue=letter.queue,
        message_id=letter.message_id,
        message_type=letter.type,
        edited=new is not None,
        digest=hashlib.sha256(letter.incoming.body).hexdigest(),
        new_digest="" if new is None else hashlib.sha256(new).hexdigest(),
    )
    return _about(letter, fact, fact.new_digest)


def discarded(letter: Letter, actor: Actor, reason: str) -> Message:
    """That a letter is gone, and why."""
    fact = OpsDeadLetterDiscarded(
        **actor.fields,
        queue=letter.queue,
        message_id=letter.message_id,
        message_type=letter.type,
        reason=reason,
        digest=hashlib.sha256(letter.incoming.body).hexdigest(),
    )
    return _about(letter, fact, fact.reason)


def _about(
    letter: Letter, fact: OpsDeadLetterReplayed | OpsDeadLetterDiscarded, what: str
) -> Message:
    # The same however often it is begun again by the same person, for the same death. Who comes
    # after them, or does something else with it, has done that.
    fact_id = derived_id(fact.TYPE, letter.death, fact.by, what)
    return about(fact, letter.correlation_id or letter.message_id, fact_id)
