"""Publishing an operator's decision, and seeing what came of it."""

import time
from typing import Any, Literal
from uuid import UUID

import msgspec
from amqp import Message as AmqpMessage
from amqp.exceptions import AMQPError
from kombu import Connection
from sqlalchemy import create_engine, select
from sqlalchemy.exc import DBAPIError

from shared.bus.events import KycDecide
from shared.db.models import Account, KycApplication
from shared.ids import new_id

Decision = Literal["approve", "reject", "revoke"]
CONFIRM_SECONDS = 5.0
OUTCOME = {"approve": "approved", "reject": "rejected", "revoke": "revoked"}


class NotDecidedError(Exception):
    """The decision could not be published; the message says why."""


def command(decision: Decision, business: str, reason: str) -> KycDecide:
    """The command: `business` is an account id, an email address or a registration number.

    Raises:
        NotDecidedError: it can be none of them, or a rejection lacks its reason.
    """
    named: dict[str, object] = {"decision": decision, "reason": reason}
    try:
        named["account_id"] = UUID(business)
    except ValueError:
        named["email" if "@" in business else "business_registration_number"] = business
    if decision == "reject" and not reason.strip():
        raise NotDecidedError("A rejection needs a reason: the business is told it.")
    try:
        return msgspec.convert(named, KycDecide)
    except msgspec.ValidationError as error:
        raise NotDecidedError(f"That is no business: {error}") from None


def publish(amqp_url: str, decision: Decision, business: str, reason: str) -> UUID:
    """Publish a decision with a confirm; returns the message's id.

    Raises:
        NotDecidedError: the bus has not got it.
    """
    body = msgspec.json.encode(command(decision, business, reason))
    message_id = new_id()
    try:
        with Connection(amqp_url, connect_timeout=CONFIRM_SECONDS) as connection:
            message = AmqpMessage(
                body,
                content_type="application/json",
                delivery_mode=2,
                message_id=str(message_id),
                type=KycDecide.TYPE,
                # The broker checks it: this is who decided.
                user_id=connection.userid,
            )
            channel: Any = connection.default_channel
            channel.basic_publish_confirm(
                message,
                exchange=KycDecide.EXCHANGE,
                routing_key=KycDecide.TYPE,
                mandatory=True,
                confirm_timeout=CONFIRM_SECONDS,
            )
    except (OSError, AMQPError) as error:
        reason = str(error) or type(error).__name__
        raise NotDecidedError(f"The decision could not be published: {reason}") from None
    return message_id


def wait_for(database_url: str, decision: Decision, business: str, seconds: float) -> str | None:
    """Watch the application until the decision shows; None when it does not in time.

    Args:
        database_url: where to look; read only.
        decision: what was decided.
        business: as for `command`.
        seconds: how long to watch.
    """
    wanted = command(decision, business, "-")
    query = (
        select(Account.company_name, KycApplication.status, KycApplication.decided_by)
        .join(KycApplication, KycApplication.account_id == Account.id)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
    )
    if wanted.account_id is not None:
        query = query.where(Account.id == wanted.account_id)
    elif wanted.email is not None:
        query = query.where(Account.email == wanted.email.lower())
    else:
        number = wanted.business_registration_number
        query = query.where(KycApplication.business_registration_number == number)
    engine = create_engine(database_url, connect_args={"connect_timeout": 3})
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            try:
                with engine.connect() as connection:
                    row = connection.execute(query).first()
            except DBAPIError:
                return None
            if row is not None and row.status == OUTCOME[decision]:
                return f"{row.company_name}: {row.status} (by {row.decided_by})"
            time.sleep(0.1)
    finally:
        engine.dispose()
    return None
