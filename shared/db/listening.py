"""Being woken by the database: NOTIFY on a channel, over a connection of its own."""

import select
import threading
import time

import psycopg2
from psycopg2.extensions import connection as PgConnection  # noqa: N812 - a class

from shared.db.session import connect_args

LOOK_SECONDS = 1.0
"""How long a stop may go unnoticed, and how soon a lost connection is made again."""


class Listener:
    """Waits for what is said on a channel; used by one thread.

    What is said while there is no connection is lost: whoever waits also looks by itself, now and
    then.

    Args:
        database_url: where.
        channel: its name.
        name: what the server calls the connection.
    """

    def __init__(self, database_url: str, channel: str, name: str) -> None:
        self._database_url, self._channel, self._name = database_url, channel, name
        self._connection: PgConnection | None = None

    def wait(self, stopping: threading.Event, seconds: float) -> bool:
        """Wait until something is said, for so long at most, and no longer than until a stop.

        Args:
            stopping: set at the stop.
            seconds: how long.

        Returns:
            Whether there may be something new: it was said, or what was said may have been lost.
        """
        deadline = time.monotonic() + seconds
        while not stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                if self._connection is None:
                    self._connection = self._connected()
                    return True
                if select.select([self._connection], [], [], min(left, LOOK_SECONDS))[0]:
                    self._connection.poll()
                    if self._connection.notifies:
                        self._connection.notifies.clear()
                        return True
            except (psycopg2.Error, OSError):
                self._connection = None
                stopping.wait(min(left, LOOK_SECONDS))
        return False

    def _connected(self) -> PgConnection:
        dsn = self._database_url.replace("postgresql+psycopg2://", "postgresql://", 1)
        connection: PgConnection = psycopg2.connect(
            dsn, **connect_args(self._database_url, name=self._name)
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {self._channel}")
        return connection
