"""Rate limits of sign-in guesses, which hold up the guesser and not the user.

A browser with the user's mark has its own counts, so guesses from elsewhere do not lock the user
out. Fewer than 100 codes a day are checked (NIST SP 800-63B, 5.2.2); these counts restart with a
new password, which a guesser of codes must know. A recovery code cannot be guessed, so it is held
up for minutes only: it is the way in from a new browser.
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
"""Checked guesses of marked browsers, and as many again of all others together."""
AUDITED_AN_HOUR = 100
"""Audited failures of a user, and of all unknown names together: the audit log is never pruned. The
limits above allow fewer checked guesses, recovery codes apart."""
HELD_UP_AN_HOUR = 20
"""Audited held-up guesses of a network: the rest of a flood is not even counted."""

attempts = Attempts(OpsAttemptCount, second_factor_sealer)


def of_password(
    session: Session, config: Settings, name: str, network: str, mark: str
) -> tuple[Limit, ...]:
    """Return the limits of a guess at a password.

    Args:
        session: in a transaction.
        config: has the limits per minute.
        name: the typed name; there need be no such user.
        network: the client's.
        mark: of the browser; empty if it has none.
    """
    name = name.strip().lower()
    is_own = bool(mark) and users.is_marked(session, name, mark)
    return _limits("password", mark if is_own else name, config, network, is_own=is_own)


def of_code(
    session: Session, config: Settings, user_id: UUID, kind: Kind, network: str, mark: str
) -> tuple[Limit, ...]:
    """Return the limits of a guess at a code; for the arguments see `of_password`."""
    password = users.mark(session, user_id)
    return _limits(kind, password, config, network, is_own=mark == password)


def held_up(network: str) -> Limit:
    """Return the limit of audited held-up guesses of a network."""
    return Limit("held up from", network, HELD_UP_AN_HOUR, HOUR)


def must_audit(session: Session, by: str, network: str, wrong: str = "") -> bool:
    """Count a failure to sign in; return whether it is to be audited.

    Held-up guesses and unknown names are audited once an hour and network, so that a flood does not
    fill the log. The same counts are written in every case: else the response time would show which
    names are users'.

    Args:
        session: the transaction that audits it.
        by: the user's name, or a placeholder for unknown names.
        network: the client's.
        wrong: `password` or `code`, if it was checked and is a user's: each of these is audited.
    """
    of, each = (f"wrong {wrong} of", AUDITED_AN_HOUR) if wrong else ("told of", 1)
    return attempts.note(
        session,
        Limit(of, f"{by}\0{network}", each, HOUR),
        Limit(of, by, AUDITED_AN_HOUR, HOUR),
    )


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
