"""How the integration tests wait, and ask each worker of an ingress."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import httpx
import pytest

from tests.integration import arrange
from tests.integration.arrange import by_each_worker, until, workers

# As gunicorn does it: whichever worker wakes first takes the connection. One of them never sleeps,
# and takes nearly all.
SHARED = """
import os, socket
listening = socket.create_server(("127.0.0.1", 0))
listening.setblocking(False)
for is_busy in (True, False):
    if os.fork() == 0:
        while True:
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                is_busy or __import__("time").sleep(0.05)
            else:
                connection.sendall(b"%d" % os.getpid())
                connection.close()
print(listening.getsockname()[1], flush=True)
while True:
    os.wait()
"""


@pytest.mark.parametrize("error", [ConnectionRefusedError, TimeoutError, httpx.ReadError])
def test_a_look_that_is_not_answered_has_found_nothing_yet(error):
    answers = [error("not there"), "", "found"]

    def look():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until(look, "it is found") == "found"


def test_what_is_never_answered_is_told_with_its_cause():
    def look():
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(AssertionError, match="it is found: not within") as failed:
        until(look, "it is found", 0.05)
    assert isinstance(failed.value.__cause__, ConnectionRefusedError)


def test_a_fault_of_the_look_itself_is_no_wait():
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 / 0, "never")


@pytest.fixture
def parent():
    command = (sys.executable, "-c", SHARED)
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_each_worker_is_asked_though_one_would_take_all(parent, monkeypatch):
    """And though not all of them are there yet."""
    port = int(parent.stdout.readline())
    every = workers(parent.pid)
    fewer = [every[:1], []]
    monkeypatch.setattr(arrange, "workers", lambda pid: fewer.pop() if fewer else workers(pid))

    def ask():
        with socket.create_connection(("127.0.0.1", port)) as connection:
            return int(connection.recv(100))

    assert by_each_worker(parent.pid, ask) == every


def test_who_answers_for_a_worker_that_has_ended_is_not_taken_for_it(parent):
    parent.stdout.readline()
    _, other = workers(parent.pid)

    def ask():
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGKILL)
        until(lambda: other not in workers(parent.pid), "it has ended")

    with pytest.raises(AssertionError, match="a worker has ended"):
        by_each_worker(parent.pid, ask)
