"""`make run`, as a person at a keyboard uses it, in a checkout of its own."""

import fcntl
import json
import os
import pty
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import docker
import httpx
import pytest
from sqlalchemy import create_engine, text

from stack import system
from stack.clean import REFUSED
from stack.folders import ROOT
from stack.servers import containers, credentials, data
from stack.servers.ports import LOWEST, Port, PortTakenError
from tests.integration.arrange import PATIENCE, until

FOLDERS = ("services", "shared", "stack", "docker-compose.yml")
started = []
# A whole system starts up to twice in one test, each time with servers of its own.
pytestmark = pytest.mark.timeout(4 * PATIENCE)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what runs, at a path that many programs do not like."""
    folder = tmp_path / "50% of a check-out & more"
    folder.mkdir()
    for name in FOLDERS:
        source = ROOT / name
        if source.is_dir():
            # Compiled as well, or a dozen processes would compile all of it at once; but for what
            # one of ours writes just now.
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copy(source, folder)
    yield folder
    # What a test that failed has left running.
    while started:
        process = started.pop()
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE)
    clean(folder)


def environment(**more):
    # As if make had started it: it ends with us, also when we are killed.
    return os.environ | {"PYTHONPATH": "", "MAKELEVEL": "1"} | more


def start(checkout, command=(sys.executable, "-m", "stack.run"), **more):
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def clean(checkout):
    subprocess.run(
        [sys.executable, "-m", "stack.clean"],
        cwd=checkout,
        env=environment(),
        check=True,
        timeout=PATIENCE,
    )


def assert_is_healthy(checkout):
    """The doctor finds the system by `.stack/env`, and nothing broken once all have beaten."""

    def broken():
        done = subprocess.run(
            [sys.executable, "-m", "services.ops", "doctor", "--json"],
            cwd=checkout,
            env=environment(),
            capture_output=True,
            text=True,
        )
        found = json.loads(done.stdout)
        (mail,) = [check["found"] for check in found if check["about"] == "mail"]
        told.append((done.returncode, mail, [c for c in found if c["state"] == "broken"]))
        return told[-1][2] or "as services.notifier is set" not in mail

    told = []
    until(lambda: not broken(), f"nothing is broken: {told}")
    assert told[-1][0] == 0


def assert_its_venv_is_held(checkout):
    """No setup makes anew what it will need, and root's `make clean` takes nothing away."""
    with (checkout / ".venv.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def ready(checkout, process):
    """What `.stack/env` says, once it is there."""
    written = checkout / ".stack" / "env"

    def look():
        assert process.poll() is None, process.stdout and process.stdout.read()
        return written.exists()

    # Its servers alone may take as long as a test waits for anything else.
    until(look, "the system is ready", 4 * PATIENCE)
    return dict(line.split("=", 1) for line in written.read_text().splitlines())


def a_port_that_nobody_is_given():
    """Below those of which tests beside this one are given some all the time."""
    while True:
        number = random.randrange(2_000, min(*system.DEFAULT_PORTS.values(), LOWEST))
        with suppress(PortTakenError), Port(named=number):
            return number


def interrupt(process, how=signal.SIGINT):
    process.send_signal(how)
    output, _ = process.communicate(timeout=PATIENCE)
    return output


def alive(checkout):
    """Processes that were started in this checkout or on its data."""
    marks = (str(checkout).encode(), folders_of(checkout)[0].name.encode())
    found = []
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit() or int(proc.name) == os.getpid():
            continue
        try:
            known = (proc / "cmdline").read_bytes() + os.readlink(proc / "cwd").encode()
        except OSError:
            continue
        if any(mark in known for mark in marks):
            found.append(known)
    return found


def assert_nothing_is_left(checkout):
    """The next start would meet it; a moment is what the kernel takes for what was killed."""
    left = []
    with suppress(AssertionError):
        until(lambda: not left.append(alive(checkout)) and not left[-1], "nothing is left", 60)
    assert left[-1] == []


def folders_of(checkout):
    """The folders in which that checkout's servers keep their data."""
    script = (
        "from stack.servers import data as d\n"
        "print(*(root / d.owner() for root in (d.DISK, d.MEMORY, d._state())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=checkout,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(folder) for folder in done.stdout.split()]


class Broker:
    """The broker of a checkout's `make run`, which is a process here or a container."""

    def __init__(self, checkout):
        folder = folders_of(checkout)[-1]
        self._pid_file = folder / "run" / "rabbitmq" / "node.pid"
        self._label = f"{containers.OWNER}={folder.name}"

    def run(self):
        """Something that changes with each start; empty while it does not run."""
        if self._pid_file.exists():
            return self._pid_file.read_text()
        return "".join(found.attrs["State"]["StartedAt"] for found in self._containers())

    def kill(self):
        """SIGKILL, as by the kernel for want of memory."""
        if self._pid_file.exists():
            os.kill(int(self._pid_file.read_text()), signal.SIGKILL)
        for container in self._containers():
            container.kill()

    def _containers(self):
        with suppress(*containers.ENGINE_ERRORS), closing(docker.from_env()) as engine:
            found = engine.containers.list(filters={"label": self._label}, ignore_removed=True)
            return [each for each in found if each.attrs["Config"]["Hostname"] == "rabbitmq"]
        return []


def login(api, http):
    body = {"email": "it@kettle.example", "password": "correct horse battery"}
    return http.post(f"{api}/api/v1/users/auth/login/", json=body).json()["code"]


@pytest.mark.timeout(8 * PATIENCE)
def test_run_stop_and_run_again(checkout):
    """Stopped, killed, and killed with the make that had started it: the data are there again."""
    process = start(checkout)
    told = ready(checkout, process)
    assert {"API_URL", "OPS_URL", "AMQP_URL", "DATABASE_URL", "MAILBOX_DIR"} <= set(told)
    broker = Broker(checkout)
    killed = broker.run()
    broker.kill()
    until(lambda: broker.run() not in ("", killed), "the broker is started again")
    assert_is_healthy(checkout)
    assert (checkout / ".stack" / "env").stat().st_mode & 0o077 == 0
    body = {
        "company_name": "Kettle & Co",
        "email": "it@kettle.example",
        "password": "correct horse battery",
    }
    with httpx.Client(timeout=PATIENCE) as http:
        answer = http.post(f"{told['API_URL']}/api/v1/users/auth/register/", json=body)
        assert answer.status_code == 201, answer.text
        mailbox = Path(told["MAILBOX_DIR"]) / "new"
        until(lambda: list(mailbox.iterdir()), "the code is in the mailbox")

        assert_its_venv_is_held(checkout)
        second = start(checkout)
        assert second.wait(PATIENCE) == 1
        assert "make run is running in this checkout already" in second.stdout.read()
        cleaning = start(checkout, command=(sys.executable, "-m", "stack.clean"))
        assert cleaning.wait(PATIENCE) == REFUSED
        assert "stop it first" in cleaning.stdout.read()
        assert http.get(f"{told['API_URL']}/healthz").status_code == 200
        process.kill()
        output, _ = process.communicate()
        assert "RabbitMQ has ended; starting it again" in output
        (checkout / ".stack" / "env").unlink()

        port = a_port_that_nobody_is_given()
        # Shells of some systems export HOST, the machine's name.
        process = start(checkout, PORT=str(port), HOST="192.0.2.1")
        told = ready(checkout, process)
        assert told["API_URL"] == f"http://127.0.0.1:{port}"
        assert login(told["API_URL"], http) == "email_not_verified"
        output = interrupt(process)
        assert process.returncode == 0, output
        assert "Stopped." in output
        assert not (checkout / ".stack" / "env").exists()
        assert_nothing_is_left(checkout)

        shutil.copy(ROOT / "Makefile", checkout)
        programs = Path(sys.executable).parent
        # There is a venv already.
        process = start(checkout, command=("make", "run", f"BIN={programs}", "PYTHON=true"))
        told = ready(checkout, process)
        assert login(told["API_URL"], http) == "email_not_verified"
    process.kill()
    process.communicate()
    until(lambda: alive(checkout) == [], "every process has ended")
    assert not (checkout / ".stack" / "env").exists()
    clean(checkout)
    assert not any(folder.exists() for folder in folders_of(checkout))


@pytest.mark.parametrize("module", ["stack.run", "stack.demo"])
def test_a_terminal_that_is_closed_ends_it_as_ctrl_c_does(checkout, module):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ("setsid", "--ctty", sys.executable, "-m", module),
        cwd=checkout,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        # The tests may run under nohup(1).
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    started.append(process)
    os.close(theirs)
    closing = threading.Event()
    threading.Thread(target=show, args=(ours, closing), daemon=True).start()
    env = checkout / ".stack" / "env"

    def data_folders():
        return [one for folder in folders for one in folder.glob("throwaway/*")]

    folders = folders_of(checkout)
    is_up = env.exists if module == "stack.run" else data_folders
    until(lambda: process.poll() is not None or is_up(), "it runs")
    assert process.poll() is None
    closing.set()
    assert process.wait(PATIENCE) == (0 if module == "stack.run" else 130)
    assert not env.exists()
    assert data_folders() == []
    assert_nothing_is_left(checkout)


def show(terminal, closing):
    """What a terminal's window does, until it is closed."""
    while not closing.is_set():
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 4096)
    os.close(terminal)


ENDS = """
import pathlib, sys, time
from stack.processes import stop_on_signals
stop_on_signals()
try:
    while True:
        print("here", flush=True)
        time.sleep(0.01)
except KeyboardInterrupt:
    for _ in range(100):
        print("Stopping")
        print("Stopping", file=sys.stderr)
        time.sleep(0.01)
    pathlib.Path("stopped").touch()
"""


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
@pytest.mark.parametrize("is_asked", [True, False], ids=["asked to end first", "not told"])
def test_what_nobody_reads_any_more_ends_it_and_disturbs_no_stopping(checkout, kind, is_asked):
    """A terminal tells its session's leader alone that it is closed, and a pipe nobody."""
    ours, theirs = pty.openpty() if kind == "terminal" else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", ENDS],
        cwd=checkout,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    started.append(process)
    os.close(theirs)
    said = b""
    while b"here" not in said:
        said += os.read(ours, 4096)
    if is_asked:
        process.terminate()
        while b"Stopping" not in said:
            said += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(PATIENCE) == 0
    assert (checkout / "stopped").exists()


def test_who_is_to_outlive_its_terminal_does(checkout):
    script = (
        "import os, signal; from stack.processes import stop_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); stop_on_signals()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('here')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=checkout, env=environment(), capture_output=True
    )
    assert done.stdout == b"here\n", done.stderr


def test_a_port_that_is_taken(checkout):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(checkout, PORT=str(port), COLUMNS="40")
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"port {port} is taken: give another one by PORT=" in output


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none(checkout, port):
    process = start(checkout, PORT=port)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "is no port" in output


def test_without_any_servers_there_is_one_clear_sentence(checkout, tmp_path):
    """No Docker, no packages, no apt: a PATH with nothing on it."""
    script = (
        "from stack import run\n"
        "from stack.servers import rabbitmq, postgres, debian\n"
        "rabbitmq.is_installed = lambda: False\n"
        "postgres.programs = lambda: None\n"
        "debian.can_install = lambda: False\n"
        "raise SystemExit(run.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=checkout,
        env=environment(DOCKER_HOST=f"unix://{tmp_path}/none"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "rabbitmq-server and postgresql cannot be found here" in said
    assert "by AMQP_URL and DATABASE_URL" in said


def test_the_data_of_two_checkouts_lie_apart(checkout):
    assert not {folder.name for folder in folders_of(checkout)} & {data.owner()}


def test_two_checkouts_that_start_at_the_same_moment(checkout, tmp_path):
    """One gets the default ports unless somebody else has them; the other says which it has got."""
    other = tmp_path / "it's another"
    shutil.copytree(checkout, other)
    both = [(folder, start(folder)) for folder in (checkout, other)]
    told = [ready(folder, process) for folder, process in both]
    signals = (signal.SIGINT, signal.SIGTERM)
    ends = [(process, how) for (_, process), how in zip(both, signals, strict=True)]
    output = "".join(interrupt(process, how) for process, how in ends)
    assert [process.returncode for process, _ in ends] == [0, 0], output
    for name in ("API_URL", "OPS_URL"):
        assert told[0][name] != told[1][name]
    for name, default in (("API_URL", 8000), ("OPS_URL", 8001)):
        for found in told:
            number = int(found[name].rpartition(":")[2])
            said = f"Port {default} is taken; using {number}"
            assert (number == default) != (said in output)
    assert_nothing_is_left(other)
    clean(other)


def test_a_database_that_somebody_has_named_keeps_its_passwords(amqp_url, database_url):
    """Roles are a whole server's, and another system may sign in by them."""
    roles = text("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'fellow%'")
    engine = create_engine(database_url)

    def known():
        with engine.connect() as connection:
            return sorted(tuple(row) for row in connection.execute(roles))

    before = known()
    assert before
    system.prepare(amqp_url, database_url, is_ours=False)
    assert known() == before
    first = system._make_ops_user(database_url, is_ours=False)
    assert first
    assert system._make_ops_user(database_url, is_ours=False) == ""
    engine.dispose()


def test_a_server_without_a_password_gives_none_that_can_be_computed():
    with pytest.raises(ValueError, match="without a password"):
        credentials.passwords("postgresql+psycopg2://postgres@127.0.0.1/order_fellow")
