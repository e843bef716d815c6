"""The users of the ops console: names, passwords and roles."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.ops.users.rights import NoSuchRightError, Right, parse, written
from shared.db.models import OpsSecondFactor, OpsSession, OpsUser
from shared.ids import new_id
from shared.security import device_tokens, passwords
from shared.security.service_accounts import PERSON

SHORTEST_PASSWORD = 12
HAS_SECOND_FACTOR = exists().where(
    OpsSecondFactor.user_id == OpsUser.id, OpsSecondFactor.confirmed_at.is_not(None)
)
"""A condition on a row of `OpsUser`."""
NO_OFFER: Mapping[str, None] = dict.fromkeys(("offered", "offered_at", "offered_to"))
"""Values of a row of `OpsSecondFactor` without an offer."""


class UnfitUserError(Exception):
    """A user that cannot be made or changed so; the text says why."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the console.

    Attributes:
        id: of the row.
        name: in lower case; the audit log names users by it.
        rights: beside viewing.
        has_second_factor: whether the sign-in needs a code.
    """

    id: UUID
    name: str
    rights: frozenset[Right]
    has_second_factor: bool = False

    def may(self, right: str) -> bool:
        """Whether the user has a right, by its name."""
        return right in self.rights

    @property
    def role(self) -> str:
        """The role of all their rights; see `rights.written`."""
        return written(self.rights)


@dataclass(frozen=True, slots=True)
class Listed:
    """A user in a list, with the times of creation and of the second factor's set-up."""

    name: str
    role: str
    created_at: datetime
    second_factor_since: datetime | None


def put(session: Session, name: str, role: str, password: str | None) -> bool:
    """Make a user, or change a user's role or password and end their sessions.

    Args:
        session: in a transaction.
        name: up to 64 letters, digits, dots, underscores and hyphens; case is ignored.
        role: `watch`, `act`, or rights; see `rights.parse`.
        password: at least `SHORTEST_PASSWORD` characters, and not easily guessed; None keeps the
            current one.

    Returns:
        Whether the user is new.

    Raises:
        UnfitUserError: the name, the role or the password is invalid, or a new user has none.
    """
    name, rights = _checked(name), _rights(role)
    if password is not None:
        _refuse_weak(password, name)
    known = session.scalar(_held(OpsUser.name == name))
    if known is None:
        if password is None:
            raise UnfitUserError(f"There is no user {name}: a new one needs a password.")
        made = insert(OpsUser).values(
            id=new_id(), name=name, rights=rights, password_hash=passwords.hash_password(password)
        )
        session.execute(made)
        return True
    known.rights = rights
    if password is not None:
        known.password_hash = passwords.hash_password(password)
    session.execute(delete(OpsSession).where(OpsSession.user_id == known.id))
    offers = update(OpsSecondFactor).where(OpsSecondFactor.user_id == known.id)
    session.execute(offers.values(NO_OFFER))
    return False


def remove(session: Session, name: str) -> bool:
    """Delete a user and their sessions; return whether there was one."""
    gone = delete(OpsUser).where(OpsUser.name == name.strip().lower()).returning(OpsUser.id)
    return session.execute(gone).first() is not None


def listed(session: Session) -> list[Listed]:
    """Return all users by name."""
    rows = session.execute(
        select(OpsUser.name, OpsUser.rights, OpsUser.created_at, OpsSecondFactor.confirmed_at)
        .outerjoin(OpsSecondFactor, OpsSecondFactor.user_id == OpsUser.id)
        .order_by(OpsUser.name)
    )
    return [Listed(row[0], written(rights_of(row[1])), *row[2:]) for row in rows]


def verify(session: Session, name: str, password: str) -> User | None:
    """Return the user of a name and a password, else None; an unknown name costs the same work.

    The row stays locked until the transaction ends. It is read again after the slow comparison: a
    change meanwhile has ended the user's sessions, which would miss the one that starts now.
    """
    known = session.scalar(select(OpsUser).where(OpsUser.name == name.strip().lower()))
    compared = known.password_hash if known else None
    if not passwords.matches(password, compared) or known is None:
        return None
    held = session.scalar(_held(OpsUser.id == known.id))
    if held is None or not (
        held.password_hash == compared or passwords.matches(password, held.password_hash)
    ):
        return None
    if passwords.is_outdated(held.password_hash):
        held.password_hash = passwords.hash_password(password)
    return _user(session, held)


def hold(session: Session, user_id: UUID) -> None:
    """Lock a user against changes and sign-ins until the transaction ends."""
    session.execute(_held(OpsUser.id == user_id))


def mark(session: Session, user_id: UUID) -> str:
    """Return the token that marks a browser in which the user has signed in."""
    known = session.get_one(OpsUser, user_id)
    return device_tokens.token(known.id, known.password_hash)


def is_marked(session: Session, name: str, given: str) -> bool:
    """Whether a token is the mark of the user of a name."""
    known = session.scalar(select(OpsUser).where(OpsUser.name == name.strip().lower()))
    return known is not None and device_tokens.is_token(given, known.id, known.password_hash)


def known(session: Session, name: str) -> str:
    """Return a user's name as stored; empty if there is no such user."""
    return session.scalar(select(OpsUser.name).where(OpsUser.name == name.strip().lower())) or ""


def with_right(session: Session, right: Right) -> frozenset[str]:
    """Return the names of the users with a right."""
    return frozenset(session.scalars(select(OpsUser.name).where(OpsUser.rights.contains([right]))))


def find(session: Session, name: str) -> User | None:
    """Return the user of a name, in any case; None if there is none."""
    known = session.scalar(select(OpsUser).where(OpsUser.name == name.strip().lower()))
    return _user(session, known) if known else None


def _held(condition: ColumnElement[bool]) -> Select[OpsUser]:
    # FOR NO KEY UPDATE: inserts of sessions, which reference the row, do not wait.
    query = select(OpsUser).where(condition).with_for_update(key_share=True)
    return query.execution_options(populate_existing=True)


def _refuse_weak(password: str, name: str) -> None:
    if len(password) < SHORTEST_PASSWORD:
        raise UnfitUserError(f"The password must have {SHORTEST_PASSWORD} characters or more.")
    if found := passwords.faults(password, name):
        raise UnfitUserError(" ".join(["Choose another password.", *found]))


def _user(session: Session, row: OpsUser) -> User:
    has_factor = session.scalar(select(HAS_SECOND_FACTOR).where(OpsUser.id == row.id))
    return User(row.id, row.name, rights_of(row.rights), bool(has_factor))


def _checked(name: str) -> str:
    name = name.strip().lower()
    if not re.fullmatch(PERSON, name):
        raise UnfitUserError("A name has up to 64 letters, digits, dots, underscores and hyphens.")
    return name


def _rights(role: str) -> list[str]:
    try:
        return sorted(parse(role))
    except NoSuchRightError as error:
        raise UnfitUserError(str(error)) from None


def rights_of(stored: Collection[str]) -> frozenset[Right]:
    """Return the rights of a row, without those of a newer version."""
    return frozenset(Right(name) for name in stored if name in set(Right))
