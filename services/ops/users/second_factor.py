"""The second factor of the console's users: TOTP (RFC 6238), and recovery codes.

Six digits by SHA-1 each 30 seconds, which is what every authenticator app does.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import pyotp
import structlog
from pyotp.exceptions import OTPVerificationError
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from services.ops.users import users
from shared.db.models import OpsRecoveryCode, OpsSecondFactor, OpsSession, OpsUser
from shared.db.session import database_time, transaction
from shared.security.encryption import second_factor_sealer
from shared.web.tokens import hashed

log = structlog.get_logger()

ISSUER = "Order Fellow"
DIGITS = 6
EITHER_SIDE = 1
"""Steps by which a clock may be off (RFC 6238, 5.2)."""
AWAY = 20
"""Ten minutes of steps: a refused code of the last ones is by a slow device (RFC 6238, 6), and an
accepted step further ahead was by a wrong clock of the database."""
RECOVERY_CODES = 10
OFFERED_FOR = timedelta(minutes=15)
# NIST SP 800-63B, 5.1.2.2: secrets with 112 random bits or more may be stored with a plain hash.
_RECOVERY_BYTES = 15
_GROUP = 6

Kind = Literal["code", "recovery_code"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A secret for an authenticator app.

    Attributes:
        secret: in base32.
        uri: the same as an `otpauth:` URI.
    """

    secret: str
    uri: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a user's second factor.

    Attributes:
        confirmed_at: since when it is required; None if there is none.
        recovery_codes: the number of unused ones.
    """

    confirmed_at: datetime | None
    recovery_codes: int


def standing(session: Session, user_id: UUID) -> Standing:
    """Return the state of a user's second factor."""
    confirmed_at = session.scalar(
        select(OpsSecondFactor.confirmed_at).where(OpsSecondFactor.user_id == user_id)
    )
    codes = select(func.count()).where(OpsRecoveryCode.user_id == user_id)
    return Standing(confirmed_at, session.scalar(codes) or 0)


def offer(session: Session, user_id: UUID, token: str) -> None:
    """Make a new secret, which replaces the current one once `confirm` gets a code of it.

    The offer is bound to one session, and valid for `OFFERED_FOR`.

    Args:
        session: in a transaction.
        user_id: the user's.
        token: of that session.
    """
    made = pyotp.random_base32()  # 160 bits: RFC 4226, 4, R6
    factor = _locked(session, user_id)
    if factor is None:
        factor = OpsSecondFactor(user_id=user_id)
        session.add(factor)
    factor.offered = second_factor_sealer().seal(made.encode(), context(user_id))
    factor.offered_at, factor.offered_to = database_time(session), hashed(token)
    session.flush()


def offered(session: Session, user_id: UUID, name: str, token: str) -> Offer | None:
    """Return the offer that awaits its confirmation; None if there is none for this session.

    Args:
        session: in a transaction.
        user_id: the user's.
        name: the user's, which the app shows.
        token: of the session.

    Raises:
        CannotOpenError: its key is no longer listed.
    """
    factor = session.get(OpsSecondFactor, user_id)
    if factor is None or factor.offered is None or not _is_for(session, factor, token):
        return None
    totp = _totp(factor.offered, user_id, name)
    return Offer(totp.secret, totp.provisioning_uri())


def forget_offers() -> None:
    """Delete the offers that were not confirmed in time."""
    with transaction() as session:
        is_over = OpsSecondFactor.offered_at < func.clock_timestamp() - OFFERED_FOR
        session.execute(update(OpsSecondFactor).where(is_over).values(users.NO_OFFER))


def _is_for(session: Session, factor: OpsSecondFactor, token: str) -> bool:
    if factor.offered_at is None or factor.offered_to is None:
        return False
    is_theirs = hmac.compare_digest(factor.offered_to, hashed(token))
    return is_theirs and database_time(session) - factor.offered_at < OFFERED_FOR


def confirm(
    session: Session, user_id: UUID, code: str, token: str, at: datetime | None = None
) -> Sequence[str] | None:
    """Activate the offered secret, if the code is right.

    Args:
        session: in a transaction.
        user_id: the user's.
        code: as typed.
        token: of the session that it was offered to.
        at: the time; by default the database's.

    Returns:
        New recovery codes, to be shown once; None if the code is wrong, or there is no offer.

    Raises:
        CannotOpenError: its key is no longer listed.
    """
    # Serializes with sign-ins without it: these end before, or see it.
    users.hold(session, user_id)
    factor = _locked(session, user_id)
    if factor is None or factor.offered is None or not _is_for(session, factor, token):
        return None
    at = at or database_time(session)
    step = _step_of(_totp(factor.offered, user_id), _plain(code), at)
    if step is None:
        return None
    factor.sealed, factor.offered = factor.offered, None
    factor.offered_at = factor.offered_to = None
    factor.confirmed_at, factor.last_step = at, step
    return make_recovery_codes(session, user_id)


def check(session: Session, user_id: UUID, code: str, at: datetime | None = None) -> Kind | None:
    """Accept a code once, and none that is older than an accepted one (RFC 6238, 5.2).

    The exception: the last accepted step is set aside if it is more than `AWAY` ahead of the
    database's clock. That clock was ahead, or has gone back, and then codes since its present time
    work once more. The log has `second_factor_step_set_aside`.

    Args:
        session: in a transaction.
        user_id: the user's.
        code: as typed: six digits, or a recovery code.
        at: the time; by default the database's.

    Returns:
        Its kind; None if it is wrong or was used.

    Raises:
        CannotOpenError: the key of the secret is no longer listed; recovery codes need none.
    """
    plain = _plain(code)
    if kind_of(code) == "recovery_code":
        used = (
            delete(OpsRecoveryCode)
            .where(OpsRecoveryCode.user_id == user_id, OpsRecoveryCode.code_hash == _hash(plain))
            .returning(OpsRecoveryCode.user_id)
        )
        return "recovery_code" if session.execute(used).first() else None
    factor = _locked(session, user_id)
    if factor is None or factor.sealed is None:
        return None
    totp, at = _totp(factor.sealed, user_id), at or database_time(session)
    step = _step_of(totp, plain, at)
    if step is None:
        return None
    ahead = factor.last_step - totp.timecode(at)
    if ahead > AWAY:
        # After a clock that was far ahead, right codes must not be refused until that time.
        log.warning(
            "second_factor_step_set_aside", user=str(user_id), seconds=ahead * totp.interval
        )
    elif step <= factor.last_step:
        return None
    factor.last_step = step
    return "code"


def seconds_late(session: Session, user_id: UUID, code: str, at: datetime | None = None) -> int:
    """Return how many seconds ago a refused code was valid; 0 if it was not, or was used.

    Late by the database's clock: if that is ahead, the code of a right device is late too. It
    checks the past only, up to `AWAY`: an attacker must not learn that a code is valid soon.

    Args:
        session: in a transaction.
        user_id: the user's.
        code: as typed.
        at: the time; by default the database's.

    Raises:
        CannotOpenError: the key of the secret is not listed any more.
    """
    factor = session.get(OpsSecondFactor, user_id)
    if factor is None or factor.sealed is None or kind_of(code) != "code":
        return 0
    totp, at = _totp(factor.sealed, user_id), at or database_time(session)
    now = totp.timecode(at)
    for step in range(now - EITHER_SIDE - 1, max(now - AWAY - 1, factor.last_step), -1):
        if hmac.compare_digest(totp.generate_otp(step), _plain(code)):
            return (now - step) * totp.interval
    return 0


def kind_of(code: str) -> Kind:
    """Return the kind of a code by its format."""
    return "code" if re.fullmatch(rf"[0-9]{{{DIGITS}}}", _plain(code)) else "recovery_code"


def note_wrong(session: Session, user_id: UUID) -> int:
    """Count a wrong code; return how many there were since the last right one."""
    counted = (
        update(OpsSecondFactor)
        .where(OpsSecondFactor.user_id == user_id)
        .values(wrong_codes=OpsSecondFactor.wrong_codes + 1)
    )
    return session.scalar(counted.returning(OpsSecondFactor.wrong_codes)) or 0


def forget_wrong(session: Session, user_id: UUID) -> int:
    """Reset the count of wrong codes; return it."""
    factor = _locked(session, user_id)
    if factor is None:
        return 0
    count, factor.wrong_codes = factor.wrong_codes, 0
    return count


def make_recovery_codes(session: Session, user_id: UUID) -> Sequence[str]:
    """Replace the recovery codes; return the new ones, to be shown once."""
    return _make_codes(session, user_id, RECOVERY_CODES)


def make_enrolment_code(session: Session, name: str) -> str:
    """Make the code that a user needs, beside the password, to set up a first second factor.

    Without it a stolen password would be enough to set one up. It works once; it is stored as a
    recovery code, and deleted by the set-up.

    Args:
        session: in a transaction.
        name: the user's, in any case.

    Returns:
        The code, to be shown once; empty if there is no such user, or they have a second factor.
    """
    user = users.find(session, name)
    if user is None or user.has_second_factor:
        return ""
    return _make_codes(session, user.id, 1)[0]


def _make_codes(session: Session, user_id: UUID, count: int) -> Sequence[str]:
    session.execute(delete(OpsRecoveryCode).where(OpsRecoveryCode.user_id == user_id))
    plain = [
        base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
        for _ in range(count)
    ]
    session.execute(
        insert(OpsRecoveryCode), [{"code_hash": _hash(code), "user_id": user_id} for code in plain]
    )
    return [
        "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))
        for code in plain
    ]


def reset(session: Session, name: str) -> bool:
    """Delete a user's second factor and sessions; return whether there was a second factor.

    Args:
        session: in a transaction.
        name: the user's, in any case.
    """
    user_id = session.scalar(select(OpsUser.id).where(OpsUser.name == name.strip().lower()))
    if user_id is None:
        return False
    users.hold(session, user_id)  # serializes with sign-ins
    for table in (OpsRecoveryCode, OpsSession):
        session.execute(delete(table).where(table.user_id == user_id))
    gone = delete(OpsSecondFactor).where(OpsSecondFactor.user_id == user_id)
    return session.execute(gone.returning(OpsSecondFactor.user_id)).first() is not None


def context(user_id: UUID) -> str:
    """Return the context that a user's sealed secrets are bound to."""
    return f"ops second factor:{user_id}"


def _locked(session: Session, user_id: UUID) -> OpsSecondFactor | None:
    # Of two concurrent requests with one code, the second waits, and sees that it was used.
    query = select(OpsSecondFactor).where(OpsSecondFactor.user_id == user_id).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def _totp(sealed: bytes, user_id: UUID, name: str = "") -> pyotp.TOTP:
    secret = second_factor_sealer().open(sealed, context(user_id)).decode()
    return pyotp.TOTP(secret, digits=DIGITS, name=name, issuer=ISSUER)


def _step_of(totp: pyotp.TOTP, code: str, at: datetime) -> int | None:
    """Return the time step of a code; None if it is not valid at this time."""
    try:
        return totp.verify_and_get_timecode(code, for_time=at, valid_window=EITHER_SIDE)
    except OTPVerificationError:
        return None


def _plain(code: str) -> str:
    return re.sub(r"[\s-]", "", code).lower()


def _hash(plain: str) -> bytes:
    return hashlib.sha256(plain.encode()).digest()
