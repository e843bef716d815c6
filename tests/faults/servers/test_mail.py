"""Mail servers as they are: away, busy, refusing, silent, and gone in the middle."""

import asyncio
from zlib import crc32

import pytest
from kombu import Connection
from sqlalchemy import text

from services.ops.audit.actions import Actor
from services.ops.dead_letters import actions
from services.ops.dead_letters.letter import Criteria
from shared.bus.contract import topology
from stack.mailbox import Handler
from stack.servers.credentials import as_service
from tests.faults.ledger import told
from tests.integration.arrange import depth, until


@pytest.fixture(autouse=True)
def mail_is_back(stand, whole):
    yield
    stand.mail.handler.respond = None


def test_a_mail_server_that_is_away(stand):
    with stand.load() as load:
        stand.go_on(1)
        stand.mail.stop()
        stand.go_on(5)
        stand.mail.start()
    balance = stand.settle(load)
    balance.accepted_all()


@pytest.mark.parametrize("reply", ["421 4.3.2 shutting down", "451 4.7.1 greylisted"])
def test_what_is_refused_for_now_is_sent_later(stand, reply):
    refused = set()

    def once(address):
        """Refuse every tenth address once, as greylisting does."""
        if crc32(address.encode()) % 10 == 0 and address not in refused:
            refused.add(address)
            return reply
        return None

    stand.mail.handler.respond = once
    with stand.load() as load:
        stand.go_on(3)
        stand.go_on_until(lambda: refused, "one is refused")
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def test_who_is_refused_for_good_is_dead_and_the_others_are_told(stand):
    gone = set()

    def sometimes(address):
        if crc32(address.encode()) % 20 == 0:
            gone.add(address)
            return "550 5.1.1 no such user"
        return None

    stand.mail.handler.respond = sometimes
    with stand.load() as load:
        stand.go_on(3)
        stand.go_on_until(lambda: gone, "one is refused")
    accepted = {sent.customer for sent in load.sent if sent.status == 201}
    # Only when all have been tried none is refused any more, and becomes a letter after the replay.
    stand.go_on_until(
        lambda: accepted <= gone | told(stand.mail.maildir, load), "all are told or refused"
    )
    lanes = (topology.NOTIFIER_ORDERS, topology.NOTIFIER_BULK)
    until(
        lambda: sum(depth(stand.amqp_url, lane.dead) for lane in lanes) >= len(gone),
        "the refused are dead letters",
    )
    stand.mail.handler.respond = None
    # Mended: ops staff lift what the refusals left, put them back, and they are told after all.
    with stand.engine.begin() as connection:
        connection.execute(text("SELECT lift_suppression(id) FROM suppressions"))
    for lane in lanes:
        replay(stand, lane)
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def replay(stand, queue):
    with Connection(as_service(stand.amqp_url, "ops")) as connection:
        done = actions.replay(connection, stand.engine, queue, Criteria(), Actor("ada", "10.0.0.7"))
    assert done.alone


def test_a_server_that_falls_silent(stand, monkeypatch):
    left = [3]
    original = Handler.handle_RCPT

    async def slow(self, server, session, envelope, address, options):
        if left[0]:
            left[0] -= 1
            # Longer than anybody waits.
            await asyncio.sleep(5)
        return await original(self, server, session, envelope, address, options)

    monkeypatch.setattr(Handler, "handle_RCPT", slow)
    only_new_connections(stand)
    with stand.load() as load:
        stand.go_on(3)
    balance = stand.settle(load)
    balance.accepted_all()
    assert left == [0]


def test_a_server_that_dies_after_data_before_its_answer(stand, monkeypatch):
    """The one double that SMTP cannot exclude: it took the email and could not say so."""
    left = [5]
    original = Handler.handle_DATA

    async def dies(self, server, session, envelope):
        answer = await original(self, server, session, envelope)
        if left[0]:
            left[0] -= 1
            server.transport.abort()
        return answer

    monkeypatch.setattr(Handler, "handle_DATA", dies)
    only_new_connections(stand)
    with stand.load() as load:
        stand.go_on(3)
    balance = stand.settle(load)
    balance.accepted_all()
    assert left == [0]
    assert balance.doubled <= 5


def only_new_connections(stand):
    """One that is open, as the notifier keeps some, has the handlers it began with."""
    stand.mail.stop()
    stand.mail.start()
