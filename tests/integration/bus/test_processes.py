"""Every process, as it is deployed, on the rights that it has: healthy when it is at work."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from kombu import Connection

from shared.bus.contract import topology
from stack.folders import ROOT
from stack.processes import stop
from stack.servers.credentials import as_service
from tests.integration.arrange import PATIENCE, until

CONSUMERS = ("services.orders", "services.kyc", "services.secrets", "services.notifier",
             "services.audit")  # fmt: skip
PROCESSES = (*CONSUMERS, "services.relay")


def user_of(module):
    return "relay" if module == "services.relay" else module.partition(".")[2]


@contextmanager
def running(module, amqp_url, database_url, tmp_path):
    environment = os.environ | {
        "AMQP_URL": amqp_url,
        "DATABASE_URL": as_service(database_url, user_of(module)),
        "HEALTH_FILE": str(tmp_path / "health"),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=environment, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        stop(process, 15)


def check(tmp_path):
    """The container's check."""
    done = subprocess.run(
        [str(ROOT / "deploy" / "alive")],
        env=os.environ | {"HEALTH_FILE": str(tmp_path / "health")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def consumers(connection, queue):
    return connection.default_channel.queue_declare(queue, passive=True).consumer_count


@pytest.mark.parametrize("module", PROCESSES)
def test_it_is_healthy_with_the_rights_it_has(settings, tmp_path, mailbox, monkeypatch, module):
    monkeypatch.setenv("SMTP_PORT", str(mailbox.port))
    url = as_service(settings.amqp_url, user_of(module))
    with running(module, url, settings.database_url, tmp_path):
        until(lambda: check(tmp_path) == (0, ""), f"{module} is healthy")
        if module == "services.relay":
            return
        with Connection(settings.amqp_url) as connection:
            for queue in topology.WORK_QUEUES:
                if queue.name.partition(".")[0] == user_of(module):
                    until(lambda q=queue.name: consumers(connection, q) == 1, queue.name)


@pytest.mark.parametrize("module", ["services.kyc", "services.relay"])
def test_it_is_not_while_it_is_refused(settings, tmp_path, module):
    url = as_service(settings.amqp_url, user_of(module)).replace("@", "x@")
    with running(module, url, settings.database_url, tmp_path):
        until(lambda: "Sign in with another password" in check(tmp_path)[1], "it says why")
        assert check(tmp_path)[0] == 1
    assert "refused_by_broker" in (tmp_path / "log").read_text()
