"""Changes of the sender name and the reply-to address; the owner is notified of each.

A reply-to address must be proved: it is the account's own, or a code was mailed to it. Otherwise an
account could direct its customers' replies to a stranger's mailbox.
"""

from typing import Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.accounts import codes, credentials, guesses
from services.accounts.codes import Check
from services.accounts.email_sender import display_names
from services.accounts.registration import OTP_ERRORS
from shared.db.models import Account, EmailSender, PendingProof
from shared.db.session import database_time
from shared.http.errors import ApiError, too_many_requests
from shared.http.standing import held
from shared.security.networks import network_of
from shared.validation.email_addresses import compared

PURPOSE = "reply_to"


def awaited(session: Session, account_id: UUID) -> str | None:
    """Return the address that a valid code was mailed to and that is not proved yet."""
    return session.scalar(
        select(PendingProof.email).where(
            PendingProof.account_id == account_id,
            PendingProof.purpose == PURPOSE,
            PendingProof.code_expires_at > func.clock_timestamp(),
        )
    )


def put(
    session: Session, account_id: UUID, display_name: str, reply_to: str, address: str
) -> ApiError | None:
    """Set the name, and the reply-to address if it is proved; otherwise mail a code to it.

    A changed name leaves the code that the address awaits as it is, so that the email under way
    stays good. Asking for that address again with the same name mails another code.

    Args:
        session: the transaction.
        account_id: the account.
        display_name: empty: ours.
        reply_to: empty: replies come to us.
        address: the client's IP address.

    Returns:
        None, or 429 where too many codes were asked for.

    Raises:
        ApiError: 400 if the name is refused; 401 if the account was closed in the meantime.
    """
    name = display_names.normalised(display_name)
    if name and (fault := display_names.fault(name)):
        raise ApiError(400, "invalid_display_name", f"The name is refused. {fault}")
    reply_to = compared(reply_to)
    account = held(session, account_id)
    before = session.get(EmailSender, account_id) or EmailSender(display_name="", reply_to="")
    is_renamed = name != before.display_name
    is_proved = reply_to in ("", account.email, before.reply_to)
    pending = credentials.awaiting(session, account_id, PURPOSE)
    if is_proved:
        if pending is not None:
            credentials.forget(session, pending)
    elif not (is_renamed and pending is not None and _is_valid_for(session, pending, reply_to)):
        asked = credentials.ask_for_code(session, account, PURPOSE, reply_to, address)
        if asked.wait:
            return too_many_requests(asked.wait)
        if not asked.is_on_its_way:
            credentials.send_code(session, account, PURPOSE, reply_to, network_of(address))
    if is_renamed:
        _set(session, account, "display_name", name, address)
    if is_proved and reply_to != before.reply_to:
        _set(session, account, "reply_to", reply_to, address)
    return None


def prove(session: Session, account_id: UUID, otp: str, address: str) -> ApiError | None:
    """Set the reply-to address that the code was mailed to.

    Returns:
        None, or an error: returned, not raised, so that a wrong attempt stays counted.
    """
    account = held(session, account_id)
    guess = guesses.at(session, "code", account.email, network_of(address), is_known=True)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    pending = credentials.awaiting(session, account_id, PURPOSE)
    outcome = codes.check(session, pending, otp, guesses.A_DEVICE) if pending else Check.WRONG
    if outcome is not Check.RIGHT or pending is None:
        return OTP_ERRORS[outcome]()
    guesses.attempts.give_back(*guess)
    proved = pending.email
    credentials.forget(session, pending)
    _set(session, account, "reply_to", proved, address)
    return None


def _is_valid_for(session: Session, pending: PendingProof, email: str) -> bool:
    return pending.email == email and database_time(session) < pending.code_expires_at


def _set(
    session: Session,
    account: Account,
    column: Literal["display_name", "reply_to"],
    value: str,
    address: str,
) -> None:
    changes = {column: value, "changed_at": func.now()}
    session.execute(
        insert(EmailSender)
        .values(account_id=account.id, **changes)
        .on_conflict_do_update(index_elements=[EmailSender.account_id], set_=changes)
    )
    session.expire_all()
    credentials.notify(session, account, f"{column}_changed", address, value=value or "ours")
