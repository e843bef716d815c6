"""What is told of a long dead queue without fetching it again, and that it is true."""

from contextlib import contextmanager, nullcontext

import pytest
from kombu import Connection

from services.ops.broker.hold import BusyError, hold
from services.ops.console.web.masking import mask
from services.ops.dead_letters import actions, digest
from services.ops.dead_letters.digest import Digests
from services.ops.dead_letters.letter import Criteria
from services.ops.timelines import pending, unrecorded
from shared.bus.broker import queue_counts
from shared.bus.contract import topology
from shared.db.session import make_engine
from shared.ids import new_id
from tests.integration.arrange import PATIENCE, order_created, take, until
from tests.integration.ops.dead_letters.test_dead_letters import ADA, INTAKE, bury, ids

ADDRESS, NOBODY = "zoe@shop.example", "nobody@shop.example"
LETTERS = 12


@pytest.fixture
def service():
    return "ops"


@pytest.fixture
def bus(settings):
    with Connection(settings.amqp_url) as connection:
        yield connection


@pytest.fixture
def books(settings):
    made = make_engine(settings)
    yield made
    made.dispose()


@pytest.fixture
def digests(bus, monkeypatch):
    """Of whatever has more than ten letters, as old as it may be."""
    monkeypatch.setattr(digest, "FEW", 10)
    monkeypatch.setattr(digest, "CHANGED_SECONDS", 0.0)
    monkeypatch.setattr(digest, "REST", 0.0)
    return Digests(lambda: nullcontext(bus), lambda reason: str(mask(reason, "")))


def look(digests, amqp_url):
    with Connection(amqp_url) as connection:
        digests.keep(
            {
                queue.dead: queue_counts.of(connection.default_channel, queue.dead)
                for queue in topology.WORK_QUEUES
            }
        )


@contextmanager
def held(amqp_url, queue=INTAKE.dead):
    """Somebody has letters of a queue in hand, who takes no turns."""
    with Connection(amqp_url) as another, another.channel() as channel:
        came = []
        channel.basic_consume(queue, callback=came.append)
        until(lambda: another.drain_events(timeout=PATIENCE) or came, "they have one")
        yield


def fetched(amqp_url):
    """How many times each letter was fetched and given back."""
    counts = set()
    while (message := take(amqp_url, INTAKE.dead)) is not None:
        counts.add((message.headers or {}).get("x-delivery-count", 0))
    return counts


def test_pages_ask_what_was_seen_and_fetch_nothing(amqp_url, bus, digests, db):
    buried = bury(amqp_url, *(order_created() for _ in range(LETTERS)), reason="Retry: no order 12")
    wanted = buried[-1]
    look(digests, amqp_url)
    for criteria in (
        Criteria(),
        Criteria(reason="NO ORDER"),
        Criteria(correlation_id=wanted.correlation_id),
        Criteria(type="order.placed"),
    ):
        page = digests.browse(bus, INTAKE, criteria, start=3, limit=5)
        fits = criteria != Criteria(type="order.placed")
        assert bool(page.letters) == fits, criteria
        assert (page.total, page.has_changed, page.looked_at is None) == (LETTERS, False, False)
    second = digests.browse(bus, INTAKE, start=digests.browse(bus, INTAKE, limit=5).next, limit=50)
    assert ids(second) == [m.message_id for m in buried[5:]]
    assert (second.next, second.is_whole) == (None, True)
    (group,) = digests.summarise(bus, INTAKE).groups
    assert (group.count, group.kind) == (LETTERS, "Retry: no order …")
    assert digests.find(bus, INTAKE, wanted.message_id).position == LETTERS - 1
    assert digests.find(bus, INTAKE, str(new_id())) is None
    found = pending.find(db, [wanted.correlation_id], bus, digests.browse)
    assert [one.message_id for one in found.messages] == [wanted.message_id]
    assert found.looked_at is not None
    assert digests.seen_without(bus, INTAKE, ADDRESS.upper()) is None
    assert digests.seen_without(bus, INTAKE, NOBODY) == found.looked_at
    assert unrecorded.by_email(db, bus, NOBODY, digests.seen_without) == (
        [],
        True,
        found.looked_at,
    )
    look(digests, amqp_url)  # nothing has come or gone
    assert fetched(amqp_url) == {1}


def test_what_came_and_went_since_is_said_and_seen_at_the_next_look(amqp_url, bus, digests, books):
    buried = bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    look(digests, amqp_url)
    bury(amqp_url, order_created())
    page = digests.browse(bus, INTAKE)
    assert (len(page.letters), page.seen, page.total) == (LETTERS, LETTERS, LETTERS + 1)
    assert (page.has_changed, page.is_whole) == (True, False)
    assert digests.seen_without(bus, INTAKE, NOBODY) is None, "it may be in what came"
    look(digests, amqp_url)
    assert not digests.browse(bus, INTAKE).has_changed
    gone = Criteria(ids=frozenset({buried[0].message_id}))
    actions.discard(bus, books, INTAKE, gone, ADA, "a test")
    digests.forget(INTAKE)
    before = page.looked_at
    page = digests.browse(bus, INTAKE)
    assert (page.looked_at > before, len(page.letters)) == (True, LETTERS), "looked through anew"
    assert digests.find(bus, INTAKE, buried[0].message_id) is None


def test_nobody_else_has_letters_in_hand_when_a_queue_is_looked_through(
    amqp_url, bus, digests, settings
):
    bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    with Connection(settings.amqp_url) as another, hold(another, INTAKE.dead) as held:
        assert held.take(1)
        with Connection(settings.amqp_url) as third:
            digests.read(third, INTAKE)
            assert not digests._kept
    assert len(digests.browse(bus, INTAKE).letters) == LETTERS


def test_who_has_letters_in_hand_hides_nothing_that_was_seen(amqp_url, bus, digests, db):
    buried = bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    look(digests, amqp_url)
    look(digests, amqp_url)  # the own look is over by the next one
    with held(amqp_url):
        look(digests, amqp_url)
        page = digests.browse(bus, INTAKE)
        assert (len(page.letters), page.total, page.alone, page.is_whole) == (
            LETTERS,
            LETTERS,
            False,
            False,
        )
        summary = digests.summarise(bus, INTAKE)
        assert (summary.seen, summary.unseen, summary.alone) == (LETTERS, 0, False)
        assert digests.find(bus, INTAKE, buried[0].message_id) is not None
        for address in (ADDRESS, NOBODY):
            with pytest.raises(BusyError):
                unrecorded.by_email(db, bus, address, digests.seen_without)


def test_a_queue_that_was_short_for_a_while_has_rest_too(amqp_url, bus, digests, monkeypatch):
    bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    look(digests, amqp_url)
    digests.keep({INTAKE.dead: queue_counts.Count(0, 0)})
    monkeypatch.setattr(digest, "REST", float("inf"))
    look(digests, amqp_url)
    assert not digests._kept


def test_who_asks_first_looks_for_all_who_ask(amqp_url, bus, digests):
    """However often pages ask while nobody has looked yet, they leave time for a look."""
    buried = bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    assert digests.summarise(bus, INTAKE).seen == LETTERS
    assert len(digests.browse(bus, INTAKE).letters) == LETTERS
    assert digests.find(bus, INTAKE, buried[-1].message_id) is not None
    assert digests.seen_without(bus, INTAKE, NOBODY) is not None
    assert fetched(amqp_url) == {1}


def test_words_that_may_be_in_what_was_left_out_are_looked_for_in_the_queue(amqp_url, bus, digests):
    bury(amqp_url, *(order_created() for _ in range(6)), reason=f"Retry: 550 <{ADDRESS}> is full")
    bury(amqp_url, *(order_created() for _ in range(6)), reason="Retry: no order 12")
    look(digests, amqp_url)
    for words, count, is_seen_before in (
        ("shop.example", 6, False),
        ("no order", 6, False),  # it may be in an address
        ("550", 6, True),  # where all others are kept as they are
        ("Retry", 12, True),
        ("… … is full", 6, True),
        ("no order …", 6, True),
    ):
        page = digests.browse(bus, INTAKE, Criteria(reason=words))
        seen = (len(page.letters), page.looked_at is not None, page.is_whole)
        assert seen == (count, is_seen_before, True), words


@pytest.mark.parametrize(
    ("bounds", "kept"), [({"MOST": 11}, 11), ({"READ_SECONDS": 0.0, "_CHUNK": 5}, 5)]
)
def test_of_more_than_is_kept_the_rest_is_said_to_be_unseen(
    amqp_url, bus, digests, monkeypatch, bounds, kept
):
    for name, bound in bounds.items():
        monkeypatch.setattr(digest, name, bound)
    bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    look(digests, amqp_url)
    page = digests.browse(bus, INTAKE)
    assert (len(page.letters), page.total, page.next, page.unseen) == (
        kept,
        LETTERS,
        None,
        LETTERS - kept,
    )
    assert not page.is_whole
    assert digests.summarise(bus, INTAKE).unseen == LETTERS - kept
    bury(amqp_url, order_created())
    assert digests.summarise(bus, INTAKE).unseen == LETTERS - kept, "of those that were there then"
    assert digests.seen_without(bus, INTAKE, NOBODY) is None, "it may be in the rest"


def test_a_digest_knows_nobody(amqp_url, bus, digests):
    bury(
        amqp_url,
        *(order_created() for _ in range(LETTERS)),
        reason=f"Retry: 550 <{ADDRESS}> is not known here",
    )
    look(digests, amqp_url)
    (kept,) = digests._kept.values()
    assert "550" in repr(kept)
    for of_a_person in (ADDRESS, "Zoë", "shop.example"):
        assert of_a_person not in repr(kept)


def test_a_short_queue_is_looked_through_itself(amqp_url, bus, digests):
    bury(amqp_url, order_created())
    look(digests, amqp_url)
    assert digests.browse(bus, INTAKE).looked_at is None
    assert digests.summarise(bus, INTAKE).looked_at is None
