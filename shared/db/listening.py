"""Waits for NOTIFY on a PostgreSQL channel, over a separate connection."""

import select
import threading
import time

import psycopg2
from psycopg2.extensions import connection as PgConnection  # noqa: N812 - a class

from shared.db.session import connect_args

POLL_SECONDS = 1.0
"""Longest time until a stop is noticed, and the delay before reconnecting."""


class Listener:
    """Waits for notifications on a channel; used by one thread.

    Notifications sent while it is disconnected are lost, so its users also poll now and then.

    Args:
        database_url: of the database.
        channel: its name.
        name: application_name of the connection.
    """

    def __init__(self, database_url: str, channel: str, name: str) -> None:
        self._database_url, self._channel, self._name = database_url, channel, name
        self._connection: PgConnection | None = None

    def wait(self, stopping: threading.Event, seconds: float) -> bool:
        """Wait for a notification, at most for `seconds` or until a stop.

        Args:
            stopping: set to stop.
            seconds: longest wait.

        Returns:
            Whether one arrived, or may have been lost during a reconnect.
        """
        deadline = time.monotonic() + seconds
        while not stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                if self._connection is None:
                    self._connection = self._connected()
                    return True
                if select.select([self._connection], [], [], min(left, POLL_SECONDS))[0]:
                    self._connection.poll()
                    if self._connection.notifies:
                        self._connection.notifies.clear()
                        return True
            except (psycopg2.Error, OSError):
                self._connection = None
                stopping.wait(min(left, POLL_SECONDS))
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
