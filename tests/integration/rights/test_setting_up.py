"""The deployment's topology step makes the users, and says in a sentence what it could not do."""

import os
import shutil
import subprocess
import sys

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused
from kombu import Connection

from services.ops import broker_checks
from shared.bus import topology
from shared.config import load
from stack.credentials import as_service, service_passwords
from stack.servers import make, throwaway


@pytest.fixture(scope="module")
def node():
    folder = throwaway("management")
    made = make(folder, management=True)[0]
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def declare(**environment):
    done = subprocess.run(
        [sys.executable, "-m", "shared.bus.declare"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_users_rights_and_topology(node):
    environment = {
        "AMQP_URL": node.url(),
        "RABBITMQ_MANAGEMENT_URL": node.management_url,
        "SERVICE_PASSWORDS": service_passwords(node.url()),
    }
    for _ in range(2):
        assert declare(**environment) == (0, "")
    with Connection(as_service(node.url(), "kyc")) as connection:
        topology.ensure(connection, topology.KYC_DECISIONS)
        with pytest.raises(AccessRefused):
            connection.default_channel.queue_delete("orders.intake")
    found = {check.about: check for check in broker_checks.broker(load(environment))}
    assert {check.state for check in found.values()} == {"fine"}, found
    assert set(found) == {"broker", "topology", "broker clock"}
    wrong = environment | {"AMQP_URL": node.url().replace("@", "x@")}
    code, said = declare(**wrong)
    assert code == 1
    assert "/api/definitions answered 401" in said
    assert '"reason":"' in said  # of the broker's own answer, which names the cause
    code, said = declare(**{**environment, "AMQP_URL": as_service(node.url(), "kyc")})
    assert code == 1
    assert "Traceback" not in said


def test_definitions_for_rabbitmqctl(tmp_path_factory):
    """The same rights without the management API, on a broker that has nothing yet."""
    folder = tmp_path_factory.mktemp("definitions")
    bare = RabbitMQ(folder / "rabbitmq")
    try:
        bare.start()
        printed = subprocess.run(
            [sys.executable, "-m", "shared.bus.permissions"],
            env=os.environ | {"SERVICE_PASSWORDS": service_passwords(bare.url())},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        (folder / "definitions.json").write_bytes(printed)
        bare.control("import_definitions", str(folder / "definitions.json"))
        assert declare(AMQP_URL=bare.url()) == (0, "")
        with Connection(as_service(bare.url(), "kyc")) as connection:
            topology.declare_queue(connection.default_channel, topology.KYC_DECISIONS)
            with pytest.raises(AccessRefused):
                connection.default_channel.basic_publish_confirm(
                    Message(b"x"), exchange="dead", routing_key="orders.intake"
                )
    finally:
        bare.close()


def test_a_bad_list_of_passwords_is_one_sentence():
    code, said = declare(SERVICE_PASSWORDS="ingress")
    assert (code, said) == (
        2,
        "The topology cannot be declared. SERVICE_PASSWORDS must be like ingress=...,kyc=...\n",
    )


def test_a_topology_of_another_version_is_one_sentence(amqp_url):
    with Connection(amqp_url) as connection:
        connection.default_channel.exchange_delete("dead")
        connection.default_channel.exchange_declare("dead", "direct", durable=True)
    code, said = declare(AMQP_URL=amqp_url)
    assert code == 1
    assert "of another version" in said
    assert "Traceback" not in said
