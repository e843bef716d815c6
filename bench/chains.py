"""Whole chains, from a signed request to the mail server's 250, to be loaded in the same way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from kombu import Connection
from sqlalchemy import Engine, NullPool, create_engine, text

from bench.environment import python
from bench.ground import Ground, fetch, until
from bench.usage import children, cpu_seconds
from stack.folders import ROOT
from stack.processes import Process
from stack.servers.ports import Address, Port
from stack.supervisor import MODULES

PATH = "/api/v1/webhooks/orders/"
SERVERS = {"RabbitMQ": "rabbitmq-server", "PostgreSQL": "bin/postgres -D"}
BASE = "89a1450"
"""The commit that our own figures are taken against."""


@dataclass
class Chain:
    """A chain that runs.

    Attributes:
        url: where its orders go.
        keys: of those who may send.
        engine: the database where its `orders` and `email_deliveries` are.
        processes: the ids of its processes, servers included, by name.
        sink: the process of its mail server.
        taken: the file that the mail server writes when it is told to.
        sent: how many requests it has had.
        accepted: how many of them were answered 201.
    """

    url: str
    keys: list[str]
    engine: Engine
    processes: Mapping[str, int]
    sink: int
    taken: Path
    sent: int = 0
    accepted: int = 0

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with self.engine.connect() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    def emails(self) -> dict[str, list[float]]:
        """When the emails since the last call were accepted, by recipient."""
        self.taken.unlink(missing_ok=True)
        os.kill(self.sink, signal.SIGUSR1)
        until(self.taken.exists, "the sink has written what it took")
        found: dict[str, list[float]] = json.loads(self.taken.read_text())
        return found

    def cpu_seconds(self) -> float:
        """The processor time that all its processes have used."""
        return sum(map(cpu_seconds, self.processes.values()))


@contextmanager
def ours(on: Ground, **more: int) -> Iterator[Chain]:
    """One process of each service.

    Args:
        on: the servers; the chain has a database and a virtual host of its own on them.
        more: how many more processes, by service.
    """
    sink, port, taken = _sink(on)
    url, ingress = on.start_ingress(workers=1 + more.get("ingress", 0))
    pages = {"ops": Port(), "portal": Port()}
    processes: dict[str, Process] = {"ingress": ingress}
    for name in MODULES:
        if name == "ingress":
            continue
        for number in range(1 + more.get(name, 0)):
            settings = {"SMTP_PORT": port, "OPS_PORT": pages["ops"], "PORTAL_PORT": pages["portal"]}
            listens = pages.get(name)
            process = on.start_service(name, listens=listens, **settings)
            processes[f"{name} {number}" if number else name] = process
    ids = {name: process.pid for name, process in processes.items()} | children(SERVERS)
    try:
        yield Chain(url + PATH, on.keys, on.engine, ids, sink.pid, taken)
    finally:
        on.stop_all()


@contextmanager
def peer(on: Ground, name: str) -> Iterator[Chain]:
    """What people would pick instead, one of `PEERS`, on a database and virtual host of its own."""
    sink, port, taken = _sink(on)
    queues = {"PEER_QUEUE": "peer.orders", "PEER_MAIL_QUEUE": "peer.mail"}
    with Connection(on.servers.amqp_url) as connection:
        for queue in queues.values():
            connection.default_channel.queue_declare(
                queue, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
            )
    environment = queues | {
        "AMQP_URL": on.servers.amqp_url,
        "DATABASE_URL": on.servers.database_url,
        "SECRETS_FILE": on.secrets_file(),
        "SMTP_PORT": port,
    }
    app, options, consumers = PEERS[name]
    listens = Port()
    bind = ("--bind", Address(listens, "127.0.0.1:{}"), "--keep-alive", "30", "--no-control-socket")
    web = ("gunicorn", f"bench.peers.http.{app}", *bind, *options)
    try:
        processes = {
            f"{command[0]} {number}": on.start(
                "-m",
                *command,
                environment=environment,
                python=python(),
                listens=listens if command is web else None,
            ).pid
            for number, command in enumerate((web, *consumers))
        }
        url = f"{Address(listens)}/"
        until(lambda: fetch(url), f"{name} answers")
        yield Chain(url, on.keys, on.engine, processes | children(SERVERS), sink.pid, taken)
    finally:
        on.stop_all()


_THREADS = ("-k", "gthread", "--threads", "64")
_CELERY = ("celery", "-A", "bench.peers.celery_app", "worker", "-c", "4",
           "--loglevel", "ERROR", "--without-gossip", "--without-mingle")  # fmt: skip
_FASTSTREAM = ("bench.peers.faststream_app",)
PEERS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "Flask + Celery": ("flask_celery:app", _THREADS, (_CELERY,)),
    "FastAPI + FastStream": (
        "fastapi_aiopika:app",
        ("-k", "uvicorn_worker.UvicornWorker"),
        (_FASTSTREAM, _FASTSTREAM),
    ),
    "Django, in the request": ("django_whole:app", _THREADS, ()),
}
"""By name: the web app, gunicorn's options for it, and the programs that consume."""


@contextmanager
def base(on: Ground) -> Iterator[Chain | None]:
    """This system as it was at `BASE`, with servers of its own; None where the commit is not here.

    Its own code starts it, `bench/peers/at_base.py` in its folder, in today's virtual environment.
    """
    folder = _checkout()
    if folder is None:
        yield None
        return
    sink, port, taken = _sink(on)
    script = Path(__file__).with_name("peers").joinpath("at_base.py").read_text()
    running = subprocess.Popen(
        (sys.executable, "-c", script, str(port)),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if running.stdout is None or running.stdin is None:
            raise RuntimeError("no pipe")
        line = running.stdout.readline()
        if not line:
            raise RuntimeError(f"{BASE} did not start")
        told: dict[str, Any] = json.loads(line)
        engine = create_engine(told["database_url"], poolclass=NullPool)
        chain = Chain(told["url"] + PATH, told["keys"], engine, told["processes"], sink.pid, taken)
        yield chain
    finally:
        if running.stdin is not None:
            running.stdin.close()
        running.wait(120)
        on.stop_all()


def _checkout() -> Path | None:
    folder = ROOT / ".stack" / f"base-{BASE}"
    if not folder.is_dir():
        done = subprocess.run(("git", "archive", BASE), cwd=ROOT, capture_output=True, check=False)
        if done.returncode != 0:
            return None
        made = folder.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
            archive.extractall(made, filter="data")
        made.rename(folder)
    return folder


def _sink(on: Ground) -> tuple[Process, Port, Path]:
    port, taken = Port(), on.folder / "taken.json"
    return on.start("-m", "bench.load.sink", port, taken, listens=port), port, taken
