"""The deployment's topology step makes the users, and says in a sentence what it could not do."""

import base64
import os
import shutil
import subprocess
import sys

import pytest
from amqp import Message
from amqp.exceptions import AccessRefused
from kombu import Connection

from services.ops.doctor import broker_checks
from shared.bus.broker import declaration
from shared.bus.contract import topology
from shared.config.loading import load
from stack.servers import data
from stack.servers.credentials import as_service, service_passwords
from stack.servers.sources import make
from tests.integration.arrange import PATIENCE


@pytest.fixture(scope="module")
def node():
    folder = data.throwaway("management")
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
        timeout=PATIENCE,
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
        declaration.ensure(connection, topology.KYC_DECISIONS)
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


def test_operators_get_users_of_their_own_who_may_decide_and_no_more(node):
    environment = {
        "AMQP_URL": node.url(),
        "RABBITMQ_MANAGEMENT_URL": node.management_url,
        "SERVICE_PASSWORDS": service_passwords(node.url()),
        "OPERATOR_PASSWORDS": "ada=her-own-password,ola=his-own-password",
    }
    assert declare(**environment) == (0, "")
    host = node.url().rpartition("@")[2]
    with Connection(f"amqp://ada:her-own-password@{host}") as connection:
        channel = connection.default_channel
        channel.basic_publish_confirm(
            Message(b"{}", user_id="ada"), exchange="commands", routing_key="kyc.decide"
        )
        with pytest.raises(connection.channel_errors, match="user_id property"):
            connection.channel().basic_publish_confirm(
                Message(b"{}", user_id="ola"), exchange="commands", routing_key="kyc.decide"
            )
        for exchange, key in (("commands", "secret.revoke"), ("", "kyc.decisions")):
            with pytest.raises(AccessRefused):
                connection.channel().basic_publish_confirm(
                    Message(b"{}"), exchange=exchange, routing_key=key
                )
        with pytest.raises(AccessRefused):
            connection.channel().basic_get("kyc.decisions")
    for name in ("fellow_kyc", "guest", "Ada"):
        code, said = declare(**environment | {"OPERATOR_PASSWORDS": f"{name}=password"})
        assert code == 2
        assert "not a valid operator name" in said


def test_definitions_for_rabbitmqctl():
    """The same rights without the management API, on a broker that has nothing yet."""
    folder = data.throwaway("definitions")
    bare = make(folder)[0]
    try:
        bare.start()
        printed = subprocess.run(
            [sys.executable, "-m", "shared.bus.contract.permissions"],
            env=os.environ | {"SERVICE_PASSWORDS": service_passwords(bare.url())},
            capture_output=True,
            check=True,
            timeout=PATIENCE,
        ).stdout
        # What `rabbitmqctl import_definitions` calls; a broker in a container sees no file of ours.
        encoded = base64.b64encode(printed).decode()
        bare.evaluate(f'rabbit_definitions:import_raw(base64:decode(<<"{encoded}">>))')
        assert declare(AMQP_URL=bare.url()) == (0, "")
        with Connection(as_service(bare.url(), "kyc")) as connection:
            declaration.declare_queue(connection.default_channel, topology.KYC_DECISIONS)
            with pytest.raises(AccessRefused):
                connection.default_channel.basic_publish_confirm(
                    Message(b"x"), exchange="dead", routing_key="orders.intake"
                )
    finally:
        bare.close()
        shutil.rmtree(folder)


def test_a_bad_list_of_passwords_is_one_sentence():
    code, said = declare(SERVICE_PASSWORDS="ingress")
    assert (code, said) == (
        2,
        "The topology cannot be declared. SERVICE_PASSWORDS must be like ingress=...,kyc=...\n",
    )


def test_shards_that_are_not_used_any_more_are_named(amqp_url):
    assert declare(AMQP_URL=amqp_url, INTAKE_SHARDS="3") == (0, "")
    code, said = declare(AMQP_URL=amqp_url, INTAKE_SHARDS="1")
    assert code == 0
    assert "INTAKE_SHARDS is 1, and orders.intake.1, orders.intake.2 are there" in said
    with Connection(amqp_url) as connection:
        assert len(declaration.parts(connection, topology.ORDERS_INTAKE)) == 3


def test_a_topology_of_another_version_is_one_sentence(amqp_url):
    with Connection(amqp_url) as connection:
        connection.default_channel.exchange_delete("dead")
        connection.default_channel.exchange_declare("dead", "direct", durable=True)
    code, said = declare(AMQP_URL=amqp_url)
    assert code == 1
    assert "of another version" in said
    assert "Traceback" not in said
