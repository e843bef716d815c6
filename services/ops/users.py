"""Who may sign in to the ops console, and as what."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import passwords
from shared.db.models import OpsSecondFactor, OpsSession, OpsUser
from shared.ids import new_id
from shared.roles import PERSON

Role = Literal["watch", "act"]
SHORTEST_PASSWORD = 12
HAS_SECOND_FACTOR = exists().where(
    OpsSecondFactor.user_id == OpsUser.id, OpsSecondFactor.confirmed_at.is_not(None)
)
"""Of a row of `OpsUser`."""


class UnfitUserError(Exception):
    """Such a user cannot be; the sentence says why."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has signed in, or may.

    Attributes:
        id: of the row.
        name: in lower case; the books name people by it.
        role: `watch` sees everything, `act` may also decide, replay and discard.
        has_second_factor: whether a code is asked for at the sign-in.
    """

    id: UUID
    name: str
    role: Role
    has_second_factor: bool = False

    @property
    def may_act(self) -> bool:
        """Whether it may do more than look."""
        return self.role == "act"


@dataclass(frozen=True, slots=True)
class Listed:
    """A user in a list: since when there is one, and since when a second factor is asked for."""

    name: str
    role: str
    created_at: datetime
    second_factor_since: datetime | None


def put(session: Session, name: str, role: Role, password: str | None) -> bool:
    """Make a user, or give one another role or password; whoever it was is signed out.

    Args:
        session: in a transaction.
        name: up to 64 letters, digits, dots, underscores and hyphens; capitals count as small.
        role: see `User`.
        password: at least `SHORTEST_PASSWORD` characters; None keeps the one that there is.

    Returns:
        Whether the user is new.

    Raises:
        UnfitUserError: the name or the password is none, or a new user has no password.
    """
    name = _checked(name)
    if password is not None and len(password) < SHORTEST_PASSWORD:
        raise UnfitUserError(f"The password must have {SHORTEST_PASSWORD} characters or more.")
    known = session.scalar(select(OpsUser).where(OpsUser.name == name).with_for_update())
    if known is None:
        if password is None:
            raise UnfitUserError(f"There is no user {name}: a new one needs a password.")
        made = insert(OpsUser).values(
            id=new_id(), name=name, role=role, password_hash=passwords.hash_password(password)
        )
        session.execute(made)
        return True
    known.role = role
    if password is not None:
        known.password_hash = passwords.hash_password(password)
    session.execute(delete(OpsSession).where(OpsSession.user_id == known.id))
    return False


def remove(session: Session, name: str) -> bool:
    """Take a user away, and every session with it; returns whether there was one."""
    gone = delete(OpsUser).where(OpsUser.name == name.strip().lower()).returning(OpsUser.id)
    return session.execute(gone).first() is not None


def listed(session: Session) -> list[Listed]:
    """Everybody, by name."""
    rows = session.execute(
        select(OpsUser.name, OpsUser.role, OpsUser.created_at, OpsSecondFactor.confirmed_at)
        .outerjoin(OpsSecondFactor, OpsSecondFactor.user_id == OpsUser.id)
        .order_by(OpsUser.name)
    )
    return [Listed(*row) for row in rows]


def verify(session: Session, name: str, password: str) -> User | None:
    """The user behind a name and a password; an unknown name costs the same work."""
    known = session.scalar(select(OpsUser).where(OpsUser.name == name.strip().lower()))
    if not passwords.matches(password, known.password_hash if known else None) or known is None:
        return None
    if passwords.is_outdated(known.password_hash):
        known.password_hash = passwords.hash_password(password)
    has_factor = session.scalar(select(HAS_SECOND_FACTOR).where(OpsUser.id == known.id))
    return User(known.id, known.name, role_of(known.role), bool(has_factor))


def _checked(name: str) -> str:
    name = name.strip().lower()
    if not re.fullmatch(PERSON, name):
        raise UnfitUserError("A name has up to 64 letters, digits, dots, underscores and hyphens.")
    return name


def role_of(stored: str) -> Role:
    """The role that a row names."""
    return "act" if stored == "act" else "watch"
