"""Registration, and the proof of its email address.

A registration is not an account yet. Several may wait for the same address, each with its own
password and code; proving one ends the others, so registering an address first gives no claim to
it. The mailed code proves the mailbox and, if only one registration waits, that registration.
Otherwise its password or id must be given too: only the registrant has these, and only the reader
of the mailbox has a code (Sudhodanan and Paverd 2022, "Pre-hijacked accounts").

At an address that has an account a registration waits as well, without a code: every answer is the
same as at a free address, so it does not show which addresses have an account (OWASP,
WSTG-IDNT-04).
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.accounts import SOURCE, codes, guesses
from services.accounts.codes import Check
from shared.bus import outbox
from shared.bus.contract.events import AccountVerified, of_account
from shared.config.loading import settings
from shared.db import retention
from shared.db.models import Account, PendingProof
from shared.db.session import database_time
from shared.http.errors import ApiError, too_many_requests
from shared.security import passwords
from shared.security.networks import network_of
from shared.validation import visible_text

MOST_COMPARED = 8
"""The newest registrations of an address that a password is compared with: as many as strangers can
request emails for in a day."""


def register(
    session: Session, company_name: str, email: str, password: str, address: str
) -> PendingProof:
    """Store a registration and mail a code for it.

    If the address has an account no code is mailed, and no answer shows it, now or later.

    Args:
        session: the transaction.
        company_name: the name of the business.
        email: the email address, in any case.
        password: the password.
        address: the client's IP address.

    Returns:
        The registration; its id becomes the account's.

    Raises:
        ApiError: 400 if the name is blank or has an invisible character, or the password is
            refused; 429 after too many emails.
    """
    email, company_name = email.lower(), company_name.strip()
    if not company_name:
        raise ApiError(400, "invalid_body", "company_name is blank.")
    if character := visible_text.first_invisible(company_name):
        raise ApiError(
            400, "invalid_body", f"company_name has a character that is not seen, {character}."
        )
    refuse_weak(password, email, company_name)
    network = network_of(address)
    each = guesses.again("registration", email, network, most=guesses.MAILS_A_DAY)
    if wait := guesses.attempts.take(*guesses.mails(session, email, network), each):
        raise too_many_requests(wait)
    hashed = passwords.hash_password(password)
    hold(session, email)
    pending = PendingProof(
        purpose="registration",
        email=email,
        company_name=company_name,
        password_hash=hashed,
        network=network,
    )
    codes.send(session, pending, is_for_nobody=account_of(session, email) is not None)
    return pending


def send_again(
    session: Session, email: str, registration_id: UUID | None, address: str
) -> ApiError | None:
    """Mail a new code for a waiting registration; the one before stops working.

    Args:
        session: the transaction.
        email: the email address.
        registration_id: the registration; None for the newest from this network, else the newest.
        address: the client's IP address.

    Returns:
        None, or 429 if the address has had the emails of the day. The answer and its time are the
        same whether or not a registration waits.
    """
    email, network = email.lower(), network_of(address)
    asked = guesses.ask_for_mail(session, "registration", email, network)
    if asked.wait:
        return too_many_requests(asked.wait)
    hold(session, email)
    waiting = _waiting(session, email, with_placeholders=True)
    candidates = [p for p in waiting if p.password_hash and registration_id in (None, p.id)]
    candidates.sort(key=lambda pending: (pending.network == network, pending.created_at))
    is_free = account_of(session, email) is None
    if asked.is_on_its_way:
        return None
    if candidates:
        pending = candidates[-1]
    else:
        # No registration waits: store a placeholder, whose code is not mailed.
        placeholders = [pending for pending in waiting if not pending.password_hash]
        made = PendingProof(purpose="registration", email=email, network=network)
        pending = placeholders[0] if placeholders else made
    if registration_id is not None:  # only the registrant has the id, so this is their network
        pending.network = network
    # A code requested from another network must be given with the registration's id or password.
    pending.is_named = pending.is_named is not False and pending.network == network
    if codes.may_send_again(session, pending):
        codes.send(session, pending, is_for_nobody=not (candidates and is_free))
    return None


def verify(
    session: Session,
    email: str,
    otp: str,
    address: str,
    *,
    password: str | None = None,
    registration_id: UUID | None = None,
) -> ApiError | None:
    """Turn a registration into an account, by its code.

    If several wait for the address, or the code was requested from another network without an id,
    the registration's password or id is required too. It may be another one than the code's.

    Returns:
        None, or an error: returned, not raised, so that a wrong attempt stays counted.
    """
    email, network = email.lower(), network_of(address)
    guess = guesses.at(session, "code", email, network)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    hold(session, email)
    waiting = _waiting(session, email)
    outcome, proved = Check.WRONG, None
    for pending in waiting:
        place = network if pending.network == network else None
        if pending.id == registration_id:
            place = str(registration_id)
        checked = codes.check(session, pending, otp, place)
        if checked is not Check.WRONG:
            outcome, proved = checked, pending
    if proved is None or outcome is not Check.RIGHT:
        return OTP_ERRORS[outcome]()
    if password is None:
        guesses.attempts.give_back(*guess)
    is_unambiguous = len(waiting) == 1 and proved.is_named
    if not is_unambiguous and password is None and registration_id is None:
        return ApiError(*SEVERAL)
    if password is not None or registration_id is not None:
        proved = _chosen(waiting, proved, password, registration_id)
    if proved is None:
        return OTP_ERRORS[Check.WRONG]()
    account = _create_account(session, proved)
    if account is None:
        return OTP_ERRORS[Check.WRONG]()
    session.delete(proved)
    withhold_others(session, email)
    if password is not None:
        guesses.attempts.give_back(*guess)
    guesses.remember(session, account, network)
    fact = AccountVerified(**of_account(account))
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return None


def _chosen(
    waiting: Sequence[PendingProof],
    proved: PendingProof,
    password: str | None,
    registration_id: UUID | None,
) -> PendingProof | None:
    """Return the registration that has this id, or this password: the proved one is tried first."""
    if registration_id is not None:
        candidates = [pending for pending in waiting if pending.id == registration_id]
    else:
        rest = [pending for pending in reversed(waiting) if pending is not proved]
        candidates = [proved, *rest][:MOST_COMPARED]
    for pending in candidates:
        if password is None or passwords.matches(password, pending.password_hash):
            return pending
    return None


def withhold_others(session: Session, email: str) -> None:
    """Make the remaining registrations of an address unprovable, without deleting them.

    A deleted one's password would be answered as wrong, which would show that there is an account.
    """
    session.flush()
    session.execute(
        update(PendingProof)
        .where(PendingProof.email == email, PendingProof.purpose == "registration")
        .values(code_hash=codes.unmatchable())
    )


def password_awaiting(session: Session, email: str, network: str) -> str | None:
    """Return the password hash of the newest registration of this network, else of all."""
    waiting = _waiting(session, email, hold=False)
    waiting.sort(key=lambda pending: (pending.network == network, pending.created_at))
    return waiting[-1].password_hash if waiting else None


def refuse_weak(password: str, *known: str) -> None:
    """Refuse a password that is too short or easily guessed, with every reason.

    Args:
        password: the password.
        known: facts about the account that an attacker knows.

    Raises:
        ApiError: 400 `invalid_body` if it is too short, else 400 `weak_password`.
    """
    found = passwords.faults(password, *known)
    if found:
        is_form = not len(passwords.normalized(password)) >= passwords.MIN_LENGTH
        code = "invalid_body" if is_form else "weak_password"
        raise ApiError(400, code, " ".join(["Choose another password.", *found]), faults=found)


def _create_account(session: Session, proved: PendingProof) -> Account | None:
    """Return the new account; None if another registration proved the address in the meantime."""
    values = {
        "company_name": proved.company_name,
        "password_hash": proved.password_hash,
        "email_verified_at": database_time(session),
    }
    # An earlier version made accounts before their address was proved.
    made = insert(Account).values(id=proved.id, email=proved.email, **values)
    return session.scalar(
        made.on_conflict_do_update(
            index_elements=[Account.email],
            set_=values,
            where=Account.email_verified_at.is_(None),
        ).returning(Account)
    )


def hold(session: Session, email: str) -> None:
    """Lock an email address until the transaction ends."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(email, 0))))


def account_of(session: Session, email: str, *, hold: bool = False) -> Account | None:
    """Return the account of a proved address; the caller has locked the address.

    Args:
        session: the transaction.
        email: the address, in lower case.
        hold: whether to lock the account's row.
    """
    found = by_address(email)
    if hold:
        found = found.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalar(found)


def by_address(email: str) -> Select[Account]:
    """Return the query for the open account of a proved address.

    Args:
        email: the address, in lower case.
    """
    return select(Account).where(
        Account.email == email,
        Account.email_verified_at.is_not(None),
        Account.closed_at.is_(None),
    )


def _waiting(
    session: Session, email: str, *, hold: bool = True, with_placeholders: bool = False
) -> list[PendingProof]:
    found = (
        select(PendingProof)
        .where(PendingProof.email == email, PendingProof.purpose == "registration")
        .order_by(PendingProof.created_at)
    )
    if not with_placeholders:
        found = found.where(PendingProof.password_hash.is_not(None))
    if days := settings().retention_unproved_days:
        # The same rule as the retention job's, which may not have run (shared/db/retention.py).
        is_kept = PendingProof.created_at >= retention.before(session, days)
        found = found.where(is_kept | (PendingProof.code_expires_at >= func.now()))
    return list(session.scalars(found.with_for_update() if hold else found))


SEVERAL = (
    400,
    "several_registrations",
    "Several registrations wait for this address, or it is not said which is meant. Send the "
    "password of yours too, or the id that it was answered with, as registration_id.",
)
OTP_ERRORS = {
    Check.WRONG: lambda: ApiError(400, "invalid_otp", "The code is wrong."),
    Check.EXPIRED: lambda: ApiError(400, "otp_expired", "The code has expired: ask for a new one."),
    Check.LOCKED: lambda: ApiError(400, "otp_locked", "Too many wrong tries: ask for a new code."),
}
