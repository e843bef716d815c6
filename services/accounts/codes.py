"""One-time codes: six digits that prove an email address.

Ten minutes, five tries, one code at a time for what it proves (NIST SP 800-63B, 5.1.3.2 for
out-of-band codes). Six digits are quickly tried through, so what is stored is a MAC under a key
that the database does not hold, and not a bare hash.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from sqlalchemy.orm import Session

from services.accounts import SOURCE
from shared.bus import outbox
from shared.bus.contract.events import AccountOtpRequested
from shared.config.keys import decode_key
from shared.config.loading import settings
from shared.db.models import PendingProof
from shared.db.session import database_time
from shared.ids import new_id
from shared.security.encryption import code_sealer

LIFETIME = timedelta(minutes=10)
TRIES = 5
RESEND_AFTER = timedelta(seconds=50)
"""Less than the minute that a network waits (`guesses.again`): whoever is let through there is
mailed, but where another network had it mailed a moment ago."""
KEYS = "ONE_TIME_CODE_KEYS"


class Check(Enum):
    """What became of a try."""

    RIGHT = "right"
    WRONG = "wrong"
    EXPIRED = "expired"
    LOCKED = "locked"


def send(
    session: Session, pending: PendingProof, company_name: str = "", *, is_for_nobody: bool = False
) -> None:
    """Make a new code for what is pending and have it mailed; the one before stops working.

    Nobody's costs the same work, so that the time of an answer does not tell who is there (OWASP,
    WSTG-IDNT-04): it is told as one that is over already, which is mailed to nobody, and no digits
    are right.

    Args:
        session: the transaction.
        pending: what it is to prove; added to the session here.
        company_name: how the email calls its reader; only that of an account that was proved.
        is_for_nobody: whether nobody is to have it.
    """
    digits = f"{secrets.randbelow(1_000_000):06}"
    code_id = new_id()
    made = _mac(code_id, digits, settings().listed(KEYS)[0])
    now = _time(session)
    pending.id = pending.id or new_id()
    pending.code_id, pending.code_hash = code_id, nobodys() if is_for_nobody else made
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
    outbox.tell(session, fact, about, source=SOURCE)


def nobodys() -> bytes:
    """What is stored for a code that nobody has: no digits are right."""
    return secrets.token_bytes(hashlib.sha256().digest_size)


def check(session: Session, pending: PendingProof, digits: str, *, is_own: bool) -> Check:
    """Try a code; a wrong try is counted. The caller holds the row.

    Only the right digits are told that they came too late: else the answers would say where a code
    is awaited.

    Args:
        session: the transaction.
        pending: what it is to prove.
        digits: as they were given.
        is_own: whether from where it belongs; a stranger's tries do not use up the owner's.
    """
    tried = pending.attempts if is_own else pending.strange_attempts
    if not _is_right(pending, digits):
        if tried < TRIES:
            setattr(pending, "attempts" if is_own else "strange_attempts", tried + 1)
        return Check.WRONG
    if tried >= TRIES:
        # Who guesses on learns by this which they are; there are two counts, and one may be left.
        pending.code_hash = nobodys()
        return Check.LOCKED
    return Check.EXPIRED if database_time(session) >= pending.code_expires_at else Check.RIGHT


def may_send_again(session: Session, pending: PendingProof) -> bool:
    """Whether no code was mailed for it yet, or one that is old enough for another."""
    now = _time(session)
    return pending.code_made_at is None or now - pending.code_made_at >= RESEND_AFTER


def _time(session: Session) -> datetime:
    # What is changed already is written with the rest, in one statement.
    with session.no_autoflush:
        return database_time(session)


def _is_right(pending: PendingProof, digits: str) -> bool:
    macs = [_mac(pending.code_id, digits, key) for key in settings().listed(KEYS)]
    # All of them, whichever it is.
    return sum(hmac.compare_digest(pending.code_hash, mac) for mac in macs) > 0


def _mac(code_id: UUID, digits: str, key: str) -> bytes:
    """Of a code, under a key that is derived from the one that it travels sealed under."""
    own = hashlib.sha256(b"one-time codes\0" + decode_key(key, KEYS)).digest()
    return hmac.digest(own, f"{code_id}:{digits}".encode(), "sha256")
