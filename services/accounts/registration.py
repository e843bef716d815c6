"""Registration, and the proof of its address.

A registration is no account. Whoever registers an address first has nothing by that: several may
wait, each with its own password and its own code, and the one that is proved ends the others. A
code that was mailed proves the mailbox; by itself also the one registration that it was made for,
where no other waits. Else the password or the id says which: nobody but its maker has these, and
nobody but the mailbox's reader a code (Sudhodanan and Paverd 2022, "Pre-hijacked accounts").

At an address that has an account a registration waits as well, without a code: whoever made it is
answered everywhere as if the address were free, and so cannot learn who has an account (OWASP,
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
"""So many of the newest that wait at an address are compared with a password: as many as strangers
can have mailed there in a day."""


def register(
    session: Session, company_name: str, email: str, password: str, address: str
) -> PendingProof:
    """Let a registration wait for its proof, and mail it a code.

    No answer, then or later, tells whether the address has an account; then no code is mailed.

    Args:
        session: the transaction.
        company_name: as it was given.
        email: as it was given.
        password: as it was given.
        address: the client's.

    Returns:
        What waits; its id is the account's, once it is proved.

    Raises:
        ApiError: 400, when the name is blank, something in it is not seen or the password is
            refused; 429, when the address was mailed to too often.
    """
    email, company_name = email.lower(), company_name.strip()
    if not company_name:
        raise ApiError(400, "invalid_body", "company_name is blank.")
    if character := visible_text.unseen(company_name):
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
    """Mail a new code for a registration that waits; the one before stops working.

    Args:
        session: the transaction.
        email: the address.
        registration_id: which registration; without it the newest from this network, else the
            newest of all.
        address: the client's.

    Returns:
        None, or 429 where no more is mailed to the address today; whether something waits or not,
        the answer, and the time it takes, are the same.
    """
    email, network = email.lower(), network_of(address)
    asked = guesses.ask_for_mail(session, "registration", email, network)
    if asked.wait:
        return too_many_requests(asked.wait)
    hold(session, email)
    waiting = _waiting(session, email, with_nobodys=True)
    meant = [p for p in waiting if p.password_hash and registration_id in (None, p.id)]
    meant.sort(key=lambda pending: (pending.network == network, pending.created_at))
    is_free = account_of(session, email) is None
    if asked.is_on_its_way:
        return None
    if meant:
        pending = meant[-1]
    else:
        # Where none waits the code is nobody's, and what remembers it is no registration.
        nobodys = [pending for pending in waiting if not pending.password_hash]
        made = PendingProof(purpose="registration", email=email, network=network)
        pending = nobodys[0] if nobodys else made
    if registration_id is not None:  # told to whoever registered, alone: they are here now
        pending.network = network
    # Else it may be another who reads its codes from now on: they have to say which they mean.
    pending.is_named = pending.is_named is not False and pending.network == network
    if codes.may_send_again(session, pending):
        codes.send(session, pending, is_for_nobody=not (meant and is_free))
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
    """Make an account of a registration, by its code.

    While several wait for the same address, or where the code was asked for from elsewhere without
    saying for which, the code is not enough: whoever can read the mailbox must also know which
    registration is theirs, by its password or its id; whichever of them the code was mailed for.

    Returns:
        None, or an error; it is returned so that a wrong try stays counted.
    """
    email, network = email.lower(), network_of(address)
    guess = guesses.at(session, "code", email, network)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    hold(session, email)
    waiting = _waiting(session, email)
    outcome, proved = Check.WRONG, None
    for pending in waiting:
        is_own = pending.network == network or pending.id == registration_id
        checked = codes.check(session, pending, otp, is_own=is_own)
        if checked is not Check.WRONG:
            outcome, proved = checked, pending
    if proved is None or outcome is not Check.RIGHT:
        return OTP_ERRORS[outcome]()
    if password is None:
        guesses.attempts.give_back(*guess)
    is_meant = len(waiting) == 1 and proved.is_named
    if not is_meant and password is None and registration_id is None:
        return ApiError(*SEVERAL)
    if password is not None or registration_id is not None:
        proved = _meant(waiting, proved, password, registration_id)
    if proved is None:
        return OTP_ERRORS[Check.WRONG]()
    account = _account_of(session, proved)
    if account is None:
        return OTP_ERRORS[Check.WRONG]()
    session.delete(proved)
    withhold_others(session, email)
    if password is not None:
        guesses.attempts.give_back(*guess)
    guesses.remember(session, account, network)
    fact = AccountVerified(**of_account(account))
    outbox.tell(session, fact, account.id, source=SOURCE)
    return None


def _meant(
    waiting: Sequence[PendingProof],
    proved: PendingProof,
    password: str | None,
    registration_id: UUID | None,
) -> PendingProof | None:
    """Which of those that wait is said: by its id, or by a password, the proved one's first."""
    if registration_id is not None:
        said = [pending for pending in waiting if pending.id == registration_id]
    else:
        others = [pending for pending in reversed(waiting) if pending is not proved]
        said = [proved, *others][:MOST_COMPARED]
    for pending in said:
        if password is None or passwords.matches(password, pending.password_hash):
            return pending
    return None


def withhold_others(session: Session, email: str) -> None:
    """What waits at an address that has an account now goes on waiting, and nothing proves it.

    Were it gone, its password would be a wrong one from now on: that tells of the account.
    """
    session.flush()
    session.execute(
        update(PendingProof)
        .where(PendingProof.email == email, PendingProof.purpose == "registration")
        .values(code_hash=codes.nobodys())
    )


def password_awaiting(session: Session, email: str, network: str) -> str | None:
    """The hash of the password of a registration that waits; the one that this network made."""
    waiting = _waiting(session, email, hold=False)
    waiting.sort(key=lambda pending: (pending.network == network, pending.created_at))
    return waiting[-1].password_hash if waiting else None


def refuse_weak(password: str, *known: str) -> None:
    """Refuse what may not be a password, with every reason at once.

    Args:
        password: as it was given.
        known: what anybody knows of the account.

    Raises:
        ApiError: 400.
    """
    found = passwords.faults(password, *known)
    if found:
        is_form = not len(passwords.normalized(password)) >= passwords.MIN_LENGTH
        code = "invalid_body" if is_form else "weak_password"
        raise ApiError(400, code, " ".join(["Choose another password.", *found]), faults=found)


def _account_of(session: Session, proved: PendingProof) -> Account | None:
    """None, when somebody else proved the address meanwhile."""
    values = {
        "company_name": proved.company_name,
        "password_hash": proved.password_hash,
        "email_verified_at": database_time(session),
    }
    # An account that was never proved is one that the version before made.
    made = insert(Account).values(id=proved.id, email=proved.email, **values)
    return session.scalar(
        made.on_conflict_do_update(
            index_elements=[Account.email],
            set_=values,
            where=Account.email_verified_at.is_(None),
        ).returning(Account)
    )


def hold(session: Session, email: str) -> None:
    """Wait until no other transaction is at this address."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(email, 0))))


def account_of(session: Session, email: str, *, hold: bool = False) -> Account | None:
    """The account whose proved address this is; the caller holds the address.

    Args:
        session: the transaction.
        email: in small letters.
        hold: whether to keep others from changing the account until the transaction ends.
    """
    found = by_address(email)
    if hold:
        found = found.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalar(found)


def by_address(email: str) -> Select[Account]:
    """The query for the account of a proved address; a closed one has none, whatever it is called.

    Args:
        email: in small letters.
    """
    return select(Account).where(
        Account.email == email,
        Account.email_verified_at.is_not(None),
        Account.closed_at.is_(None),
    )


def _waiting(
    session: Session, email: str, *, hold: bool = True, with_nobodys: bool = False
) -> list[PendingProof]:
    found = (
        select(PendingProof)
        .where(PendingProof.email == email, PendingProof.purpose == "registration")
        .order_by(PendingProof.created_at)
    )
    if not with_nobodys:
        found = found.where(PendingProof.password_hash.is_not(None))
    if days := settings().retention_unproved_days:
        # As the retention ends it (shared/db/retention.py), so also when that does not run.
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
