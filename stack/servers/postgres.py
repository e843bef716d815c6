"""A private PostgreSQL of the machine's own package, on loopback TCP only."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

import psycopg2

from stack.folders import passable
from stack.processes import Process, kill_leftover, spawn, stop
from stack.servers import data
from stack.servers.listening import DidNotStartError, Start
from stack.servers.ports import Port

READY_SECONDS = 90.0
BACKENDS_SECONDS = 60.0
SHARED_MEMORY = Path("/proc/sysvipc/shm")  # proc(5)
INSTALLED = Path("/usr/lib/postgresql")  # by Debian, a folder each major version
MAX_CONNECTIONS = 200  # as in docker-compose.yml
# PostgreSQL's own sizes are for the smallest machine there is: with 100,000 accounts the pages that
# orders go to do not fit in, and each is written whole after every checkpoint. As in
# docker-compose.yml.
SIZES = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


def programs(version: str = "") -> Path | None:
    """The folder of a PostgreSQL's programs on this machine.

    Args:
        version: its major version, `15`; the newest when it is empty. Where there is none of that
            version the newest says what is wrong.
    """
    found = {path.parents[1].name: path.parent for path in INSTALLED.glob("*/bin/postgres")}
    if version in found:
        return found[version]
    if found:
        return found[max(found, key=float)]
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


class PostgreSQL:
    """One server.

    Args:
        folder: its data; what is in it is kept.
        durable: whether it syncs to disk; only throwaway data may go without.
        environment: further variables to start it with.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._data = folder
        self._more = environment or {}
        self._durable = durable
        self._port = Port()
        self._start: Start | None = None
        self._is_known = False
        self._refusal = ""
        self._server: Process | None = None
        self.password = ""
        # PostgreSQL refuses to run as root.
        self._user = _unprivileged_user() if os.geteuid() == 0 else None

    def url(self, database: str = "order_fellow") -> str:
        """The SQLAlchemy address of a database."""
        return f"postgresql+psycopg2://postgres:{self.password}@127.0.0.1:{self._port}/{database}"

    @property
    def ports(self) -> tuple[Port, ...]:
        """What it listens on; another than before when somebody took it before its first start."""
        return (self._port,)

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Start the server, on the same port as before, and wait until it answers.

        Raises:
            DidNotStartError: it does not; with the end of its log.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the server without waiting for it.

        Raises:
            DidNotStartError: its folder cannot be made, or it would run as root.
        """
        self._data.parent.mkdir(parents=True, exist_ok=True)
        passable(self._data)
        cluster = self._data / "cluster"
        bin_folder = _programs_for(cluster / "PG_VERSION")
        kill_leftover(cluster / "postmaster.pid", str(cluster))
        password = self._data / "password"
        self.password = data.password(password, cluster / "PG_VERSION", self.password)
        self._give_away(password)
        if not (cluster / "PG_VERSION").exists():
            self._make_cluster(bin_folder, cluster)
        _wait_for_backends(cluster / "postmaster.pid")
        # The process id in it may be somebody else's by now.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        log = self._data / "output.log"

        def start() -> Process:
            command = self._command(bin_folder, cluster)
            environment = {**_environment(), **self._more}
            self._server = spawn(command, environment=environment, log=log, user=self._user)
            return self._server

        self._start = Start(
            "PostgreSQL",
            start,
            self.ports,
            log,
            READY_SECONDS,
            self._answers,
            movable=not self._is_known,
        )

    def _command(self, bin_folder: Path, cluster: Path) -> list[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            # No socket file: its path has a limit, and the checkout may lie anywhere.
            "unix_socket_directories": "",
            "max_connections": str(MAX_CONNECTIONS),
            "logging_collector": "off",
        }
        if self._durable:
            options |= SIZES
        else:
            # What a killed one leaves goes with its folder.
            files = {"dynamic_shared_memory_type": "mmap"}
            options |= {"fsync": "off", "full_page_writes": "off"} | files
        command = [str(bin_folder / "postgres"), "-D", str(cluster)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        return command

    def stop(self) -> None:
        """Stop the server, dropping its connections (PostgreSQL's fast shutdown)."""
        if self._server is not None:
            stop(self._server, 15, signal.SIGINT)
            self._server = None

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._port.release()

    def kill(self) -> None:
        """SIGKILL the server and its backends, as a power cut would."""
        if self._server is not None:
            stop(self._server, 0.1, signal.SIGKILL)
            self._server = None

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser, outside a transaction."""
        execute(self.url(database), statement)

    def dump(self, database: str) -> None:
        """Back a database up, by pg_dump."""
        self._client("pg_dump", "--format=custom", f"--file={self._dump_file(database)}", database)

    def restore(self, database: str) -> None:
        """Put it back as it was then, whatever has become of it."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.execute(f"CREATE DATABASE {database}")
        self._client("pg_restore", f"--dbname={database}", str(self._dump_file(database)))

    def pause(self) -> None:
        """SIGSTOP to the server, and then to its backends: no new one comes meanwhile."""
        self._signal(signal.SIGSTOP)

    def unpause(self) -> None:
        """Have all of them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        if self._server is None:
            return
        os.kill(self._server.pid, which)
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text()
        for pid in map(int, children.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, which)

    def _dump_file(self, database: str) -> Path:
        return self._data / f"{database}.dump"

    def _client(self, program: str, *arguments: str) -> None:
        subprocess.run(
            (
                program,
                "--host=127.0.0.1",
                f"--port={self._port}",
                "--username=postgres",
                *arguments,
            ),
            env=_environment()
            | {"PGPASSWORD": self.password, "PATH": f"{programs()}:{os.environ.get('PATH', '')}"},
            check=True,
            timeout=300,
        )

    def _create(self, database: str) -> None:
        try:
            self.execute(f"CREATE DATABASE {database}")
        except psycopg2.errors.DuplicateDatabase:
            return

    def _give_away(self, path: Path) -> None:
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            try:
                os.chown(path, account.pw_uid, account.pw_gid)
            except OSError as error:
                raise DidNotStartError(
                    f"PostgreSQL does not run as root, and this root may not be {self._user} "
                    f"({error.strerror}), as in some containers: run it as a user"
                ) from None

    def _make_cluster(self, bin_folder: Path, cluster: Path) -> None:
        shutil.rmtree(cluster, ignore_errors=True)
        cluster.mkdir(mode=0o700)
        self._give_away(cluster)
        command = (
            str(bin_folder / "initdb"),
            *("-D", str(cluster)),
            *("-U", "postgres"),
            *("-A", "scram-sha-256"),
            f"--pwfile={self._data / 'password'}",
            *("-E", "UTF8"),
            "--no-locale",
            *(() if self._durable else ("--no-sync",)),
        )
        log = self._data / "initdb.log"
        if spawn(command, environment=_environment(), log=log, user=self._user).wait() != 0:
            raise DidNotStartError(f"initdb failed:\n{log.read_text()[-2000:]}")

    def wait(self) -> None:
        """Wait until the server answers, and see that the database is there.

        Raises:
            DidNotStartError: it does not answer; with the end of its log.
        """
        if self._start is None:
            raise RuntimeError("wait() is for a server that was launched")
        try:
            self._start.wait()
        except DidNotStartError as error:
            raise DidNotStartError(f"{error}{self._refusal}") from None
        self._is_known = True
        self._create("order_fellow")

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg2.OperationalError as error:
            self._refusal = f"\nA client was told: {error}"
            return False
        return True


def forget_defaults(environ: MutableMapping[str, str]) -> None:
    """Remove what libpq would add to an address of ours (PostgreSQL, "Environment Variables").

    A shell's PGSSLMODE or PGHOSTADDR is about somebody else's server.

    Args:
        environ: environment variables.
    """
    for name in [name for name in environ if name.startswith("PG")]:
        del environ[name]


def _programs_for(version_file: Path) -> Path:
    """The programs that understand data; of data that are not there yet the newest."""
    version = version_file.read_text().strip() if version_file.exists() else ""
    found = programs(version)
    if found is None:
        raise DidNotStartError("PostgreSQL is not installed")
    has = found.parent.name
    if version and has != version and found.is_relative_to(INSTALLED):
        raise DidNotStartError(
            f"The data in {version_file.parent} are of PostgreSQL {version}, and this machine has "
            f"{has}: install postgresql-{version}, or have `make clean` remove the data"
        )
    return found


def _wait_for_backends(lock: Path) -> None:
    """Wait until those of a killed server have ended, which one amid a statement does after that.

    Before it PostgreSQL refuses to start. It sees them as we do: they are attached to the shared
    memory that the lock file names (PostgreSQL's miscadmin.h, LOCK_FILE_LINE_SHMEM_KEY).
    """
    deadline = time.monotonic() + BACKENDS_SECONDS
    with suppress(OSError, LookupError, ValueError):  # there is none, or not a whole one
        key, memory = map(int, lock.read_text().splitlines()[6].split())
        while (key % (1 << 32), memory) in _attached() and time.monotonic() < deadline:
            time.sleep(0.1)


def _attached() -> set[tuple[int, int]]:
    """The shared memory that a process is attached to, by key and id."""
    rows = (map(int, line.split()) for line in SHARED_MEMORY.read_text().splitlines()[1:])
    return {(key % (1 << 32), memory) for key, memory, _, _, _, _, attached, *_ in rows if attached}


def execute(url: str, statement: str) -> None:
    """Run one statement outside a transaction, at a SQLAlchemy address."""
    connection = psycopg2.connect(url.replace("+psycopg2", "", 1))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "TZ": "UTC"}


def _unprivileged_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise DidNotStartError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody"
    )
