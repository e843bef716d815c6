"""What is told, and done, when the distribution's packages cannot be installed as they should."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest
import requests
from docker.errors import APIError, NotFound

from stack.folders import ROOT
from stack.servers import containers, debian, postgres, rabbitmq, sources
from stack.servers.listening import DidNotStartError
from stack.servers.ports import Port
from tests.integration.arrange import PATIENCE, until


class Server:
    """One that is ready at once; notes which of libpq's variables it finds."""

    found = None

    def launch(self):
        self.found = {name for name in os.environ if name.startswith("PG")}

    def wait(self):
        pass

    close = wait

    def url(self):
        return "amqp://127.0.0.1/"


LIBPQ = {"PGSSLMODE": "require", "PGHOSTADDR": "192.0.2.1", "PGOPTIONS": "-c work_mem=1MB"}


@pytest.mark.parametrize("purpose", ["run", "demo"])
def test_what_libpq_reads_is_about_servers_that_somebody_has_named(purpose, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "make", lambda *_, **__: (Server(), database, "nowhere"))
    monkeypatch.setattr(sources.data, "kept", lambda: tmp_path)
    monkeypatch.delenv("AMQP_URL", raising=False)
    for name, value in LIBPQ.items():
        monkeypatch.setenv(name, value)
    if purpose == "run":
        database = Server()
        monkeypatch.setenv("DATABASE_URL", "postgresql://db.example/order_fellow")
        with sources.servers("run"):
            assert set(LIBPQ) <= set(os.environ)
    database = Server()
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with sources.servers("demo"):
        assert database.found == set()


def test_a_root_that_may_not_be_another_user_is_told_so(monkeypatch, tmp_path):
    """As in a container without CHOWN, or the only user of a namespace."""

    def refuse(*_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", refuse)
    server = postgres.PostgreSQL(tmp_path / "data")
    with pytest.raises(DidNotStartError, match=r"this root may not be .* run it as a user"):
        server.launch()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "postgresql"
    monkeypatch.setattr(postgres, "INSTALLED", folder)
    for version in ("9.6", "15", "17"):
        (folder / version / "bin").mkdir(parents=True)
        (folder / version / "bin" / "postgres").touch()
    return folder


@pytest.mark.parametrize(("data", "used"), [("15\n", "15"), ("9.6\n", "9.6"), (None, "17")])
def test_data_are_opened_by_their_own_version(installed, tmp_path, data, used):
    version = tmp_path / "PG_VERSION"
    if data:
        version.write_text(data)
    assert postgres._programs_for(version) == installed / used / "bin"


def test_data_of_a_version_that_is_gone_say_so(installed, tmp_path):
    (tmp_path / "PG_VERSION").write_text("13\n")
    with pytest.raises(DidNotStartError, match=r"are of PostgreSQL 13, and this machine has 17"):
        postgres._programs_for(tmp_path / "PG_VERSION")


APT_GET = """#!/bin/sh
cd "$(dirname "$0")" && echo "apt-get $1" >> asked
[ -e interrupted ] && [ "$1" = install ] && {
    echo "E: dpkg was interrupted, you must run 'dpkg --configure -a'."
    exit 100
}
[ ! -e waits ] || [ "$1" != install ] || {
    touch begun
    until [ -e may-end ]; do sleep 0.05; done
    touch ended
}
cat "$1.says" 2> /dev/null
exit "$(cat "$1.ends" 2> /dev/null || echo 0)"
"""
APT_CACHE = """#!/bin/sh
[ -e "$(dirname "$0")/unknown" ] || echo "  Candidate: 1.0"
"""
DPKG = """#!/bin/sh
cd "$(dirname "$0")" && echo "dpkg $*" >> asked
[ -e stays ] || rm -f interrupted
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """One without servers, whose apt and dpkg do as files of this folder say."""
    for name, text in (("apt-get", APT_GET), ("apt-cache", APT_CACHE), ("dpkg", DPKG)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "can_install", lambda: True)
    for name in ("LOCK", "POLICY", "CLUSTER_CONF"):
        monkeypatch.setattr(debian, name, tmp_path / name)
    monkeypatch.setattr(sources, "_containers_are_available", lambda: False)
    monkeypatch.setattr(rabbitmq, "is_installed", lambda: False)
    monkeypatch.setattr(postgres, "programs", lambda: None)
    return tmp_path


def asked(machine):
    return (machine / "asked").read_text().splitlines()


def test_what_cannot_be_installed_is_a_sentence(machine, capsys):
    (machine / "install.says").write_text("E: No space left on device\n")
    (machine / "install.ends").write_text("100")
    assert sources.main() == 1
    said = capsys.readouterr().err
    assert "rabbitmq-server" in said
    assert "No space left on device" in said


@pytest.mark.parametrize("code", ["0", "100"])
def test_lists_that_cannot_be_fetched_are_told(machine, capsys, code):
    """Apt fetches what it can, says the rest in warnings, and ends with 0."""
    (machine / "unknown").touch()
    (machine / "update.says").write_text("Hit:1 here\nW: Failed to fetch http://deb.example\n")
    (machine / "update.ends").write_text(code)
    assert sources.main() == 1
    said = capsys.readouterr().err
    assert "rabbitmq-server and postgresql" in said
    assert "Failed to fetch http://deb.example" in said


def test_what_is_not_there_after_all_is_told(machine, capsys):
    assert sources.main() == 1
    assert "rabbitmq-server and postgresql" in capsys.readouterr().err
    assert asked(machine) == ["apt-get update", "apt-get install"]


def test_what_was_interrupted_is_brought_to_its_end_first(machine):
    (machine / "interrupted").touch()
    debian.install("epmd")
    assert asked(machine)[1:] == ["apt-get install", "dpkg --configure -a", "apt-get install"]


def test_what_stays_interrupted_is_told(machine):
    for name in ("interrupted", "stays"):
        (machine / name).touch()
    with pytest.raises(debian.InstallError, match="dpkg was interrupted"):
        debian.install("epmd")
    assert asked(machine).count("dpkg --configure -a") == 1


MAIN = """
import importlib, sys
from pathlib import Path
from stack.servers import debian, postgres, rabbitmq, sources
from tests import programs
_, folder, module = sys.argv
sys.argv[1:] = []
for name in ("LOCK", "POLICY", "CLUSTER_CONF"):
    setattr(debian, name, Path(folder) / name)
debian.can_install = lambda: True
sources._containers_are_available = rabbitmq.is_installed = lambda: False
postgres.programs = lambda: None
programs._find = lambda name: None
sys.exit(importlib.import_module(module).main())
"""


@pytest.mark.parametrize(
    ("module", "how"),
    [
        ("stack.servers.sources", signal.SIGINT),
        ("stack.servers.sources", signal.SIGTERM),
        ("stack.servers.sources", signal.SIGHUP),
        ("tests.programs", signal.SIGINT),
        ("tests.programs", signal.SIGHUP),
    ],
)
def test_what_ends_us_waits_for_apt(machine, module, how):
    """An installation that is broken off leaves a machine on which nothing can be installed.

    And one whose maker is gone a machine on which nothing that is installed later starts.
    """
    (machine / "waits").touch()
    process = subprocess.Popen(
        (sys.executable, "-c", MAIN, str(machine), module),
        cwd=ROOT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # The tests may run under nohup(1).
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    try:
        until((machine / "begun").exists, "apt runs")
        assert (machine / "POLICY").exists()
        os.killpg(process.pid, how)
    finally:
        (machine / "may-end").touch()
    _, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaint) == (130, "")
    assert (machine / "ended").exists()
    assert not (machine / "POLICY").exists()


def test_a_cluster_that_cannot_be_made_is_a_server_that_did_not_start(tmp_path, monkeypatch):
    (tmp_path / "initdb").symlink_to("/bin/false")
    monkeypatch.setattr(postgres, "programs", lambda _: tmp_path)
    monkeypatch.setattr(postgres, "_unprivileged_user", lambda: None)
    with pytest.raises(DidNotStartError, match="initdb"):
        postgres.PostgreSQL(tmp_path / "data").launch()


class Ending:
    is_running = True
    starts = 0

    def start(self):
        self.is_running, self.starts = True, self.starts + 1


def test_a_server_that_has_ended_is_started_again_and_one_of_somebody_elses_is_not():
    broker, database, said = Ending(), Ending(), []
    running = sources.Servers("", "", broker, database, "")
    running.watch(said.append)
    database.is_running = False
    running.watch(said.append)
    running.watch(said.append)
    assert (broker.starts, database.starts) == (0, 1)
    assert [one.partition(";")[0] for one in said] == ["PostgreSQL has ended"]
    sources.Servers("", "", None, None, "").watch(said.append)


@pytest.mark.parametrize(
    ("status", "is_running"),
    [
        ("running", True),
        ("paused", True),
        ("exited", False),
        (NotFound("removed"), False),
        # The engine itself starts anew: what is not known has not ended. Docker's SDK has no
        # errors of its own for it.
        (requests.ConnectionError("away"), True),
        (requests.ReadTimeout("slow"), True),
        (APIError("no space left on device"), True),
    ],
)
def test_a_container_runs_as_far_as_its_engine_says(status, is_running):
    class Wrapped:
        def reload(self):
            if isinstance(status, Exception):
                raise status
            self.status = status

    made = container()
    made._container.get_wrapped_container = Wrapped
    assert made.is_running is is_running


@pytest.mark.parametrize("tag", ["postgres:18", "postgres:18-bookworm", "postgres@sha256:15"])
def test_an_image_is_named_by_any_tag_or_a_digest(monkeypatch, tmp_path, tag):
    compose = tmp_path / "docker-compose.yml"
    compose.write_text(f"services:\n  postgres:\n    image: {tag}\n")
    monkeypatch.setattr(containers, "COMPOSE", compose)
    found = []
    monkeypatch.setattr(containers._Server, "__init__", lambda self, *args, **_: found.extend(args))
    with pytest.raises(AttributeError, match="_container"):
        containers.PostgreSQLContainer("owner", tmp_path, keep=False)
    assert found[-1] == "/var/lib/postgresql"


class Refusing:
    ports: dict = {}  # noqa: RUF012 - as testcontainers has it
    error = APIError("no space left on device")

    def start(self):
        raise self.error

    def get_wrapped_container(self):
        return self

    def logs(self, tail):
        return b"incompatible with server"


def container():
    made = object.__new__(containers.PostgreSQLContainer)
    made._is_known, made._ports, made._container = False, {}, Refusing()
    made._volume = None
    return made


@pytest.mark.parametrize("error", [APIError("no space"), requests.ConnectionError("no engine")])
def test_a_container_that_cannot_be_made_is_a_server_that_did_not_start(error):
    made = container()
    made._container.error = error
    with pytest.raises(DidNotStartError, match=str(error)):
        made.launch()


class Gone:
    """What a container that somebody has removed is to testcontainers, until it is made anew."""

    ports: dict = {}  # noqa: RUF012 - as testcontainers has it

    def __init__(self, error):
        self._container, self.error, self.made = self, error, 0

    def get_wrapped_container(self):
        return self

    def start(self):
        if self._container is self:
            raise self.error
        self.made += 1

    def stop(self, **_):
        raise self.error


def test_a_container_that_somebody_has_removed_is_made_anew_on_its_ports():
    """They are known by now, to those who were told where the server is."""
    made = container()
    made._is_known, made._container = True, Gone(NotFound("removed"))
    made._ports = {5432: Port()}
    number = made.port
    made.launch()
    assert made._container.made == 1
    assert made._container.ports == {"5432": ("127.0.0.1", number)}
    made.ports[0].release()


@pytest.mark.parametrize("error", [NotFound("removed"), requests.ConnectionError("no engine")])
def test_a_container_that_cannot_be_stopped_hides_no_other_error(error):
    made = container()
    made._container = Gone(error)
    port = made._ports[5432] = Port()
    made.close()
    with socket.socket() as another:
        another.bind(("127.0.0.1", port.number))


def test_a_container_that_does_not_answer_is_a_server_that_did_not_start(monkeypatch):
    monkeypatch.setattr(containers, "READY_SECONDS", -1)
    monkeypatch.setattr(containers.PostgreSQLContainer, "_answers", lambda _: False)
    with pytest.raises(DidNotStartError, match="incompatible with server"):
        container().wait()
