"""Ports: held from the choosing on, and exchanged when somebody listens there all the same."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from rich.console import Console

from stack.folders import ROOT
from stack.mailbox import MailServer
from stack.processes import spawn, stop
from stack.servers import data, ports
from stack.servers.listening import DidNotStartError, Start
from stack.servers.ports import Address, Listener, Port, PortTakenError, listeners
from stack.servers.sources import make
from stack.supervisor import Supervisor
from tests.integration.arrange import PATIENCE
from tests.integration.stack.thief import thief

AT_ONCE = int(os.environ.get("PORTS_AT_ONCE", "2"))
TIMES = int(os.environ.get("PORTS_TIMES", "1"))
CHOOSE = """
import sys
from stack.servers.ports import Port
held = [Port() for _ in range(500)]
print(*(port.number for port in held), flush=True)
sys.stdin.read()
"""


def is_refused(port):
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port.number))
        except OSError:
            return True
        return False


def test_a_port_is_held_until_it_is_released():
    port = Port()
    assert is_refused(port)
    assert port.number not in {one.port for one in listeners()}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port.number))
    with pytest.raises(PortTakenError, match=f"port {port} is taken"):
        Port(named=port.number)
    assert Port(port.number).number != port.number
    with socket.create_server(("127.0.0.1", port.number)):  # its server
        assert [one.port for one in listeners()].count(port.number) == 1
    assert is_refused(port)
    port.release()
    assert not is_refused(port)
    assert Port(named=port.number).number == port.number


@pytest.mark.parametrize(
    ("family", "table", "address"),
    [(socket.AF_INET, "tcp", "127.0.0.1"), (socket.AF_INET6, "tcp6", "::1")],
)
def test_the_kernel_and_its_table_name_the_same_listeners(family, table, address):
    try:
        made = socket.create_server((address, 0), family=family)
    except OSError:  # a machine without IPv6, where the others are found all the same
        assert family == socket.AF_INET6
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert other.getsockname()[1] in [one.port for one in listeners()]
        list(ports._read_table(table))  # which may not be there
        return
    with made as server:
        port, inode = server.getsockname()[1], os.fstat(server.fileno()).st_ino
        ours = Listener(port, os.geteuid(), inode)
        assert ours in ports._ask_kernel(family)
        assert ours in ports._read_table(table)
        with socket.create_connection(server.getsockname()[:2]):
            assert [one.port for one in ports._ask_kernel(family)].count(port) == 1


def test_a_port_whose_server_has_just_ended_can_be_named_again():
    """Connections that the server has closed first stay for a minute, and are in nobody's way."""
    port = Port()
    with socket.create_server(("127.0.0.1", port.number)) as server:
        client = socket.create_connection(("127.0.0.1", port.number))
        server.accept()[0].close()
        client.recv(1)
        client.close()
    port.release()
    assert is_refused(port)
    assert Port(named=port.number).number == port.number


def test_a_port_on_which_somebody_listens_is_not_to_be_had():
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        assert Port(number).number != number
        with pytest.raises(PortTakenError):
            Port(named=number)


@pytest.fixture
def ephemeral(tmp_path, monkeypatch):
    """Sets the range of a machine: some have all of them in it."""
    file = tmp_path / "range"
    monkeypatch.setattr("stack.servers.ports._EPHEMERAL", file)
    return lambda low, high: file.write_text(f"{low}\t{high}\n")


@pytest.mark.parametrize(("low", "high"), [(32768, 60999), (10000, 50000), (20000, 65535)])
def test_ports_are_no_ephemeral_ones(ephemeral, low, high):
    ephemeral(low, high)
    assert not any(low <= Port().number <= high for _ in range(200))


def test_where_every_port_is_ephemeral_any_is_taken(ephemeral):
    ephemeral(1024, 65535)
    assert is_refused(Port())


def test_where_nobody_is_told_which_are_ephemeral_any_is_taken(ephemeral):
    assert is_refused(Port())


def test_processes_that_choose_at_once_never_choose_the_same():
    """Also when another one is killed meanwhile: what it held is to be had again."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CHOOSE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=raise_limit,
        )
        for _ in range(4)
    ]
    chosen = [list(map(int, process.stdout.readline().split())) for process in running]
    everything = [port for ports in chosen for port in ports]
    assert len(everything) == 2000 == len(set(everything))
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert Port(named=chosen[0][0]).number == chosen[0][0]


def raise_limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (10_000, 10_000))


@pytest.fixture
def folder():
    made = data.throwaway("ports")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(4 * PATIENCE)
def test_a_server_whose_port_is_stolen_goes_elsewhere(folder):
    """Each port of each server, the port mapper's too."""
    node, books, _ = make(folder, management=True)
    try:
        with thief(*node.ports, *books.ports):
            node.launch()
            books.launch()
            node.wait()
            books.wait()
        moved = [port.number for port in (*node.ports, *books.ports)]
        assert all(port.moves for port in (*node.ports, *books.ports))
        assert f":{moved[0]}/" in node.url()
        for server in (node, books):
            server.stop()
            server.start()
        assert [port.number for port in (*node.ports, *books.ports)] == moved
    finally:
        node.close()
        books.close()


PAIR = """
import sys
from pathlib import Path
from stack.servers.sources import make
folder = Path(sys.argv[1])
for server in make(folder)[:2]:
    server.start()
    print(server.url(), flush=True)
    server.close()
"""


@pytest.mark.timeout(4 * PATIENCE)
def test_servers_start_where_root_may_not_look_into_other_users_processes(folder):
    """As in a container, whose root has no CAP_SYS_PTRACE; PostgreSQL runs as a user of its own.

    Nor may that user look into what root makes, by root's umask.
    """
    without = ("setpriv", "--bounding-set=-sys_ptrace") if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*without, sys.executable, "-c", PAIR, folder],
        cwd=ROOT,
        umask=0o077,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,  # each server may take longer than tests wait for anything else
    )
    assert done.returncode == 0, done.stderr
    # Before them what an engine, where there is one, had to say.
    urls = done.stdout.splitlines()[-2:]
    assert [url.partition("://")[0] for url in urls] == ["amqp", "postgresql+psycopg2"]


@pytest.mark.timeout(400 * TIMES)
def test_servers_that_start_at_once_beside_a_thief():
    """As many pairs as `make test-ports` says, with somebody who grabs ports all the while."""
    for number in range(TIMES):
        # Of its own each, as every run has one.
        folders = [data.throwaway("ports") for _ in range(AT_ONCE)]
        pairs = [make(made)[:2] for made in folders]
        every = [server for pair in pairs for server in pair]
        try:
            with thief(*(pairs[number % AT_ONCE][0].ports), *pairs[-1][1].ports):
                for server in every:
                    server.launch()
                for server in every:
                    server.wait()
            used = [port for server in every for port in server.ports]
            assert len({port.number for port in used}) == len(used)
            print(f"round {number}: {sum(port.moves for port in used)} of {len(used)} ports moved")
            for broker, database in pairs:
                broker.control("list_queues")
                database.execute("SELECT 1")
        finally:
            for server in every:
                server.close()
            for made in folders:
                shutil.rmtree(made, ignore_errors=True)


def test_a_mail_server_whose_port_is_stolen_goes_elsewhere(tmp_path):
    server = MailServer(tmp_path / "mail")
    before = server.port
    with thief(server._port):
        server.start()
    assert server.port != before
    with socket.create_connection(("127.0.0.1", server.port)) as connected:
        assert connected.recv(3) == b"220"
    server.stop()


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor({}, tmp_path / "logs", Console(quiet=True))
    yield made
    made.stop()


def test_a_child_whose_port_is_stolen_goes_elsewhere(supervisor, tmp_path):
    """A mail server, which ends at once, and gunicorn, which tries again first."""
    mail, http = Port(), Port()
    with thief(mail, http):
        supervisor.add("mailbox", "stack.mailbox", mail, tmp_path / "maildir", listens=mail)
        supervisor.add(
            "http",
            "gunicorn",
            *("--bind", Address(http, "127.0.0.1:{}"), "--no-control-socket"),
            "tests.integration.stack.test_ports:hello",
            listens=http,
        )
        supervisor.wait_until_listening()
        assert (mail.moves, http.moves) == (1, 1)
        assert httpx.get(str(Address(http)), timeout=PATIENCE).text == "hello"


def hello(_, start_response):
    """The smallest application."""
    start_response("200 OK", [])
    return [b"hello"]


def test_a_named_port_that_is_stolen_is_a_refusal(supervisor, tmp_path):
    with Port() as any_port:
        number = any_port.number
    named = Port(named=number)
    with thief(named):
        supervisor.add("mailbox", "stack.mailbox", named, tmp_path / "maildir", listens=named)
        with pytest.raises(PortTakenError, match=f"port {number} is taken"):
            supervisor.wait_until_listening()


def test_a_server_that_fails_for_another_reason_is_not_tried_again(tmp_path):
    port, log, starts = Port(), tmp_path / "log", []

    def start():
        starts.append(1)
        command = (sys.executable, "-c", "raise SystemExit('no such colour')")
        return spawn(command, environment=os.environ, log=log)

    with pytest.raises(DidNotStartError, match="no such colour"):
        Start("it", start, (port,), log, 30).wait()
    assert len(starts) == 1
    assert port.moves == 0


def test_a_leftover_that_listens_is_not_taken_for_the_server(tmp_path):
    """Somebody who answers there while ours says nothing and waits."""
    port, log = Port(), tmp_path / "log"

    def start():
        script = (
            f"import http.server as h; h.HTTPServer(('127.0.0.1', {port}), None).serve_forever()"
        )
        return spawn((sys.executable, "-c", script), environment=os.environ, log=log)

    with thief(port):
        before = port.number
        process = Start("it", start, (port,), log, 30).wait()
    assert port.number != before
    stop(process, 1)
