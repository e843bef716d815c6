"""The whole system on one machine: servers, schema, topology, mailbox, every service."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from services.ops.users import users
from shared import lease
from shared.config.loading import forget
from shared.http import direct
from stack.folders import ROOT
from stack.servers.credentials import service_passwords
from stack.servers.listening import DidNotStartError
from stack.servers.ports import Address, Port, PortTakenError
from stack.servers.sources import NoServersError, Servers, servers
from stack.supervisor import MODULES, Supervisor

STACK = ROOT / ".stack"
DEFAULT_PORTS = {"PORT": 8000, "OPS_PORT": 8001, "PORTAL_PORT": 8002}
OPS_USER = "ops"
SMTP_HOST = "127.0.0.1"
READY_SECONDS = 60.0


class CannotRunError(Exception):
    """The system cannot be started here; the message says why."""


@dataclass(frozen=True)
class System:
    """A running system.

    Attributes:
        api_url: the ingress, without a prefix.
        ops_url: the ops console.
        portal_url: the businesses' own pages.
        ops_password: of its user `OPS_USER`, made anew at each start; see `_make_ops_user`.
        amqp_url: RabbitMQ.
        database_url: PostgreSQL.
        mailbox: the Maildir that emails land in.
        smtp_port: where its mail server listens.
        servers: the two servers.
        supervisor: its processes.
        logs: their logs.
    """

    api_url: str
    ops_url: str
    portal_url: str
    ops_password: str
    amqp_url: str
    database_url: str
    mailbox: Path
    smtp_port: int
    servers: Servers
    supervisor: Supervisor
    logs: Path

    def variables(self) -> dict[str, str]:
        """What `.stack/env` tells other programs."""
        return {
            "API_URL": self.api_url,
            "OPS_URL": self.ops_url,
            "PORTAL_URL": self.portal_url,
            "OPS_USER": OPS_USER,
            "OPS_PASSWORD": self.ops_password,
            "AMQP_URL": self.amqp_url,
            "DATABASE_URL": self.database_url,
            "MAILBOX_DIR": str(self.mailbox),
            "SMTP_HOST": SMTP_HOST,
            "SMTP_PORT": str(self.smtp_port),
        }


@contextmanager
def system(
    purpose: Literal["run", "demo", "test"], folder: Path, console: Console
) -> Iterator[System]:
    """A running system, ready to be used, for as long as the context lasts.

    Args:
        purpose: `run` keeps its data from one time to the next.
        folder: where the mailbox and the logs are.
        console: where to say what happens.

    Raises:
        CannotRunError: see there.
    """
    if purpose != "run":
        forget(os.environ, but=DEFAULT_PORTS)
    ports = {name: _port(name, default) for name, default in DEFAULT_PORTS.items()}
    port, ops_port, portal_port = ports.values()
    mailbox, logs = folder / "mailbox", folder / "logs"
    refuse_foreign(folder, mailbox, logs)
    folder.mkdir(parents=True, exist_ok=True)
    if purpose != "run":
        try:
            lease.take(folder)
        except lease.LeasedError as error:
            raise CannotRunError(f"{error}: a second one needs a checkout of its own") from None
        for left in (mailbox, logs):
            shutil.rmtree(left, ignore_errors=True)
    console.print("Starting RabbitMQ and PostgreSQL ...")
    try:
        with servers(purpose) as running:
            console.print(f"  from {running.origin}", highlight=False)
            smtp_port = Port()
            if running.broker is not None:
                running.broker.admit()
            is_ours = running.database is not None
            prepare(running.amqp_url, running.database_url, is_ours=is_ours)
            ops_password = _make_ops_user(running.database_url, is_ours=is_ours)
            supervisor = Supervisor({"SMTP_HOST": SMTP_HOST}, logs, console)
            try:
                supervisor.add("mailbox", "stack.mailbox", smtp_port, mailbox, listens=smtp_port)
                addresses = {
                    **ports,
                    "HOST": "127.0.0.1",  # some shells export one
                    "SMTP_PORT": smtp_port,
                    "PUBLIC_URL": Address(port),
                    "PORTAL_API_URL": Address(port),
                    "TRACKING_URL": Address(portal_port, "http://127.0.0.1:{}/track"),
                }
                start_services(
                    supervisor,
                    lambda name: {**running.for_service(name), **addresses},
                    {"ingress": port, "ops": ops_port, "portal": portal_port},
                )
                _say_ports(console, ports)
                found = System(
                    str(Address(port)),
                    str(Address(ops_port)),
                    str(Address(portal_port)),
                    ops_password,
                    running.amqp_url,
                    running.database_url,
                    mailbox,
                    smtp_port.number,
                    running,
                    supervisor,
                    logs,
                )
                _wait_until_ready(found)
                yield found
            finally:
                supervisor.stop()
    except (NoServersError, DidNotStartError) as error:
        raise CannotRunError(str(error)) from None
    except PortTakenError as error:
        names = "=, ".join(DEFAULT_PORTS)
        raise CannotRunError(f"{error}: give another one by {names}=") from None


def start_services(
    supervisor: Supervisor,
    environment: Callable[[str], Mapping[str, object]],
    listening: Mapping[str, Port],
    names: Iterable[str] = MODULES,
) -> None:
    """Start services, first those that listen: only then it is certain where they do.

    Args:
        supervisor: runs them.
        environment: by service, its own variables.
        listening: the ports of those that listen.
        names: which ones.
    """
    for name in listening:
        supervisor.add(name, MODULES[name], environment=environment(name), listens=listening[name])
    supervisor.wait_until_listening()
    for name in names:
        if name not in listening:
            supervisor.add(name, MODULES[name], environment=environment(name))


def _port(variable: str, default: int) -> Port:
    given = os.environ.get(variable)
    if given:
        if not given.isdigit() or not 1 <= int(given) <= 65535:
            raise CannotRunError(f"{variable}={given} is no port: give a number from 1 to 65535")
        try:
            return Port(named=int(given))
        except PortTakenError as error:
            raise CannotRunError(f"{error}: give another one by {variable}=") from None
    return Port(default)


def _say_ports(console: Console, ports: Mapping[str, Port]) -> None:
    for variable, found in ports.items():
        default = DEFAULT_PORTS[variable]
        if not os.environ.get(variable) and found.number != default:
            console.print(
                f"Port {default} is taken; using {found} ({variable}= chooses another)",
                highlight=False,
            )


def refuse_foreign(*folders: Path) -> None:
    """Refuse folders, and what is in them, that this user may not write.

    Raises:
        CannotRunError: one is somebody else's.
    """
    for folder in folders:
        for path in (folder, *(folder.glob("*") if os.access(folder, os.R_OK) else ())):
            if path.exists() and not os.access(path, os.W_OK):
                raise CannotRunError(
                    f"{path} belongs to somebody else, as after `sudo make`: sudo make clean"
                )


def _make_ops_user(database_url: str, *, is_ours: bool) -> str:
    """Somebody who may sign in to the console and act.

    Returns:
        The password; nothing where a database that somebody has named has such a user already.
    """
    password = secrets.token_urlsafe(12)
    engine = create_engine(database_url)
    with Session(engine) as session, session.begin():
        if not is_ours and users.find(session, OPS_USER) is not None:
            password = ""
        else:
            users.put(session, OPS_USER, "act", password)
    engine.dispose()
    return password


def prepare(amqp_url: str, database_url: str, *, is_ours: bool = True) -> None:
    """The two steps of a deployment: schema and roles up to date, topology declared.

    Args:
        amqp_url: of RabbitMQ, as an administrator.
        database_url: of PostgreSQL, as one.
        is_ours: whether the services get passwords there. Roles are a whole server's: on one that
            somebody has named those of another system would be refused from then on.
    """
    environment = {"AMQP_URL": amqp_url, "DATABASE_URL": database_url}
    if is_ours:
        environment["SERVICE_PASSWORDS"] = service_passwords(database_url)
    for module, what in (
        ("shared.db.migrate", "migrate the database"),
        ("shared.bus.declare", "declare the topology"),
    ):
        done = subprocess.run(
            (sys.executable, "-m", module),
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CannotRunError(f"could not {what}:\n{done.stdout[-2000:]}")


def _wait_until_ready(running: System) -> None:
    for name, url, sign in (
        ("ingress", f"{running.api_url}/readyz", b'"ready"'),
        ("ops", f"{running.ops_url}/readyz", b'"ready"'),
        ("portal", f"{running.portal_url}/readyz", b'"ready"'),
    ):
        deadline = time.monotonic() + READY_SECONDS
        while not _says(url, sign):
            running.supervisor.watch()
            if time.monotonic() > deadline:
                raise CannotRunError(
                    f"{name} is not ready after {READY_SECONDS:g} s; its log ends with:\n"
                    + running.supervisor.tail(name, 20)
                )
            time.sleep(0.2)


def _says(url: str, sign: bytes) -> bool:
    try:
        with direct.ask(url, seconds=2) as answer:
            return sign in answer.read()
    except OSError:
        return False
