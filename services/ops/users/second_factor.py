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
from pyotp.exceptions import OTPVerificationError
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from services.ops.users import users
from shared.db.models import OpsRecoveryCode, OpsSecondFactor, OpsSession, OpsUser
from shared.db.session import database_time, transaction
from shared.security.encryption import second_factor_sealer
from shared.web.tokens import hashed

ISSUER = "Order Fellow"
DIGITS = 6
EITHER_SIDE = 1
"""So many steps a clock may be off (RFC 6238, 5.2)."""
RECOVERY_CODES = 10
OFFERED_FOR = timedelta(minutes=15)
# NIST SP 800-63B, 5.1.2.2: what has 112 bits of chance or more may be kept under a plain hash.
_RECOVERY_BYTES = 15
_GROUP = 6

Kind = Literal["code", "recovery_code"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What an authenticator app takes in.

    Attributes:
        secret: in base32.
        uri: the same as an `otpauth:` URI.
    """

    secret: str
    uri: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a user's second factor stands.

    Attributes:
        confirmed_at: since when it is asked for; None when there is none.
        recovery_codes: how many are left.
    """

    confirmed_at: datetime | None
    recovery_codes: int


def standing(session: Session, user_id: UUID) -> Standing:
    """How it stands."""
    confirmed_at = session.scalar(
        select(OpsSecondFactor.confirmed_at).where(OpsSecondFactor.user_id == user_id)
    )
    codes = select(func.count()).where(OpsRecoveryCode.user_id == user_id)
    return Standing(confirmed_at, session.scalar(codes) or 0)


def offer(session: Session, user_id: UUID, token: str) -> None:
    """Make a new secret, which counts once a code of it is confirmed; until then the one before.

    It is for the session that it is shown to, and for `OFFERED_FOR`.

    Args:
        session: in a transaction.
        user_id: whose.
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
    """What was offered and is not confirmed yet.

    Args:
        session: in a transaction.
        user_id: whose.
        name: theirs, by which the app lists it.
        token: of the session that asks.

    Raises:
        CannotOpenError: its key is not listed any more.
    """
    factor = session.get(OpsSecondFactor, user_id)
    if factor is None or factor.offered is None or not _is_for(session, factor, token):
        return None
    totp = _totp(factor.offered, user_id, name)
    return Offer(totp.secret, totp.provisioning_uri())


def forget_offers() -> None:
    """Keep nothing of what was offered and is not confirmed in time."""
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
    """Let what was offered count, if the code is one of it.

    Args:
        session: in a transaction.
        user_id: whose.
        code: as it was typed.
        token: of the session that it was offered to.
        at: the time; now, by the database's clock, when not given.

    Returns:
        New recovery codes, to be shown once; None when the code is wrong, or nothing was offered.

    Raises:
        CannotOpenError: its key is not listed any more.
    """
    # Whoever is signing in just now without it is not signed in yet, or is seen.
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
    """Take a code: each once, and none that is older than one that was taken (RFC 6238, 5.2).

    Args:
        session: in a transaction.
        user_id: whose.
        code: as it was typed: six digits, or a recovery code.
        at: the time; now, by the database's clock, when not given.

    Returns:
        What it was; None when it is wrong or was used.

    Raises:
        CannotOpenError: the key of the secret is not listed any more; recovery codes need none.
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
    step = _step_of(_totp(factor.sealed, user_id), plain, at or database_time(session))
    if step is None or step <= factor.last_step:
        return None
    factor.last_step = step
    return "code"


def kind_of(code: str) -> Kind:
    """What a code would be, by its looks."""
    return "code" if re.fullmatch(rf"[0-9]{{{DIGITS}}}", _plain(code)) else "recovery_code"


def note_wrong(session: Session, user_id: UUID) -> int:
    """Count a wrong code; returns how many there were since the last right one."""
    counted = (
        update(OpsSecondFactor)
        .where(OpsSecondFactor.user_id == user_id)
        .values(wrong_codes=OpsSecondFactor.wrong_codes + 1)
    )
    return session.scalar(counted.returning(OpsSecondFactor.wrong_codes)) or 0


def forget_wrong(session: Session, user_id: UUID) -> int:
    """Count anew; returns how many wrong codes there were."""
    factor = _locked(session, user_id)
    if factor is None:
        return 0
    count, factor.wrong_codes = factor.wrong_codes, 0
    return count


def make_recovery_codes(session: Session, user_id: UUID) -> Sequence[str]:
    """New recovery codes, to be shown once; those before stop working."""
    return _make_codes(session, user_id, RECOVERY_CODES)


def make_enrolment_code(session: Session, name: str) -> str:
    """What who has no second factor yet needs to set one up, beside the password; it works once.

    Where everybody needs one a password that was found out would be enough to set it up for them.
    Whoever sets a second factor up has it taken away; it is kept as a recovery code.

    Args:
        session: in a transaction.
        name: the user's, in whatever case.

    Returns:
        The code, to be shown once; empty where there is no such user, or they have a second factor.
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
    """Take a user's second factor away and sign them out; returns whether there was one.

    Args:
        session: in a transaction.
        name: in whatever case.
    """
    user_id = session.scalar(select(OpsUser.id).where(OpsUser.name == name.strip().lower()))
    if user_id is None:
        return False
    users.hold(session, user_id)  # who is signing in just now is seen below
    for table in (OpsRecoveryCode, OpsSession):
        session.execute(delete(table).where(table.user_id == user_id))
    gone = delete(OpsSecondFactor).where(OpsSecondFactor.user_id == user_id)
    return session.execute(gone.returning(OpsSecondFactor.user_id)).first() is not None


def context(user_id: UUID) -> str:
    """What a user's secrets are bound to where they are sealed."""
    return f"ops second factor:{user_id}"


def _locked(session: Session, user_id: UUID) -> OpsSecondFactor | None:
    # Two browsers with one code at once: the second waits, and sees that it was used.
    query = select(OpsSecondFactor).where(OpsSecondFactor.user_id == user_id).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def _totp(sealed: bytes, user_id: UUID, name: str = "") -> pyotp.TOTP:
    secret = second_factor_sealer().open(sealed, context(user_id)).decode()
    return pyotp.TOTP(secret, digits=DIGITS, name=name, issuer=ISSUER)


def _step_of(totp: pyotp.TOTP, code: str, at: datetime) -> int | None:
    """The time step that a code is of; None when it is of none that counts now."""
    try:
        return totp.verify_and_get_timecode(code, for_time=at, valid_window=EITHER_SIDE)
    except OTPVerificationError:
        return None


def _plain(code: str) -> str:
    return re.sub(r"[\s-]", "", code).lower()


def _hash(plain: str) -> bytes:
    return hashlib.sha256(plain.encode()).digest()
