"""Audit facts about dead letters, with ids that stay the same when an action is repeated."""

import hashlib

from services.ops.audit.actions import Actor, about
from services.ops.dead_letters.letter import Letter
from shared.bus.contract.events import OpsDeadLetterDiscarded, OpsDeadLetterReplayed
from shared.bus.contract.message import Message
from shared.ids import derived_id


def replayed(letter: Letter, actor: Actor, new: bytes | None = None) -> Message:
    """Return the fact that a letter was replayed; with `new` as its body, if given."""
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
    """Return the fact that a letter was discarded, and why."""
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
    # The same id if the same operator repeats the action for the same death. Another operator, or
    # another action, makes another fact.
    fact_id = derived_id(fact.TYPE, letter.death, fact.by, what)
    return about(fact, letter.correlation_id or letter.message_id, fact_id)
