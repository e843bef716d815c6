"""One-time codes: six digits that prove an email address.

Ten minutes, five tries, one code at a time (NIST SP 800-63B, 5.1.3.2 for out-of-band codes). Six
digits are quickly tried through, so what is stored is a MAC under a key that the database does not
hold, and not a bare hash.
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from enum import Enum
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.bus.events import AccountOtpRequested
from shared.bus.message import message_for
from shared.config import settings
from shared.crypto import sealer
from shared.db.models import Account, OneTimeCode
from shared.ids import new_id
from shared.outbox import store

LIFETIME = timedelta(minutes=10)
TRIES = 5
RESEND_AFTER = timedelta(minutes=1)


class Check(Enum):
    """What became of a try."""

    RIGHT = "right"
    WRONG = "wrong"
    EXPIRED = "expired"
    LOCKED = "locked"


def request(session: Session, account: Account) -> bool:
    """Make a new code for an account and have it mailed; the one before stops working.

    Returns:
        False, with nothing done, while the last code is younger than `RESEND_AFTER`.
    """
    now = datetime.now(UTC)
    code = session.get(OneTimeCode, account.id, with_for_update=True)
    if code is not None and now - code.created_at < RESEND_AFTER:
        return False
    digits = f"{secrets.randbelow(1_000_000):06}"
    code_id = new_id()
    if code is None:
        code = OneTimeCode(account_id=account.id)
        session.add(code)
    code.code_id = code_id
    code.code_hash = _mac(code_id, digits)
    code.attempts = 0
    code.created_at = now
    code.expires_at = now + LIFETIME
    fact = AccountOtpRequested(
        account_id=account.id,
        company_name=account.company_name,
        email=account.email,
        code_id=code_id,
        sealed_code=sealer().seal(digits.encode(), f"otp:{code_id}"),
        expires_at=code.expires_at,
    )
    session.flush()
    store.add(session, [message_for(fact, source="services.accounts", correlation_id=account.id)])
    return True


def check(session: Session, account: Account, digits: str) -> Check:
    """Try a code; a right one is used up, a wrong one is counted."""
    code = session.scalar(
        select(OneTimeCode).where(OneTimeCode.account_id == account.id).with_for_update()
    )
    if code is None:
        return Check.WRONG
    if code.attempts >= TRIES:
        return Check.LOCKED
    if datetime.now(UTC) >= code.expires_at:
        return Check.EXPIRED
    if hmac.compare_digest(code.code_hash, _mac(code.code_id, digits)):
        session.delete(code)
        return Check.RIGHT
    code.attempts += 1
    return Check.WRONG


def _mac(code_id: UUID, digits: str) -> bytes:
    key = hashlib.sha256(b"one-time codes\0" + settings().jwt_signing_key.encode()).digest()
    return hmac.digest(key, f"{code_id}:{digits}".encode(), "sha256")
