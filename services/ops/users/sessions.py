"""Sessions of signed-in browsers, stored under the hash of a random token.

While a session awaits the code of a second factor, its only use is to give that code.

A session ends after some time without a request by its user (requests by scripts do not count), and
after a longer time in any case; and immediately when its user signs out, is removed or gets another
role or password (OWASP, "Session Management").
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from services.ops.users.users import HAS_SECOND_FACTOR, User, rights_of
from shared.config.settings import Settings
from shared.db.models import OpsSession, OpsUser
from shared.db.session import transaction
from shared.web.tokens import hashed, new_token

CLIENT_CHARACTERS = 250
NOTE_CHARACTERS = 2_000
SEEN_EVERY = timedelta(minutes=1)
"""The resolution of `seen_at`, which saves writes."""


CODE_WITHIN = timedelta(minutes=5)
"""How long a session awaits its code."""


@dataclass(frozen=True, slots=True)
class Where:
    """The origin of a session.

    Attributes:
        network: an IPv4 address, or a /64 of IPv6.
        client: the User-Agent.
    """

    network: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A session in a list.

    Attributes:
        id: of the row.
        created_at: the time of the sign-in.
        seen_at: its last use, to a minute.
        where: its origin.
        is_own: whether it is that of the requesting browser.
    """

    id: UUID
    created_at: datetime
    seen_at: datetime
    where: Where
    is_own: bool


def start(
    session: Session,
    user: User,
    where: Where = Where(),
    *,
    awaits_code: bool = False,
) -> str:
    """Start a session; return the token for the browser's cookie.

    Args:
        session: in a transaction.
        user: the user.
        where: the origin.
        awaits_code: whether only the password was given.
    """
    token = new_token()
    session.add(
        OpsSession(
            token_hash=hashed(token),
            user_id=user.id,
            network=where.network,
            client=where.client[:CLIENT_CHARACTERS],
            awaits_code=awaits_code,
        )
    )
    session.flush()
    return token


def find(session: Session, token: str, config: Settings, *, is_use: bool = True) -> User | None:
    """Return the user of a token; None if there is no such session, or it has ended.

    Args:
        session: in a transaction.
        token: of the cookie.
        config: uses `ops_idle_seconds` and `ops_session_seconds`.
        is_use: whether a user made the request, and not a script.
    """
    found = _find(session, token, config, awaits_code=False)
    if found is None:
        return None
    user, unseen = found
    if is_use and unseen > SEEN_EVERY:
        seen = update(OpsSession).where(OpsSession.token_hash == hashed(token))
        session.execute(seen.values(seen_at=func.clock_timestamp()))
    return user


def awaiting(session: Session, token: str, config: Settings) -> User | None:
    """Return the user whose code the session awaits; None if it awaits none, or no longer."""
    found = _find(session, token, config, awaits_code=True)
    return found[0] if found else None


def _find(
    session: Session, token: str, config: Settings, *, awaits_code: bool
) -> tuple[User, timedelta] | None:
    """Return the user, and the time since the last use."""
    row = session.execute(
        select(
            OpsUser.id,
            OpsUser.name,
            OpsUser.rights,
            (func.clock_timestamp() - OpsSession.seen_at).label("unseen"),
            HAS_SECOND_FACTOR.label("has_second_factor"),
        )
        .join(OpsSession, OpsSession.user_id == OpsUser.id)
        .where(
            OpsSession.token_hash == hashed(token),
            OpsSession.awaits_code.is_(awaits_code),
            ~_has_ended(config),
        )
    ).first()
    if row is None:
        return None
    return User(row.id, row.name, rights_of(row.rights), row.has_second_factor), row.unseen


def end(session: Session, token: str) -> bool:
    """End a session; return whether there was one."""
    ended = delete(OpsSession).where(OpsSession.token_hash == hashed(token))
    return session.execute(ended.returning(OpsSession.id)).first() is not None


def listed(session: Session, user_id: UUID, config: Settings, token: str = "") -> list[Listed]:
    """Return a user's sessions, newest first, without those that await a code.

    Args:
        session: in a transaction.
        user_id: the user's.
        config: see `find`.
        token: of the requesting browser.
    """
    rows = session.scalars(
        select(OpsSession)
        .where(OpsSession.user_id == user_id, ~OpsSession.awaits_code, ~_has_ended(config))
        .order_by(OpsSession.created_at.desc())
    )
    own = hashed(token)
    return [
        Listed(
            row.id,
            row.created_at,
            row.seen_at,
            Where(row.network, row.client),
            bytes(row.token_hash) == own,
        )
        for row in rows
    ]


def end_one(session: Session, user_id: UUID, id_: UUID) -> int:
    """End one session of a user; return how many ended."""
    ended = delete(OpsSession).where(OpsSession.user_id == user_id, OpsSession.id == id_)
    return len(session.execute(ended.returning(OpsSession.id)).all())


def end_others(session: Session, user_id: UUID, token: str = "") -> int:
    """End all sessions of a user but that of a token; return how many ended."""
    ended = delete(OpsSession).where(
        OpsSession.user_id == user_id, OpsSession.token_hash != hashed(token)
    )
    return len(session.execute(ended.returning(OpsSession.id)).all())


def note_for_all(session: Session, user_id: UUID, note: str, *, instead: str = "") -> None:
    """Append a note to all present sessions of a user, for their next page.

    Args:
        session: in a transaction.
        user_id: the user's.
        note: a sentence.
        instead: a PostgreSQL regular expression; earlier notes that match it are removed.
    """
    theirs = OpsSession.user_id == user_id
    session.execute(update(OpsSession).where(theirs).values(note=_with(note, instead)))


def leave_note(session: Session, token: str, note: str) -> None:
    """Append a note to a session, for its next page.

    Args:
        session: in a transaction.
        token: of the session.
        note: the result of the last action.
    """
    own = OpsSession.token_hash == hashed(token)
    session.execute(update(OpsSession).where(own).values(note=_with(note)))


def take_note(session: Session, token: str) -> str:
    """Return and delete the notes of a session."""
    own = OpsSession.token_hash == hashed(token)
    note = session.scalar(select(OpsSession.note).where(own).with_for_update())
    if note:
        session.execute(update(OpsSession).where(own).values(note=""))
    return note or ""


def _with(note: str, instead: str = "") -> ColumnElement[str]:
    """Return the notes with one appended; if too long, the end of them."""
    before = func.regexp_replace(OpsSession.note, instead, "") if instead else OpsSession.note
    both = func.concat_ws(" ", func.nullif(func.btrim(before), ""), note)
    return func.right(both, NOTE_CHARACTERS)


def _has_ended(config: Settings) -> ColumnElement[bool]:
    now = func.clock_timestamp()
    return or_(
        OpsSession.seen_at < now - timedelta(seconds=config.ops_idle_seconds),
        OpsSession.created_at < now - timedelta(seconds=config.ops_session_seconds),
        and_(OpsSession.awaits_code, OpsSession.created_at < now - CODE_WITHIN),
    )


def delete_ended(config: Settings) -> None:
    """Delete the ended sessions.

    Args:
        config: uses `ops_idle_seconds` and `ops_session_seconds`.
    """
    with transaction() as session:
        session.execute(delete(OpsSession).where(_has_ended(config)))
