"""Two PostgreSQL servers of which one leads and the other follows: each is started by the script of
docker-compose.cluster.yml, and told what docs/deploying.md prints."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg2

from stack.folders import ROOT, passable
from stack.processes import spawn
from stack.servers.ports import Port
from stack.servers.postgres import PostgreSQL, programs
from tests.integration.arrange import PATIENCE
from tests.machines.deployment import steps

DEPLOY = ROOT / "deploy" / "cluster"
PASSWORD = "of-the-one-that-follows"
# The image's own, as far as the script needs it.
ENTRYPOINT = """#!/bin/sh -e
[ -s "$PGDATA/PG_VERSION" ] || initdb -U postgres -A scram-sha-256 -E UTF8 --no-locale --no-sync \\
    --pwfile="${PGDATA%/*}/password"
exec "$@"
"""


class Node(PostgreSQL):
    """One of the two.

    Args:
        data: its folder.
        begins: whether it makes the database; the other one waits, and copies it.
    """

    def __init__(self, data: Path, *, begins: bool) -> None:
        super().__init__(data, durable=False)
        self._begins = begins
        self.peer: Node = self
        self.peer_seconds = 0

    @property
    def port(self) -> Port:
        return self._port

    def launch(self) -> None:
        self.password = self.password or self.peer.password  # roles are copied with all the rest
        passable(self._data)
        # Where the checkout is its user may not look.
        for file in DEPLOY.iterdir():
            shutil.copy(file, self._data)
        (self._data / "standby_password").write_text(f"{PASSWORD}\n")
        (self._data / "docker-entrypoint.sh").write_text(ENTRYPOINT)
        for name in ("postgres-node", "pg_hba.conf", "standby_password", "docker-entrypoint.sh"):
            (self._data / name).chmod(0o755)
        super().launch()

    @property
    def cluster(self) -> Path:
        """Its volume."""
        return self._data / "cluster"

    def run(self, what: str) -> int:
        """Have the script do something else than start it; returns how that ended."""
        command = self._by_the_script(what)
        log = self._data / f"{what}.log"
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        return spawn(command, environment=environment, log=log, user=self._user).wait()

    def psql(self, *arguments: str, given: str = "") -> None:
        """Run psql as its administrator, as `docker compose exec` does in its container."""
        here = given.replace("/run/secrets", str(self._data))
        subprocess.run(
            (f"{programs()}/psql", "-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres",
             *arguments),
            env={"PATH": os.defpath, "PGPASSWORD": self.password},
            input=here, text=True, check=True, timeout=PATIENCE,
        )  # fmt: skip

    def _create(self, database: str) -> None:
        try:
            super()._create(database)
        except psycopg2.errors.ReadOnlySqlTransaction:
            return  # it has what the other has

    def _make_cluster(self, bin_folder: Path, cluster: Path) -> None:
        cluster.mkdir(mode=0o700, exist_ok=True)
        self._give_away(cluster)

    def _command(self, bin_folder: Path, cluster: Path) -> list[str]:
        # pg_rewind takes nothing from one that goes without.
        return self._by_the_script(
            *super()._command(bin_folder, cluster), "-c", "full_page_writes=on"
        )

    def _by_the_script(self, *arguments: str) -> list[str]:
        return [
            "env",
            f"PATH={self._data}:{programs()}:{os.defpath}",
            f"PGDATA={self.cluster}",
            f"PEER=host=127.0.0.1 port={self.peer.port}",
            f"BEGINS={'yes' if self._begins else ''}",
            f"PEER_SECONDS={self.peer_seconds}",
            f"STANDBY_PASSWORD_FILE={self._data / 'standby_password'}",
            f"HBA_FILE={self._data / 'pg_hba.conf'}",
            *("sh", str(self._data / "postgres-node"), *arguments),
        ]


def told(heading: str, nodes: Mapping[str, Node]) -> None:
    """Do what a block of docs/deploying.md says.

    Args:
        heading: it stands below that.
        nodes: what each service of the file is here.
    """
    for line in steps((ROOT / "docs" / "deploying.md").read_text(), heading):
        said, _, file = line.partition("#")[0].partition("<")
        words = [word for word in shlex.split(said)[2:] if word not in ("-T", "--rm")]
        verb, *names = (word for word in words if word not in UP)
        if names[0] == "keys":
            continue
        node = nodes[names[0]]
        if verb == "up":
            if not node.is_running:
                node.start()
        elif verb == "stop":
            node.stop()
        elif verb == "run":
            assert node.run(names[1]) == 0
        else:
            assert names[1:6] == ["psql", "-U", "fellow", "-d", "order_fellow"], line
            given = (ROOT / file.strip()).read_text() if file else ""
            node.psql("-d", "order_fellow", *names[6:], given=given)


UP = ("--detach", "--wait", "--no-deps")
