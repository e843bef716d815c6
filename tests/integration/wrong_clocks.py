"""Hosts whose clock is wrong, by libfaketime(1), before a database whose clock is right."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import create_engine

from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from stack.servers.ports import Address, Port
from tests.integration.arrange import PATIENCE, until
from tests.integration.conftest import Api
from tests.programs import program


@contextmanager
def wrong_host(
    app: str, folder: Path, clock: Path, **environment: str
) -> Iterator[tuple[str, int]]:
    """An app without gunicorn, whose time.sleep does not bear libfaketime.

    Args:
        app: `module:factory` of the ASGI app.
        folder: for its log.
        clock: the file of `set_clock`.
        environment: its settings.

    Returns:
        Where it listens, and its process id.
    """
    program("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    given = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # A jump of the wall clock: monotonic clocks are called so because they do not.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    } | environment
    log = folder / f"{app.split(':')[0]}.log"
    with Port() as port, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", app, "--port", str(port)],
            env=os.environ | given,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        url = str(Address(port))
        try:
            until(lambda: _answers(url, process, log), "it answers")
            yield url, process.pid
        finally:
            stop(process, 15)


@contextmanager
def wrong_worker(
    folder: Path, amqp_url: str, database_url: str, clock: Path, **environment: str
) -> Iterator[Api]:
    """One worker of the ingress."""
    metrics = folder / "metrics"
    metrics.mkdir()
    given = {
        "AMQP_URL": as_service(amqp_url, "ingress"),
        "DATABASE_URL": as_service(database_url, "ingress"),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    } | environment
    engine = create_engine(database_url)
    try:
        with (
            wrong_host("services.ingress.app:create_app", folder, clock, **given) as (url, pid),
            httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE) as http,
        ):
            is_ready = lambda: http.get(f"{url}/readyz").json()["status"] == "ready"  # noqa: E731
            until(is_ready, "the worker is ready")
            yield Api(http, url, amqp_url, database_url, engine, pid)
    finally:
        engine.dispose()


def set_clock(file: Path, seconds: float) -> None:
    """Let a host's clock be so far ahead."""
    written = file.with_suffix(".new")
    written.write_text(f"{seconds:+g}")
    os.replace(written, file)


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False
