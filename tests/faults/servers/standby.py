"""A PostgreSQL standby that follows a primary and can be promoted (PostgreSQL, "Failover")."""

import subprocess
from pathlib import Path

from stack.processes import spawn
from stack.servers.postgres import PostgreSQL, programs


class Standby(PostgreSQL):
    """Follows a primary that runs.

    Args:
        data: its folder.
        primary: whom to follow.
    """

    def __init__(self, data: Path, primary: PostgreSQL) -> None:
        super().__init__(data, durable=False)
        self._primary = primary

    def promote(self) -> None:
        """Make a primary of it."""
        self.execute("SELECT pg_promote(true, 30)")

    def _create(self, database: str) -> None:
        """It has what the primary has."""

    def launch(self) -> None:
        self.password = self._primary.password  # its roles are copied with all the rest
        super().launch()

    def _make_cluster(self, bin_folder: Path, cluster: Path) -> None:
        cluster.mkdir(mode=0o700)
        self._give_away(cluster)
        source = self._primary.url().replace("postgresql+psycopg2", "postgresql")
        command = (
            str(bin_folder / "pg_basebackup"),
            *("--pgdata", str(cluster)),
            "--write-recovery-conf",
            "--checkpoint=fast",
            f"--dbname={source}",
        )
        log = self._data / "basebackup.log"
        environment = {"PATH": f"{programs()}:/usr/bin:/bin", "LANG": "C.UTF-8"}
        done = spawn(command, environment=environment, log=log, user=self._user).wait()
        if done != 0:
            raise subprocess.CalledProcessError(done, command, log.read_text())
