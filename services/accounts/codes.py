"""One-time codes: six digits that prove an email address.

A code is valid for ten minutes and replaces the one before for the same proof. Strangers together
have five tries, and so has each party with a claim to it (NIST SP 800-63B, 5.1.3.2). A plain hash
of six digits is easily reversed, so a MAC is stored, under a key that the database does not hold.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from sqlalchemy.orm import Session

from services.accounts import SOURCE, guesses
from services.accounts.guesses import TRIES
from shared.bus import outbox
from shared.bus.contract.events import AccountOtpRequested
from shared.config.keys import decode_key
from shared.config.loading import settings
from shared.db.models import PendingProof
from shared.db.session import database_time
from shared.ids import new_id
from shared.security.encryption import code_sealer

LIFETIME = timedelta(minutes=10)
RESEND_AFTER = timedelta(seconds=50)
"""Less than the minute of `guesses.again`: a request that passes there gets an email unless another
network requested one in this time."""
KEYS = "ONE_TIME_CODE_KEYS"


class Check(Enum):
    """The outcome of a try."""

    RIGHT = "right"
    WRONG = "wrong"
    EXPIRED = "expired"
    LOCKED = "locked"


def send(
    session: Session, pending: PendingProof, company_name: str = "", *, is_for_nobody: bool = False
) -> None:
    """Make a code for a pending proof and publish it to be mailed; the one before stops working.

    A code for nobody does the same work, so that the response time does not show which addresses
    have an account (OWASP, WSTG-IDNT-04). It is published as expired, which is not mailed, and no
    digits match it.

    Args:
        session: the transaction.
        pending: the proof; added to the session here.
        company_name: the salutation of the email; only that of a proved account.
        is_for_nobody: whether the code is not to be mailed.
    """
    digits = f"{secrets.randbelow(1_000_000):06}"
    code_id = new_id()
    made = _mac(code_id, digits, settings().listed(KEYS)[0])
    now = _time(session)
    pending.id = pending.id or new_id()
    pending.code_id, pending.code_hash = code_id, unmatchable() if is_for_nobody else made
    # An ingress of the previous version counts here what `guesses.tries` counts.
    pending.attempts = pending.strange_attempts = 0
    pending.code_made_at, pending.code_expires_at = now, now + LIFETIME
    session.add(pending)
    session.flush()
    about = pending.account_id or pending.id
    fact = AccountOtpRequested(
        account_id=about,
        company_name=company_name,
        email=pending.email,
        purpose=pending.purpose,  # type: ignore[arg-type]
        code_id=pending.code_id,
        sealed_code=code_sealer().seal(digits.encode(), f"otp:{pending.code_id}"),
        expires_at=pending.code_made_at if is_for_nobody else pending.code_expires_at,
    )
    outbox.add_fact(session, fact, about, source=SOURCE)


def unmatchable() -> bytes:
    """Return a random MAC, which no digits match."""
    return secrets.token_bytes(hashlib.sha256().digest_size)


def check(session: Session, pending: PendingProof, digits: str, place: str | None) -> Check:
    """Try a code; a wrong try is counted.

    Only the right digits get EXPIRED or LOCKED: otherwise the answers would show which addresses
    await a code.

    Args:
        session: the transaction.
        pending: the proof, locked by the caller.
        digits: the given code.
        place: the party with a claim to the code, as for `guesses.tries`; None for a stranger.
    """
    own = guesses.tries(pending.code_id, place) if place else None
    tried = guesses.attempts.count(session, own) if own else pending.strange_attempts
    if not _is_right(pending, digits):
        if own:
            guesses.attempts.take(own)
        elif tried < TRIES:
            pending.strange_attempts = tried + 1
        return Check.WRONG
    if tried >= TRIES:
        # LOCKED tells a guesser that the digits were right, so no digits match from now on.
        pending.code_hash = unmatchable()
        return Check.LOCKED
    return Check.EXPIRED if database_time(session) >= pending.code_expires_at else Check.RIGHT


def may_send_again(session: Session, pending: PendingProof) -> bool:
    """Return whether no code was mailed for the proof in the last `RESEND_AFTER`."""
    now = _time(session)
    return pending.code_made_at is None or now - pending.code_made_at >= RESEND_AFTER


def _time(session: Session) -> datetime:
    # Pending changes are flushed with the rest, in one statement.
    with session.no_autoflush:
        return database_time(session)


def _is_right(pending: PendingProof, digits: str) -> bool:
    macs = [_mac(pending.code_id, digits, key) for key in settings().listed(KEYS)]
    # Compare with all, so that the time does not show which key matched.
    return sum(hmac.compare_digest(pending.code_hash, mac) for mac in macs) > 0


def _mac(code_id: UUID, digits: str, key: str) -> bytes:
    """Return the MAC of a code, under a key derived from the one that seals codes in messages."""
    own = hashlib.sha256(b"one-time codes\0" + decode_key(key, KEYS)).digest()
    return hmac.digest(own, f"{code_id}:{digits}".encode(), "sha256")
