"""Finds the user of a session cookie; from a cache while the database is unreachable."""

import time
from collections import OrderedDict

from sqlalchemy.orm import Session

from services.ops.users import sessions
from services.ops.users.users import User
from shared.config.settings import Settings

REMEMBERED = 1_000


class Visitors:
    """Finds users by session token.

    Users who were signed in when the database became unreachable still see the overview, for as
    long as an idle session lasts.

    Args:
        config: uses `ops_idle_seconds` and `ops_session_seconds`.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._seen: OrderedDict[str, tuple[User, float]] = OrderedDict()

    def find(self, session: Session, token: str, *, is_use: bool = True) -> User | None:
        """Return the user of a token, by the database; None if there is no such session.

        Args:
            session: in a transaction.
            token: of the cookie.
            is_use: whether a user made the request, and not a script.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is unreachable.
        """
        user = sessions.find(session, token, self._config, is_use=is_use) if token else None
        now = time.monotonic()
        _, used_at = self._seen.pop(token, (None, now))
        if user is not None:
            self._seen[token] = (user, now if is_use else used_at)
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return user

    def must_set_up(self, user: User | None) -> bool:
        """Whether the user lacks a required second factor."""
        is_required = self._config.ops_second_factor == "required"
        return is_required and user is not None and not user.has_second_factor

    def recall(self, token: str) -> User | None:
        """Return the cached user of a token, unless the last use is too long ago."""
        user, at = self._seen.get(token, (None, 0.0))
        return user if time.monotonic() - at < self._config.ops_idle_seconds else None
