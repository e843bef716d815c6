"""Who is behind a browser's session cookie; remembered for while the database is away."""

import time
from collections import OrderedDict

from sqlalchemy.orm import Session

from services.ops.users import sessions
from services.ops.users.users import User
from shared.config.settings import Settings

REMEMBERED = 1_000


class Visitors:
    """Looks sessions up.

    Those who were signed in when the database went away must still see that it is away, and what
    else is wrong. They see it for as long as a session lasts without a request.

    Args:
        config: `ops_idle_seconds` and `ops_session_seconds` count.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._seen: OrderedDict[str, tuple[User, float]] = OrderedDict()

    def find(self, session: Session, token: str, *, is_use: bool = True) -> User | None:
        """Who is behind a token, by the database.

        Args:
            session: in a transaction.
            token: of the cookie.
            is_use: whether somebody asks, and not a page by itself.

        Raises:
            sqlalchemy.exc.DBAPIError: it is away.
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
        """Whether somebody may do nothing but set up the second factor that they lack."""
        is_required = self._config.ops_second_factor == "required"
        return is_required and user is not None and not user.has_second_factor

    def recall(self, token: str) -> User | None:
        """Who was behind a token when it was last looked up, if that is not too long ago."""
        user, at = self._seen.get(token, (None, 0.0))
        return user if time.monotonic() - at < self._config.ops_idle_seconds else None
