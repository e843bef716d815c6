"""A command is told before it is given, and what nobody can know nobody says."""

from contextlib import ExitStack

import pytest
from amqp import Message
from kombu import Connection
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.ops.audit.actions import Actor
from services.ops.broker import hold
from services.ops.broker.connection import open_connection
from services.ops.commands import giving, outcomes
from services.ops.commands.giving import NotKnownError, give
from services.ops.dead_letters import search
from services.secrets.__main__ import wire
from shared.bus.contract import topology
from shared.bus.contract.events import SecretRevoke, SecretRotate
from shared.db.session import make_engine
from shared.ids import new_id
from tests.integration.arrange import account, consuming, depth, facts, publish_raw, take, until
from tests.integration.gate import Gate
from tests.integration.ops.cli.test_cli import fellow

ADA = Actor("ada", "198.51.100.7")
QUEUE = "secrets.rotate"


@pytest.fixture
def command(db):
    return SecretRotate(account_id=account(db, status="approved").id, cause="operator")


def test_what_is_not_confirmed_is_told_and_not_called_undone(
    settings, db, engine, command, monkeypatch
):
    """The broker is silent after the command was sent; it has it all the same."""
    commit_facts = giving.commit_facts

    def commit_and_stall(*arguments):
        commit_facts(*arguments)
        # Open and in confirm mode, or it is that which waits.
        channel = connection.channel()
        channel.basic_publish_confirm(Message(b"{}"), exchange="", routing_key=QUEUE)
        take(settings.amqp_url, QUEUE)
        monkeypatch.setattr(connection, "channel", lambda: channel)
        gate.stall()

    monkeypatch.setattr(giving, "commit_facts", commit_and_stall)
    monkeypatch.setattr(giving, "CONFIRM_TIMEOUT", 1.0)
    with Gate(settings.amqp_url) as gate, open_connection(gate.url) as connection:
        with pytest.raises(NotKnownError, match="It is not known whether secret"):
            give(connection, engine, command, ADA)
        gate.open()
        until(lambda: depth(settings.amqp_url, QUEUE), "it is there all the same")
    (told,) = facts(db, "ops.command_published")
    message_id = take(settings.amqp_url, QUEUE).properties["message_id"]
    assert (told.by, str(told.message_id)) == ("ada", message_id)


def test_what_cannot_be_told_is_not_given(settings, configure, command):
    with Gate(settings.database_url) as gate, Connection(settings.amqp_url) as connection:
        books = make_engine(configure(database_url=gate.url))
        gate.cut()
        with pytest.raises(DBAPIError):
            give(connection, books, command, ADA)
    assert depth(settings.amqp_url, QUEUE) == 0


def test_what_the_broker_refuses_is_not_given(settings, db, engine, command):
    away = settings.amqp_url.rpartition("/")[0] + "/nowhere"
    with pytest.raises(Exception, match="nowhere"), Connection(away) as connection:
        give(connection, engine, command, ADA)
    assert facts(db, "ops.command_published") == []


def test_a_refused_command_is_told_as_refused_and_not_as_a_stopped_service(settings, db, engine):
    business = account(db, status="approved")
    stranger = account(db, status="approved")
    typo = str(new_id())
    revoke = ("secrets", "revoke", business.email, "--reason", "Leaked.", "--yes", "--wait", "30")
    with consuming(settings, *wire(settings).subscriptions):
        code, _, err = fellow(settings, *revoke, "--secret", typo)
        assert (code, "Refused: " in err, f"no secret or public key {typo}" in err) == (
            1, True, True,
        ), err  # fmt: skip
        assert "running?" not in err
        assert fellow(settings, "secrets", "rotate", stranger.email, "--wait", "30")[0] == 0
        with Connection(settings.amqp_url) as connection:
            theirs = db.scalar(text("SELECT id FROM webhook_secrets"))
            command = SecretRevoke(account_id=business.id, secret_id=theirs, reason="x")
            message_id = give(connection, engine, command, ADA)
            found = outcomes.wait(connection, engine, message_id, outcomes.SECRETS, 30)
    assert found.state == "refused"
    db.expire_all()
    assert db.scalar(text("SELECT state FROM webhook_secrets")) == "active"


@pytest.mark.parametrize("is_held", [True, False], ids=["in somebody's hands", "behind the most"])
def test_what_may_have_been_refused_is_not_told_as_waiting(settings, engine, monkeypatch, is_held):
    """Nobody could look at all that died."""
    ours, dead = new_id(), topology.SECRETS_ROTATE.dead
    for id_ in (new_id(), ours):
        publish_raw(settings.amqp_url, "", dead, b"{}", message_id=str(id_))
    with Connection(settings.amqp_url) as connection, ExitStack() as until_the_end:
        if is_held:
            other = until_the_end.enter_context(Connection(settings.amqp_url))
            other.default_channel.basic_get(dead)
            other.default_channel.basic_consume(dead, consumer_tag="other")
        else:
            monkeypatch.setattr(hold, "MOST", 1)
            monkeypatch.setattr(search, "MOST", 1)
        found = outcomes.wait(connection, engine, ours, outcomes.SECRETS, 0)
    assert found.state == "waiting"
    assert "whether it was refused is not known" in found.sentence
