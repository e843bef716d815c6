"""What strangers publish stops no reader, and harms nobody behind it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from kombu import Connection

from services.kyc.__main__ import wire
from services.ops.audit.actions import Actor
from services.ops.dead_letters import actions, search
from services.ops.dead_letters.letter import Criteria
from services.ops.journal import reading, replaying
from services.secrets.__main__ import wire as secrets_wire
from shared.bus.broker.decoding import arguments
from shared.bus.consume.copies import again
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import AccountBlock, encode
from shared.db.models import KycApplication, WebhookPolicy
from shared.db.session import engine
from stack.servers.credentials import as_service
from tests.integration.arrange import account, consuming, depth, publish_raw, take, until
from tests.integration.bus.strangers import strangers
from tests.integration.ops.cli.test_cli import fellow

DECISIONS = topology.KYC_DECISIONS
COUNT = len(strangers())


def publish(amqp_url, key="kyc.decide", only=None):
    with Connection(amqp_url) as connection:
        channel = connection.default_channel
        for name, message in strangers().items():
            if only in (None, name):
                channel.basic_publish_confirm(
                    message, exchange="commands", routing_key=key, mandatory=True
                )


@pytest.mark.parametrize("name", strangers())
def test_it_is_dead_at_once_and_who_comes_behind_it_is_served(settings, db, amqp_url, name):
    business = account(db, status="pending")
    publish(amqp_url, only=name)
    body = json.dumps({"decision": "approve", "email": business.email}).encode()
    publish_raw(amqp_url, "commands", "kyc.decide", body)
    with consuming(settings, *wire(settings).subscriptions):
        until(lambda: status(db) == "approved", "decided")
        until(lambda: depth(amqp_url, DECISIONS.dead) == 1, "dead")
    headers = take(amqp_url, DECISIONS.dead).headers
    # Of ours, and not the broker's when it has given up after twenty deliveries.
    assert headers["x-consumer"] == "services.kyc"
    assert "x-death" not in headers


def status(db):
    db.rollback()
    return db.query(KycApplication).one().status


def test_the_journal_is_read_and_replayed_around_them(settings, amqp_url):
    began = datetime.now(UTC) - timedelta(seconds=1)
    publish_raw(amqp_url, "commands", "kyc.decide", b"{}", message_id="first")
    publish(amqp_url)
    publish_raw(amqp_url, "commands", "kyc.decide", b"{}", message_id="last")
    with Connection(amqp_url) as source, Connection(amqp_url) as writing:
        entries = reading.read(source, began, datetime.now(UTC) + timedelta(days=1))
        summary = replaying.replay(writing, DECISIONS, entries)
    assert sum(summary.counts.values()) == COUNT + 2
    assert depth(amqp_url, DECISIONS.name) == 2 * (COUNT + 2)


def test_dead_letters_are_seen_replayed_and_discarded(settings, amqp_url):
    publish(amqp_url)
    with consuming(settings, *wire(settings).subscriptions):
        until(lambda: depth(amqp_url, DECISIONS.dead) == COUNT, "all dead")
    code, out, err = fellow(settings, "dead", "list", DECISIONS.name)
    assert (code, f"{COUNT} of {COUNT} dead letters" in err) == (0, True), err
    code, out, err = fellow(settings, "dead", "list", "--json", DECISIONS.name)
    letters = json.loads(out)["letters"]
    for letter in letters:
        assert fellow(settings, "dead", "show", DECISIONS.name, letter["message_id"])[0] == 0
    ada = Actor("ada", "10.0.0.7")
    with Connection(amqp_url) as bus:
        done = actions.replay(bus, engine(), DECISIONS, Criteria(), ada)
        # One bears a note of a death, which nothing has that is published: nobody vouches for it.
        assert (done.done, done.orphaned) == (COUNT - 1, 1)
        with consuming(settings, *wire(settings).subscriptions):
            until(lambda: depth(amqp_url, DECISIONS.dead) == COUNT, "all dead again")
        assert len({x.message_id for x in search.browse(bus, DECISIONS).letters}) == COUNT
        done = actions.discard(bus, engine(), DECISIONS, Criteria(), ada, "Nonsense.")
    assert (done.done, depth(amqp_url, DECISIONS.dead)) == (COUNT, 0)


def test_a_routing_key_that_is_no_text(settings, amqp_url):
    """What is bound by `#` takes any key; the consumer meets it in each delivery."""
    began = datetime.now(UTC) - timedelta(seconds=1)
    for key in (b"secret.\xe9", "secret.é".encode(), b"secret.\xed\xa0\x80"):
        publish(amqp_url, key, only="an id that is Latin-1")
    for shown in ("secret.\\xe9", "secret.é", "secret.\\xed\\xa0\\x80"):
        assert take(amqp_url, "secrets.rotate").delivery_info["routing_key"] == shown
    with Connection(amqp_url) as source:
        entries = reading.read(source, began, datetime.now(UTC) + timedelta(days=1))
        assert [entry.key for entry in entries] == [
            "secret.\\xe9",
            "secret.é",
            "secret.\\xed\\xa0\\x80",
        ]


def test_a_type_that_its_key_has_not_is_never_handled(settings, db, amqp_url):
    """The ingress may publish `secret.rotate`, and may not block anybody by it."""
    business = account(db, status="approved")
    block = AccountBlock(account_id=business.id, blocked=True, reason="Because.")
    publish_raw(
        as_service(amqp_url, "ingress"), "commands", "secret.rotate", encode(block), type=block.TYPE
    )
    dead = topology.SECRETS_ROTATE.dead

    def handled():
        with consuming(settings, *secrets_wire(settings).subscriptions):
            until(lambda: depth(amqp_url, dead) == 1, "dead")

    handled()
    with Connection(amqp_url) as bus:
        (letter,) = search.browse(bus, topology.SECRETS_ROTATE).letters
        assert "says 'account.block'" in letter.reason
        # Sent on as it is, it is not taken for what it said either.
        criteria, ada = Criteria(), Actor("ada", "10.0.0.7")
        assert actions.replay(bus, engine(), topology.SECRETS_ROTATE, criteria, ada).done == 1
    handled()
    assert db.query(WebhookPolicy).count() == 0


def test_bits_in_a_row_share_an_octet():
    # Of basic.deliver, with a key that is no text between and behind them.
    form = "sLbbsbs"
    buf = b"\x02ct" + (7).to_bytes(8, "big") + b"\x02" + b"\x01\xff" + b"\x01" + b"\x02ok"
    assert arguments(form, buf, 0) == (["ct", 7, False, True, "\\xff", True, "ok"], len(buf))


def test_a_copy_reaches_no_queue_but_its_own(settings, amqp_url):
    """By CC and BCC a stranger would publish, with a service's rights, where he may not himself."""
    headers = {"CC": ["orders.intake"], "BCC": ["audit"], "x-mine": "kept"}
    copy = again(RawDelivery(b"{}", {}, headers, "commands"), None, "fellow")
    with Connection(amqp_url) as connection:
        connection.default_channel.basic_publish_confirm(
            copy, exchange="", routing_key=DECISIONS.name, mandatory=True
        )
    assert take(amqp_url, DECISIONS.name).headers["x-mine"] == "kept"
    assert depth(amqp_url, "orders.intake") == depth(amqp_url, "audit") == 0
