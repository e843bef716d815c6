"""What is told of a long dead queue without fetching it again, and that it is true."""

from contextlib import nullcontext

import pytest
from kombu import Connection

from services.ops.broker.hold import hold
from services.ops.console.web.masking import mask
from services.ops.dead_letters import actions, digest
from services.ops.dead_letters.digest import Digests
from services.ops.dead_letters.letter import Criteria
from services.ops.timelines import pending
from shared.bus.contract import topology
from shared.db.session import make_engine
from shared.ids import new_id
from tests.integration.arrange import depth, order_created, take
from tests.integration.ops.dead_letters.test_dead_letters import ADA, INTAKE, bury, ids

ADDRESS = "zoe@shop.example"
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
    return Digests(lambda _: nullcontext(bus), lambda reason: str(mask(reason, "")))


def look(digests, amqp_url):
    digests.keep({queue.dead: depth(amqp_url, queue.dead) for queue in topology.WORK_QUEUES})


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
    assert digests.may_have(bus, INTAKE, ADDRESS.upper())
    assert not digests.may_have(bus, INTAKE, "nobody@shop.example")
    found = pending.find(db, wanted.correlation_id, bus, digests.browse)
    assert [one.message_id for one in found.messages] == [wanted.message_id]
    assert found.looked_at is not None
    look(digests, amqp_url)  # nothing has come or gone
    assert fetched(amqp_url) == {1}


def test_what_came_and_went_since_is_said_and_seen_at_the_next_look(amqp_url, bus, digests, books):
    buried = bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    look(digests, amqp_url)
    bury(amqp_url, order_created())
    page = digests.browse(bus, INTAKE)
    assert (len(page.letters), page.seen, page.total) == (LETTERS, LETTERS, LETTERS + 1)
    assert (page.has_changed, page.is_whole) == (True, False)
    assert digests.may_have(bus, INTAKE, "nobody@shop.example"), "it may be in what came"
    look(digests, amqp_url)
    assert not digests.browse(bus, INTAKE).has_changed
    gone = Criteria(ids=frozenset({buried[0].message_id}))
    actions.discard(bus, books, INTAKE, gone, ADA, "a test")
    digests.forget(INTAKE)
    page = digests.browse(bus, INTAKE)
    assert (page.looked_at, len(page.letters)) == (None, LETTERS), "the queue itself"
    look(digests, amqp_url)
    assert digests.find(bus, INTAKE, buried[0].message_id) is None


def test_nobody_else_has_letters_in_hand_when_a_queue_is_looked_through(
    amqp_url, bus, digests, settings
):
    bury(amqp_url, *(order_created() for _ in range(LETTERS)))
    with Connection(settings.amqp_url) as another, hold(another, INTAKE.dead) as held:
        assert held.take(1)
        with Connection(settings.amqp_url) as third:
            digests.look(third, INTAKE)
    page = digests.browse(bus, INTAKE)
    assert (page.looked_at, len(page.letters)) == (None, LETTERS)


@pytest.mark.parametrize(
    ("bounds", "kept"), [({"MOST": 11}, 11), ({"LOOK_SECONDS": 0.0, "_CHUNK": 5}, 5)]
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
    assert digests.may_have(bus, INTAKE, "nobody@shop.example"), "it may be in the rest"


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
