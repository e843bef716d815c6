"""Changing the name and the address for answers; each change is told to the account's owner.

An address for answers is one that was proved: the account's own, or one that a code was mailed to.
Else whoever has an account could have a stranger's mailbox filled with customers' answers.
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
from shared.http.errors import ApiError, too_many_requests
from shared.security.networks import network_of
from shared.validation.email_addresses import compared

PURPOSE = "reply_to"


def awaited(session: Session, account_id: UUID) -> str | None:
    """The address that a code was mailed to and that is not proved yet."""
    return session.scalar(
        select(PendingProof.email).where(
            PendingProof.account_id == account_id, PendingProof.purpose == PURPOSE
        )
    )


def put(
    session: Session, account_id: UUID, display_name: str, reply_to: str, address: str
) -> ApiError | None:
    """Set the name at once, and the address where it is proved; else a code is mailed to it.

    Args:
        session: the transaction.
        account_id: whose.
        display_name: empty: our own.
        reply_to: empty: answers come to us.
        address: the client's.

    Returns:
        None, or an error.

    Raises:
        ApiError: 400, when the name is refused; 401, when the account was closed meanwhile.
    """
    name = display_names.normalised(display_name)
    if name and (fault := display_names.fault(name)):
        raise ApiError(400, "invalid_display_name", f"The name is refused. {fault}")
    reply_to = compared(reply_to)
    account = _held(session, account_id)
    before = session.get(EmailSender, account_id) or EmailSender(display_name="", reply_to="")
    is_known = reply_to in ("", account.email, before.reply_to)
    asked = guesses.Asked()
    if not is_known:
        asked = credentials.ask_for_code(session, account, PURPOSE, reply_to, address)
        if asked.wait:
            return too_many_requests(asked.wait)
    pending = credentials.awaiting(session, account_id, PURPOSE)
    if is_known and pending is not None:
        credentials.forget(session, pending)
    if name != before.display_name:
        _set(session, account, "display_name", name, address)
    if is_known and reply_to != before.reply_to:
        _set(session, account, "reply_to", reply_to, address)
    if not is_known and not asked.is_on_its_way:
        credentials.send_code(session, account, PURPOSE, reply_to, network_of(address))
    return None


def prove(session: Session, account_id: UUID, otp: str, address: str) -> ApiError | None:
    """Take the address for answers that a code was mailed to.

    Returns:
        None, or an error, so that a wrong try stays counted.
    """
    account = _held(session, account_id)
    guess = guesses.at(session, "code", account.email, network_of(address), is_known=True)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    pending = credentials.awaiting(session, account_id, PURPOSE)
    outcome = codes.check(session, pending, otp, is_own=True) if pending else Check.WRONG
    if outcome is not Check.RIGHT or pending is None:
        return OTP_ERRORS[outcome]()
    guesses.attempts.give_back(*guess)
    proved = pending.email
    credentials.forget(session, pending)
    _set(session, account, "reply_to", proved, address)
    return None


def _held(session: Session, account_id: UUID) -> Account:
    account = session.get_one(Account, account_id, with_for_update={"key_share": True})
    if account.closed_at is not None:  # since this request was let in
        raise ApiError(401, "not_signed_in", "This account no longer exists.")
    return account


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
    credentials.tell(session, account, f"{column}_changed", address, value=value or "ours")
