"""Who may guess at the console how often: the guesser is held up, and the user is not.

A browser that bears the user's mark counts apart from all others, so whoever guesses from elsewhere
keeps nobody out. Of codes fewer than 100 a day are looked at (NIST SP 800-63B, 5.2.2), and the
counts begin anew with a new password, which the guesser of a code must have. A recovery code cannot
be guessed, so it is held up for minutes and not for hours: it is the way in from a new browser.
"""

from typing import Literal
from uuid import UUID

from sqlalchemy.orm import Session

from services.ops.users import users
from shared.config.settings import Settings
from shared.db.attempts import DAY, HOUR, MINUTE, Attempts, Limit
from shared.db.models import OpsAttemptCount
from shared.security.encryption import second_factor_sealer

Kind = Literal["password", "code", "recovery_code"]

AN_HOUR = {"password": 45, "code": 20}
A_DAY = {"code": 45}
"""Looked at by those who bear the user's mark, and as many again by all others together."""

attempts = Attempts(OpsAttemptCount, second_factor_sealer)


def of_password(
    session: Session, config: Settings, name: str, network: str, mark: str
) -> tuple[Limit, ...]:
    """What a guess at a password counts against.

    Args:
        session: in a transaction.
        config: the limits of a minute count.
        name: at whose; it need be nobody's.
        network: from where.
        mark: of the browser; empty where it has none.
    """
    name = name.strip().lower()
    is_own = bool(mark) and users.is_marked(session, name, mark)
    return _limits("password", mark if is_own else name, config, network, is_own=is_own)


def of_code(
    session: Session, config: Settings, user_id: UUID, kind: Kind, network: str, mark: str
) -> tuple[Limit, ...]:
    """What a guess at a code counts against; the arguments are those of a guess at a password."""
    password = users.mark(session, user_id)
    return _limits(kind, password, config, network, is_own=mark == password)


def telling(by: str, network: str) -> Limit:
    """How often it is told that guesses at a user's are held up: a flood of them fills no log."""
    return Limit("told of", f"{by}\0{network}", 1, HOUR)


def _limits(
    kind: Kind, whose: str, config: Settings, network: str, *, is_own: bool
) -> tuple[Limit, ...]:
    of = f"own {kind}" if is_own else f"{kind} of"
    limits = [Limit(of, whose, config.account_attempts_per_minute, MINUTE)]
    if not is_own:
        limits.append(Limit(f"{kind} from", network, config.sign_in_attempts_per_minute, MINUTE))
    limits += [
        Limit(of, whose, most[kind], seconds)
        for most, seconds in ((AN_HOUR, HOUR), (A_DAY, DAY))
        if kind in most
    ]
    return tuple(limits)
