"""What is killed leaves no process, and the next start removes its folders."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest

from shared import lease
from stack.servers import data, postgres
from stack.servers.listening import DidNotStartError
from tests.integration.arrange import until
from tests.integration.stack.test_run import (
    PATIENCE,
    ROOT,
    alive,
    assert_its_venv_is_held,
    assert_nothing_is_left,
    checkout,  # noqa: F401 - a fixture
    environment,
    folders_of,
    start,
    started,
)

WAITS = """
import time

def test_it(broker, database):
    print("RUNNING", flush=True)
    time.sleep(600)
"""


def launch(where, *command, **more):
    temporary = where / "tmp"
    temporary.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command,
        cwd=where,
        env=environment(TMPDIR=str(temporary), PYTHONUNBUFFERED="1", **more),
        stdout=(where / "output").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    started.append(process)
    return process


def says(where, process, what):
    output = where / "output"

    def look():
        assert process.poll() is None, output.read_text()
        return what in output.read_text()

    until(look, what)


def throwaways(where):
    return [made for folder in folders_of(where) for made in (folder / "throwaway").glob("*")]


def assert_no_folder_is_left(where):
    """The start has removed it, or left it to another one, beside this test, which still does."""
    until(lambda: throwaways(where) == [], "no folder is left")


def metrics(where):
    return list((where / "tmp").glob("order-fellow-metrics-*"))


@pytest.mark.timeout(600)
def test_a_demo_that_is_killed(checkout):  # noqa: F811
    # It makes up whatever it likes, so never on servers that somebody has named.
    named = {
        "AMQP_URL": "amqp://127.0.0.1:1/",
        "DATABASE_URL": "postgresql+psycopg2://127.0.0.1:1/production",
    }
    process = launch(checkout, sys.executable, "-m", "stack.demo", **named)
    says(checkout, process, "A business registers")
    assert metrics(checkout)
    # Looked for while they are held: once it is killed, whatever starts first removes them, and
    # tests beside this one start servers all the time.
    assert throwaways(checkout)
    assert_its_venv_is_held(checkout)
    process.kill()
    process.wait()
    until(lambda: alive(checkout) == [], "every process has ended")
    # What a shell has in its environment for others, or for production.
    foreign = {
        "HOST": "192.0.2.1", "SMTP_USERNAME": "ada", "LOG_LEVEL": "debug",
        "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 --workers 7",
    }  # fmt: skip
    again = launch(checkout, sys.executable, "-m", "stack.demo", **foreign)
    says(checkout, again, "Starting RabbitMQ")
    third = start(checkout, (sys.executable, "-m", "stack.demo"))
    assert third.wait(PATIENCE) == 1
    assert "in use by another process" in third.stdout.read()
    said = (checkout / "output").read_text
    assert again.wait(4 * PATIENCE) == 0, said()
    # The businesses' own pages and their customers' are part of the story.
    for page in ("[ ] Try it with a test order", "Your order is in transit", "sent order status"):
        assert page in said()
    assert_nothing_is_left(checkout)
    assert_no_folder_is_left(checkout)
    assert metrics(checkout) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.timeout(600)
def test_a_test_run_that_is_ended(checkout, how):  # noqa: F811
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / "tests").mkdir()
    for path in (ROOT / "tests").glob("*.py"):
        shutil.copy(path, checkout / "tests")
    waits = checkout / "tests" / "test_it.py"
    waits.write_text(WAITS)
    command = (sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", str(waits))
    process = launch(checkout, *command)
    says(checkout, process, "RUNNING")
    assert throwaways(checkout)  # while it holds them: see above
    process.send_signal(how)
    process.wait(PATIENCE)
    until(lambda: alive(checkout) == [], "every process has ended")
    if how == signal.SIGKILL:
        waits.write_text(WAITS.replace("600", "0"))
        again = launch(checkout, *command)
        assert again.wait(4 * PATIENCE) == 0, (checkout / "output").read_text()
    assert_no_folder_is_left(checkout)


def test_a_folder_is_removed_when_its_holder_has_ended(tmp_path):
    """And not one that is held, nor one that nobody of ours has held, nor what a link points to."""
    script = (
        "import sys; from pathlib import Path; from shared import lease\n"
        "print(lease.make(Path(sys.argv[1]), 'it-')[0], flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        (sys.executable, "-c", script, tmp_path),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    held = Path(holder.stdout.readline().strip())
    other = tmp_path / "it-is-not-ours"
    other.mkdir()
    away = tmp_path / "away"
    away.mkdir()
    (away / lease.LOCK).touch()
    (tmp_path / "it-link").symlink_to(away)
    lease.remove_abandoned(tmp_path, "it-")
    assert held.exists()
    assert lease.is_held(held)
    with pytest.raises(lease.LeasedError, match="in use by another process"):
        lease.take(held)
    holder.kill()
    holder.communicate()
    assert not lease.is_held(held)
    lease.remove_abandoned(tmp_path, "it-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "it-is-not-ours", "it-link"]
    assert (away / lease.LOCK).exists()


class Clock:
    """On which something happens while somebody sleeps."""

    monotonic = staticmethod(time.monotonic)
    slept = False

    def __init__(self, happens):
        self.happens = happens

    def sleep(self, seconds):
        if not self.slept:
            self.happens()
        self.slept = True
        time.sleep(seconds)


def test_a_database_waits_for_what_a_killed_one_has_left(monkeypatch):
    """A backend amid a statement sees late that its server is gone, and until then no other starts.

    PostgreSQL sees to that; what is seen here is that we begin when it has ended.
    """
    folder, backend = data.throwaway("backends"), 0
    server = postgres.PostgreSQL(folder / "postgres", durable=False)
    try:
        if postgres.programs() is None:  # a machine whose servers are in containers says so
            with pytest.raises(DidNotStartError, match="not installed"):
                server.start()
            return
        server.start()
        url = server.url().replace("+psycopg2", "")
        with closing(psycopg2.connect(url)) as client:
            backend = client.info.backend_pid
            os.kill(backend, signal.SIGSTOP)
            server.kill()
        clock = Clock(lambda: os.kill(backend, signal.SIGKILL))
        monkeypatch.setattr(postgres, "time", clock, raising=False)
        server.start()
        assert clock.slept
        server.execute("SELECT 1")
    finally:
        with suppress(ProcessLookupError):
            if backend:
                os.kill(backend, signal.SIGKILL)
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
