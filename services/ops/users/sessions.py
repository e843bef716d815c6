"""Signed-in browsers: kept on the server, found by the hash of a random token.

While a second factor's code is awaited it stands for nobody, and is good for giving one.

A session ends after some time without a request that somebody made (a page that refreshes itself
makes others), and after a longer time in any case; and at once when its user signs out, is removed
or gets another role or password (OWASP, "Session Management").
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
"""How exact `seen_at` is: not every request is to be written down."""


CODE_WITHIN = timedelta(minutes=5)
"""For how long a right password waits for its code."""


@dataclass(frozen=True, slots=True)
class Where:
    """From where somebody signs in.

    Attributes:
        network: an IPv4 address, or a /64 of IPv6.
        client: the browser, as it calls itself.
    """

    network: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A session in a list.

    Attributes:
        id: of the row.
        created_at: since when somebody is signed in.
        seen_at: when it was used last, to a minute.
        where: from where.
        is_own: whether it is that of the browser that asks.
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
    """Sign a user in; returns the token for the browser's cookie.

    Args:
        session: in a transaction.
        user: who.
        where: from where.
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
    """Who a token stands for; None when it stands for nobody, or its session has ended.

    Args:
        session: in a transaction.
        token: of the cookie.
        config: `ops_idle_seconds` and `ops_session_seconds` count.
        is_use: whether somebody asks, and not a page by itself.
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
    """Whose code is awaited; None when nobody's is, or it took too long."""
    found = _find(session, token, config, awaits_code=True)
    return found[0] if found else None


def _find(
    session: Session, token: str, config: Settings, *, awaits_code: bool
) -> tuple[User, timedelta] | None:
    """Who it is, and for how long nobody was seen."""
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
    """Sign a browser out; returns whether there was a session to end."""
    ended = delete(OpsSession).where(OpsSession.token_hash == hashed(token))
    return session.execute(ended.returning(OpsSession.id)).first() is not None


def listed(session: Session, user_id: UUID, config: Settings, token: str = "") -> list[Listed]:
    """A user's sessions, the newest first; what waits for its code is none.

    Args:
        session: in a transaction.
        user_id: whose.
        config: see `find`.
        token: of the browser that asks.
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
    """End one session of a user's; returns how many there were."""
    ended = delete(OpsSession).where(OpsSession.user_id == user_id, OpsSession.id == id_)
    return len(session.execute(ended.returning(OpsSession.id)).all())


def end_others(session: Session, user_id: UUID, token: str = "") -> int:
    """End all sessions of a user's but that of a token; returns how many there were."""
    ended = delete(OpsSession).where(
        OpsSession.user_id == user_id, OpsSession.token_hash != hashed(token)
    )
    return len(session.execute(ended.returning(OpsSession.id)).all())


def tell_others(session: Session, user_id: UUID, note: str, *, instead: str = "") -> None:
    """Leave a note for all that a user has now, beside what is to be said already.

    Args:
        session: in a transaction.
        user_id: whose sessions.
        note: what happened.
        instead: a regular expression of PostgreSQL's; the note takes the place of what it matches.
    """
    theirs = OpsSession.user_id == user_id
    session.execute(update(OpsSession).where(theirs).values(note=_with(note, instead)))


def leave_note(session: Session, token: str, note: str) -> None:
    """Have the browser's next page say something once, beside what it is to say already.

    Args:
        session: in a transaction.
        token: of the browser's session.
        note: what became of its last action.
    """
    own = OpsSession.token_hash == hashed(token)
    session.execute(update(OpsSession).where(own).values(note=_with(note)))


def take_note(session: Session, token: str) -> str:
    """What was left to be said; it is said once."""
    own = OpsSession.token_hash == hashed(token)
    note = session.scalar(select(OpsSession.note).where(own).with_for_update())
    if note:
        session.execute(update(OpsSession).where(own).values(note=""))
    return note or ""


def _with(note: str, instead: str = "") -> ColumnElement[str]:
    """What is to be said already, and this; of too much what was left last."""
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


def end_over(config: Settings) -> None:
    """Remove the sessions that are over.

    Args:
        config: `ops_idle_seconds` and `ops_session_seconds` count.
    """
    with transaction() as session:
        session.execute(delete(OpsSession).where(_has_ended(config)))
