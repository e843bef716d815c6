"""Limits of buffered request bodies, in total and per sender."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest
from falcon.asgi import Request
from falcon.testing import create_scope

from services.ingress.platforms.shopify import PLATFORM
from services.ingress.request_log.attempt import Attempt
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.webhook.authentication import StandardScheme
from services.ingress.webhook.refusals import Refusals
from shared.http.bodies import (
    SIGNED_IN,
    STRANGERS,
    UNCOUNTED_BYTES,
    read_body,
    read_unvouched,
)
from shared.http.errors import ApiError
from shared.token_buckets import TokenBuckets

MOST = 400_000
LIMIT = 30_000
PIECE = 10_000
NOW = 1_700_000_000.0


class Secrets:
    """An empty cache whose database query returns when it is released."""

    def __init__(self):
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.clock = SimpleNamespace(now=lambda: NOW)
        self.public_keys = SimpleNamespace(of=lambda _: ())

    def of(self, _):
        return ()

    def given(self, *_):
        return ()

    async def look_again(self, *_):
        self.asked.set()
        await self.answers.wait()
        return True


class Sent:
    """A request whose body arrives in pieces."""

    def __init__(self, *headers, declared=LIMIT, address="192.0.2.1"):
        self._events = asyncio.Queue()
        self.taken = 0
        length = () if declared is None else (("content-length", str(declared)),)
        scope = create_scope(method="POST", path="/", headers=[*headers, *length])
        # Like a server's stream, it is read twice.
        scope["headers"] = [tuple(pair) for pair in scope["headers"]]
        scope["client"] = (address, 40_000)
        self.req = Request(scope, self._receive)

    async def _receive(self):
        event = await self._events.get()
        self.taken += len(event.get("body", b""))
        return event

    def send(self, size, *, more=True):
        self._events.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": more})


def platform(secrets, sent):
    scheme = PlatformScheme(PLATFORM, secrets, refusals(), LIMIT)
    return scheme.authenticate(sent.req, Attempt(NOW), str(uuid4()))


def standard(secrets, sent):
    scheme = StandardScheme(secrets, refusals(), LIMIT)
    return scheme.authenticate(sent.req, Attempt(NOW), str(uuid4()))


def of_known(req, limit):
    return read_body(req, limit, "somebody")


def page(_, sent):
    return read_unvouched(sent.req, LIMIT)


def refusals():
    return Refusals(TokenBuckets(1_000, 1_000))


WAYS = {
    platform: (
        ("X-Shopify-Hmac-Sha256", "x" * 43 + "="),
        ("X-Shopify-Topic", "orders/create"),
        ("X-Shopify-Webhook-Id", "1"),
    ),
    standard: (
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", str(int(NOW))),
        ("webhook-signature", "v1,eA=="),
    ),
    page: (),
}


@pytest.fixture(autouse=True)
def most(monkeypatch):
    rooms = (STRANGERS, SIGNED_IN)
    for room in rooms:
        monkeypatch.setattr(room, "most", MOST)
    yield
    assert [(room.held, room.held_by) for room in rooms] == [(0, {})] * 2


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", WAYS)
def test_incomplete_bodies_of_many_strangers_are_bounded(way):
    async def held_back():
        secrets = Secrets()
        sent = [Sent(*WAYS[way], address=f"192.0.2.{n}") for n in range(30)]
        tasks = [asyncio.create_task(way(secrets, one)) for one in sent]
        for one in sent:
            one.send(2 * PIECE)  # 600 kB in total, if each were kept
        await settled()
        refused = [task.exception() for task in tasks if task.done()]
        assert {(error.status, error.code) for error in refused} == {(503, "overloaded")}
        assert STRANGERS.held <= MOST
        assert len(tasks) - len(refused) == MOST // (2 * PIECE)
        # A body that arrived in one piece is accepted.
        small = Sent(*WAYS[way], declared=PIECE)
        small.send(PIECE, more=False)
        judged = asyncio.create_task(way(secrets, small))
        await settled()
        secrets.answers.set()
        await settled()
        assert judged.done()
        assert getattr(judged.exception(), "code", "") != "overloaded"
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await task

    asyncio.run(held_back())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("network", ["192.0.2.7", "2001:db8::{:x}"])
def test_one_network_does_not_block_others(way, network):
    async def kept_out():
        secrets = Secrets()
        sent = [Sent(*WAYS[way], address=network.format(n)) for n in range(30)]
        tasks = [asyncio.create_task(way(secrets, one)) for one in sent]
        for one in sent:
            one.send(2 * PIECE)  # 600 kB in total, if each were kept
        await settled()
        refused = [task.exception() for task in tasks if task.done()]
        assert {(error.status, error.code) for error in refused} == {(503, "overloaded")}
        assert STRANGERS.held <= MOST // 2 + 2 * PIECE
        # Other senders keep their share.
        others = [Sent(*WAYS[way], address=f"198.51.100.{n}") for n in (1, 2)]
        theirs = [asyncio.create_task(way(secrets, one)) for one in others]
        for one in others:
            one.send(2 * PIECE)
        await settled()
        assert not any(task.done() for task in theirs)
        for task in (*tasks, *theirs):
            task.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await task

    asyncio.run(kept_out())


def known(sent, sender, limit=2 * UNCOUNTED_BYTES):
    return asyncio.create_task(read_body(sent.req, limit, sender))


@pytest.mark.parametrize("declared", [None, 2 * UNCOUNTED_BYTES])
def test_incomplete_bodies_of_a_known_sender_are_bounded(declared):
    """Counted by account over all networks, without affecting others."""

    async def held_back():
        sent = [Sent(declared=declared, address=f"192.0.2.{n}") for n in range(30)]
        tasks = [known(one, "one") for one in sent]
        other, small = Sent(declared=declared), Sent(declared=PIECE)
        tasks.append(known(other, "another"))
        for one in (*sent, other):
            one.send(2 * PIECE)
        await settled()
        refused = [task.exception() for task in tasks if task.done()]
        assert {(error.status, error.code) for error in refused} == {(503, "overloaded")}
        assert SIGNED_IN.held <= MOST // 2 + 4 * PIECE
        assert not tasks[-1].done()
        # As much as the server buffers per connection anyway.
        task = known(small, "one")
        small.send(PIECE, more=False)
        await settled()
        assert len(task.result()) == PIECE
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, ApiError):
                await task

    asyncio.run(held_back())


@pytest.mark.parametrize("way", [platform, standard])
def test_bodies_count_while_the_database_is_queried(way):
    async def waits():
        secrets, sent = Secrets(), Sent(*WAYS[way], declared=PIECE)
        task = asyncio.create_task(way(secrets, sent))
        sent.send(PIECE, more=False)
        await secrets.asked.wait()
        assert STRANGERS.held == PIECE
        secrets.answers.set()
        with pytest.raises(ApiError):
            await task
        assert STRANGERS.held == 0

    asyncio.run(waits())


@pytest.mark.parametrize("declared", [None, LIMIT + 1])
def test_a_too_large_body_is_refused(declared):
    async def too_large():
        sent = Sent(declared=declared)
        for _ in range(4):
            sent.send(PIECE)
        sent.send(0, more=False)
        with pytest.raises(ApiError) as refused:
            await read_unvouched(sent.req, LIMIT)
        assert refused.value.status == 413
        assert sent.taken == (0 if declared else 4 * PIECE)

    asyncio.run(too_large())


def test_a_body_in_pieces_is_joined():
    async def whole():
        sent = Sent(declared=None)
        sent.send(3)
        sent.send(4, more=False)
        assert await read_unvouched(sent.req, LIMIT) == b"x" * 7

    asyncio.run(whole())


@pytest.mark.parametrize("read", [of_known, read_unvouched])
@pytest.mark.parametrize("sent", [0, PIECE])
def test_an_incomplete_body_is_refused(read, sent):
    """An incomplete request must not be processed (RFC 9112, 8)."""

    async def cut():
        request = Sent()
        if sent:
            request.send(sent)
        request._events.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ApiError) as error:
            await read(request.req, LIMIT)
        return error.value

    error = asyncio.run(cut())
    assert (error.status, error.code) == (400, "incomplete_body")
    assert STRANGERS.held == 0


@pytest.mark.parametrize("read", [of_known, read_unvouched])
@pytest.mark.parametrize("declared", [None, PIECE])
def test_a_complete_body_is_read(read, declared):
    async def whole():
        request = Sent(declared=declared)
        request.send(PIECE, more=False)
        return await read(request.req, LIMIT)

    assert len(asyncio.run(whole())) == PIECE
